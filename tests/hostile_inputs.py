"""Gives every reader files and values that are damaged, ambiguous or hostile, and counts what comes of them.

`python tests/hostile_inputs.py --write` is `make inputs`; it writes the field `inputs` of
figures/reliability/reliability.json and leaves the others as they are. Each input either must be refused, must be
accepted, or may be either (bytes changed at random, which may do no harm). A refusal counts when it is of an error
class that is meant for users, names the place (file, parameter or option), says what to do, and is one line, or one
for each of ten malformed rows. Everything else that is raised is a crash; so is the end of the process, which is
therefore another one than this.
"""
import argparse
import gzip
import io
import json
import lzma
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
REFUSED, ACCEPTED, EITHER = "refused", "accepted", "either"
LARGEST = {"CALIB_NB_LARGEST_FILE": "0.2"}  # gigabytes: what is larger, or grows to more, is refused
LONGEST = 20  # seconds: more is long work before the error
REMEDY = re.compile(  # how a sentence that says what to do begins
    r"\b(Add|Ask|Choose|Correct|Delete|Did you mean|Each|Fetch|Get|Give|It is called|Keep|Leave|Make|Mend|Name|Rename|"
    r"Save|Say|Take|Unpack|Was|Write|give|keep|leave|must name|say|pip install|save)\b|Known:|is put in quotation marks"
)


@dataclass(frozen=True)
class Input:
    "Something that is given to a reader."

    reader: str  # a name in `READERS`
    name: str  # of the file, or of what is wrong with a value
    what: object  # bytes of the file; a dict of parameters
    must: str = EITHER  # what has to come of it


# Text files

ROW = '"id": "1", "question": "Who?", "answers": ["Ann"], "model_answer": "Ann", "is_correct": true, "confidence": 0.5'
RECORDS = ("questions", "judged", "readings")


def row(field, value):
    "The usual row as JSON, one field with another text in the place of its value."
    said = re.sub(rf'("{field}": )(\[.*?\]|".*?"|[^,]+)', lambda m: m[1] + value, ROW)
    return said if f'"{field}"' in ROW else f'{ROW}, "{field}": {value}'


def deep(levels):
    return "[" * levels + "]" * levels


