"""Files of other programs: every kind is the same rows, and what is wrong is said with file, line and remedy."""
import bz2
import gzip
import io
import json
import lzma
import os
import re
import subprocess
import sys
import zipfile
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from calib_nb.core import Judged, RecordError, _largest_file, read_records
from calib_nb.files import _cell_confidence, _cell_truth, _read_at_most, cell_text, read_rows
from calib_nb.formats import _eval_samples
from calib_nb.metrics import auroc, expected_calibration_error
from calib_nb.posthoc import CALIBRATORS
from calib_nb.questions import answer_list, load_questions, read_judged
from calib_nb.readings import Readings

ROWS = [
    {"id": "001", "question": "Symbol of sodium?", "answers": "NA"},
    {"id": "1", "question": "Which word is empty?", "answers": "null"},
    {"id": "1.0", "question": "Who wrote \"Ulysses\",\nand when?", "answers": "Joyce, 1922; ü"},
]


def as_bytes(kind):
    "The rows as a file of this kind."
    pa, frame = pytest.importorskip("pyarrow"), pd.DataFrame(ROWS)
    table, out = pa.Table.from_pylist(ROWS), io.BytesIO()
    if kind == "parquet":
        frame.to_parquet(out)
    elif kind in ("arrow", "arrows"):
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with new(out, table.schema) as writer:
            writer.write_table(table)
    elif kind in ("csv", "tsv"):
        out.write(frame.to_csv(index=False, sep={"csv": ",", "tsv": "\t"}[kind]).encode())
    elif kind == "json":
        out.write(json.dumps(ROWS, indent=2).encode())
    else:
        out.write("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    return out.getvalue()


def zst(data):
    return pytest.importorskip("zstandard").compress(data)


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "arrow", "arrows"])
def test_each_kind_of_file_and_of_compression_gives_the_same_rows(tmp_path, kind, packed):
    path = tmp_path / f"rows.{kind}{packed}"
    path.write_bytes(PACK[packed](as_bytes(kind)))
    assert [row for _, row in read_rows(path)] == ROWS
    assert [q.id for q in load_questions(path)] == ["001", "1", "1.0"]


def test_a_file_behind_an_address_is_read_and_its_secrets_are_not_shown(tmp_path):
    pytest.importorskip("fsspec")
    (tmp_path / "rows.csv").write_bytes(as_bytes("csv"))
    assert [row for _, row in read_rows(f"file://{tmp_path}/rows.csv")] == ROWS
    with pytest.raises(RecordError) as error:
        read_rows("http://me:secret@127.0.0.1:9/rows.csv?token=hidden")
    assert "http://127.0.0.1:9/rows.csv: cannot be read" in str(error.value)
    assert "secret" not in str(error.value) and "hidden" not in str(error.value)


def test_rows_come_from_the_standard_input_too(monkeypatch):
    for kind in ("csv", "json", "jsonl", "parquet"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(as_bytes(kind))))
        assert [row for _, row in read_rows("-")] == ROWS


@pytest.mark.parametrize("package, name", [("pyarrow", "a.parquet"), ("zstandard", "a.csv.zst"), ("fsspec", "")])
def test_without_the_extra_one_line_says_what_to_install(tmp_path, monkeypatch, package, name):
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / name if name else "https://example.org/a.csv"
    if name:
        path.write_bytes({"a.parquet": b"PAR1", "a.csv.zst": b"\x28\xb5\x2f\xfd"}[name])
    with pytest.raises(RecordError, match=rf"needs the package '{package}': pip install 'calib_nb\[files\]'$"):
        read_rows(path)


