"""Runs side by side: what may be compared, seeds that are one method, one family of tests, and the notebook that runs what is missing."""
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from calib_nb.inference import as_text, diagnose, holm, metric_card, paired_difference
from conftest import ROOT

from calib_nb import publish
from calib_nb import matrix as matrix_room
from calib_nb import compare
from calib_nb.core import (
    Judged,
    Reading,
    RecordError,
    UnknownName,
    read_json,
    read_records,
    write_json,
    write_jsonl,
)


def shaky(seed):
    return lambda c: np.clip(c + np.random.default_rng(seed).normal(0, 0.05, len(c)), 0, 1).round(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Three seeds of sft, one of dpo, and the baseline; the verbalized readout of dpo says nothing."
    out = tmp_path_factory.mktemp("runs")
    dpo = compare.made_up_run(out, "dpo", says=np.sqrt)
    rows = read_records(dpo / "readings.jsonl", Reading)
    write_jsonl(dpo / "readings.jsonl", [replace(r, confidence=None, provenance="missing") if r.readout == "verbalized" else r for r in rows])
    return [*(compare.made_up_run(out, "sft", s, shaky(s)) for s in (0, 1, 2)), dpo, compare.made_up_run(out, "baseline", says=lambda c: np.full(len(c), 0.9))]


@pytest.fixture(scope="module")
def runs(folders):
    return compare.load_runs(folders)


def changed(folder, path, **values):
    "A copy of a run in `path` with values of its manifest replaced."
    for name in ("readings.jsonl", "baseline_readings.jsonl"):
        write_jsonl(path / name, read_records(folder / name, Reading))
    write_jsonl(path / "judged.jsonl", read_records(folder / "judged.jsonl", Judged))
    write_json(path / "manifest.json", {**read_json(folder / "manifest.json"), **values})
    return path


def test_what_is_no_finished_run_is_refused(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        compare.load_runs([folders[0], "nowhere"])
    with pytest.raises(ValueError, match="not a run's folder, there is no manifest.json"):
        compare.load_runs([tmp_path])
    with pytest.raises(ValueError, match="unfinished: the run is not complete .done: baseline readings, readings, training.* goes on where it stopped"):
        compare.load_runs([changed(folders[0], tmp_path / "unfinished", complete=False)])
    with pytest.raises(ValueError, match="no runs to compare"):
        compare.load_runs([])


def test_a_bad_line_is_named(folders, tmp_path):
    folder = changed(folders[0], tmp_path / "bad")
    with open(folder / "readings.jsonl", "a") as f:
        f.write('{"id": "q"}\n')
    with pytest.raises(RecordError, match=r"bad/readings.jsonl:801: field 'question' is missing"):
        compare.load_runs([folder])
    (folder / "readings.jsonl").unlink()
    with pytest.raises(RecordError, match="readings.jsonl: no such file"):
        compare.load_runs([folder])


@pytest.mark.parametrize("name, value", [("split_seed", 7), ("dataset", "simpleqa"), ("model", "other"), ("quantization", "nf4"), ("n_train", 30)])
def test_runs_with_other_questions_or_models_are_refused(folders, tmp_path, name, value):
    other = changed(folders[3], tmp_path / "other", parameters={**read_json(folders[3] / "manifest.json")["parameters"], name: value})
    with pytest.raises(ValueError, match=f"different '{name}' cannot be compared: .*sft-0-.* has .*other has {value!r}"):
        compare.load_runs([folders[0], other])


def test_another_training_accuracy_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="accuracy on the training questions differs.*0.3 in .*0.4 in"):
        compare.load_runs([folders[0], changed(folders[3], tmp_path / "other", data={"accuracy": {"train": 0.4}})])


@pytest.mark.parametrize("file", ["readings", "baseline_readings"])
@pytest.mark.parametrize("change, message", [
    (lambda r: replace(r, is_correct=not r.is_correct), "'is_correct' of test question 'q00003' is (True|False) in the first, (True|False) in the second"),
    (lambda r: replace(r, answer="b"), "'answer' of test question 'q00003' is 'a' in the first, 'b' in the second"),
    (lambda r: replace(r, id="new"), "test question 'new', expected readout, is only in .*other"),
    (None, "test question 'q00003', expected readout, is only in .*sft-0-")])
def test_other_test_answers_are_refused(folders, tmp_path, file, change, message):
    other = changed(folders[3], tmp_path / "other")
    rows = read_records(other / f"{file}.jsonl", Reading)
    at = next(i for i, r in enumerate(rows) if r.id == "q00003" and r.readout == "expected")
    rows[at:at + 1] = [change(rows[at])] if change else []
    write_jsonl(other / f"{file}.jsonl", rows)
    with pytest.raises(ValueError, match=f"sft-0-.*readings.jsonl and .*other/{file}.jsonl cannot be compared question by question: {message}"):
        compare.load_runs([folders[0], other])


def test_calibration_questions_may_differ(folders, tmp_path):
    other = changed(folders[3], tmp_path / "other")
    rows = read_records(other / "readings.jsonl", Reading)
    write_jsonl(other / "readings.jsonl", rows + [replace(rows[0], id="c", split="calibration", question="calibration?")])
    runs = compare.load_runs([folders[0], other])
    assert {r.split for rows in compare.sides(runs, "expected").values() for r in rows} == {"test"}


def test_one_method_and_seed_twice_is_refused_but_not_with_other_options(folders, tmp_path):
    copy = changed(folders[3], tmp_path / "copy")
    with pytest.raises(ValueError, match="dpo with seed 0 is given twice: .*dpo-0-.* and .*copy"):
        compare.load_runs([folders[3], copy])
    other = changed(folders[3], tmp_path / "other", parameters={**read_json(copy / "manifest.json")["parameters"], "options": {"beta": 0.5}, "preset": "paper"})
    runs = compare.load_runs([folders[3], other])
    assert [r.label for r in runs] == ["dpo (preset default)", "dpo (beta 0.5, preset paper)"]
    assert len(set(compare.label_colours(runs).values())) == 3 + 1


def test_seeds_of_a_method_are_one_row_averaged(runs):
    shown = compare.method_table(runs).loc[("sft", "expected")]
    assert (shown["seeds"], shown["n"]) == ("3", "300")
    single = [metric_card([r for r in compare.sides(runs, "expected")["sft"] if r.seed == s], 0.3, n_resamples=20)["brier_skill_score"].value for s in (0, 1, 2)]
    assert float(shown["Brier skill"].split()[0]) == pytest.approx(np.mean(single), abs=5e-4) and len(set(single)) == 3


@pytest.mark.parametrize("readout", ["verbalized", "expected"])
def test_the_table_shows_the_values_of_the_metric_cards(runs, readout):
    table = compare.method_table(runs)
    for label, rows in compare.sides(runs, readout).items():
        card = metric_card(rows, 0.3)
        shown = table.loc[(label, readout)]
        assert [shown[compare.METRICS[k].label] for k in compare.TABLE] == [as_text(card[k]) for k in compare.TABLE]
        assert (shown["parsed"], shown["diagnosis"]) == (f"{card['brier_score'].parsed:.1%}", diagnose(rows, 0.3)[0].code)


@pytest.mark.slow
def test_a_method_without_confidences_has_a_row_that_says_so(runs):
    shown = compare.method_table(runs).loc[("dpo", "verbalized")]
    assert (shown["parsed"], shown["diagnosis"]) == ("0.0%", "missing") and shown["Brier skill"].startswith("undefined")
    row = compare.differences(runs, "verbalized", "auroc", n_resamples=50).set_index("method").loc["dpo"]
    assert np.isnan(row["difference"]) and row["note"] == "one of them states no confidence at all"
    assert any("Not tested, too few confidences or answers: dpo" in line for line in compare.conclusions(runs))


def test_rows_are_sorted_by_brier_skill_and_the_undefined_are_last(runs):
    rows = compare.method_table(runs).index.tolist()
    assert [r for r in rows if r[0] in ("sft", "dpo", "baseline") and r[1] == "verbalized"] == [("sft", "verbalized"), ("baseline", "verbalized"), ("dpo", "verbalized")]
    assert rows[-1] == ("dpo", "verbalized") and rows.index(("free: constant", "free")) < rows.index(("free: half", "free"))


def test_a_high_score_on_few_confidences_does_not_rank_first(tmp_path):
    runs = compare.load_runs([compare.made_up_run(tmp_path, "sft", says=lambda c: np.sqrt(c), readouts=("expected",))])
    rows = runs[0].readings
    lucky = [replace(r, confidence=float(r.is_correct)) if r.id < "q00030" else replace(r, confidence=None, provenance="missing") for r in rows]
    both = [runs[0], replace(runs[0], label="lucky", readings=lucky)]
    table = compare.method_table(both).xs("expected", level="readout")
    assert float(table.loc["lucky", "Brier skill"].split()[0]) == 1 > float(table.loc["sft", "Brier skill"].split()[0])
    assert table.index.tolist()[-1] == "lucky" and table.loc["lucky", "diagnosis"] == "missing"


@pytest.mark.slow
def test_the_baseline_is_there_without_a_run_of_its_own(folders):
    runs = compare.load_runs(folders[:1])
    assert list(compare.sides(runs, "expected")) == ["baseline", "sft"]
    with_run = compare.load_runs([folders[0], folders[4]])
    tables = [compare.method_table(r).drop(columns="evaluation time (s)").sort_index() for r in (runs, with_run)]
    assert tables[0].equals(tables[1])
    assert compare.seconds_of_label(with_run, "baseline") == (0.0, 20.0) and np.isnan(compare.seconds_of_label(runs, "baseline")[1])


def test_differences_are_paired_differences(runs, folders):
    table = compare.differences(runs, n_resamples=300).set_index(["readout", "metric", "method"])
    rows = [r for f in folders[:3] for r in read_records(f / "readings.jsonl", Reading) if (r.readout, r.split) == ("expected", "test")]
    base = [replace(r, seed=s) for s in (0, 1, 2) for r in read_records(folders[0] / "baseline_readings.jsonl", Reading) if (r.readout, r.split) == ("expected", "test")]
    d = paired_difference(rows, base, "brier_skill_score", 0.3, 300)
    found = table.loc[("expected", "brier_skill_score", "sft")]
    assert (found["difference"], found["low"], found["high"], found["p"], found["n"]) == (d.value, d.low, d.high, d.p_value, 300)


def test_all_rows_of_a_table_are_one_family(runs):
    whole, part = compare.differences(runs, n_resamples=200), compare.differences(runs, "expected", "auroc", n_resamples=200)
    assert len(whole) == 2 * 2 * 2 and len(part) == 2
    for table in (whole, part):
        np.testing.assert_array_equal(table["p (Holm)"], holm(table["p"].to_numpy()))
    defined = whole.p.notna().sum()
    assert whole["p (Holm)"].min() == pytest.approx(whole.p.min() * defined) and defined == 6


def test_calibration_errors_are_compared_by_swapping(runs):
    row = compare.differences(runs, "expected", "expected_calibration_error", n_resamples=200).set_index("method").loc["sft"]
    assert row["test"] == "swap" and row["p"] < 0.05 and np.isnan(row["low"])


def test_a_run_is_compared_with_the_baseline_on_its_own_grid(tmp_path):
    fine = compare.made_up_run(tmp_path, "performance_sft", says=lambda c: c.round(2), base_says=lambda c: c.round(2))
    runs = compare.load_runs([fine, compare.made_up_run(tmp_path, "baseline", says=lambda c: c.round(1))])
    assert (compare.differences(runs, n_resamples=50).difference == 0).all()


def test_wrong_names_are_errors(runs):
    for call in (lambda: compare.differences(runs, "expectd"), lambda: compare.overlay(runs, "expectd")):
        with pytest.raises(UnknownName, match="unknown readout 'expectd'. Did you mean 'expected'"):
            call()
    with pytest.raises(UnknownName, match="unknown metric 'aurco'. Did you mean"):
        compare.differences(runs, metric="aurco")


@pytest.mark.parametrize("readout", ["verbalized", "expected"])
def test_the_figure_has_a_diagram_a_method_in_its_colour_and_two_forests(runs, readout):
    fig = compare.overlay(runs, readout)
    drawn = [ax for ax in fig.axes if ax.axison]
    titles = [ax.get_title(loc="left") for ax in drawn]
    assert titles == ["sft (3 seeds)", "dpo", "baseline", "", ""]
    assert [t.get_text() for t in drawn[3].get_yticklabels()] == [*(free := [compare.PLATT, *(compare.free_label(k) for k in reversed(compare.FREE_BASELINES))]), "baseline", "dpo", "sft"] and len(free) == 6
    assert "Brier skill" in drawn[3].get_xlabel() and "AUROC" in drawn[4].get_xlabel()
    from matplotlib.colors import to_rgb
    assert tuple(drawn[0].collections[1].get_facecolor()[0][:3]) == to_rgb(compare.method_colour("sft"))
    fig.canvas.draw()
    compare.plt.close(fig)


def test_sentences_agree_with_the_tables(runs):
    lines = compare.conclusions(runs)
    table = compare.differences(runs).set_index(["readout", "metric", "method"])
    p = table.loc[("expected", "brier_skill_score", "sft"), "p (Holm)"]
    assert lines[0].startswith("3 methods on 300 test answers of made-up to made-up; 29.0% are right")
    assert any(line.startswith("expected, Brier skill, difference to the baseline. Higher: sft") and f"adjusted p = {p:.3f}" in line for line in lines)
    assert lines[1].startswith("Trained with one seed only: dpo.")
    assert not any("versions of the code" in line or "too narrow" in line for line in lines)
    other = [replace(runs[0], manifest={**runs[0].manifest, "code": "new"}), *runs[1:]]
    assert any("versions of the code" in line for line in compare.opening(other))


def test_noise_is_no_difference(tmp_path):
    random = lambda seed: lambda c: np.random.default_rng(seed).random(len(c))
    runs = compare.load_runs([compare.made_up_run(tmp_path, m, says=random(i), base_says=random(9)) for i, m in enumerate(("sft", "dpo", "implicit"))])
    assert compare.difference_sentences(compare.differences(runs, "expected", "auroc")) == ["expected, AUROC, difference to the baseline. No visible difference: sft, dpo, implicit."]


def test_few_subjects_are_said_to_be_few(tmp_path):
    runs = compare.load_runs([compare.made_up_run(tmp_path, "sft", n=29)])
    assert any(line.startswith("The questions are about 29 subjects only") for line in compare.opening(runs))


def test_only_the_baseline(folders):
    runs = compare.load_runs(folders[4:])
    assert compare.differences(runs).empty and set(compare.method_table(runs).index.get_level_values("method")) == {"baseline", compare.PLATT, *map(compare.free_label, compare.FREE_BASELINES)}
    compare.plt.close(compare.overlay(runs, "expected"))
    assert len(compare.conclusions(runs)) == 5


@pytest.mark.slow
def test_what_is_kept_can_be_read_again(runs, tmp_path):
    folder = Path(publish.keep_comparison(runs, tmp_path).split(":")[0])
    table = pd.read_csv(folder / "methods.csv", index_col=[0, 1], dtype=str, keep_default_na=False)
    assert table.equals(compare.method_table(runs).astype(str))
    assert list(read_json(folder / "runs.json")) == [r.folder.name for r in runs] and (folder / "level.png").stat().st_size > 10_000
    rows = (folder / "methods.md").read_text().splitlines()
    assert len(rows) == 2 + len(table) and all(row.count(" | ") == table.shape[1] + 1 for row in rows)
    readings = pd.read_csv(folder / "readings.csv.gz")
    cell = readings.query("method == 'sft' and readout == 'expected' and split == 'test' and seed == 1")
    assert np.allclose(cell.confidence, [r.confidence for r in runs[1].readings if r.readout == "expected" and r.split == "test"])
    assert {"free: knn", compare.PLATT, "baseline"} <= set(readings.method)


@pytest.mark.slow
def test_a_comparison_is_published_only_when_asked(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    publish.keep_comparison(runs, "runs")
    assert not (tmp_path / "figures").exists()
    publish.keep_comparison(runs, "runs", "mine")
    kept = next((tmp_path / "runs").iterdir())
    assert all((tmp_path / place / f"mine_{name}").read_bytes() == (kept / name).read_bytes() for place, name in (("figures", "level.png"), ("figures/data", "methods.csv"), ("figures/data", "readings.csv.gz")))
    assert {"mine_level.png", "mine_level.svg"} <= {f.name for f in (tmp_path / "figures").iterdir()} and (tmp_path / "figures/data/mine_methods.csv").exists()


def test_free_baselines_use_training_answers_only_and_say_when_they_cannot_be_made(runs):
    free = compare.free_sides(runs, "expected")
    assert {len(rows) for rows in free.values()} == {300} and {r.split for rows in free.values() for r in rows} == {"test"}
    turned = replace(runs[0], judged=[replace(j, is_correct=not j.is_correct) if j.extra["split"] == "test" else j for j in runs[0].judged])
    again = compare.free_sides([turned, *runs[1:]], "expected")
    assert all([r.confidence for r in free[k]] == [r.confidence for r in again[k]] for k in free)
    one_class = replace(runs[0], judged=[replace(j, is_correct=True) if j.extra["split"] == "train" else j for j in runs[0].judged])
    rows = compare.free_sides([one_class, *runs[1:]], "expected")["free: logistic"]
    assert all(r.provenance == "missing" and "needs right and wrong" in r.extra["reason"] for r in rows)


def test_data_complexity_and_the_original(runs):
    assert compare.data_complexity(runs, "sft") == "300 texts, 2 labels" and compare.data_complexity(runs, "baseline") == ""
    pairs = [replace(runs[3], rows=[{"label": 0.9, "rejected_label": 0.1}] * 7), replace(runs[0], rows=[{"id": "a"}] * 5)]
    assert compare.data_complexity(pairs, "dpo") == "7 pairs" and compare.data_complexity(pairs, "sft") == "5 answers, no label"
    beside = compare.beside_original(runs)
    assert beside.loc["dpo", "published RMS error"] == "0.3060" and beside.loc["baseline", "published RMS error"] == "0.3888" and beside.loc["dpo", "verbalized parsed"] == "0.0%"


def test_parameters_of_the_notebook_are_those_of_a_run():
    from calib_nb.experiment import Parameters, comparison_plan
    cells = nbformat.read(ROOT / "nbs/compare.ipynb", 4).cells
    names = {}
    exec(next(c.source for c in cells if "parameters" in c.metadata.get("tags", [])), names)
    given = {k: v for k, v in names.items() if not k.startswith("__")}
    expected = {k: v for k, v in asdict(Parameters()).items() if k not in ("method", "seed", "protocol", "original")}
    assert given == {**expected, "methods": "baseline,sft,performance_sft,dpo,implicit", "seeds": "0,1,2", "publish": ""}
    assert [(p["method"], p["seed"]) for p in comparison_plan(given)] == [("baseline", 0), *((m, s) for m in given["methods"].split(",")[1:] for s in (0, 1, 2))]
    with pytest.raises(UnknownName, match="unknown parameter 'metods'. Did you mean 'methods'?"):
        comparison_plan({**given, "metods": "sft"})


@pytest.mark.parametrize("values, message", [
    (dict(methods=""), "'methods' names none"), (dict(methods="sft,stf"), "unknown method 'stf'. Did you mean 'sft'"), (dict(seeds="0,a"), "'seeds' must be whole numbers"),
    (dict(seeds=""), "'seeds' must be whole numbers"), (dict(seeds=0.5), "'seeds' must be whole numbers"), (dict(options={"dpo": {"beta": 1}}), "options are given for 'dpo'"),
    (dict(options={"sft": {"beta": 1}}), "unknown option of method 'sft' 'beta'"), (dict(preset="papr"), "Did you mean 'paper'"), (dict(n_test=0), "at least 1")])
def test_a_plan_is_checked_before_anything_runs(values, message):
    from calib_nb.experiment import comparison_plan
    with pytest.raises(ValueError, match=message):
        comparison_plan({"methods": "baseline,sft", "seeds": "0", **values})


@pytest.mark.slow
def test_the_notebook_runs_what_is_missing_and_shows_the_comparison(tmp_path):
    few = dict(methods="baseline,sft", seeds=0, n_train=12, n_calibration=6, n_test=16, out=tmp_path)
    words = [w for k, v in few.items() for w in ("-p", k, str(v))]
    papermill = lambda: subprocess.run([Path(sys.executable).parent / "papermill", "nbs/compare.ipynb", str(tmp_path / "compare.ipynb"), *words, "--no-progress-bar"],
                                       cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    done = papermill()
    assert done.returncode == 0, done.stderr[-3000:]
    found = sorted(f.name.split("-")[3] for f in tmp_path.iterdir() if (f / "manifest.json").exists())
    assert found == ["baseline", "sft"]
    shown = json.dumps([c.get("outputs", []) for c in nbformat.read(tmp_path / "compare.ipynb", 4).cells])
    assert all(word in shown for word in ("Brier skill", "AUROC stratified by relation", "p (Holm)", "difference to the baseline", "image/png", "compare-"))
    times = lambda: {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file() and re.search("-(baseline|sft)-", f.parent.name)}
    before = times()
    assert papermill().returncode == 0 and times() == before and len(before) > 8, "finished runs are left as they are"


def test_the_matrix_leaves_cells_without_confidences_empty_and_chooses_on_its_split():
    rows = [*compare.made_up_readings(split="calibration", method="sft", readout="expected"), *compare.made_up_readings(split="calibration", method="dpo", readout="expected", says=np.sqrt),
            *compare.made_up_readings(split="calibration", method="dpo", missing=0.2), *compare.made_up_readings(split="test", method="dpo", readout="expected", says=lambda c: 1.0 * (c > 0.3))]
    cells = matrix_room.by_cell(rows)
    assert {r.split for part in cells.values() for r in part} == {"calibration"} and len(cells) == 3
    table = matrix_room.matrix(cells, "brier_skill_score", 0.3)
    assert table.loc["sft", "expected"] == metric_card(cells["sft", "expected"], 0.3)["brier_skill_score"].value and np.isnan(table.loc["dpo", "verbalized"]) and np.isnan(table.loc["sft", "verbalized"])
    assert matrix_room.best_cell(cells, 0.3) == ("sft", "expected")
    fig = matrix_room.matrix_figure(cells, 0.3)
    assert [ax.get_title(loc="left") for ax in fig.axes[:2]] == ["Brier skill", "Brier skill, recalibrated"] and [t.get_text() for t in fig.axes[3].get_xticklabels()] == ["expected", "verbalized"]
    compare.plt.close(fig)


def test_a_recalibrated_reading_never_saw_its_group_nor_its_label():
    rows = compare.made_up_readings(n=100, split="calibration", says=lambda c: c**3)
    found = matrix_room.cross_recalibrated(rows, "platt")
    assert [r.id for r in found] == [r.id for r in rows] and {r.readout for r in found} == {"verbalized+platt"}
    lied = [replace(r, is_correct=not r.is_correct) if (r.group or r.question) == (rows[7].group or rows[7].question) else r for r in rows]
    assert matrix_room.cross_recalibrated(lied, "platt")[7].confidence == found[7].confidence and matrix_room.cross_recalibrated(lied, "platt") != found
    cells = matrix_room.recalibrated({("sft", "verbalized"): rows, ("dpo", "verbalized"): [replace(r, is_correct=False) for r in rows]})
    assert cells["sft", "verbalized+platt"] == found and all(r.confidence is None and "right" in r.extra["reason"] for r in cells["dpo", "verbalized+platt"])


def test_on_the_test_split_each_seed_is_recalibrated_by_its_own_calibration_split():
    rows = [replace(r, seed=seed) for seed, says in ((0, np.sqrt), (1, lambda c: c**3)) for split in ("calibration", "test") for r in compare.made_up_readings(n=100, says=says, split=split)]
    assert matrix_room.on_test(rows, "verbalized") == [r for r in rows if r.split == "test"]
    alone = matrix_room.on_test([r for r in rows if r.seed == 1], "verbalized+platt")
    assert [r for r in matrix_room.on_test(rows, "verbalized+platt") if r.seed == 1] == alone and len(alone) == 100 and {r.split for r in alone} == {"test"}


def test_a_rival_of_one_seed_is_paired_with_every_seed():
    rival = compare.made_up_readings(says=np.sqrt, method="knn", readout="free")
    seeds = [replace(r, seed=s) for s in (0, 1) for r in compare.made_up_readings(method="sft")]
    table = matrix_room.against({"two": seeds, "same": rival}, rival, 0.3, n_resamples=200).set_index(["method", "metric"])
    d = paired_difference(compare.made_up_readings(method="sft"), rival, "brier_skill_score", 0.3, 200, 0)
    assert table.loc[("two", "Brier skill"), "difference"] == pytest.approx(d.value) and table.loc[("same", "Brier skill"), "difference"] == 0
    np.testing.assert_array_equal(table["p (Holm)"], holm(table["p"].to_numpy(float)))


def test_the_matrix_is_kept(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    rows = compare.made_up_readings(split="calibration", method="sft", readout="expected")
    tested = {("sft", "expected"): compare.made_up_readings(method="sft", readout="expected")}
    matrix_room.keep_matrix(rows, tested, compare.made_up_readings(method="knn", readout="free"), runs, "runs", "m")
    values = pd.read_csv(tmp_path / "figures/data/m_values.csv", index_col=[0, 1])
    assert values.loc[("auroc", "sft"), "expected"] == pytest.approx(metric_card(rows, 0.3)["auroc"].value)
    readings = pd.read_csv(tmp_path / "figures/data/m_readings.csv.gz")
    assert readings.groupby(["method", "split"]).size().to_dict() == {("sft", "calibration"): 300, ("sft", "test"): 300, ("knn", "test"): 300}
    assert (tmp_path / "figures/m_heatmaps.png").exists()


@pytest.mark.slow
def test_published_readings_come_back_as_they_were(runs, tmp_path):
    publish.keep_files(tmp_path, {}, {}, publish.readings_frame(runs))
    back, sets = publish.published_readings(tmp_path / "readings.csv.gz"), compare.all_sides(runs)
    assert back.keys() == sets.keys()
    for key, rows in sets.items():
        assert [(r.id, r.seed, r.confidence, r.is_correct, r.relation, r.provenance) for r in back[key]] == [(r.id, r.seed, r.confidence, r.is_correct, r.relation, r.provenance) for r in rows]
    assert {r.split for rows in publish.published_readings(tmp_path / "readings.csv.gz", "calibration").values() for r in rows} == {"calibration"}
