"""The matrix: cells without confidences stay empty, the calibration split chooses, nothing is fitted on itself."""
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_up_runs import made_up_folders

from calib_nb import matrix, publish
from calib_nb.compare import Row, by_row, load_runs
from calib_nb.core import select
from calib_nb.inference import metric_card
from calib_nb.resampling import made_up_readings

SFT, DPO, SAID = Row("sft", "expected"), Row("dpo", "expected"), Row("dpo", "verbalized")


@pytest.fixture
def cells():
    "Two methods and two readouts, of which one is missing and one lacks a fifth of its confidences."
    return by_row([
        *made_up_readings(split="calibration", method="sft", readout="expected"),
        *made_up_readings(split="calibration", method="dpo", readout="expected", says=np.sqrt),
        *made_up_readings(split="calibration", method="dpo", missing=0.2),
    ])


def test_cells_that_lack_confidences_are_empty(cells):
    table = matrix.matrix(cells, "brier_skill_score", 0.3)
    assert table.loc["sft", "expected"] == metric_card(cells[SFT], 0.3)["brier_skill_score"].value
    assert np.isnan(table.loc["dpo", "verbalized"]) and np.isnan(table.loc["sft", "verbalized"])


def test_the_cell_of_the_highest_skill_is_chosen(cells):
    assert matrix.best_cell(cells, 0.3) == SFT
    assert matrix.best_cell({row: cells[row] for row in (SAID, DPO)}, 0.3) == DPO
    with pytest.raises(ValueError, match="none of 1 cells has 90% of its confidences"):
        matrix.best_cell({SAID: cells[SAID]}, 0.3)


def test_the_figure_shows_methods_by_readouts(cells):
    fig = matrix.matrix_figure(cells, 0.3)
    order, skill = fig.axes[:2]
    assert "AUROC" in order.get_title(loc="left") and "recalibration" in skill.get_title(loc="left")
    assert [t.get_text() for t in skill.get_xticklabels()] == ["verbalized", "expected"]
    assert [t.get_text() for t in order.texts[-2:]] == ["text", "probabilities"]
    assert len(fig.axes) == 4, "two heat maps, two colour bars"
    assert fig.get_suptitle() == "2 methods by 2 readouts"
    plt.close(fig)


def test_each_readout_reads_one_thing():
    from calib_nb.readout import READOUTS

    assert sorted(sum(matrix._READS.values(), ())) == sorted(READOUTS)
    assert matrix._grouped(["mine", "probe"]) == {"hidden states": ["probe"], "other": ["mine"]}


def test_a_place_shows_how_far_its_accuracy_is_from_that_of_training(cells):
    fig = matrix.place_forests({"there": {SFT: cells[SFT]}}, {"there": 0.4}, title="One sentence")
    assert fig.axes[0].get_title(loc="left") == "there: 29% of 300 answers are right (in training 40%)"
    assert fig.get_suptitle() == "One sentence"
    plt.close(fig)


def test_the_main_finding_has_the_rows_that_are_named(cells):
    fig = matrix.finding_figure(cells, {DPO: "as said", SFT: "as read"}, 0.3, "One sentence")
    names = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert names == ["as read", "as said"] and fig.get_suptitle() == "One sentence"
    plt.close(fig)


def group_of(reading):
    return reading.group or reading.question


def lied_about(readings, group):
    "The readings, the answers of a group turned."
    return [replace(r, is_correct=not r.is_correct) if group_of(r) == group else r for r in readings]


def test_a_recalibrated_reading_never_saw_its_group_nor_its_label():
    readings = made_up_readings(n=100, split="calibration", says=lambda c: c**3)
    found = matrix._cross_recalibrated(readings, "platt")
    assert [r.id for r in found] == [r.id for r in readings]
    assert by_row(found) == {Row("made-up", "verbalized", "platt"): found}
    other = matrix._cross_recalibrated(lied_about(readings, group_of(readings[7])), "platt")
    assert other[7].confidence == found[7].confidence and other != found