WRONG = {
    "more cells": ("a.csv", b"q,a\nWho, then?,Ann\n", "a.csv:2: 3 cells under 2 headings"),
    "fewer cells": ("a.csv", b"q,a\nx,y\nWho?\n", "a.csv:3: 1 cells under 2 headings"),
    "open quotes": ("a.csv", b'q,a\n"Who?,Ann\n', "a.csv:2: not CSV"),
    "one heading twice": ("a.csv", b"q,q\n1,2\n", "a.csv:1: the heading has 'q' twice"),
    "not UTF-8": ("a.csv", b"q,a\nO\xf9?,b\n", "a.csv:2: not UTF-8"),
    "a torn array": ("a.json", b'[{"q": 1},\n{"q": ', "a.json:2: not JSON"),
    "two arrays": ("a.json", b'[{"q": 1}]\n[{"q": 2}]', "a.json:2: not JSON (more behind the end of the array)"),
    "more behind an array": ("a.json", b'[{"q": 1}] and so on', "a.json:1: not JSON (more behind the end"),
    "lines, the first an array": ("a.jsonl", b'[{"q": 1}]\n{"q": 2}\n', "a.jsonl:2: not JSON (more behind"),
    "no comma": ("a.json", b'[{"q": 1}\n{"q": 2}]', "a.json:2: not JSON (a comma or ] is lacking)"),
    "two commas": ("a.json", b'[{"q": 1},\n,{"q": 2}]', "a.json:2: not JSON"),
    "a comma and no value": ("a.json", b'[{"q": 1},\n]', "a.json:2: not JSON"),
    "a number in an array": ("a.json", b'[{"q": 1},\n7]', "a.json:2: expected a JSON object, found int"),
    "columns, not rows": ("a.json", b'{"q": {"0": 1}, "a": {"0": 2}}', "an object of columns, not of rows"),
    "a line that is none": ("a.jsonl", b'{"q": 1}\nno\n', "a.jsonl:2: not JSON"),
    "half a character": ("a.jsonl", b'{"q": 1}\n{"q": ["x \\ud83d"]}\n', "a.jsonl:2: field 'q' holds half a character"),
    "a cut archive": ("a.csv.gz", gzip.compress(b"q,a\n" * 99)[:-9], "damaged or cut short"),
    "no Parquet": ("a.parquet", b"PAR1 and more", "not Parquet or Arrow"),
    "a workbook": ("a.xlsx", b"PK\x03\x04", "save the sheet as CSV"),
    "a web page": ("a.csv", b"<!DOCTYPE html>", "a web page"),
    "of no kind": ("a.docx", b"", "unknown kind of file '.docx'"),
}


@pytest.mark.parametrize("name, data, message", WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecordError, match=re.escape(message)) as error:
        read_rows(tmp_path / name)
    assert "\n" not in str(error.value)


def test_an_array_may_be_empty_and_stand_among_white_space(tmp_path):
    for text, rows in [(' [ ] \n', []), ('\n[\n{"q": 1} ,\n{"q": 2}\n]\n\n', [(3, {"q": 1}), (4, {"q": 2})])]:
        (tmp_path / "a.json").write_text(text)
        assert read_rows(tmp_path / "a.json") == rows


def test_squad_s_own_file_is_read_question_by_question(tmp_path):
    said = [[{"text": f"A{i}", "answer_start": 1}] for i in (1, 2)]
    asked = [{"id": f"q{i}", "question": f"Who is {i}?", "answers": answers} for i, answers in enumerate(said, 1)]
    paragraphs = [{"context": "...", "qas": [question]} for question in asked]
    article = {"title": "People", "paragraphs": paragraphs}
    (tmp_path / "dev.json").write_text(json.dumps({"version": "1.1", "data": [article]}))
    found = load_questions(tmp_path / "dev.json")
    assert [(q.id, q.answers, q.extra["title"]) for q in found] == [(f"q{i}", [f"A{i}"], "People") for i in (1, 2)]
    by_article = {"question": "question", "answers": "answers", "id": "id", "group": "title"}
    assert {q.group for q in load_questions(tmp_path / "dev.json", columns=by_article)} == {"People"}
    (tmp_path / "torn.json").write_text(json.dumps({"data": [{"paragraphs": ["no paragraph"]}]}))
    with pytest.raises(RecordError, match="torn.json:1: expected a JSON object, found str"):
        read_rows(tmp_path / "torn.json")


def test_a_folder_and_a_misspelt_name_are_told_from_a_file(tmp_path):
    (tmp_path / "questions.csv").write_text("q,a\n")
    with pytest.raises(RecordError, match="Did you mean 'questions.csv'?"):
        read_rows(tmp_path / "question.csv")
    with pytest.raises(RecordError, match="a folder. Give a file in it"):
        read_rows(tmp_path)


def test_spreadsheets_of_other_countries(tmp_path):
    spellings = [("q;a\nWho?;A, B\n", "utf-16"), ("\ufeffq;a\r\nWho?;A, B\r\n", "utf-8")]
    spellings.append(("q\ta\nWho?\tA, B\n", "utf-8"))
    for text, encoding in spellings:
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        assert [row for _, row in read_rows(tmp_path / "a.csv")] == [{"q": "Who?", "a": "A, B"}]