ALL = ("rows", *RECORDS)
VALUES = {  # what is wrong -> (field, value as JSON, who must refuse it, who must accept it)
    "a key twice": ("extra_key", '1, "extra_key": 2', ALL, ()),
    "the question twice": ("question", '"Who?", "question": "When?"', ALL, ()),
    "a key twice inside": ("extra", '{"a": 1, "a": 2}', ALL, ()),
    "150 levels": ("more", deep(150), ALL, ()),
    "50 levels": ("more", deep(50), (), ALL),
    "100,000 levels": ("more", deep(100_000), ALL, ()),
    "levels without end": ("more", "[" * 100_000, ALL, ()),
    "objects without end": ("more", '{"a":' * 100_000, ALL, ()),
    "levels in a text": ("answers", json.dumps(deep(5000)), (), ()),
    "brackets in a text": ("answers", json.dumps("[" * 5000), (), ()),
    "5,000 digits": ("id", "1" * 5000, ALL, ()),
    "5,000 digits, negative": ("more", "-" + "1" * 5000, ALL, ()),
    "5,000 digits in a text": ("answers", json.dumps("[" + "1" * 5000 + "]"), (), ()),
    "400 digits": ("confidence", "1" * 400, ("readings",), ()),
    "an exponent of 999": ("confidence", "1e999", ("readings",), ()),
    "NaN": ("confidence", "NaN", (), ("rows", "questions", "judged")),
    "Infinity": ("confidence", "Infinity", ("readings",), ()),
    "-Infinity": ("confidence", "-Infinity", ("readings",), ()),
    "an infinite answer": ("answers", "Infinity", ("questions", "judged"), ()),
    "an infinite id": ("id", "1e999", ("questions", "judged"), ()),
    "an answer that is NaN": ("answers", "NaN", ("questions",), ()),
    "half a character": ("question", '"\\ud83d"', ALL, ()),
    "half a character, inside": ("more", '{"\\ude00": 1}', ALL, ()),
    "a null character": ("question", '"Who\\u0000?"', ALL, ()),
    "from right to left": ("question", '"\\u202eWho?\\u202c"', (), ALL),
    "Arabic": ("question", '"من كتب هذا؟"', (), ALL),
    "a hundred combining characters": ("question", json.dumps("e" + "\u0301" * 100 + "?"), (), ALL),
    "a joined emoji": ("question", '"👩‍👩‍👧?"', (), ALL),
    "escapes of a terminal": ("question", '"\\u001b[31mWho?"', (), ALL),
    "a line separator": ("question", '"Who\\u2028?"', (), ALL),
    "10 MB of question": ("question", json.dumps("Who? " * 2_000_000), (), ()),
    "10 MB of brackets": ("answers", json.dumps("[" * 10_000_000), (), ()),
    "10 MB of id": ("id", json.dumps("a" * 10_000_000), (), ()),
    "an empty question": ("question", '""', ("questions", "judged"), ()),
    "a question of blanks": ("question", '" \\t\\u00a0"', ("questions", "judged"), ()),
    "a question that is a number": ("question", "7", (), ()),
    "a question that is a list": ("question", '["Who?"]', ("questions", "judged"), ()),
    "no question": ("question", "null", ("questions", "judged"), ()),
    "no answer": ("answers", "[]", ("questions",), ()),
    "answers of another kind": ("answers", '{"key": "Ann"}', ("questions", "judged"), ()),
    "is_correct: maybe": ("is_correct", '"maybe"', ("judged", "readings"), ()),
    "is_correct: 2": ("is_correct", "2", ("judged", "readings"), ()),
    "is_correct: null": ("is_correct", "null", ("judged",), ()),
    "verdict: maybe": ("verdict", '"maybe"', ("judged",), ()),
    "verdict: incorrect": ("verdict", '"incorrect"', ("judged",), ()),
    "verdict: not_attempted": ("verdict", '"not_attempted"', ("judged",), ()),
    "verdict: Correct": ("verdict", '"Correct"', (), ("judged",)),
    "confidence: 1.5": ("confidence", "1.5", ("readings",), ()),
    "confidence: -0.1": ("confidence", "-0.1", ("readings",), ()),
    "confidence: high": ("confidence", '"high"', ("readings",), ()),
    "confidence: true": ("confidence", "true", ("readings",), ()),
    "confidence: 0,5": ("confidence", '"0,5"', (), ()),
    "confidence: a list": ("confidence", "[0.1, 0.2]", ("readings",), ()),
    "a tag and a script": ("question", '"</td><script>alert(1)</script>"', (), ALL),
    "Python in a text": ("answers", json.dumps("__import__('os').system('false')"), (), ()),
    "a price": ("question", '"$5 or $6?"', (), ALL),
}
LINE = f"{{{ROW}}}\n"
TABLE = "id,question,answers,model_answer,is_correct,confidence\n"
CELLS = "1,Who?,Ann,Ann,true,0.5\n"
FILES = {  # name -> (bytes, what every reader of records must do)
    "bom.jsonl": (b"\xef\xbb\xbf" + LINE.encode(), ACCEPTED),
    "crlf.jsonl": (LINE.replace("\n", "\r\n").encode(), ACCEPTED),
    "utf16.jsonl": (LINE.encode("utf-16"), ACCEPTED),
    "utf16-unmarked.jsonl": (LINE.encode("utf-16-le"), REFUSED),
    "utf16-odd.csv": ((TABLE + CELLS).encode("utf-16")[:-1], REFUSED),
    "utf32.jsonl": (LINE.encode("utf-32"), REFUSED),
    "latin1.jsonl": (LINE.replace("Who", "Où").encode("latin-1"), REFUSED),
    "null.jsonl": (LINE.encode() + b"\0\n", REFUSED),
    "zeros.jsonl": (bytes(4096), REFUSED),
    "surrogate.jsonl": (LINE.replace("Who", "\ud83d").encode("utf-8", "surrogatepass"), REFUSED),
    "overlong.jsonl": (LINE.encode().replace(b"Who", b"\xc0\x80"), REFUSED),
    "empty.jsonl": (b"", REFUSED),
    "blank.jsonl": (b"\n \n\t\n", REFUSED),
    "mark-alone.jsonl": (b"\xef\xbb\xbf", REFUSED),
    "cut.jsonl": (LINE.encode()[:-20], REFUSED),
    "cut-behind.jsonl": ((LINE + LINE.replace('"1"', '"2"')[:30]).encode(), REFUSED),
    "two-on-a-line.jsonl": ((LINE.strip() + LINE).encode(), REFUSED),
    "comma.jsonl": ((LINE.strip() + ",\n").encode(), REFUSED),
    "apostrophes.jsonl": (LINE.replace('"', "'").encode(), REFUSED),
    "number.jsonl": (b"7\n", REFUSED),
    "text.json": (b'"question"', REFUSED),
    "null.json": (b"null", REFUSED),
    "array-of-arrays.json": (b"[[1, 2], [3]]", REFUSED),
    "unclosed.json": (f"[{LINE}".encode(), REFUSED),
    "columns.json": (b'{"question": {"0": "Who?"}, "answers": {"0": "Ann"}}', REFUSED),
    "deep.json": (("[" * 100_000).encode(), REFUSED),
    "page.csv": (b"<!DOCTYPE html><html></html>", REFUSED),
    "zip.csv": (b"PK\x03\x04" + bytes(50), REFUSED),
    "pointer.csv": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", REFUSED),
    "cut.csv.gz": (gzip.compress((TABLE + CELLS).encode())[:-9], REFUSED),
    "no-gzip.csv.gz": (b"\x1f\x8b\x08" + bytes(30), REFUSED),
    "zeros.csv.gz": (gzip.compress(bytes(300_000_000), 1), REFUSED),
    "zeros.jsonl.xz": (lzma.compress(bytes(300_000_000), preset=0), REFUSED),
    "packed.csv.gz": (gzip.compress((TABLE + CELLS).encode()), ACCEPTED),
    "crlf.csv": ((TABLE + CELLS).replace("\n", "\r\n").encode(), ACCEPTED),
    "cr.csv": ((TABLE + CELLS).replace("\n", "\r").encode(), ACCEPTED),
    "bom.csv": (b"\xef\xbb\xbf" + (TABLE + CELLS).encode(), ACCEPTED),
    "too-many.csv": ((TABLE + "1,Who,and when?,Ann,Ann,true,0.5\n").encode(), REFUSED),
    "too-few.csv": ((TABLE + "1,Who?,Ann,true\n").encode(), REFUSED),
    "twice.csv": ((TABLE.replace("model_answer", "answers") + CELLS).encode(), REFUSED),
    "open.csv": ((TABLE + '1,"Who?,Ann,Ann,true,0.5\n').encode(), REFUSED),
    "inner-quote.csv": ((TABLE + '1,"Who" said?,Ann,Ann,true,0.5\n').encode(), REFUSED),
    "null.csv": ((TABLE + CELLS).replace("Who", "W\0o").encode(), REFUSED),
    "heading.csv": (TABLE.encode(), REFUSED),
    "long.csv": ((TABLE + CELLS.replace("Who?", "Who? " * 2_000_000)).encode(), EITHER),
    "wide.csv": ((",".join(f"c{i}" for i in range(10_000)) + "\n").encode(), REFUSED),
    "long-heading.csv": (("a" * 10_000_000 + "\n").encode(), REFUSED),
    "digits.csv": ((TABLE + CELLS.replace("0.5", "1" * 5000)).encode(), EITHER),
    "tabs.tsv": ((TABLE + CELLS).replace(",", "\t").encode(), ACCEPTED),
    "name.docx": (b"", REFUSED),
    "none": (LINE.encode(), REFUSED),
}
MAY_BE_EMPTY = ("empty.jsonl", "blank.jsonl", "mark-alone.jsonl", "heading.csv", "wide.csv", "long-heading.csv")
MAY_BE_EMPTY += ("text.json", "null.json")


