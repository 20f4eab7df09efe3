"""The runner of the study: what is missing is made in the order of the plan, once, and the test split is not scored."""
import json
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from test_figures import script

from calib_nb.core import read_json
from calib_nb.questions import load_questions
from calib_nb.study import MODELS, Cell, planned_runs, read_cells

sys.path.insert(0, str(ROOT / "benchmarks"))
from slices import make_missing, still  # noqa: E402

ARMS = script(ROOT / "benchmarks/study.py").ARMS
CHOICE = ["reader", "answers_of", "learning_rate", "epochs"]


@pytest.fixture
def study(tmp_path, monkeypatch):
    "The script, writing into an empty folder, with few questions."
    module = script(ROOT / "benchmarks/study.py")
    folders = {"kept": tmp_path / "kept", "runs": tmp_path / "runs"}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setattr(module, "TABLES", module.Tables(folders["kept"]))
    monkeypatch.setattr(module, "RUNS", folders["runs"])
    monkeypatch.setattr(module, "SIZES", {"n_train": 24, "n_calibration": 24, "n_test": 12})
    (folders["kept"] / "made_by.txt").write_text("command: python benchmarks/study.py all\ncode: x\nseeds: 7\n")
    return module


def answer_all(study, model):
    "Made-up answers to all questions; every other one is right."
    asked = load_questions("study")
    rows = [(model, q.id, q.answers[0] if i % 2 else "Nowhere", bool(i % 2)) for i, q in enumerate(asked)]
    table = pd.DataFrame(rows, columns=["answers_of", "id", "model_answer", "is_correct"])
    study.TABLES.add("answers.csv.gz", table, ["answers_of", "id"])


def tried(study, aurocs):
    "A table of choices for the first model: (rate, epochs) -> AUROC with its own answers and the other's."
    rows = []
    for (rate, epochs), values in aurocs.items():
        rows += [(MODELS[0], answers, rate, epochs, value) for answers, value in zip(MODELS, values)]
    study.TABLES.add("choice.csv", pd.DataFrame(rows, columns=[*CHOICE, "auroc"]), CHOICE)


def test_a_row_that_is_given_again_replaces_the_first_and_the_bytes_do_not_depend_on_the_order(study):
    rows = pd.DataFrame({"id": ["b", "a"], "value": [1, 2]})
    path = study.TABLES.add("t.csv.gz", rows, ["id"])
    study.TABLES.add("t.csv.gz", pd.DataFrame({"id": ["b"], "value": [3]}), ["id"])
    assert study.TABLES.read("t.csv.gz").to_dict("list") == {"id": ["a", "b"], "value": [2, 3]}
    before = path.read_bytes()
    path.unlink()
    study.TABLES.add("t.csv.gz", pd.DataFrame({"id": ["b", "a"], "value": [3, 2]}), ["id"])
    assert path.read_bytes() == before


def test_the_best_setting_is_taken_and_of_equals_the_shorter_and_slower(study):
    near = {(0.0002, 2): (0.6, 0.6), (0.0002, 4): (0.7, 0.6), (0.0004, 2): (0.65, 0.645), (0.0004, 4): (0.6, 0.65)}
    tried(study, near)
    assert study.chosen(MODELS[0]) == (0.0004, 2)
    tried(study, {(0.0002, 4): (0.75, 0.65)})
    assert study.chosen(MODELS[0]) == (0.0002, 4)


def test_no_run_is_made_before_every_setting_was_tried(study):
    tried(study, {(0.0002, 2): (0.6, 0.6)})
    with pytest.raises(ValueError, match="not all settings of smollm2-135m have been tried"):
        study.chosen(MODELS[0])


def test_what_is_missing_comes_stage_by_stage_in_the_order_of_the_plan(study):
    stages = [list(stage) for stage in study.stages()]
    assert [stage[0][0] for stage in stages] == ["answers", "choose", "cell", "samples", "cell", "samples"]
    assert [len(stage) for stage in stages] == [2, 16, 40, 2, 54 + 18, 2]
    answer_all(study, MODELS[0])
    assert next(study.stages()) == [("answers", MODELS[1])]
    done = pd.DataFrame([dict(zip(study.CELL, (*MODELS, "sft", 0, 0)))])
    study.TABLES.add("readings.csv.gz", done, study.CELL)
    left = list(study.stages())[2]
    assert len(left) == 39 and ("cell", *MODELS, "sft", 0, 0) not in left


def test_after_the_hours_nothing_is_begun(study, monkeypatch):
    monkeypatch.setattr("slices.subprocess.Popen", lambda *args, **kwargs: pytest.fail("a process was begun"))
    make_missing("study.py", study.stages, hours=0)


def test_a_command_that_fails_stops_the_others(study):
    process = subprocess.Popen([sys.executable, "study.py", "-c", "x"], stderr=subprocess.DEVNULL)
    process.wait()
    with pytest.raises(RuntimeError, match="-c x failed"):
        still([process])