def test_parquet_keeps_an_index_whole_numbers_and_dates(tmp_path):
    asked = ["When A?", "When B?", "When C?"]
    frame = pd.DataFrame({"id": [1, 2, None], "question": asked, "answers": [1969, 1970, 7]})
    frame.to_parquet(tmp_path / "floats.parquet")
    named = frame.assign(id=["x", "y", "z"], answers=pd.to_datetime(["1969-07-20", "1970-01-01", "1971-01-01"]))
    named.set_index("id").to_parquet(tmp_path / "dates.parquet")
    floats, dates = load_questions(tmp_path / "floats.parquet"), load_questions(tmp_path / "dates.parquet")
    assert [q.id for q in floats][:2] == ["1", "2"] and floats[0].answers == ["1969"]
    assert [(q.id, q.answers[0]) for q in dates][0] == ("x", "1969-07-20")


# ---- lists in print


PRINTED = {
    "Python": "['River One', 'The One']",
    "JSON": '["River One", "The One"]',
    "NumPy": "['River One' 'The One']",
    "NumPy over lines": "['River One'\n 'The One']",
    "NumPy's other quotes": "['River One' \"The One\"]",
    "a NumPy array": "array(['River One', 'The One'], dtype=object)",
    "NumPy scalars": "[np.str_('River One'), np.str_('The One')]",
    "SQuAD": "{'text': array(['River One', 'The One'], dtype=object), 'answer_start': array([1, 2])}",
    "TriviaQA": '{"value": "River One", "aliases": ["The One"]}',
    "a tuple": "('River One', 'The One')",
}


@pytest.mark.parametrize("text", PRINTED.values(), ids=PRINTED)
def test_a_list_in_print_is_the_list(text):
    assert answer_list(text) == ["River One", "The One"]


def test_a_list_that_was_shortened_or_torn_is_refused_and_a_bracket_is_a_sign():
    for broken in ("['a' 'b' ... 'z']", "['a', 'b", '["a", ', "{'text': ['a'"):
        with pytest.raises(ValueError, match="broken or was shortened"):
            answer_list(broken)
    assert [answer_list(t) for t in ("[sic]", "(I Can't Get No)", "{x}")] == [["[sic]"], ["(I Can't Get No)"], ["{x}"]]
    assert answer_list({"text": ["a", "b"], "answer_start": [1]}) == answer_list([["a"], ["b"]]) == ["a", "b"]
    with pytest.raises(ValueError, match="a dict with span"):
        answer_list({"span": [1, 2]})


def test_a_bar_between_answers_must_be_explained():
    with pytest.raises(ValueError, match="Say answers_separator='|'"):
        answer_list("Paris|Lutetia")
    assert answer_list("Paris | Lutetia", "|") == ["Paris", "Lutetia"] and answer_list("|x|", "none") == ["|x|"]


# ---- questions and judged answers


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


BAD_QUESTIONS = {
    "one id twice": ([{"id": 1, "answers": "a"}, {"id": "1", "answers": "b"}], ":2: id '1' stands already in line 1"),
    "no question": ([{"question": None, "answers": "a"}], ":1: field 'question' is empty"),
    "a NaN": ([{"question": float("nan"), "answers": "a"}], ":1: field 'question' is empty"),
    "a list": ([{"question": ["Who?"], "answers": "a"}], ":1: must be text"),
    "no group": ([{"group": "x", "answers": "a"}, {"group": "", "answers": "b"}], ":2: field 'group' is empty"),
    "pages": ([{"urls": {"a": 1}, "answers": "a"}], ":1: field 'urls' must be a list"),
}


@pytest.mark.parametrize("rows, message", BAD_QUESTIONS.values(), ids=BAD_QUESTIONS)
def test_a_bad_question_is_named_with_file_and_line(tmp_path, rows, message):
    rows = [{"question": f"Who is number {i}?", **row} for i, row in enumerate(rows)]
    with pytest.raises(RecordError, match=re.escape("q.jsonl" + message)):
        load_questions(written(tmp_path / "q.jsonl", rows))


@pytest.mark.parametrize("pages", ["https://a.x/1, https://b.x/2", "['https://a.x/1', 'https://b.x/2']"])
def test_pages_in_a_text_are_a_list_and_null_is_none(tmp_path, pages):
    rows = [{"question": "Who?", "answers": "a", "urls": pages}, {"question": "What?", "answers": "b", "urls": None}]
    first, second = load_questions(written(tmp_path / "q.jsonl", rows))
    assert first.extra["urls"] == ["https://a.x/1", "https://b.x/2"] and second.extra["urls"] == []