def test_each_seed_is_recalibrated_by_itself():
    made = [made_up_readings(n=100, seed=seed, split="calibration") for seed in (0, 1)]
    first, second = ([replace(r, seed=seed) for r in readings] for seed, readings in enumerate(made))
    alone = [*matrix._cross_recalibrated(first, "platt"), *matrix._cross_recalibrated(second, "platt")]
    assert matrix._cross_recalibrated([*first, *second], "platt") == alone


def test_a_cell_that_cannot_be_recalibrated_says_why():
    readings = made_up_readings(n=100, split="calibration", says=lambda c: c**3)
    wrong = [replace(r, is_correct=False) for r in readings]
    row = Row("sft", "verbalized", "platt")
    mended = matrix.recalibrated({Row("sft", "verbalized"): readings, SAID: wrong})
    assert mended[row] == matrix._cross_recalibrated(readings, "platt")
    empty = mended[SAID._replace(calibrator="platt")]
    assert all(r.confidence is None and "right" in r.extra["reason"] for r in empty)


def test_on_the_test_split_each_seed_is_recalibrated_by_its_own_calibration_split():
    readings = []
    for seed, says in ((0, np.sqrt), (1, lambda c: c**3)):
        for split in ("calibration", "test"):
            readings += [replace(r, seed=seed) for r in made_up_readings(n=100, says=says, split=split)]
    assert matrix.on_test(readings, "verbalized") == select(readings, split="test")
    alone = matrix.on_test(select(readings, seed=1), "verbalized", "platt")
    both = matrix.on_test(readings, "verbalized", "platt")
    assert select(both, seed=1) == alone and len(alone) == 100 and {r.split for r in alone} == {"test"}


def test_a_place_shows_what_the_model_says_and_does_and_what_asks_no_model():
    splits = ("calibration", "test")
    untrained, sampled, trained = [], [], []
    for split in splits:
        untrained += made_up_readings(split=split, method="baseline", readout="expected")
        sampled += made_up_readings(split=split, method="baseline", readout="self_consistency")
        for readout in ("verbalized", "expected"):
            trained += made_up_readings(split=split, method="sft", readout=readout)
    names = ("knn", "relation", "logistic")
    rivals = {Row(name, "question_only"): made_up_readings(method=name, readout="question_only") for name in names}
    rows = matrix.transfer_rows(untrained, sampled, trained, rivals)
    assert list(rows) == [
        ("baseline", "expected", ""),
        ("baseline", "self_consistency", "platt"),
        ("sft", "verbalized", ""),
        ("sft", "expected", ""),
        ("knn", "question_only", ""),
        ("relation", "question_only", ""),
    ]
    assert {r.split for readings in rows.values() for r in readings} == {"test"}


def test_a_run_without_further_readouts_has_no_table_of_costs(tmp_path):
    with pytest.raises(FileNotFoundError, match="Read further readouts by `read_more` first"):
        matrix.cost_table(tmp_path)


def test_the_matrix_is_kept(tmp_path, monkeypatch):
    runs = load_runs(made_up_folders(tmp_path / "made up"))
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    rows = made_up_readings(split="calibration", method="sft", readout="expected")
    tested = made_up_readings(method="sft", readout="expected")
    rival = made_up_readings(method="knn", readout="question_only")
    matrix.keep_matrix(rows, [*tested, *rival], runs, "runs", "m")
    data = tmp_path / "figures/m"
    values = pd.read_csv(data / "values.csv", keep_default_na=False).set_index(["metric", "calibrator", "method"])
    auroc = float(values.loc[("auroc", "", "sft"), "expected"])
    assert auroc == pytest.approx(metric_card(rows, 0.3)["auroc"].value)
    lines = pd.read_csv(data / "readings.csv.gz").groupby(["method", "split"]).size()
    assert lines.to_dict() == {("sft", "calibration"): 300, ("sft", "test"): 300, ("knn", "test"): 300}
    assert (data / "heatmaps.png").exists()
