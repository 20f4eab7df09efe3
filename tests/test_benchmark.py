"""The benchmark's table: what a row says, what a ratio is, and when `make bench` fails. Nothing is timed here."""
import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import benchmark  # noqa: E402
import measure  # noqa: E402

FIELDS = ["stage", "against", "ratio", "target", "limit", "n", "seconds", "threads", "machine"]


@pytest.fixture
def clocked(monkeypatch):
    "A clock on which work takes as many seconds as it returns."
    monkeypatch.setattr(measure, "clock", lambda work: (work(), work(), work()))


def row(ratio, stage="k-NN labels", against="whole matrix sorted", n=4000, **more):
    return {"stage": stage, "against": against, "ratio": ratio, "n": n, **more}


def test_a_ratio_is_their_time_over_ours(clocked):
    line = measure.compared("a stage", "another way", 7, lambda: 2.0, lambda: 6.0, seconds=0)
    assert line["ratio"] == 3 and (line["ours_s"], line["theirs_s"], line["n"]) == (2, 6, 7)


def test_a_part_of_the_others_work_counts_as_the_whole(clocked):
    line = measure.compared("a stage", "a loop", 7, lambda: 2.0, lambda: 1.0, seconds=0, share=20 / 2000)
    assert line["ratio"] == pytest.approx(50) and line["theirs_s"] == pytest.approx(100)


def test_twice_the_number_in_four_times_the_time_is_a_slope_of_two():
    assert measure.slope([1, 2, 4, 8], [1, 4, 16, 64]) == pytest.approx(2)


def test_a_row_has_the_fields_of_the_table_and_its_target():
    line = measure.row_of("k-NN labels", "whole matrix sorted", 10_000, 1.0, 9.0)
    made = benchmark.as_row(line, "a machine")
    assert list(made) == FIELDS
    assert made["target"] == 8 and made["ratio"] == 9 and made["seconds"] == {"ours": 1, "theirs": 9}


def test_a_row_in_units_has_a_limit_and_no_target():
    made = benchmark.as_row(measure.amount("k-NN labels, peak memory", 200_000, 1.5, "GiB"), "a machine")
    assert (made["target"], made["limit"], made["value"]) == (None, 2, 1.5)


def test_what_only_a_gpu_shows_is_said_to_be_not_measured():
    rows = benchmark.gpu_rows()
    assert {made["note"] for made in rows} == {"not measured"}
    assert all(made["ratio"] is None and made["limit"] for made in rows)


@pytest.mark.long
def test_the_gpus_stages_run_with_a_tiny_model_of_the_same_architecture():
    rows = benchmark.lines_of(["gpu.py", "--form", "smallest", "--device", "cpu"], None)
    assert [made["stage"] for made in rows[:8]] == 2 * list(benchmark.ON_A_GPU)
    assert [made["precision"] for made in rows[:8:4]] == ["nf4", "float32"]
    assert [made["value"] for made in rows[8:]] == [0, 0]  # the CPU against itself


def test_bench_fails_below_four_fifths_of_the_committed_ratio():
    committed = [row(10.0)]
    assert benchmark.too_slow([row(8.01)], committed) == []
    [sentence] = benchmark.too_slow([row(7.9)], committed)
    assert "n = 4000" in sentence and "7.90, committed 10.00" in sentence


def test_bench_compares_the_same_size_only_and_knows_what_failed():
    assert benchmark.too_slow([row(1.0, n=1000), row(1.0, against="another")], [row(10.0)]) == []
    failed = row(None, stage="stages.py", against=None, n=None, note="failed: AssertionError")
    assert benchmark.too_slow([failed], [row(10.0)]) == ["stages.py: failed: AssertionError"]


def test_the_command_writes_a_table_and_compares_with_it(tmp_path, monkeypatch, capsys):
    lines = [measure.row_of("k-NN labels", "whole matrix sorted", 10_000, 1.0, 9.0)]
    monkeypatch.setattr(benchmark, "SCRIPTS", {"whole": [["a"]], "quick": [["a"]]})
    monkeypatch.setattr(benchmark, "lines_of", lambda script, old: lines)
    monkeypatch.setattr(benchmark, "OLD", "no commit of this name")
    assert benchmark.main(["whole", "--folder", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    assert [made["stage"] for made in rows] == ["k-NN labels", *benchmark.ON_A_GPU]
    assert (tmp_path / "ratios.png").exists()
    assert benchmark.main(["quick", "--folder", str(tmp_path)]) == 0
    lines[0]["ratio"] = 7.0
    assert benchmark.main(["quick", "--folder", str(tmp_path)]) == 1
    assert "7.00, committed 9.00" in capsys.readouterr().out


def test_a_script_that_fails_leaves_its_rows_and_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text('print(\'{"stage": "a"}\', flush=True)\nraise SystemExit("out of paper")\n')
    monkeypatch.setattr(benchmark, "HERE", str(tmp_path))
    first, second = benchmark.lines_of(["broken.py"], None)
    assert first == {"stage": "a"} and second["note"] == "failed: out of paper"
    [missing] = benchmark.lines_of(["absent.py"], None)
    assert missing["note"].startswith("not measured")


def test_another_checkout_is_imported_beside_this_one():
    import calib_nb.progress as mine

    theirs = measure.Checkout(ROOT).module("progress")
    assert theirs is not mine and sys.modules["calib_nb.progress"] is mine


def test_threads_that_wait_sleep_unless_the_user_says_otherwise(monkeypatch):
    import os
    import subprocess

    def policy(**said):
        known = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | said
        code = "import calib_nb, os; print(os.environ['OMP_WAIT_POLICY'])"
        return subprocess.run([sys.executable, "-c", code], env=known, cwd=ROOT, capture_output=True, text=True).stdout

    assert policy() == "PASSIVE\n" and policy(OMP_WAIT_POLICY="ACTIVE") == "ACTIVE\n"