def test_an_arm_is_the_method_with_options_and_has_a_name_of_its_own(study):
    for model in MODELS:
        answer_all(study, model)
    for arm, (size, options) in study.ARMS.items():
        run = study.begun(Cell(MODELS[0], MODELS[0], arm, size), 0, study.preset(MODELS[0], 0.0004, 2))
        assert run.parameters.method == "self_consistency_distill" and run.parameters.options == options
        assert run.parameters.n_unlabelled == size
    updates = [-(-size // 8) * epochs for size, epochs in ((947, 4), (100, study.ARMS["fixed_updates"][1]["epochs"]))]
    assert abs(updates[0] - updates[1]) / updates[0] < 0.05


def test_only_the_distilled_readers_of_further_seeds_leave_out_what_no_contrast_reads(study):
    own = Cell(MODELS[0], MODELS[0])
    distilled = Cell(*MODELS[:1] * 2, "self_consistency_distill", 947)
    assert {"train", "test"} < {*study.splits_read(own, 3)} == {*study.splits_read(distilled, 0)}
    assert study.splits_read(distilled, 1) == ("test",)


@pytest.mark.long
def test_choices_and_cells_leave_readings_of_all_splits_and_how_they_were_made(study, monkeypatch):
    monkeypatch.setattr(study, "RATES", (0.0004,))
    monkeypatch.setattr(study, "EPOCHS", (2,))
    small, other = MODELS
    for model in MODELS:
        answer_all(study, model)
    study.make_choice(small, other, "0.0004", "2")
    assert 0 <= study.TABLES.read("choice.csv").auroc.item() <= 1
    study.make_cell(small, other, "sft", "0")
    study.make_cell(small, small, "question_only", "1")
    readings = study.TABLES.read("readings.csv.gz")
    trained, untrained = readings[readings.method != "baseline"], readings[readings.method == "baseline"]
    per_run = trained.groupby(["answers_of", "method", "seed", "split"]).size().unstack()
    assert per_run.to_numpy().tolist() == [[24, 12, 24]] * 2
    assert len(untrained) == 12 and set(untrained.split) == {"test"} and set(untrained.answers_of) == {other}
    assert set(readings.readout) == {"expected"} and readings.confidence.between(0, 1).all()
    runs = read_json(study.TABLES.folder / "runs.json")
    assert len(runs) == 2 and {run["preset"]["chat_template"] for run in runs.values()} == {False}
    assert "seeds: 0, 1; split_seed 0" in (study.TABLES.folder / "made_by.txt").read_text()
    left = [stage for stage in study.stages() if stage and stage[0][0] == "cell"][0]
    assert ("cell", small, other, "sft", 0, 0) not in left and len(left) == 39
    cells = study.begun(Cell(small, other), 0, study.preset(small, 0.0004, 2))
    assert {j.extra["split"] for j in cells.judged} == {"train", "calibration", "test"}


# What is published


def published(path):
    "A file of the publication, where it is there already."
    if not (ROOT / path).exists():
        pytest.skip("not yet run")
    return ROOT / path


def test_the_runs_name_no_folder_of_a_machine():
    runs = read_json(published("figures/whose_knowledge/runs.json"))
    assert all(not about["parameters"][name].startswith("/") for about in runs.values() for name in ("out", "judged"))


@pytest.mark.parametrize("path", ["figures/whose_knowledge/answers.csv.gz", "figures/whose_knowledge/samples.csv.gz"])
def test_each_model_answers_each_question_once(path):
    table = pd.read_csv(published(path), keep_default_na=False)
    asked = {q.id for q in load_questions("study")}
    for _, part in table.groupby("answers_of"):
        assert part.id.is_unique and set(part.id) <= asked
    if "samples" in table:
        assert {len(json.loads(line)) for line in table.samples} == {10}


def test_settings_were_chosen_among_those_of_the_plan():
    table = pd.read_csv(published("figures/whose_knowledge/choice.csv"))
    assert set(table.learning_rate) <= {0.0002, 0.0004} and set(table.epochs) <= {2, 4}


def test_all_published_runs_are_of_the_plan_and_whole():
    path = published("figures/whose_knowledge/readings.csv.gz")
    planned = set(planned_runs())
    for split, n in (("train", 300), ("calibration", 300), ("test", 636)):
        for cell, readings in read_cells(path, split).items():
            seeds = {r.seed for r in readings}
            assert len(readings) == n * len(seeds)
            untrained = cell.method == "baseline" and seeds == {0} and split == "test"
            arm = ARMS.get(cell.method, (None,))[0] == cell.size and seeds <= {0, 1, 2}
            assert untrained or arm or {(cell, seed) for seed in seeds} <= planned