def texts():
    "Every reader of records with every text file."
    found = []
    for name, (data, must) in FILES.items():
        found += [Input(reader, name, data, must) for reader in RECORDS]
        found.append(Input("rows", name, data, EITHER if name in MAY_BE_EMPTY else must))
    for what, (field, value, refuse, accept) in VALUES.items():
        said = row(field, value)
        for name, data in ((f"{what}.jsonl", f"{{{said}}}\n"), (f"{what}.json", f"[{{{said}}}]")):
            for reader in ALL:
                must = REFUSED if reader in refuse else ACCEPTED if reader in accept else EITHER
                found.append(Input(reader, name, data.encode("utf-8", "surrogatepass"), must))
    return found


# Binary files


def tables():
    "Whole Parquet and Arrow files by name."
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    columns = {name: [value] * 50 for name, value in json.loads(f"{{{ROW}}}").items()}
    columns["id"] = columns["question"] = [f"Who is {i}?" for i in range(50)]
    table, made = pa.table(columns), {}
    writers = {"a.parquet": pa.parquet.write_table, "a.feather": pa.feather.write_feather}
    for name, write in writers.items():
        write(table, buffer := io.BytesIO())
        made[name] = buffer.getvalue()
    with pa.ipc.new_stream(buffer := io.BytesIO(), table.schema) as stream:
        stream.write_table(table)
    return {**made, "a.arrows": buffer.getvalue()}


