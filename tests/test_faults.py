"""Nothing is lost: killed processes, full disks, changed bytes, two writers, models that give no numbers."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, small_model, small_tokenizer

from calib_nb import core
from calib_nb.core import (
    Kept,
    RunFolder,
    Stage,
    broken,
    finished_run,
    locked,
    seal,
    sound_rows,
    sweep,
    with_check,
    write_json,
    write_text,
    written,
)
from calib_nb.judge import Grader

ROWS = Stage("rows", dict)


def child(work):
    "A forked process that does `work()` and ends; its number."
    number = os.fork()
    if number == 0:
        try:
            work()
        finally:
            os._exit(0)
    return number


def wait_for(path):
    "Until a file is there."
    for _ in range(2000):
        if path.exists():
            return
        time.sleep(0.01)
    pytest.fail(f"{path} never came")


def gone():
    "The number of a process that has ended."
    number = child(lambda: None)
    os.waitpid(number, 0)
    return number


# Leftovers


def part(folder, process, host=None, began=core._BEGAN):
    path = folder / f".rows.jsonl.{host or core._host()}-{process}-{began}.part"
    path.write_text('{"half')
    return path


def test_what_dead_processes_left_is_swept_and_what_live_ones_write_is_not(tmp_path):
    folder = tmp_path / "cache/embedder"
    folder.mkdir(parents=True)
    dead = [part(folder, gone()), part(tmp_path / "cache", gone()), part(folder, os.getpid(), began="000000")]
    live = [part(folder, os.getpid()), part(folder, os.getppid()), part(folder, gone(), host="other1")]
    sweep(tmp_path / "cache")
    assert not any(p.exists() for p in dead) and all(p.exists() for p in live)
    os.utime(live[-1], (0, 0))
    sweep(tmp_path / "cache")
    assert [p.exists() for p in live] == [True, True, False], "of another machine after a day"


def test_a_half_conversion_of_a_killed_process_is_swept(tmp_path, monkeypatch):
    from calib_nb import models

    monkeypatch.setenv("CALIB_NB_CACHE", str(tmp_path))
    spec = models.EmbeddedModel("pkg", "pkg==1", "m.gguf", "0" * 64)
    half = tmp_path / f".pkg-{'0' * 16}.{core._host()}-{gone()}-000000.part"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(models, "packaged_gguf", lambda spec, folder: folder / "m.gguf")
    monkeypatch.setattr(models, "_convert", lambda gguf, folder: write_text(folder / "config.json", "{}"))
    folder = models._embedded_folder(spec)
    assert [p.name for p in tmp_path.iterdir()] == [folder.name] and os.listdir(folder) == ["config.json"]


# Locks


def test_a_lock_is_not_held_by_the_dead(tmp_path):
    def hold():
        with locked(tmp_path / "thing"):
            (tmp_path / "held").touch()
            time.sleep(60)

    owner = child(hold)
    wait_for(tmp_path / "held")
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    with locked(tmp_path / "thing"):
        assert (tmp_path / ".thing.lock").exists()
    assert not (tmp_path / ".thing.lock").exists()


def test_the_lock_files_of_dead_processes_are_swept_and_a_lock_that_is_held_stays(tmp_path):
    (tmp_path / ".left.lock").write_text(str(gone()))
    with locked(tmp_path / "thing"):
        sweep(tmp_path)
        assert os.listdir(tmp_path) == [".thing.lock"]
    assert os.listdir(tmp_path) == []


def test_a_lock_is_one_process_at_a_time_though_its_file_is_removed_each_time(tmp_path):
    def count():
        for _ in range(20):
            with locked(tmp_path / "thing"):
                now = int((tmp_path / "n").read_text())
                time.sleep(0.001)
                (tmp_path / "n").write_text(str(now + 1))

    (tmp_path / "n").write_text("0")
    for process in [child(count) for _ in range(4)]:
        os.waitpid(process, 0)
    assert (tmp_path / "n").read_text() == "80" and os.listdir(tmp_path) == ["n"]


def orphaned(work):
    "Do it in a process whose parent is gone, as a kernel whose papermill was killed."
    os.waitpid(child(lambda: child(work)), 0)


@pytest.mark.parametrize("start", [child, orphaned])
def test_who_wants_what_another_process_makes_waits_and_takes_it(tmp_path, start, capsys):
    kept = Kept(tmp_path / "rows-1.jsonl")

    def make(counts):
        (tmp_path / "begun").touch()
        time.sleep(0.3)
        return [{"made by": "the first"}]

    start(lambda: kept.make(ROWS, make))
    wait_for(tmp_path / "begun")
    assert kept.make(ROWS, lambda counts: pytest.fail("made twice")) is False
    assert ROWS.read(kept.path) == [{"made by": "the first"}]
    assert "which is making rows-1.jsonl" in capsys.readouterr().out


# Changed bytes


@pytest.fixture
def kept(tmp_path):
    kept = Kept(tmp_path / "rows-1.jsonl")
    kept.write([{"confidence": 0.5}, {"confidence": 0.7}], {"code": "a", "seconds": 1.5, "nothing": float("nan")})
    assert kept.exists()
    return kept


def change_a_byte(path, at=-5):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["path", "about_path"])
def test_cached_lines_with_a_changed_byte_are_made_again(kept, file):
    path = getattr(kept, file)
    for at in range(len(path.read_bytes())):
        change_a_byte(path, at)
        assert not kept.exists(), at
        change_a_byte(path, at)
    path.write_bytes(path.read_bytes()[:7])
    assert not kept.exists() and kept.make(ROWS, lambda counts: [{"confidence": 0.1}])
    assert kept.exists() and ROWS.read(kept.path) == [{"confidence": 0.1}]


def test_a_cache_of_another_version_is_made_again(kept, monkeypatch):
    about = json.loads(kept.about_path.read_text())
    write_json(kept.about_path, {name: value for name, value in about.items() if name != "seal"})
    assert not kept.exists(), "0.2 wrote no hash"
    kept.write([{"confidence": 0.5}], {})
    monkeypatch.setattr(core, "SCHEMA", core.SCHEMA + 1)
    assert not kept.exists()


@pytest.mark.parametrize("file", ["judged.jsonl", "readings.jsonl", "metrics.json"])
def test_an_edited_file_of_a_finished_run_is_refused_with_what_to_do(tmp_path, file):
    run = RunFolder(tmp_path / "run")
    run.begin()
    for name in ("judged", "baseline_readings", "readings"):
        run.keep(name, "k", [{"x": 1}], {})
    path = write_json(run.path / "metrics.json", {"brier": 0.25})
    run.note("metrics", {"sha256": core.file_sha256(path)})
    run.add(complete=True)
    assert finished_run(run.path).finished
    change_a_byte(run.path / file, 3)
    with pytest.raises(ValueError, match=f"{file}: edited after the run wrote it. .*delete this file"):
        _ = finished_run(run.path).finished
    if file != "metrics.json":
        with pytest.raises(ValueError, match="edited after"):
            getattr(finished_run(run.path), Path(file).stem)


def test_a_changed_adapter_is_refused_and_no_cache_hit(tmp_path):
    from types import SimpleNamespace

    from calib_nb.methods import _find_adapter
    from calib_nb.training import PRESETS, add_adapter, load_adapter, save_adapter

    lm = small_model(small_tokenizer(False))
    bench = SimpleNamespace(folder=SimpleNamespace(cache=tmp_path, path=tmp_path / "run"))
    save_adapter(add_adapter(lm, PRESETS["raw"], 0), tmp_path / "adapter-k", training={"key": "k"})
    assert broken(tmp_path / "adapter-k") == [] and _find_adapter(bench, "k") == tmp_path / "adapter-k"
    change_a_byte(tmp_path / "adapter-k/adapter_model.safetensors")
    assert _find_adapter(bench, "k") is None
    with pytest.raises(ValueError, match="adapter_model.safetensors was changed after it was written; delete"):
        load_adapter(small_model(small_tokenizer(False)), tmp_path / "adapter-k")


def test_a_file_that_is_added_or_gone_breaks_the_seal(tmp_path):
    write_text(tmp_path / "a.json", "{}")
    seal(tmp_path)
    write_text(tmp_path / "b.json", "{}")
    assert broken(tmp_path) == ["b.json"]
    (tmp_path / "b.json").unlink()
    (tmp_path / "a.json").unlink()
    assert broken(tmp_path) == ["a.json"]


# Files that grow


def test_paid_grades_outlive_a_line_that_is_torn_anywhere(tmp_path):
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return "CORRECT"

    items = [(f"answer {i}", ["x"], "q") for i in range(3)]
    Grader(ask, "g", tmp_path, workers=1)(items)
    [path] = tmp_path.glob("grades-*.jsonl")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines[0] + lines[1]) + 1, len(whole), 7):
        path.write_bytes(whole[:cut])
        asked.clear()
        Grader(ask, "g", tmp_path, workers=1)(items)
        assert len(asked) == (0 if cut == len(whole) - 1 else 1), "only the torn one is asked again"
        asked.clear()
        assert Grader(ask, "g", tmp_path)(items) and not asked, "the new line does not hang on the torn one"


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x00", b"[1, 2]", b'{"key": "a"', b"null", b"[" * 100_000])
def test_a_garbled_line_costs_that_line_alone(tmp_path, garbage):
    good = json.dumps(with_check({"key": "k", "grade": "correct"})).encode()
    (tmp_path / "grades").write_bytes(good + b"\n" + garbage + b"\n" + good + b"\n")
    assert sound_rows(tmp_path / "grades") == [{"key": "k", "grade": "correct"}] * 2


def test_two_runs_with_one_cache_of_answers_lose_none(tmp_path):
    from calib_nb.answers import _read_cache, _write_cache

    path = tmp_path / "written-1.jsonl"
    runs = [child(lambda i=i: [_write_cache(path, {f"q{i} {j}": "a"}) for j in range(10)]) for i in range(3)]
    for run in runs:
        os.waitpid(run, 0)
    assert len(_read_cache(path)) == 30


@pytest.mark.parametrize("fault", ["array gone", "array torn", "index torn", "array changed", "rows swapped"])
def test_vectors_that_are_gone_or_torn_are_made_again(tmp_path, monkeypatch, fault):
    from calib_nb import embeddings

    monkeypatch.setattr(embeddings, "locate_embedder", lambda model, revision: ("m", None, "key"))
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    monkeypatch.setattr(embeddings, "_encode", lambda texts, *how: np.float32([vectors[t] for t in texts]))
    first = embeddings.embed(["a", "b"], tmp_path)
    [array], [index] = tmp_path.rglob("*.npy"), tmp_path.rglob("*.jsonl")
    if fault == "array gone":
        array.unlink()
    elif fault == "array changed":
        change_a_byte(array)
    elif fault == "rows swapped":
        index.write_text("".join(reversed(index.read_text().splitlines(keepends=True))))
    else:
        path = array if fault == "array torn" else index
        path.write_bytes(path.read_bytes()[:-9])
    assert np.array_equal(embeddings.embed(["a", "b"], tmp_path), first)
    monkeypatch.setattr(embeddings, "_encode", lambda *args: pytest.fail("made a third time"))
    assert np.array_equal(embeddings.embed(["b", "a"], tmp_path), first[::-1])


# Disks


@pytest.fixture
def disk(tmp_path):
    "Mount a small file system; tests skip where that is not allowed."
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
        if done.returncode:
            pytest.skip("a tmpfs cannot be mounted here")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True)


def test_on_a_full_disk_what_was_there_stays_and_the_error_says_what_to_do(disk):
    place = disk("size=64k")
    path = write_text(place / "rows.jsonl", "before\n")
    with pytest.raises(OSError, match="rows.jsonl: cannot be written .No space left.* Free some disk space"):
        write_text(path, "x" * 100_000)
    assert path.read_text() == "before\n" and os.listdir(place) == ["rows.jsonl"]


def test_a_folder_that_cannot_be_written_is_refused_before_long_work(disk):
    place = disk("size=64k")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    with pytest.raises(OSError, match="cannot be written .read-only.* parameter 'out'"):
        RunFolder(place / "runs/run").begin()
    with pytest.raises(OSError, match="cannot be written .* parameter 'out'"), written(place / "x") as part:
        part.write_text("x")


# Training


ROW = {"id": "1", "question": "Which river?", "answer": "The Rhine", "is_correct": True, "label": 0.9}
TRAINED = [{**ROW, "id": str(i), "question": f"Which river {i}?", "label": 0.1 + 0.8 * (i % 2)} for i in range(8)]


def preset():
    from dataclasses import replace

    from calib_nb.training import PRESETS

    return replace(PRESETS["raw"], batch_size=2, epochs=1, evaluations=4, lora_r=4)


def train_small(folder, objective="text", **how):
    from calib_nb.training import train

    lm = small_model(small_tokenizer(False))
    return train(lm, TRAINED, objective, preset(), 0, folder, **how)


def weights(lm):
    import torch

    return torch.cat([p.detach().flatten() for n, p in lm.model.named_parameters() if "lora_" in n])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize("torn", ["adapter_model.safetensors", "trainer_state.json", "seal.json", "optimizer.pt"])
def test_a_torn_checkpoint_is_deleted_and_the_one_before_taken(tmp_path, undisturbed, torn):
    from calib_nb.training import time_before

    train_small(tmp_path)
    last = tmp_path / "checkpoint-4"
    (last / torn).write_bytes((last / torn).read_bytes()[:20])
    before = time_before(tmp_path)
    assert not last.exists() and before["saved_seconds"] > 0 and before["saved_cpu_seconds"] > 0
    lm, history = train_small(tmp_path)
    assert (weights(lm) == weights(undisturbed[0])).all()
    assert history[-1]["train_loss"] == undisturbed[1][-1]["train_loss"] > 0
    assert history[-1]["train_runtime"] >= before["saved_seconds"]
    again, history = train_small(tmp_path)  # nothing is left to do
    assert history[-1]["train_loss"] == undisturbed[1][-1]["train_loss"] and (weights(again) == weights(lm)).all()


@pytest.mark.slow
def test_a_full_disk_while_a_checkpoint_is_written_is_no_trap(disk, undisturbed, monkeypatch):
    place = disk("size=10m")
    filler = place / "filler"
    calls = []

    def fill(lm):  # before the third checkpoint
        calls.append(1)
        if len(calls) == 3:
            free = os.statvfs(place)
            filler.write_bytes(bytes(max(free.f_bavail * free.f_frsize - 20_000, 0)))
        return {}

    with pytest.raises(OSError, match="checkpoint-3: cannot be written .*goes on from the checkpoint before"):
        train_small(place / "c", evaluate_model=fill)
    assert sorted(p.name for p in (place / "c").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    filler.unlink()
    lm, _ = train_small(place / "c")
    assert (weights(lm) == weights(undisturbed[0])).all()


def failing(at, value=float("nan")):
    "The text objective, whose loss is `value` from its call number `at` on."
    from dataclasses import replace

    from calib_nb.training import OBJECTIVES, text_loss

    calls = []

    def loss(scored):
        calls.append(1)
        return text_loss(scored) * (value if len(calls) >= at else 1)

    return replace(OBJECTIVES["text"], loss=loss)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_at_the_last_good_checkpoint_and_says_so(tmp_path, monkeypatch, capsys, value):
    from calib_nb.training import OBJECTIVES

    monkeypatch.setitem(OBJECTIVES, "fails", failing(4, value))
    lm, history = train_small(tmp_path / "late", "fails")
    assert weights(lm).isfinite().all() and history[-1]["step"] == 2
    said = "the loss of update 4 is not a number: training stopped, the adapter is that after update 2"
    assert history[-1]["stopped"] == said and said in capsys.readouterr().out
    monkeypatch.setitem(OBJECTIVES, "fails", failing(1, value))
    with pytest.raises(FloatingPointError, match="update 1 is not a number, and .* no checkpoint before it. Lower"):
        train_small(tmp_path / "early", "fails")


@pytest.mark.slow
def test_a_batch_that_does_not_fit_into_memory_is_halved_and_the_training_goes_on(tmp_path, undisturbed, monkeypatch):
    import torch

    from calib_nb import training

    whole = training.score

    def small_gpu(model, batch):
        if batch["shape"][0] > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return whole(model, batch)

    monkeypatch.setattr(training, "score", small_gpu)
    lm, history = train_small(tmp_path)
    assert weights(lm) == pytest.approx(weights(undisturbed[0]), abs=1e-4)
    losses = [[h["loss"] for h in log if "loss" in h] for log in (history, undisturbed[1])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# Models that give no numbers, and memory that does not suffice


def answers(n=6):
    from calib_nb.core import Judged

    return [Judged(f"Which river {i}?", "The Rhine", i % 2 == 0, relation="river") for i in range(n)]


def read(lm, readouts, splits=("test",) * 6, asked=None):
    from calib_nb.models import TextFormat
    from calib_nb.readout import read_confidences

    fmt = TextFormat(lm.tokenizer, chat_template=False)
    return read_confidences(lm, fmt, asked or answers(), list(splits), "m", 0, readouts)


PLAIN = ("expected", "p_true", "normalized_probability", "sequence_probability")
LEARNS = ("probe", "linguistic")


def test_a_model_without_numbers_has_missing_confidences():
    from calib_nb.readout import READOUTS

    lm = small_model(small_tokenizer(False))
    for parameter in lm.model.parameters():
        parameter.data.fill_(float("nan"))
    readings = read(lm, tuple(READOUTS), ["calibration"] * 4 + ["test"] * 2)
    scored = [r for r in readings if r.readout in (*PLAIN, *LEARNS)]
    assert scored and all(r.confidence is None and r.provenance == "missing" for r in scored)
    assert {"finite" in r.extra["reason"] for r in scored if r.readout in LEARNS} == {True}


@pytest.mark.parametrize("readout", ["probe", "linguistic"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_learns_leaves_out_answers_whose_numbers_are_not_finite(monkeypatch, readout, value):
    from dataclasses import replace

    from calib_nb.readout import READOUTS

    entry, damaged = READOUTS[readout], {1, 7}

    def read_damaged(*args):
        rows = entry.read(*args)
        return [np.full_like(row, value) if i in damaged else row for i, row in enumerate(rows)]

    monkeypatch.setitem(READOUTS, readout, replace(entry, read=read_damaged))
    lm, asked = small_model(small_tokenizer(False)), answers(30)
    splits = ["calibration"] * 24 + ["test"] * 6
    found = read(lm, (readout,), splits, asked)
    assert {i for i, r in enumerate(found) if r.provenance == "missing"} == damaged
    damaged.update(range(20))
    found = read(lm, (readout,), splits[:20] + ["test"] * 10, asked)
    assert all(r.confidence is None and "finite" in r.extra["reason"] for r in found), "none is left to learn from"


def test_reading_goes_on_with_half_a_batch_where_memory_does_not_suffice(monkeypatch):
    import torch

    from calib_nb import models, readout

    lm = small_model(small_tokenizer(False))
    readouts = (*PLAIN, "verbalized", "self_consistency")
    expected = [r.confidence for r in read(lm, readouts)]
    forward, write = readout._tree_forward, models._write

    def scarce(function, place):
        def call(*args, **kwargs):
            if len(args[place]) > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(readout, "_tree_forward", scarce(forward, 1))
    monkeypatch.setattr(models, "_write", scarce(write, 1))
    found = [r.confidence for r in read(lm, readouts)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_one_text_that_does_not_fit_is_an_error_with_a_remedy():
    import torch

    from calib_nb.models import in_halves

    def never(batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match="one text alone does not fit .* smaller model"):
        in_halves(never, [1, 2, 3])


def test_no_calibrator_makes_a_confidence_of_what_is_none():
    from calib_nb.posthoc import CALIBRATORS

    rng = np.random.default_rng(0)
    confidence, correct = rng.random(60), rng.random(60) < 0.5
    for name, fit in CALIBRATORS.items():
        mapped = fit(confidence, correct)(np.array([0.3, np.nan]))
        assert np.isfinite(mapped[0]) and np.isnan(mapped[1]), name


# Whole runs


def harness(*words):
    "The last line of the kill harness: what came of it."
    command = [sys.executable, "tests/kill_harness.py", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_ten_killed_commands_end_as_if_nobody_had_killed_them():
    found = harness("--kills", 10, "--cases", "sft", "--seed", 1)
    assert found["commands"] == found["identical"] == 10 and found["kills"] >= 6, found["failures"]


@pytest.mark.slow
def test_runs_at_once_and_an_interrupted_run_end_as_if_alone():
    found = harness("--kills", 0, "--cases", "sft,dpo", "--others")
    faults = ("one folder at once", "one cache at once", "Ctrl-C")
    assert found["others"] == dict.fromkeys(faults, "identical")


@pytest.mark.long
def test_the_tenth_method_in_one_process_needs_no_more_memory_than_the_third():
    found = harness("--kills", 0, "--cases", "sft", "--memory")
    peaks = found["memory_gib"]
    assert len(peaks) == 10 and peaks[9] <= 1.1 * peaks[2], peaks
