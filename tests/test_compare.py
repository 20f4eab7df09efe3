"""Runs side by side: what may be compared, seeds that are one method, one family of tests, and the notebook."""
import copy
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import FEW, ROOT
from made_up_runs import always_sure, made_up_folders
from matplotlib.colors import to_rgb

from calib_nb import compare
from calib_nb.compare import Row, load_runs, made_up_run
from calib_nb.core import (
    Reading,
    RecordError,
    UnknownName,
    read_json,
    read_records,
    write_json,
    write_jsonl,
)
from calib_nb.inference import as_text, diagnose, holm, metric_card, paired_difference
from calib_nb.plots import method_colour
from calib_nb.posthoc import BASELINES
from calib_nb.resampling import METRICS, made_up_readings

SFT, DPO, UNTRAINED = Row("sft", "expected"), Row("dpo", "expected"), Row("baseline", "expected")
LOGISTIC = Row("logistic", "question_only")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return made_up_folders(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def runs(folders):
    return load_runs(folders)


@pytest.fixture(scope="module")
def table(runs):
    "The table of all runs: its noise floors take seconds, so it is made once."
    return compare.method_table(runs)


def changed(folder, path, **values):
    "A copy of a run in `path` with values of its manifest replaced."
    shutil.copytree(folder, path)
    write_json(path / "manifest.json", {**read_json(folder / "manifest.json"), **values})
    return path


def with_parameters(folder, path, **parameters):
    "A copy of a run in `path` with other parameters."
    manifest = read_json(folder / "manifest.json")
    return changed(folder, path, parameters={**manifest["parameters"], **parameters})


def altered(run, **values):
    "The run with other values than those of its folder."
    other = copy.copy(run)
    vars(other).update(values)
    return other


def confidences(readings):
    return [r.confidence for r in readings]


def test_what_is_no_finished_run_is_refused(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_runs([folders[0], "nowhere"])
    with pytest.raises(ValueError, match="not a run's folder, there is no manifest.json"):
        load_runs([tmp_path])
    done = "done: baseline_readings, labels, training, readings.* goes on where it stopped"
    with pytest.raises(ValueError, match=f"unfinished: the run is not complete .{done}"):
        load_runs([changed(folders[0], tmp_path / "unfinished", complete=False)])
    with pytest.raises(ValueError, match="no runs to compare"):
        load_runs([])


def test_a_run_of_another_version_is_refused(folders, tmp_path):
    said = "other: this run has schema 1, .* reads schema 2, in which 'level' is 'expected'"
    with pytest.raises(ValueError, match=said):
        load_runs([changed(folders[0], tmp_path / "other", schema=1)])


def test_a_made_up_run_is_a_finished_run(runs):
    assert all(run.finished for run in runs)


def test_a_bad_line_is_named(folders, tmp_path):
    folder = changed(folders[0], tmp_path / "bad")
    with open(folder / "readings.jsonl", "a") as f:
        f.write('{"id": "q"}\n')
    with pytest.raises(RecordError, match=r"bad/readings.jsonl:801: field 'question' is missing"):
        load_runs([folder])
    (folder / "readings.jsonl").unlink()
    with pytest.raises(RecordError, match="readings.jsonl: no such file"):
        load_runs([folder])


OTHER_VALUES = [
    ("split_seed", 7),
    ("dataset", "simpleqa"),
    ("model", "other"),
    ("quantization", "nf4"),
    ("n_train", 30),
]


@pytest.mark.parametrize("name, value", OTHER_VALUES)
def test_runs_with_other_questions_or_models_are_refused(folders, tmp_path, name, value):
    other = with_parameters(folders[3], tmp_path / "other", **{name: value})
    said = f"different '{name}' cannot be compared: .*sft-0-.* has .*other has {value!r}"
    with pytest.raises(ValueError, match=said):
        load_runs([folders[0], other])


def test_another_training_accuracy_is_refused(folders, tmp_path):
    other = changed(folders[3], tmp_path / "other", data={"accuracy": {"train": 0.4}})
    with pytest.raises(ValueError, match="accuracy on the training questions differs.*0.3 in .*0.4 in"):
        load_runs([folders[0], other])


def turned(reading):
    return replace(reading, is_correct=not reading.is_correct)


OTHER_ANSWERS = [
    (
        turned,
        "'is_correct' of test question 'q00003' is (True|False) in the first, (True|False) in the second",
    ),
    (
        lambda r: replace(r, answer="b"),
        "'answer' of test question 'q00003' is 'a' in the first, 'b' in the second",
    ),
    (
        lambda r: replace(r, id="new"),
        "test question 'new', expected readout, is only in .*other",
    ),
    (
        None,
        "test question 'q00003', expected readout, is only in .*sft-0-",
    ),
]


@pytest.mark.parametrize("file", ["readings", "baseline_readings"])
@pytest.mark.parametrize("change, message", OTHER_ANSWERS)
def test_other_test_answers_are_refused(folders, tmp_path, file, change, message):
    other = changed(folders[3], tmp_path / "other")
    rows = read_records(other / f"{file}.jsonl", Reading)
    at = next(i for i, r in enumerate(rows) if (r.id, r.readout) == ("q00003", "expected"))
    rows[at:at + 1] = [change(rows[at])] if change else []
    write_jsonl(other / f"{file}.jsonl", rows)
    files = f"sft-0-.*readings.jsonl and .*other/{file}.jsonl"
    with pytest.raises(ValueError, match=f"{files} cannot be compared question by question: {message}"):
        load_runs([folders[0], other])


def test_calibration_questions_may_differ(folders, tmp_path):
    other = changed(folders[3], tmp_path / "other")
    rows = read_records(other / "readings.jsonl", Reading)
    new = replace(rows[0], id="c", split="calibration", question="calibration?")
    write_jsonl(other / "readings.jsonl", [*rows, new])
    sets = compare.test_readings(load_runs([folders[0], other]), "expected")
    assert {r.split for rows in sets.values() for r in rows} == {"test"}


def test_one_method_and_seed_twice_is_refused(folders, tmp_path):
    copied = changed(folders[3], tmp_path / "copy")
    with pytest.raises(ValueError, match="dpo with seed 0 is given twice: .*dpo-0-.* and .*copy"):
        load_runs([folders[3], copied])


def test_one_method_with_other_options_is_another_row(folders, tmp_path):
    other = with_parameters(folders[3], tmp_path / "other", options={"beta": 0.5}, preset="paper")
    runs = load_runs([folders[3], other])
    assert [r.label for r in runs] == ["dpo (preset default)", "dpo (beta 0.5, preset paper)"]
    colours = compare._colours(*compare._parted(compare.table_rows(runs), "expected"))
    assert len(set(colours.values())) == 3 + 1
    assert colours[Row("dpo (preset default)", "expected")] == method_colour("dpo")


def test_a_peer_that_read_the_same_answers_stands_beside_the_model(folders, tmp_path):
    peer = with_parameters(folders[3], tmp_path / "peer", model="maker/other", judged="judged.jsonl")
    runs = load_runs([folders[3], peer])
    assert [run.label for run in runs] == ["dpo", "dpo (peer other)"]
    rows = compare.test_readings(runs, "expected")
    assert [row.method for row in rows] == ["baseline", "baseline (peer other)", "dpo", "dpo (peer other)"]
    assert not (set(compare.test_readings(runs[:1], "expected")) - set(rows)), "what stands there without it"
    assert list(compare.differences(runs, "expected", "auroc").method) == ["dpo", "dpo (peer other)"]


def test_trainings_on_more_unlabelled_questions_are_another_row(folders, tmp_path):
    more = [with_parameters(folders[3], tmp_path / str(n), n_unlabelled=n) for n in (100, 300)]
    labels = [run.label for run in load_runs([folders[3], *more])]
    assert labels == ["dpo", "dpo (n_unlabelled 100)", "dpo (n_unlabelled 300)"]


def test_readings_are_grouped_by_what_they_are():
    sft = made_up_readings(3, method="sft", readout="expected")
    mended = [replace(r, calibrator="platt") for r in sft]
    rows = compare.by_row([sft[0], *mended, *sft[1:]])
    assert rows == {("sft", "expected", ""): sft, ("sft", "expected", "platt"): mended}
    assert [row.words for row in rows] == ["sft, expected", "sft, expected, platt"]
    assert UNTRAINED.words == "untrained, expected"
    assert LOGISTIC.words == "logistic on questions"


def test_seeds_of_a_method_are_one_row_averaged(runs, table):
    shown = table.loc[SFT]
    assert (shown["seeds"], shown["n"]) == ("3", "300")
    readings = compare.test_readings(runs, "expected")[SFT]
    single = []
    for seed in (0, 1, 2):
        card = metric_card([r for r in readings if r.seed == seed], 0.3, names=["brier_skill_score"])
        single.append(card["brier_skill_score"].value)
    assert float(shown["Brier skill"].split()[0]) == pytest.approx(np.mean(single), abs=5e-4)
    assert len(set(single)) == 3


@pytest.mark.parametrize("readout", ["verbalized", "expected"])
def test_the_table_shows_the_values_of_the_metric_cards(runs, table, readout):
    for row, readings in compare.test_readings(runs, readout).items():
        card, shown = metric_card(readings, 0.3), table.loc[row]
        for name in compare._TABLE_METRICS:
            digits = 1 if name == "distinct_values" else 3
            assert shown[METRICS[name].label].replace("\u00a0", " ") == as_text(card[name], digits)
        assert shown["parsed"] == f"{card['brier_score'].parsed:.1%}"
        assert shown["diagnosis"] == diagnose(readings, 0.3)[0].code


@pytest.mark.slow
def test_a_method_without_confidences_has_a_row_that_says_so(runs, table):
    shown = table.loc[Row("dpo", "verbalized")]
    assert (shown["parsed"], shown["diagnosis"]) == ("0.0%", "missing")
    assert shown["Brier skill"].startswith("undefined")
    row = compare.differences(runs, "verbalized", "auroc", n_resamples=50).set_index("method").loc["dpo"]
    assert np.isnan(row["difference"]) and row["note"] == "one of them states no confidence at all"
    said = "Not tested, too few confidences or answers: dpo"
    assert any(said in line for line in compare.conclusions(runs))


def test_a_value_keeps_its_interval_on_its_line_and_the_diagnosis_stands_before_it(table):
    assert table.columns[:4].tolist() == ["seeds", "n", "diagnosis", "parsed"]
    scores = table.loc[SFT, ["Brier skill", "Brier skill - baseline", "smooth ECE"]]
    assert scores.str.contains("\u00a0").all() and not scores.str.contains(" ").any()
    assert table.loc[Row("dpo", "verbalized"), "Brier skill"].startswith("undefined: ")
    assert not any("time" in column for column in table)


def test_what_the_eye_sees_has_the_diagnosis_in_words_and_the_same_bytes_each_time(table):
    shown = [compare.styled(table).to_html() for _ in range(2)]
    assert shown[0] == shown[1] and "missing: too few confidences" in shown[0]
    assert table.loc[Row("dpo", "verbalized"), "diagnosis"] == "missing"


def test_times_are_of_labels_and_training_and_means_over_seeds(runs):
    costs = compare.method_costs(runs)
    assert costs.index.tolist() == ["baseline", "sft", "dpo"]
    times = ["training time (s)", "evaluation time (s)"]
    assert costs.loc["sft", times].tolist() == ["100", "20"] and costs.loc["baseline", times].tolist() == ["0", "20"]
    stages = {"labels": {"seconds": 30.0}, "training": {"seconds": 100.0}, "readings": {"seconds": 5.0}}
    slow = altered(runs[0], manifest={**runs[0].manifest, "stages": stages})
    assert compare._seconds_of([slow, runs[1]], "sft") == (115.0, 12.5)


def test_rows_are_sorted_by_brier_skill_and_the_undefined_are_last(table):
    rows = table.index.tolist()
    by_text = [row for row in rows if row[1] == "verbalized" and not row[2]]
    assert [row[0] for row in by_text] == ["sft", "baseline", "dpo"]
    assert rows[-1] == Row("dpo", "verbalized")
    assert rows.index(Row("training_accuracy", "constant")) < rows.index(Row("half", "constant"))


def test_a_high_score_on_few_confidences_does_not_rank_first(tmp_path):
    run, = load_runs([made_up_run(tmp_path, "sft", says=np.sqrt, readouts=("expected",))])
    few = [replace(r, confidence=float(r.is_correct)) for r in run.readings if r.id < "q00030"]
    rest = [replace(r, confidence=None, provenance="missing") for r in run.readings if r.id >= "q00030"]
    table = compare.method_table([run, altered(run, label="lucky", readings=few + rest)])
    lucky, skill = table.loc[Row("lucky", "expected")], table["Brier skill"].str.split().str[0]
    assert float(skill[Row("lucky", "expected")]) == 1 > float(skill[SFT])
    assert table.index.tolist()[-1] == Row("lucky", "expected") and lucky["diagnosis"] == "missing"


@pytest.mark.slow
def test_the_baseline_is_there_without_a_run_of_its_own(folders):
    runs, with_run = load_runs(folders[:1]), load_runs([folders[0], folders[4]])
    assert list(compare.test_readings(runs, "expected")) == [UNTRAINED, SFT]
    one, other = (compare.method_table(r).sort_index() for r in (runs, with_run))
    assert one.equals(other)
    assert compare._seconds_of(with_run, "baseline") == compare._seconds_of(runs, "baseline") == (0.0, 20.0)


def test_differences_are_paired_differences(runs, folders):
    table = compare.differences(runs, n_resamples=300).set_index(["readout", "metric", "method"])

    def tested(path):
        return [r for r in read_records(path, Reading) if (r.readout, r.split) == ("expected", "test")]

    rows = [r for folder in folders[:3] for r in tested(folder / "readings.jsonl")]
    once = tested(folders[0] / "baseline_readings.jsonl")
    untrained = [replace(r, seed=seed) for seed in (0, 1, 2) for r in once]
    d = paired_difference(rows, untrained, "brier_skill_score", 0.3, 300)
    found = table.loc[("expected", "brier_skill_score", "sft")]
    assert found[["difference", "low", "high", "p", "n"]].tolist() == [d.value, d.low, d.high, d.p_value, 300]


def test_all_rows_of_a_table_are_one_family(runs):
    whole = compare.differences(runs, n_resamples=200)
    part = compare.differences(runs, "expected", "auroc", n_resamples=200)
    assert len(whole) == 2 * 2 * 2 and len(part) == 2
    for table in (whole, part):
        np.testing.assert_array_equal(table["p (Holm)"], holm(table["p"].to_numpy()))
    defined = whole.p.notna().sum()
    assert whole["p (Holm)"].min() == pytest.approx(whole.p.min() * defined) and defined == 6


def test_calibration_errors_are_compared_by_swapping(runs):
    table = compare.differences(runs, "expected", "expected_calibration_error", n_resamples=200)
    row = table.set_index("method").loc["sft"]
    assert row["test"] == "swap" and row["p"] < 0.05 and np.isnan(row["low"])


def two_decimals(c):
    return c.round(2)


def test_a_run_is_compared_with_the_baseline_on_its_own_grid(tmp_path):
    fine = made_up_run(tmp_path, "performance_sft", says=two_decimals, base_says=two_decimals)
    coarse = made_up_run(tmp_path, "baseline", says=lambda c: c.round(1))
    runs = load_runs([fine, coarse])
    assert (compare.differences(runs, n_resamples=50).difference == 0).all()


def test_a_rival_of_one_seed_is_paired_with_every_seed():
    rival = made_up_readings(says=np.sqrt, method="knn", readout="question_only")
    sft = made_up_readings(method="sft")
    twice = [replace(r, seed=seed) for seed in (0, 1) for r in sft]
    row, same = Row("sft", "verbalized"), Row("knn", "question_only")
    table = compare.differences_from(rival, {row: twice, same: rival}, 0.3, n_resamples=200)
    found = table.set_index([*Row._fields, "metric"]).difference
    d = paired_difference(sft, rival, "brier_skill_score", 0.3, 200, 0)
    assert found[(*row, "Brier skill")] == pytest.approx(d.value) and found[(*same, "Brier skill")] == 0
    np.testing.assert_array_equal(table["p (Holm)"], holm(table["p"].to_numpy(float)))
    with pytest.raises(ValueError, match="`sets` is empty"):
        compare.differences_from(rival, {}, 0.3)


def test_wrong_names_are_errors(runs):
    wrong_readout = pytest.raises(UnknownName, match="unknown readout 'expectd'. Did you mean 'expected'")
    with wrong_readout:
        compare.differences(runs, "expectd")
    with wrong_readout:
        compare.test_readings(runs, "expectd")
    with wrong_readout:
        compare.comparison_figure(compare.test_readings(runs, "expected"), "expectd", 0.3)
    with pytest.raises(UnknownName, match="unknown metric 'aurco'. Did you mean"):
        compare.differences(runs, metric="aurco")


@pytest.mark.parametrize("readout", ["verbalized", "expected"])
def test_the_figure_has_a_diagram_a_method_in_its_colour_and_two_forests(runs, readout):
    fig = compare.comparison_figure(compare.table_rows(runs), readout, 0.3, title="One sentence")
    drawn = [ax for ax in fig.axes if ax.axison]
    titles = [ax.get_title(loc="left") for ax in drawn]
    assert titles == ["sft (3 seeds)", "dpo", "untrained", "", ""]
    methods = [Row(name, readout) for name in ("sft", "dpo", "baseline")]
    rows = [*methods, *compare.rival_rows(runs, readout)]
    names = [t.get_text() for t in drawn[3].get_yticklabels()][::-1]
    silent = " (0% parsed)" if readout == "verbalized" else ""
    assert names[:3] == ["sft", f"dpo{silent}", "untrained"] and names[-1] == "untrained, platt"
    assert fig.get_suptitle() == "One sentence"
    assert len(names) == len(rows) == 3 + len(BASELINES) + 1 == 9
    assert "Brier skill" in drawn[3].get_xlabel() and "AUROC" in drawn[4].get_xlabel()
    assert to_rgb(method_colour("sft")) in {tuple(c[:3]) for c in drawn[0].collections[1].get_facecolor()}
    fig.canvas.draw()
    compare.plt.close(fig)


def text_of_panel(readings):
    "n and the parsed share, as a panel of the figure states them."
    fig, ax = compare.plt.subplots()
    compare._plot_seeds(readings, ax, "#000000")
    compare.plt.close(fig)
    return ax.texts[0].get_text()


def test_panel_and_forest_state_the_same_numbers_of_all_seeds(runs):
    readings = compare.test_readings(runs, "expected")[SFT]
    late = [replace(r, confidence=None, provenance="missing") if r.seed else r for r in readings]
    kept = [r for r in late if r.id >= "q00100" or r.seed]
    assert text_of_panel(late) == "n = 300\nparsed 33%"
    assert text_of_panel(kept) == "n = 200\nparsed 25%"
    assert metric_card(kept, 0.3, names=["auroc"])["auroc"].n == 200
    assert compare._label_of(SFT, late) == "sft, expected (33% parsed)"


def test_further_seeds_of_the_same_numbers_change_no_dot_and_no_interval(runs):
    once = [r for r in compare.test_readings(runs, "expected")[SFT] if r.seed == 0]
    thrice = [replace(r, seed=seed) for seed in range(3) for r in once]
    one, three = (compare._pooled(compare.reading_arrays(readings)) for readings in (once, thrice))
    for name, value in vars(one).items():
        np.testing.assert_allclose(getattr(three, name), value)
    bands = [compare._pooled_band(compare.reading_arrays(readings)) for readings in (once, thrice)]
    np.testing.assert_allclose(bands[0].low, bands[1].low)
    np.testing.assert_allclose(bands[0].high, bands[1].high)


def test_what_asks_no_model_is_grey_and_a_method_has_its_colour(runs):
    sets = compare.table_rows(runs)
    grey = {compare._colour(row, sets[row]) for row in sets if row.readout in ("constant", "question_only")}
    assert grey == {"#999999"} and compare._colour(SFT, sets[SFT]) == method_colour("sft")


def test_sentences_agree_with_the_tables(runs):
    lines = compare.conclusions(runs)
    table = compare.differences(runs).set_index(["readout", "metric", "method"])
    p = table.loc[("expected", "brier_skill_score", "sft"), "p (Holm)"]
    assert lines[0].startswith("3 methods on 300 test answers of made-up to made-up; 29.0% are right")
    start = "expected, Brier skill, difference to the baseline. Higher: sft"
    said = "adjusted p < 0.001" if p < 0.001 else f"adjusted p = {p:.3f}"
    assert any(line.startswith(start) and said in line for line in lines)
    assert lines[1].startswith("Trained with one seed only: dpo.")
    assert not any("versions of the code" in line or "too narrow" in line for line in lines)


def with_code(run, stage, code):
    "The run, one of its stages made by other code."
    stages = run.manifest["stages"]
    other = {**stages, stage: {**stages[stage], "code": code}}
    return altered(run, manifest={**run.manifest, "stages": other})


def test_a_method_made_by_two_versions_of_the_code_is_named_with_the_stage(runs):
    lines = compare._opening([with_code(runs[0], "training", "new"), *runs[1:]])
    assert any(line.startswith("Made by different versions of the code (sft: training)") for line in lines)


def test_methods_may_execute_different_code(runs):
    dpo = with_code(runs[3], "training", "another loss")
    assert not any("versions of the code" in line for line in compare._opening([*runs[:3], dpo, runs[4]]))


def test_noise_is_no_difference(tmp_path):
    def random(seed):
        return lambda c: np.random.default_rng(seed).random(len(c))

    methods = ("sft", "dpo", "implicit")
    folders = [made_up_run(tmp_path, m, says=random(i), base_says=random(9)) for i, m in enumerate(methods)]
    table = compare.differences(load_runs(folders), "expected", "auroc")
    said = "expected, AUROC, difference to the baseline. No visible difference: sft, dpo, implicit."
    sentence, unseen = compare._difference_sentences(table)[0].split(" Power 80 %: ")
    assert sentence == said
    assert unseen.startswith("with 1 seed and n = 300 a difference below 0.1") and unseen.endswith("cannot be seen.")


def test_few_subjects_are_said_to_be_few(tmp_path):
    runs = load_runs([made_up_run(tmp_path, "sft", n=29)])
    assert any(line.startswith("The questions are about 29 subjects only") for line in compare._opening(runs))


def test_only_the_baseline(tmp_path):
    runs = load_runs([made_up_run(tmp_path, "baseline", says=always_sure, n=60)])
    assert compare.differences(runs).empty
    rows = [UNTRAINED, Row("baseline", "verbalized"), *compare.rival_rows(runs, "expected")]
    assert set(compare.method_table(runs).index) == {*rows, Row("baseline", "verbalized", "platt")}
    compare.plt.close(compare.comparison_figure(compare.table_rows(runs), "expected", 0.3))
    assert len(compare.conclusions(runs)) == 5


def with_training_answers(run, change):
    "The run, its training answers changed."
    judged = [change(j) if j.extra["split"] == "train" else j for j in run.judged]
    return altered(run, judged=judged)


def test_baselines_use_training_answers_only(runs):
    sets = compare.rival_rows(runs, "expected")
    assert {len(rows) for rows in sets.values()} == {300}
    assert {r.split for rows in sets.values() for r in rows} == {"test"}
    judged = [turned(j) if j.extra["split"] == "test" else j for j in runs[0].judged]
    again = compare.rival_rows([altered(runs[0], judged=judged), *runs[1:]], "expected")
    assert all(confidences(sets[row]) == confidences(again[row]) for row in sets)


def test_a_baseline_that_cannot_be_made_says_why(runs):
    one_class = with_training_answers(runs[0], lambda j: replace(j, is_correct=True))
    rows = compare.rival_rows([one_class, *runs[1:]], "expected")[LOGISTIC]
    assert all(r.provenance == "missing" and "needs right and wrong" in r.extra["reason"] for r in rows)
    assert compare.by_row(rows) == {LOGISTIC: rows}


def test_data_complexity_is_said_in_words(runs):
    assert compare._data_complexity(runs, "sft") == "300 texts, 2 labels"
    assert compare._data_complexity(runs, "baseline") == ""
    pairs = altered(runs[3], labels=[{"label": 0.9, "rejected_label": 0.1}] * 7)
    unlabelled = altered(runs[0], labels=[{"id": "a"}] * 5)
    assert compare._data_complexity([pairs, unlabelled], "dpo") == "7 pairs"
    assert compare._data_complexity([pairs, unlabelled], "sft") == "5 answers, no label"


def test_the_original_stands_beside(runs):
    beside = compare.beside_original(runs)
    assert beside["published RMS error"].to_dict() == {"sft": "0.3060", "dpo": "0.3060", "baseline": "0.3888"}
    assert beside.loc["dpo", "verbalized parsed"] == "0.0%"


def notebook_values():
    "The values of the notebook's parameters cell."
    cells = nbformat.read(ROOT / "nbs/compare.ipynb", 4).cells
    names = {}
    exec(next(c.source for c in cells if "parameters" in c.metadata.get("tags", [])), names)
    return {k: v for k, v in names.items() if not k.startswith("__")}


def test_options_of_a_comparison_come_from_a_command_line_too():
    from calib_nb.experiment import comparison_plan

    given = {"methods": "baseline,sft", "seeds": 0, "options": '{"sft": {"epochs": 1}}'}
    assert [run["options"] for run in comparison_plan(given)] == [{}, {"epochs": 1}]
    with pytest.raises(TypeError, match="'options' must be a dict: method -> its options, found 'sft'"):
        comparison_plan({**given, "options": "sft"})


def test_parameters_of_the_notebook_are_those_of_a_run():
    from calib_nb.experiment import Parameters, comparison_plan

    given, others = notebook_values(), ("method", "seed", "protocol", "original")
    of_a_run = {k: v for k, v in asdict(Parameters()).items() if k not in others}
    methods = "baseline,sft,performance_sft,dpo,implicit"
    assert given == {**of_a_run, "methods": methods, "seeds": "0,1,2", "publish": ""}
    trained = [(m, seed) for m in methods.split(",")[1:] for seed in (0, 1, 2)]
    assert [(p["method"], p["seed"]) for p in comparison_plan(given)] == [("baseline", 0), *trained]
    with pytest.raises(UnknownName, match="unknown parameter 'metods'. Did you mean 'methods'?"):
        comparison_plan({**given, "metods": "sft"})


WRONG_PLANS = [
    ({"methods": ""}, "'methods' names none"),
    ({"methods": "sft,stf"}, "unknown method 'stf'. Did you mean 'sft'"),
    ({"seeds": "0,a"}, "'seeds' must be whole numbers"),
    ({"seeds": ""}, "'seeds' must be whole numbers"),
    ({"seeds": 0.5}, "'seeds' must be whole numbers"),
    ({"options": {"dpo": {"beta": 1}}}, "options are given for 'dpo'"),
    ({"options": {"sft": {"beta": 1}}}, "unknown option of method 'sft' 'beta'"),
    ({"preset": "papr"}, "Did you mean 'paper'"),
    ({"n_test": 0}, "at least 1"),
]


@pytest.mark.parametrize("values, message", WRONG_PLANS)
def test_a_plan_is_checked_before_anything_runs(values, message):
    from calib_nb.experiment import comparison_plan

    with pytest.raises(ValueError, match=message):
        comparison_plan({"methods": "baseline,sft", "seeds": "0", **values})


def run_compare(folder, **parameters):
    "Run the notebook as a user does; returns the finished process."
    words = [word for k, v in parameters.items() for word in ("-p", k, str(v))]
    papermill = Path(sys.executable).parent / "papermill"
    command = [papermill, "nbs/compare.ipynb", str(folder / "compare.ipynb"), *words, "--no-progress-bar"]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def times_of_run_files(out):
    "When each file of a run was written."
    files = [f for f in out.rglob("*") if f.is_file() and re.search("-(baseline|sft)-", f.parent.name)]
    return {f: f.stat().st_mtime_ns for f in files}


@pytest.mark.slow
def test_the_notebook_runs_what_is_missing_and_shows_the_comparison(tmp_path):
    from calib_nb.experiment import comparison_plan, run_method

    few = dict(FEW, methods="baseline,sft", seeds=0, out=str(tmp_path), options='{"sft": {"epochs": 1}}')
    done = run_compare(tmp_path, **few)
    assert done.returncode == 0, done.stderr[-3000:]
    manifests = [read_json(file) for file in tmp_path.glob("*/manifest.json")]
    assert sorted(m["parameters"]["method"] for m in manifests) == ["baseline", "sft"]
    cells = nbformat.read(tmp_path / "compare.ipynb", 4).cells
    shown = json.dumps([c.get("outputs", []) for c in cells])
    headings = ("Brier skill", "AUROC stratified by relation", "p (Holm)", "difference to the baseline")
    assert all(word in shown for word in (*headings, "image/png", "compare-"))
    before = times_of_run_files(tmp_path)
    again = [run_method(**parameters).name for parameters in comparison_plan(few)]
    assert sorted(again) == sorted(file.parent.name for file in tmp_path.glob("*/manifest.json"))
    assert times_of_run_files(tmp_path) == before and len(before) > 8, "finished runs are left as they are"