def odd_tables():
    "Files that are whole and hold what is no text: name -> bytes."
    import pyarrow as pa
    import pyarrow.parquet

    days = pa.array([2**62], pa.timestamp("us"))
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["y" * 10**6]))
    odd = {
        "bytes": pa.array([b"\xff\xfe"]),
        "text that is none": pa.array([b"\xff\xfe"]).view(pa.utf8()),
        "a date outside of the calendar": days,
    }
    made = {}
    for name, column in odd.items():
        pa.parquet.write_table(pa.table({"question": ["Who?"], "answers": column}), buffer := io.BytesIO())
        made[f"{name}.parquet"] = buffer.getvalue()
    for name, kept in (("300 MB in one text", False), ("300 MB in one text, kept as one", True)):
        pa.parquet.write_table(pa.table({"question": many}), buffer := io.BytesIO(), store_schema=kept)
        made[f"{name}.parquet"] = buffer.getvalue()
    with pa.ipc.new_stream(buffer := io.BytesIO(), pa.schema({"question": many.type})) as stream:
        stream.write_table(pa.table({"question": many}))
    return {**made, "300 MB in one text.arrows": buffer.getvalue()}


def damaged(data, times, seed):
    "The same bytes cut short, and with one to eight of them changed."
    draw = random.Random(seed)
    for part in (0, 3, 4, 8, len(data) // 2, len(data) - 1):
        yield f"cut at {part}", data[:part]
    for i in range(times):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 2, 8))):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        yield f"changed {i}", bytes(changed)