DIFFERENT = ("What is the capital of Peru?", "Who wrote Ulysses?", "Which metal is liquid?", "When did Rome fall?")


@pytest.mark.parametrize("pages", [None, "", "https://a.x/{0}, https://b.x/{0}"])
def test_four_questions_that_are_not_alike_are_enough_for_three_splits(tmp_path, pages):
    from calib_nb.experiment import Parameters, planned_splits

    sizes = {"n_train": 1, "n_calibration": 1, "n_test": 1}
    rows = [{"question": q, "answers": "A", "urls": pages and pages.format(i)} for i, q in enumerate(DIFFERENT)]
    different = str(written(tmp_path / "different.jsonl", rows))
    splits, source = planned_splits(Parameters(dataset=different, **sizes), tmp_path)
    assert [len(part) for part in splits.values()] == [1, 1, 1] and source["grouping"]["groups"] == 4
    alike = [{**row, "question": f"What is the capital of country number {i}?"} for i, row in enumerate(rows)]
    numbered = str(written(tmp_path / "numbered.jsonl", alike))
    with pytest.raises(ValueError, match=r"too few questions: .*that are alike were joined: \d by similarity$"):
        planned_splits(Parameters(dataset=numbered, **sizes), tmp_path)


def test_what_an_address_is_signed_with_stands_in_no_manifest_and_no_id(tmp_path, monkeypatch):
    from calib_nb import files
    from calib_nb.experiment import Run

    rows = "".join(json.dumps({"question": q, "answers": "A", "group": q}) + "\n" for q in DIFFERENT)
    monkeypatch.setattr(files, "_fetched", lambda address, where: rows.encode())
    address = "https://me:secret@a.x/questions.jsonl?sig={}"
    sizes = {"n_train": 1, "n_calibration": 1, "n_test": 1, "method": "baseline", "out": str(tmp_path)}
    run = Run(dataset=address.format("hidden"), test_dataset=address.format("hidden"), **sizes)
    assert run.folder.parameters["dataset"] == "https://a.x/questions.jsonl"
    assert run.splits["test"][0].id.startswith("https://a.x/questions.jsonl:")
    run.folder.add(complete=False)
    written_down = [file.read_text() for file in tmp_path.rglob("*.json*")] + [str(run.folder.path)]
    assert len(written_down) > 1 and not any("hidden" in text or "secret" in text for text in written_down)
    assert run.parameters.dataset == address.format("hidden"), "it is needed to read the file again"
    signed_anew = Run(dataset=address.format("later"), test_dataset=address.format("later"), **sizes)
    assert signed_anew.folder.path == run.folder.path


def test_judged_answers_come_in_any_table_with_any_names(tmp_path):
    (tmp_path / "j.csv").write_text("q,said,ok,sure\nCapital of Peru?,Lima,True,95\nCapital of Chile?,Lima,no,40%\n")
    names = {"question": "q", "model_answer": "said", "is_correct": "ok", "confidence": "sure"}
    judged = read_judged(tmp_path / "j.csv", names, confidence_scale="percent")
    assert [(j.is_correct, j.extra["confidence"]) for j in judged] == [(True, 0.95), (False, 0.4)]
    with pytest.raises(RecordError, match=r"j.csv:2: field 'confidence' is 95, outside \[0, 1\]"):
        read_judged(tmp_path / "j.csv", names)
    with pytest.raises(RecordError, match="unknown columns or fields: okay"):
        read_judged(tmp_path / "j.csv", {**names, "is_correct": "okay"})


def test_a_word_that_is_neither_true_nor_false_is_refused():
    assert [_cell_truth(v) for v in ("TRUE", "False", "yes", 0, [1])] == [True, False, True, False, True]
    for word in ("maybe", "", None, 2, "0.5"):
        with pytest.raises(ValueError, match="must be true or false"):
            _cell_truth(word)


def test_the_scale_of_confidences_is_never_guessed(tmp_path):
    rows = [{"id": i, "is_correct": True, "confidence": c} for i, c in enumerate([0.4, 1.0, 95])]
    path = written(tmp_path / "p.jsonl", rows)
    with pytest.raises(RecordError, match=r"p.jsonl:3: field 'confidence' is 95, .*confidence_scale='percent'"):
        Readings.from_file(path)
    assert [r.confidence for r in Readings.from_file(path, scale="percent")] == [0.004, 0.01, 0.95]
    assert _cell_confidence("nan") is None and cell_text(float("nan")) == ""