def binaries(times):
    "Damaged tables, weights, adapters and vectors."
    found = []
    for name, data in tables().items():
        found += [Input(reader, name, data, ACCEPTED) for reader in ALL]
        for i, (what, bytes_) in enumerate(damaged(data, times, name)):
            must = REFUSED if what.startswith("cut") else EITHER
            found.append(Input(ALL[i % len(ALL)], f"{what}-{name}".replace(" ", "-"), bytes_, must))
    for name, data in odd_tables().items():
        found += [Input(reader, name, data, REFUSED) for reader in ("rows", "questions")]
    for reader, file in (("model", "model.safetensors"), ("adapter", "adapter_model.safetensors"), ("vectors", "npy")):
        for what, bytes_ in damaged(WHOLE[reader](), times // 4, file):
            must = REFUSED if what.startswith("cut") and reader != "vectors" else EITHER
            found.append(Input(reader, f"{file}: {what}", bytes_, must))
    for reader, names in (("model", ("config.json",)), ("adapter", ("base.json", "adapter_config.json"))):
        for file in names:
            for what, bytes_ in TORN.items():
                found.append(Input(reader, f"{file}: {what}", bytes_, REFUSED))
    return found


TORN = {
    "empty": b"",
    "torn": b'{"a": ',
    "not UTF-8": b'{"a": "\xff"}',
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "digits": b'{"key": ' + b"1" * 5000 + b"}",
    "another's": b'{"peft_type": "LORA", "peft_version": 7, "r": "many"}',
}


def weights():
    import numpy as np
    from safetensors.numpy import save

    return save({"weight": np.ones((4, 4), np.float32)})


def vectors():
    import numpy as np

    np.save(buffer := io.BytesIO(), np.eye(3, dtype=np.float32))
    return buffer.getvalue()


WHOLE = {"model": weights, "adapter": weights, "vectors": vectors}


# Parameters and options

HUGE = 10**5000
PARAMETERS = {
    "out": ["", " ", "/etc", "/etc/x", "/dev/null/x", "/proc/x", "a\0b", "a" * 300, 7, None, ["a"]],
    "model": ["", " ", "/etc", "/dev/null/x", "no such model", "../..", "a\0b", 7, None, {}, "a/b/c", "/"],
    "dataset": ["", "facts:", "facts:,", "facts: ", "facts:no_such", "/etc", "/dev/null/x", "nosuch", "a.docx", "\0.x"],
    "test_dataset": ["facts:", "gone.csv", "/etc"],
    "judged": ["/etc", "/dev/null/x", "gone.jsonl", 7],
    "seed": [10**30, -1, HUGE, 1.5, "x", None, True, float("nan"), float("inf"), [1], 2**32],
    "split_seed": [10**30, -1, "x"],
    "n_train": [0, -1, 10**30, HUGE, 0.5, "many", None, float("nan")],
    "n_test": [0, -5, "1e3x"],
    "method": ["", "stf", 7, None, "sft\0", "a" * 10**6, "\u202etfs", []],
    "preset": ["fast", 7],
    "readout": ["level", "all"],
    "protocol": ["three_step"],
    "prompt": ["no such prompt"],
    "judge": ["model", "nobody"],
    "original": [True, "yes"],
    "publish": ["../x", "a\0b", "a" * 300],
    "columns": [[], "question", 7, {"question": "q"}],
    "confidence_scale": ["tenths", "percent"],
    "options": [[], 7, "right", {1: 2}, {"rigth": 1}],
    "quantization": ["nf5", 7],
}
OPTIONS = {  # method -> option -> values that it cannot have
    "sft": {
        "right": [2.0, -0.1, HUGE, "a", None, True, float("nan"), float("inf"), [0.9], {}],
        "wrong": [1.1, "low"],
        "targets": ["bin", 3, None, []],
        "epochs": [0, -1, 1.5, 10**30, HUGE, "two", True, float("nan"), [1]],
        "patience": [0, -1, 0.5, "x", False, float("inf")],
    },
    "performance_sft": {"k": [0, -1, 1.5, None, HUGE, "x"], "adjust": [1, "yes", None]},
    "dpo": {"beta": [0, -1, None, "x", float("nan"), True, HUGE], "high": [0.1, 2, None], "low": [0.9, -1]},
    "implicit": {"weight": [-1, None, "x"]},
    "sequence_likelihood": {"weight": [-1, "x"], "as_original": [1, "no", None]},
    "brier": {"format_weight": [-1, None, float("inf")]},
    "soft_labels": {"width": [0, -1, None], "centre": ["mean", 1], "k": [0]},
    "grpo": {
        "penalty": [-1, None],
        "generations": [1, 0, 1.5, None, 10**9],
        "steps": [0, -1, 0.5],
        "temperature": [0, -1, None],
        "beta": [-0.1, None, "x"],
    },
    "self_distill": {
        "folds": [1, 0, -1, 1.5, None, "x", HUGE],
        "inner": ["sft", None, 1],
        "inner_epochs": [0, -1, 1.5],
        "calibrator": ["no such", None],
    },
    "shuffled": {"within_relation": [1, "true", None]},
}


def values():
    "Every parameter and every option with values that it cannot have."
    found = []
    for name, wrong in PARAMETERS.items():
        found += [Input("parameters", f"{name} {i}", {name: value}, REFUSED) for i, value in enumerate(wrong)]
    for method, options in OPTIONS.items():
        for name, wrong in options.items():
            for i, value in enumerate(wrong):
                given = {"method": method, "options": {name: value}}
                found.append(Input("options", f"{method} {name} {i}", given, REFUSED))
    return found


# Readers: each takes a folder and an `Input`, and returns what has to stand in a message


def read_file(read):
    "A reader of one file."

    def reader(folder, given):
        path = folder / given.name.replace("/", "_")
        path.write_bytes(given.what)
        return lambda: read(path), [path.name]

    return reader


def rows(path):
    from calib_nb.files import read_rows

    return read_rows(path)


def questions(path):
    from calib_nb.questions import load_questions

    return load_questions(path)


def judged(path):
    from calib_nb.questions import read_judged

    return read_judged(path)


def readings(path):
    from calib_nb.readings import Readings

    return Readings.from_file(path)


def model(folder, given):
    "A local folder of a model in which one file is not as it should be."
    from calib_nb.models import _check_model

    file, _, _ = given.name.partition(": ")
    (folder / "config.json").write_text("{}")
    (folder / file).write_bytes(given.what)
    return lambda: _check_model(str(folder)), [folder.name]


def adapter(folder, given):
    "The same of an adapter."
    from conftest import small_model, small_tokenizer

    from calib_nb.training import PRESETS, add_adapter, load_adapter, remove_adapter, save_adapter

    lm = small_model(small_tokenizer(False))
    kept = folder / "adapter"
    save_adapter(add_adapter(lm, PRESETS["default"], 0), kept)
    (kept / "seal.json").unlink()  # as one from elsewhere
    file, _, _ = given.name.partition(": ")
    (kept / file).write_bytes(given.what)
    return lambda: load_adapter(remove_adapter(lm), kept), [kept.name]


def vectors_of_a_cache(folder, given):
    "A cache of embeddings whose array is damaged: what is not as it was written is made again."
    import numpy as np

    from calib_nb.embeddings import _EmbeddingCache

    _EmbeddingCache(folder).add(["a", "b", "c"], np.eye(3, dtype=np.float32))
    array = next(folder.glob("*.npy"))
    whole = array.read_bytes()
    array.write_bytes(given.what)

    def read():
        cache = _EmbeddingCache(folder)
        assert whole == given.what or cache.missing(["a"]) == ["a"]

    return read, [folder.name]


def parameters(folder, given):
    "A run's parameters, and what it reads before a model is loaded."
    from calib_nb.experiment import Run

    small = {"n_train": 3, "n_calibration": 2, "n_test": 3, "out": str(folder)}
    name, value = next(iter(given.what.items()))
    places = [name, name.rstrip("s"), short(value), short(value).rpartition(":")[2]]
    return lambda: Run(**{**small, **given.what}), [place for place in places if place]


def options(folder, given):
    from calib_nb.experiment import Parameters

    return lambda: Parameters(**given.what), list(given.what["options"])


def short(value):
    return value.strip() if isinstance(value, str) and len(value) < 100 else ""


READERS = {
    "rows": read_file(rows),
    "questions": read_file(questions),
    "judged": read_file(judged),
    "readings": read_file(readings),
    "model": model,
    "adapter": adapter,
    "vectors": vectors_of_a_cache,
    "parameters": parameters,
    "options": options,
}


def corpus(times=100):  # how often bytes of each binary file are changed
    "All inputs."
    return [*texts(), *binaries(times), *values()]


# What comes of them


def attempt(given):
    "`(outcome, message)`: accepted, refused, poorly refused (no place, no remedy, more than a line), slow or crash."
    with tempfile.TemporaryDirectory() as work:
        read, places = READERS[given.reader](Path(work), given)
        begun = time.monotonic()
        try:
            with patch.dict(os.environ, LARGEST):
                read()
            outcome, said = ACCEPTED, ""
        except (ValueError, TypeError, OSError) as e:
            said = str(e)
            outcome = REFUSED if is_good(e, said, places) else "poorly refused"
        except BaseException as e:  # nothing else is meant for users
            return "crash", f"{type(e).__name__}: {e!s:.300}"
        if time.monotonic() - begun > LONGEST:
            outcome = "slow"
        return outcome, said[:1000]


def is_good(error, said, places):
    "Whether an error is one for users: in one line with place and remedy; a list of rows has a place in each line."
    from calib_nb.core import RecordError, UnknownName

    library = type(error) not in (RecordError, UnknownName, ValueError, TypeError)
    lines = said.split("\n")
    listed = lines[0].endswith("may be):") and 2 < len(lines) < 13
    named = any(place in said or place in said.encode().decode("unicode_escape", "replace") for place in places)
    return not library and (listed or len(lines) == 1) and named and len(said) < 4200 and bool(REMEDY.search(said))


def fault(given, outcome):
    "Whether this should not have come of it."
    if outcome not in (ACCEPTED, REFUSED):
        return True
    return given.must not in (EITHER, outcome)


def try_all(inputs, say=lambda text: None):
    "`(input, outcome, message)` of each; a process that ends is a crash, and another one goes on."
    context, done = multiprocessing.get_context("spawn"), []
    pool = ProcessPoolExecutor(1, context)
    for given in inputs:
        try:
            outcome, said = pool.submit(attempt, given).result()
        except BrokenProcessPool:
            outcome, said = "crash", "the process ended"
            pool = ProcessPoolExecutor(1, context)
        done.append((given, outcome, said))
        if fault(given, outcome):
            say(f"{given.reader} {given.name}: {outcome}, must be {given.must}: {said[:300]}")
    pool.shutdown()
    return done


def summary(done):
    "Counts, by reader as well, and what should not have come of an input."
    counted = {}
    for given, outcome, _ in done:
        counted.setdefault(given.reader, Counter())[outcome] += 1
        counted[given.reader]["inputs"] += 1
    faults = [(given, outcome, said) for given, outcome, said in done if fault(given, outcome)]
    outcomes = Counter(outcome for _, outcome, _ in done)
    return {
        "inputs": len(done),
        "refused": outcomes[REFUSED],
        "accepted": outcomes[ACCEPTED],
        "faults": len(faults),
        "by_reader": {reader: dict(sorted(counts.items())) for reader, counts in counted.items()},
        "failures": [[given.reader, given.name, outcome, said[:200]] for given, outcome, said in faults],
        "crashes": outcomes["crash"],
    }


def store(found):
    "Put the counts beside those of `kill_harness`, which stay as they are."
    path = ROOT / "figures/reliability/reliability.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**known, "inputs": found}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100, help="how often bytes of each binary file are changed")
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--write", action="store_true", help="write figures/reliability/reliability.json")
    given = parser.parse_args()
    readers = given.readers.split(",")
    inputs = [one for one in corpus(given.times) if one.reader in readers]
    found = summary(try_all(inputs, lambda text: print(ascii(text), file=sys.stderr, flush=True)))
    if given.write:
        store(found)
    print(json.dumps({name: value for name, value in found.items() if name != "failures"}))
    sys.exit(found["faults"] > 0)


if __name__ == "__main__":
    main()