# ---- numbers


def test_confidences_that_print_the_same_fall_into_the_same_bin():
    levels = np.arange(1, 100) / 100
    right = np.arange(99) % 2
    kinds = [levels, levels.tolist(), levels.astype(np.float32), [Decimal(str(p)) for p in levels]]
    kinds += [np.nextafter(levels, 1), np.nextafter(levels, 0)]
    for n_bins in (10, 15, 100):
        for closed in ("left", "right"):
            values = {expected_calibration_error(kind, right, n_bins, closed=closed) for kind in kinds}
            assert len(values) == 1
    assert auroc([0.6, 0.6000000000000001] * 9, [0, 1] * 9) == 0.5


def test_numbers_of_32_bits_are_read_within_structs_lists_and_maps_and_those_of_64_stay(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    single, double = pa.float32(), pa.float64()
    about = pa.struct([("p", single), ("exact", double), ("n", pa.int64()), ("word", pa.string())])
    lists = {"many": pa.list_(about), "steps": pa.list_(single), "by_name": pa.map_(pa.string(), single)}
    told = {"p": 0.1, "exact": 0.123456789012, "n": 2**40 + 1, "word": "a"}
    empty = dict.fromkeys(told)
    rows = [
        {"about": told, "many": [told, None], "steps": [0.7, None], "by_name": [("x", 0.3)], "p": 0.9},
        {"about": empty, "many": None, "steps": [], "by_name": None, "p": None},
    ]
    table = pa.Table.from_pylist(rows, pa.schema({"about": about, **lists, "p": pa.float16()}))
    parquet.write_table(table.drop_columns("p"), tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    rows[0]["by_name"] = [["x", 0.3]]
    assert [row["about"] for _, row in read_rows(tmp_path / "a.parquet")] == [told, empty]
    read = [row for _, row in read_rows(tmp_path / "a.arrow")]
    assert read[0].pop("p") == pytest.approx(rows[0].pop("p"), abs=1e-3)
    assert read == [rows[0], rows[1]]


@pytest.mark.parametrize("name", ["platt", "temperature", "beta"])
def test_calibrators_keep_the_order_of_confidences_however_near_to_1(name):
    p = np.unique(1 - 10.0 ** -np.linspace(0.2, 15.5, 200))
    y = (np.random.default_rng(0).random(len(p)) < np.linspace(0.3, 0.9, len(p))).astype(int)
    mapped = CALIBRATORS[name](p, y)(p)
    assert (np.diff(mapped) > 0).all() and auroc(mapped, y) == auroc(p, y)
    apart = np.repeat([0.991, 0.9999], 20), np.repeat([0, 1], 20)
    assert auroc(CALIBRATORS[name](*apart)(apart[0]), apart[1]) == 1


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_missing_confidence_stays_missing(name):
    assert np.isnan(CALIBRATORS[name]([0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1])([np.nan, 0.5])).tolist() == [True, False]


@pytest.mark.slow
def test_metrics_statistics_plots_and_rules_need_no_module_of_unix():
    rooms = "metrics resampling label_noise inference interval_checks plots rules files".split()
    blocked = "import sys; sys.modules['resource'] = sys.modules['fcntl'] = None\n"
    code = blocked + "".join(f"import calib_nb.{room}\n" for room in rooms)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Sizes

MEGABYTE = 10**6


def table_of(columns):
    return pytest.importorskip("pyarrow").table(columns)


def dictionary_of(text, times):
    pa = pytest.importorskip("pyarrow")
    return table_of({"a": pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([text]))})


def parquet(table, **how):
    out = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(table, out, **how)
    return out.getvalue()


def arrow(table, new):
    out, pa = io.BytesIO(), pytest.importorskip("pyarrow")
    with getattr(pa.ipc, new)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


BOMBS = {  # kilobytes that hold twenty megabytes
    **{f"zeros.csv{packed}": lambda pack=pack: pack(bytes(20 * MEGABYTE)) for packed, pack in PACK.items() if packed},
    "one-number.parquet": lambda: parquet(table_of({"a": np.ones(2 * MEGABYTE)}), compression="zstd"),
    "one-text.parquet": lambda: parquet(dictionary_of("y" * MEGABYTE, 20), store_schema=False),
    "one-text-kept.parquet": lambda: parquet(dictionary_of("y" * MEGABYTE, 20)),
    "one-text.arrow": lambda: arrow(dictionary_of("y" * MEGABYTE, 20), "new_file"),
    "one-text.arrows": lambda: arrow(dictionary_of("y" * MEGABYTE, 20), "new_stream"),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_what_is_small_when_packed_is_refused_as_soon_as_it_is_too_large(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(BOMBS[name]())
    assert path.stat().st_size < 1.2 * MEGABYTE
    monkeypatch.setenv("CALIB_NB_LARGEST_FILE", "0.01")
    said = rf"{name}: unpacked at least 0\.\d+ GB, at most 0.01 GB are read at once. Write it as several files, or"
    with pytest.raises(RecordError, match=said) as error:
        read_rows(path)
    assert "\n" not in str(error.value) and "CALIB_NB_LARGEST_FILE=8" in str(error.value)


def test_what_is_within_the_limit_is_read_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("CALIB_NB_LARGEST_FILE", "0.05")
    for name in [name for name in BOMBS if "text" in name]:
        (tmp_path / name).write_bytes(BOMBS[name]())
        assert [row["a"] for _, row in read_rows(tmp_path / name)] == ["y" * MEGABYTE] * 20, name


@pytest.mark.parametrize("read", [read_rows, load_questions, read_judged, lambda path: read_records(path, Judged)])
def test_a_file_that_does_not_fit_into_memory_is_refused_before_it_is_read(tmp_path, monkeypatch, read):
    path = tmp_path / "large.jsonl"
    path.touch()
    os.truncate(path, 20 * 10**9)
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail("read"))
    monkeypatch.setattr("calib_nb.core._free_memory", lambda: 64e9)
    with pytest.raises(RecordError, match="large.jsonl: 20 GB, at most 4 GB are read at once. Write it as several"):
        read(path)


def test_how_large_a_file_may_be_depends_on_the_memory_or_is_said(monkeypatch):
    sizes = {}
    for free in (64e9, 20e9, 5e9):
        monkeypatch.setattr("calib_nb.core._free_memory", lambda free=free: free)
        sizes[free] = _largest_file()
    assert sizes == {64e9: 4e9, 20e9: 4e9, 5e9: 1e9}
    monkeypatch.setenv("CALIB_NB_LARGEST_FILE", "30")
    assert _largest_file() == 30e9
    monkeypatch.setenv("CALIB_NB_LARGEST_FILE", "much")
    with pytest.raises(ValueError, match="CALIB_NB_LARGEST_FILE must be a number of gigabytes, found 'much'"):
        _largest_file()


def test_a_stream_without_end_is_given_up(monkeypatch):
    class Endless:
        def read(self, n):
            return b"0" * n

    monkeypatch.setenv("CALIB_NB_LARGEST_FILE", "0.01")
    with pytest.raises(RecordError, match="standard input: at least 0.0168 GB, at most 0.01 GB"):
        _read_at_most(Endless(), "standard input")


def packed_log(path, text):
    "A log of inspect_ai with one sample."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/1.json", text)
    return path


def test_a_packed_log_is_unpacked_up_to_the_limit_whatever_its_heading_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CALIB_NB_LARGEST_FILE", "0.01")
    large = packed_log(tmp_path / "large.eval", " " * 20 * MEGABYTE)
    with pytest.raises(RecordError, match="large.eval: unpacked at least 0.02 GB, at most 0.01 GB are read at once"):
        _eval_samples(large)
    data = bytearray(large.read_bytes())
    for begin in (data.index(b"PK\x03\x04") + 22, data.index(b"PK\x01\x02") + 24):
        data[begin : begin + 4] = (7).to_bytes(4, "little")  # a size that is not true
    large.write_bytes(data)
    with pytest.raises(RecordError, match="large.eval"):
        _eval_samples(large)
    with pytest.raises(RecordError, match="not JSON .*Get the file again"):
        _eval_samples(packed_log(tmp_path / "deep.eval", "[" * 100_000))


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_log_is_refused_or_read_and_nothing_else(tmp_path, seed):
    pytest.importorskip("zstandard")
    data, draw = bytearray((ROOT / "tests/formats/facts_confidence.eval").read_bytes()), np.random.default_rng(seed)
    for at in draw.integers(0, len(data), 1 + seed % 3):
        data[at] = draw.integers(256)
    path = tmp_path / "damaged.eval"
    path.write_bytes(data[: len(data) - seed * (seed % 2)])
    try:
        assert _eval_samples(path)
    except RecordError as e:
        assert "damaged.eval" in str(e) and "\n" not in str(e)
