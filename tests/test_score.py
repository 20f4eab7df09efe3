"""`calib_nb score` and the readings behind it: what is taken, what is refused and how, what is printed."""
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import ROOT

from calib_nb.command_line import main
from calib_nb.core import RecordError, write_json
from calib_nb.display import CalibrationDisplay
from calib_nb.inference import diagnose, metric_card, paired_difference
from calib_nb.plots import method_colour, reliability_figure
from calib_nb.readings import Readings, readings_from
from calib_nb.scoring import score

FORMATS = ROOT / "tests/formats"
GOLDEN = ROOT / "tests/formats/score_golden.txt"


def frame_of(n=40, seed=0, **columns):
    "Made-up predictions: ids q0 ..., a confidence of two decimals, an outcome."
    rng = np.random.default_rng(seed)
    said = rng.integers(0, 101, n) / 100
    made = {"id": [f"q{i}" for i in range(n)], "confidence": said, "is_correct": rng.random(n) < said}
    return pd.DataFrame(made | columns)


def run(*words):
    "The ended command: `stdout`, `stderr`, `exit_code`."
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(*words, code=1):
    "The one line that a refused command says; nothing is on its output."
    ended = run(*words)
    assert ended.exit_code == code, ended.output
    assert ended.stdout == ""
    if code == 1:
        assert ended.stderr.count("\n") == 1 and ended.stderr.startswith("Error: ")
    return ended.stderr


@pytest.fixture
def here(tmp_path, monkeypatch):
    "A folder that the user stands in."
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(frame, name, **options):
    "The frame as CSV under a name."
    frame.to_csv(name, index=False, **options)
    return name


# What it prints


def test_the_table_of_a_small_file_is_the_committed_one(here):
    written(frame_of(), "mine.csv")
    ended = run("score", "mine.csv", "--reference", "0.5", "--resamples", "200")
    assert ended.exit_code == 0
    assert ended.stdout == GOLDEN.read_text()


def test_json_and_python_and_the_metrics_of_the_library_agree_to_the_last_bit(here):
    written(frame_of(), "mine.csv")
    said = json.loads(run("score", "mine.csv", "--reference", "0.5", "--resamples", "200", "--json").stdout)
    card = metric_card(Readings.from_file("mine.csv"), 0.5, 200, names=list(said["metrics"]))
    for name, estimate in card.items():
        shown = said["metrics"][name]
        assert shown["value"] == estimate.value and shown["n"] == estimate.n
        assert shown["low"] == (None if np.isnan(estimate.low) else estimate.low)
    assert {"calib_nb", "format", "taken", "rows", "missing", "metrics", "diagnosis", "seed"} <= set(said)


def test_the_diagram_is_written_with_its_text(here):
    written(frame_of(), "mine.csv")
    ended = run("score", "mine.csv", "--resamples", "20", "--plot", "made/reliability.svg")
    assert ended.exit_code == 0
    text = Path("made/reliability.svg").read_text()
    assert "share of correct answers" in text and "n = 40" in text and "<svg" in text


@pytest.mark.parametrize("order", [1, 2])
def test_the_order_of_rows_and_the_last_bit_of_a_number_change_nothing(here, order):
    frame = frame_of()
    frame.loc[:1, "confidence"] = 0.3
    written(frame, "mine.csv")
    same = run("score", "mine.csv", "--resamples", "20").stdout
    frame.loc[0, "confidence"] = 0.1 + 0.2
    written(frame.sample(frac=1, random_state=order), "mine.csv")
    assert run("score", "mine.csv", "--resamples", "20").stdout == same


def test_one_class_alone_is_null_with_a_reason_and_no_error(here):
    written(frame_of(6, is_correct=[True] * 6), "mine.csv")
    ended = run("score", "mine.csv", "--json")
    auroc = json.loads(ended.stdout)["metrics"]["auroc"]
    assert ended.exit_code == 0 and auroc["value"] is None and auroc["reason"]


# What is read


def test_the_same_rows_in_each_kind_of_file_are_the_same_readings(here):
    frame = frame_of(id=[f"{i:03}" for i in range(40)])
    frame.to_csv("a.csv")  # with an index column that has no name
    frame.to_csv("a.tsv", sep="\t", index=False)
    frame.to_json("a.jsonl", orient="records", lines=True)
    frame.to_json("a.json", orient="records")
    frame.to_csv("a.csv.gz", index=False, encoding="utf-8-sig", lineterminator="\r\n")
    frame.to_csv("semicolon.csv", index=False, sep=";", decimal=",", encoding="utf-16")
    names = ("a.csv", "a.tsv", "a.jsonl", "a.json", "a.csv.gz", "semicolon.csv")
    sets = [[(r.id, r.confidence, r.is_correct) for r in Readings.from_file(name)] for name in names]
    assert all(readings == sets[0] for readings in sets)
    assert sets[0][1][0] == "001"


def test_parquet_has_the_same_ids_as_text_files(here):
    pytest.importorskip("pyarrow")
    frame = frame_of(5, id=[1.0, 2.0, 3.0, 4.0, 5.0])
    frame.to_parquet("a.parquet")
    written(frame.astype({"id": int}), "a.csv")
    ids = [[r.id for r in Readings.from_file(name)] for name in ("a.parquet", "a.csv")]
    assert ids[0] == ids[1] == ["1", "2", "3", "4", "5"]


def test_standard_input_is_a_file(here):
    text = frame_of().to_csv(index=False)
    ended = CliRunner().invoke(main, ["score", "-", "--resamples", "20"], input=text)
    assert ended.exit_code == 0 and ended.stdout.startswith("standard input: 40 rows")


def test_what_was_taken_is_printed_and_what_is_missing_is_counted(here):
    frame = frame_of().astype({"confidence": object, "is_correct": object})
    frame.loc[:2, "confidence"] = ""
    frame.loc[3, "is_correct"] = ""
    written(frame.rename(columns={"confidence": "certain", "is_correct": "target"}), "mine.csv")
    first = run("score", "mine.csv", "--confidence", "certain", "--correct", "target", "--resamples", "20").stdout
    taken = first.splitlines()[0]
    assert "confidence 'certain'" in taken and "correct 'target'" in taken
    assert "3 without a confidence" in taken and "1 without an outcome, left out" in taken


def test_all_empty_is_a_failure(here):
    written(frame_of(confidence=[None] * 40), "mine.csv")
    assert "none of 40 rows has a confidence" in refused("score", "mine.csv")


@pytest.mark.parametrize("right, wrong", [("True", "False"), ("true", "false"), (1, 0), ("yes", "NO"), ("1.0", "0.0")])
def test_outcomes_as_text_are_what_they_say(here, right, wrong):
    written(frame_of(2, is_correct=[right, wrong]), "mine.csv")
    assert [r.is_correct for r in Readings.from_file("mine.csv")] == [True, False]


def test_percentages_are_read_where_that_is_said(here):
    written(frame_of(3, confidence=[100, 40, 0.5]), "mine.csv")
    assert [r.confidence for r in Readings.from_file("mine.csv", scale="percent")] == [1.0, 0.4, 0.005]


def test_only_the_rows_that_are_asked_for(here):
    frame = pd.concat([frame_of(seed=seed, method=f"m{seed}") for seed in (0, 1)])
    written(frame, "mine.csv")
    assert "--where method=m0" in refused("score", "mine.csv")
    assert len(Readings.from_file("mine.csv", where={"method": "m1"})) == 40


def test_a_file_is_found_where_the_user_stands_and_below_the_project(tmp_path, monkeypatch):
    (tmp_path / "settings.ini").write_text("lib_name = calib_nb\n")
    (tmp_path / "nbs").mkdir()
    written(frame_of(), tmp_path / "mine.csv")
    monkeypatch.chdir(tmp_path / "nbs")
    assert len(Readings.from_file("mine.csv")) == 40
    said = refused("score", "nine.csv")
    assert "no such file" in said and f"Looked in {tmp_path / 'nbs'} and {tmp_path}" in said


# What is refused: (change of the frame, words behind the file, parts of the message)


@pytest.mark.parametrize("columns, words, parts", [
    ({"confidence": [85.0, 40.0]}, [], ["mine.csv:2", "'confidence'", "85.0", "--scale percent"]),
    ({"confidence": [0.4, 1.0], "prob": [0.1, 0.2]}, [], ["'confidence' and 'prob'", "Name one"]),
    ({"confidence": ["high", "low"]}, [], ["mine.csv:2", "'high' is no number"]),
    ({"confidence": [-0.1, 0.2]}, [], ["mine.csv:2", "-0.1"]),
    ({"is_correct": ["True", "yes"]}, [], ["mixes 'True' (mine.csv:2) and 'yes' (mine.csv:3)"]),
    ({"is_correct": [0.5, 1]}, [], ["mine.csv:2", "neither right nor wrong"]),
    ({"id": ["a", "a"]}, [], ["mine.csv:3", "'a' stands already in mine.csv:2"]),
    ({"id": ["a", ""]}, [], ["mine.csv:3", "'id' is empty"]),
    ({"weight": [1, 2]}, [], ["'weight'", "--ignore weight"]),
    ({}, ["--confidence", "confidense"], ["no column 'confidense'", "Did you mean 'confidence'?", "Columns: id"]),
    ({}, ["--where", "id=z"], ["no row has 'id' = 'z'"]),
])
def test_bad_data_is_one_line_with_place_and_remedy(here, columns, words, parts):
    written(frame_of(2, **columns), "mine.csv")
    said = refused("score", "mine.csv", *words)
    assert [part for part in parts if part not in said] == [], said


def test_missing_files_folders_and_the_same_file_twice_are_refused(here):
    written(frame_of(), "mine.csv")
    Path("folder").mkdir()
    assert "Did you mean 'mine.csv'?" in refused("score", "mind.csv")
    assert "folder" in refused("score", "folder")
    assert "named twice" in refused("score", "mine.csv", "m*.csv")
    frame_of().to_csv("more.csv", index=False)
    assert "stands already in mine.csv:2" in refused("score", "m*.csv")


@pytest.mark.parametrize("words", [
    ["--sclae", "percent"],
    ["--calibrate", "platt"],
    ["--calibrate", "plat", "--fit", "mine.csv"],
    ["--abstain", "0.1"],
    ["--abstain", "0.1"],
    ["--fit-where", "method=sft"],
    ["--abstain", "1.5", "--fit", "mine.csv"],
    ["--compare"],
    ["--plot", "figure.txt"],
    ["--where", "id"],
])
def test_bad_options_have_exit_code_2(here, words):
    written(frame_of(2), "mine.csv")
    refused("score", "mine.csv", *words, code=2)


# Two files, other rows, parts


def test_two_files_are_paired_by_id_whatever_their_order(here):
    a, b = frame_of(60), frame_of(60, seed=1)
    written(a, "a.csv")
    written(b.iloc[2:].sample(frac=1, random_state=0), "b.csv")
    ended = run("score", "--compare", "a.csv", "b.csv", "--resamples", "200", "--json")
    said = json.loads(ended.stdout)["comparison"]
    sides = Readings.from_file("a.csv"), Readings.from_file("b.csv")
    wanted = paired_difference(*sides, "brier_score", None, 200)
    assert said["questions"] == {"common": 58, "a": 60, "b": 58}
    assert said["differences"]["brier_score"]["value"] == pytest.approx(wanted.value, abs=1e-12)
    assert "58 questions in both" in run("score", "--compare", "a.csv", "b.csv", "--resamples", "20").stdout


def test_files_without_a_question_in_common_are_an_error(here):
    written(frame_of(), "a.csv")
    written(frame_of(id=[f"other {i}" for i in range(40)]), "b.csv")
    assert "no question is in both files" in refused("score", "--compare", "a.csv", "b.csv")


def test_what_is_fitted_is_fitted_on_other_rows(here):
    written(frame_of(), "test.csv")
    written(frame_of(200, id=[f"fit {i}" for i in range(200)], seed=2), "fit.csv")
    words = ["--calibrate", "platt", "--abstain", "0.3", "--fit"]
    said = json.loads(run("score", "test.csv", *words, "fit.csv", "--resamples", "20", "--json").stdout)
    assert said["calibrator"] == "platt" and "as read" in said["beside"]
    assert said["abstention"]["scored"]["n"] == 40 and said["abstention"]["bound"] <= 0.3
    assert "40 questions are in the rows to fit on" in refused("score", "test.csv", *words, "test.csv")
    for others in (words, ["--fit"]):
        assert "40 questions are in the rows to fit on" in refused("score", "test.csv", *others, "test.csv")
    assert "40 questions" in refused("score", "--compare", "fit.csv", "test.csv", "--fit", "test.csv")


def test_rows_to_fit_on_are_chosen_by_an_option_of_their_own(here):
    n = np.arange(200)
    written(frame_of(), "test.csv")
    written(frame_of(200, id=[f"fit {i // 2}" for i in n], method=["sft", "dpo"] * 100), "fit.csv")
    words = ["score", "test.csv", "--fit", "fit.csv", "--resamples", "20"]
    assert "choose rows: --fit-where method=" in refused(*words)
    assert "100 rows" in run(*words, "--fit-where", "method=sft").stdout


def test_parts_have_a_row_each_and_empty_cells_are_not_one_group(here):
    written(frame_of(kind=["a", "b", "c", ""] * 10, subject=["x", ""] * 20), "mine.csv")
    said = json.loads(run("score", "mine.csv", "--by", "kind", "--group", "subject", "--json").stdout)
    assert list(said["by"]) == ["(none)", "a", "b", "c"]
    assert said["groups"] == 21


# Python


def test_three_columns_of_a_frame_are_enough_for_everything():
    frame = frame_of().drop(columns="id").assign(question=[f"q{i}?" for i in range(40)])
    frame.loc[0, "confidence"] = np.nan
    readings = readings_from(frame)
    assert readings[0].provenance == "missing" and readings[0].confidence is None
    assert metric_card(readings, 0.5, 20, n_floor=20)["accuracy"].n == 40
    assert diagnose(readings)[0].sentence
    assert paired_difference(readings, readings, n_resamples=20, reference=0.5).value == 0
    assert len(reliability_figure({"mine": readings}).axes) == 2
    assert "<table" in readings._repr_html_() and "\n" not in repr(readings)
    assert "<table" in score(readings, n_resamples=20)._repr_html_()


def test_rows_of_a_frame_are_chosen_and_repeats_taken_as_of_a_file():
    frame = frame_of(40, id=[f"q{i // 2}" for i in range(40)], method=["sft", "dpo"] * 20, weight=1.0)
    with pytest.raises(RecordError, match="weight"):
        readings_from(frame)
    assert len(readings_from(frame, ignore=["weight"], where={"method": "sft"})) == 20
    assert len(readings_from(frame, ignore=["weight"], repeats="first")) == 20


def test_a_frame_without_the_columns_says_which_it_has():
    with pytest.raises(RecordError, match="no column for confidence.*Columns: a"):
        readings_from(pd.DataFrame({"a": [1]}))


def test_the_display_has_the_dots_of_scikit_learn():
    from sklearn.calibration import calibration_curve

    frame = frame_of(300)
    frame.confidence = 0.003 + 0.99 * frame.confidence  # none on an edge: theirs are (a, b], ours [a, b)
    display = CalibrationDisplay.from_predictions(frame.is_correct, frame.confidence, n_bins=5)
    true, said = calibration_curve(frame.is_correct, frame.confidence, n_bins=5)
    assert np.allclose(display.prob_true, true) and np.allclose(display.prob_pred, said)
    assert display.ax_.get_xlabel() == "confidence"


def test_displays_on_the_same_axes_have_colours_of_their_own_and_counts_that_can_be_read():
    frame, names = frame_of(60), ("honest", "says too much", "sft", "another")
    display = CalibrationDisplay.from_predictions(frame.is_correct, frame.confidence, name=names[0])
    for name in names[1:]:
        CalibrationDisplay.from_predictions(frame.is_correct, frame.confidence, name=name, ax=display.ax_)
    colours = {line.get_label(): line.get_color() for line in display.ax_.lines if line.get_label() in names}
    assert len(set(colours.values())) == 4 and colours["sft"] == method_colour("sft")
    counts = [text for text in display.ax_.texts if text.get_text().startswith("n = ")]
    assert [text.get_color() for text in counts] == [colours[name] for name in names]
    places = [text.get_position()[1] for text in counts]
    assert np.diff(places).max() < -0.1, "one below the other"


# Files of other tools


def test_choices_of_the_harness_have_the_softmax_of_their_log_likelihoods():
    readings = Readings.from_file(FORMATS / "samples_facts_mc.jsonl")
    first = json.loads((FORMATS / "samples_facts_mc.jsonl").read_text().splitlines()[0])
    said = np.exp([float(score) for score, _ in first["filtered_resps"]])
    assert readings[0].confidence == pytest.approx(said.max() / said.sum(), abs=1e-12)
    assert (len(readings), sum(r.is_correct for r in readings)) == (12, 9)
    assert readings[0].question == "Which top-level internet domain belongs to Nigeria?"


def test_generations_of_the_harness_need_a_filter_and_a_named_confidence():
    path = FORMATS / "samples_facts_gen.jsonl"
    assert "no column for confidence" in refused("score", path)
    assert "--where filter=first_line" in refused("score", path, "--confidence", "exact_match")


@pytest.mark.parametrize("kind", ["json", "eval"])
def test_a_log_of_inspect_names_its_scorers_and_needs_one_of_them(kind):
    if kind == "eval":
        pytest.importorskip("zstandard")
    path = FORMATS / f"facts_confidence.{kind}"
    said = refused("score", path)
    assert "--correct NAME" in said and "includes, with_confidence" in said
    assert "none of 12 rows has a confidence" in refused("score", path, "--correct", "includes")


def test_a_confidence_of_a_score_of_inspect_is_read_from_its_metadata(here):
    log = json.loads((FORMATS / "facts_confidence.json").read_text())
    for i, sample in enumerate(log["samples"]):
        sample["scores"]["with_confidence"]["metadata"]["confidence"] = i / 12
    Path("log.json").write_text(json.dumps(log))
    named = {"correct": "includes", "confidence": "with_confidence.confidence"}
    readings = Readings.from_file("log.json", **named)
    assert [r.confidence for r in readings] == [i / 12 for i in range(12)]
    assert sum(r.is_correct for r in readings) == 8


def test_a_frame_of_uqlm_needs_a_scorer_and_an_outcome(here):
    path = FORMATS / "uqlm_whitebox.csv"
    assert "'sequence_probability' and 'min_probability' could be" in refused("score", path)
    assert "calib_nb judge" in refused("score", path, "--confidence", "min_probability")
    frame = pd.read_csv(path).assign(is_correct=[True, False] * 6)
    written(frame, "judged.csv")
    readings = Readings.from_file("judged.csv", confidence="min_probability")
    assert [r.confidence for r in readings] == [round(p, 12) for p in frame.min_probability]


def test_a_pickle_is_refused_with_a_sentence(here):
    import pickle
    import zipfile

    with zipfile.ZipFile("ue_manager_seed1", "w") as archive:
        archive.writestr("ue/data.pkl", pickle.dumps({}))
    Path("plain.jsonl").write_bytes(pickle.dumps({}))
    for name in ("ue_manager_seed1", "plain.jsonl"):
        assert "to open it runs whatever code is in it" in refused("score", name)


# The other commands


def test_judge_gives_rows_that_score_takes(here):
    rows = [{"question": "Which planet is red?", "model_answer": "Mars", "answers": ["Mars"], "confidence": 0.9},
            {"question": "Largest planet?", "model_answer": "Saturn", "answers": "Jupiter", "confidence": 0.6}]
    pd.DataFrame(rows).to_json("answers.jsonl", orient="records", lines=True)
    assert run("judge", "answers.jsonl", "--out", "judged.jsonl").exit_code == 0
    assert [r.is_correct for r in Readings.from_file("judged.jsonl", confidence="confidence")] == [True, False]
    assert "no column 'gold'" in refused("judge", "answers.jsonl", "--answers", "gold")


def test_judge_takes_zero_for_an_answer_and_one_file_at_a_time(here):
    row = {"question": "How many moons has Venus?", "model_answer": 0, "answers": [0]}
    for name in ("first", "second"):
        Path(f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    assert json.loads(run("judge", "first.jsonl").stdout)["is_correct"]
    assert "stands for 2 files, such as first.jsonl. Judge one at a time" in refused("judge", "*.jsonl")


def test_show_says_what_a_run_is(here):
    from calib_nb.compare import made_up_run

    folder = made_up_run(here, "sft")
    card = metric_card(readings_from(frame_of()), 0.5, 20)
    write_json(folder / "metrics.json", {"schema": 1, "expected": {name: asdict(e) for name, e in card.items()}})
    said = run("show", folder).stdout
    assert "complete" in said and "seed = 0" in said and "stages done:" in said and "AUROC" in said
    assert "no run's folder" in refused("show", "nothing")


def test_what_0_1_left_is_refused_in_one_line_or_read_as_any_file(here):
    from calib_nb.compare import load_runs, made_up_run
    from calib_nb.questions import read_judged

    folder = made_up_run(here, "sft")
    new = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {name: value for name, value in new.items() if name != "schema"})
    said = "this run has schema 1, this version of calib_nb reads schema 2, in which 'level' is 'expected'"
    assert said in refused("show", folder) and said in refused("show", folder, "--json")
    with pytest.raises(ValueError, match=said):
        load_runs([folder])
    readings = (folder / "readings.jsonl").read_text()
    (folder / "readings.jsonl").write_text(readings.replace('"expected"', '"level"'))
    scored = run("score", folder / "readings.jsonl", "--where", "readout=level", "--where", "split=test")
    assert scored.exit_code == 0 and "AUROC" in scored.stdout
    judged = folder / "judged.jsonl"
    assert len(read_judged(judged)) == len(judged.read_text().splitlines())


def test_run_executes_the_notebook_with_its_parameters(monkeypatch):
    called = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("calib_nb.command_line._execute", lambda *given: called.append(given))
    assert run("run", "--method", "dpo", "--n_train", "24", "--options", '{"beta": 0.2}').exit_code == 0
    notebook, made, parameters = called[0]
    assert notebook == ROOT / "nbs/run_method.ipynb" and made == ROOT / "runs/dpo.ipynb"
    assert parameters == {"method": "dpo", "n_train": 24, "options": {"beta": 0.2}}
    refused("run", "--metod", "dpo", code=2)
    assert "'--options': '{beta: 0.2}' is not JSON" in refused("run", "--options", "{beta: 0.2}", code=2)
    assert run("run", "--method", "dpo", "--out", "mine").exit_code == 0 and called[1][1] == ROOT / "mine/dpo.ipynb"


def test_a_cell_that_fails_is_one_line(monkeypatch, tmp_path):
    import papermill

    def failing(*given, **how):
        raise papermill.PapermillExecutionError(1, 2, "", "UnknownName", "unknown method 'sfft'.\nKnown: sft", ["..."])

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(papermill, "execute_notebook", failing)
    said = refused("run", "--method", "sfft", "--out", tmp_path)
    assert "UnknownName: unknown method 'sfft'. Known: sft" in said and f"{tmp_path}/sfft.ipynb" in said


def test_each_option_of_run_says_what_it_is(monkeypatch):
    monkeypatch.chdir(ROOT)
    said = run("run", "--help").output
    assert "performance_sft" in said and "[default: 'sft']" in said
    assert not [line for line in said.splitlines() if line.split()[2:3] == ["[default:"]]


WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, *more):
        if name.partition(".")[0] in ("torch", "transformers", "trl", "peft", "datasets", "sentence_transformers"):
            raise ModuleNotFoundError(f"{name} is absent", name=name)

sys.meta_path.insert(0, Absent())
from calib_nb.command_line import main
main(["score", sys.argv[1], "--resamples", "20"])
"""


@pytest.mark.slow
def test_score_needs_no_torch(here):
    written(frame_of(), "mine.csv")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_TORCH, "mine.csv"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and "AUROC" in ended.stdout, ended.stderr


@pytest.mark.slow
def test_the_package_is_a_command():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "calib_nb", "score", "--help"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout.startswith("Usage: calib_nb score") and "Examples:" in ended.stdout


# Columns that are made of several, and ids that stand twice


def test_several_columns_make_an_id_and_two_that_agree_an_outcome(here):
    frame = pd.DataFrame({"llm": ["a", "a", "b"], "item": [1, 2, 1], "said": ["x", "y", ""], "key": ["x", "z", "x"]})
    written(frame.assign(confidence=[0.1, 0.2, 0.3]), "mine.csv")
    readings = Readings.from_file("mine.csv", id=["llm", "item"], correct=["said", "key"])
    assert [(r.id, r.is_correct) for r in readings] == [("a / 1", True), ("a / 2", False)]
    assert "id 'llm / item'" in str(readings.taken) and "1 without an outcome" in str(readings.taken)


def test_of_an_id_that_stands_twice_the_first_counts_or_all_where_that_is_said(here):
    written(frame_of(3, id=["a", "b", "a"], confidence=[0.1, 0.2, 0.3]), "mine.csv")
    kept = {how: [r.confidence for r in Readings.from_file("mine.csv", repeats=how)] for how in ("first", "keep")}
    assert kept == {"first": [0.1, 0.2], "keep": [0.1, 0.2, 0.3]}
    with pytest.raises(ValueError, match="way to take repeats"):
        Readings.from_file("mine.csv", repeats="last")


def test_rows_of_one_question_that_are_all_kept_can_be_scored_and_are_resampled_as_one(here):
    written(frame_of(60, id=[f"q{i % 30}" for i in range(60)], confidence=[0.2, 0.8] * 30), "mine.csv")
    readings = Readings.from_file("mine.csv", repeats="keep")
    assert [r.id for r in readings][29:31] == ["q29", "q0 (2)"]
    assert len({r.question for r in readings}) == 30
    assert score(readings, n_resamples=20).card["accuracy"].n == 60


def test_a_percent_sign_says_its_scale_and_none_is_taken_from_the_range(here):
    written(frame_of(3, confidence=["85%", "0.5", "1"]), "mine.csv")
    assert [r.confidence for r in Readings.from_file("mine.csv")] == [0.85, 0.5, 1.0]
    written(frame_of(3, confidence=["85", "0.5", "1"]), "mine.csv")
    assert "mine.csv:2" in refused("score", "mine.csv")


# Many rows


@pytest.mark.slow
def test_above_the_limit_values_are_the_same_and_every_error_has_its_floor(monkeypatch):
    readings = readings_from(frame_of(400))
    usual = score(readings, 0.5, 200)
    monkeypatch.setattr("calib_nb.scoring._MANY", 100)
    many = score(readings, 0.5, 200)
    assert {name: e.value for name, e in many.card.items()} == {name: e.value for name, e in usual.card.items()}
    floors = [(many.card[name].floor_high, e.floor_high) for name, e in usual.card.items() if e.floor_high is not None]
    assert len(floors) == 3 and all(a == pytest.approx(b, rel=0.25) for a, b in floors)
    assert "no interval for debiased calibration error: none above 100 readings." in str(many)
    few_right = [replace(r, is_correct=k < 5) for k, r in enumerate(readings)]
    assert "an interval needs 10 groups with a right answer" in str(score(few_right, 0.5, 20))


@pytest.mark.long
def test_run_trains_and_leaves_a_run_that_show_shows(tmp_path):
    sizes = "--n_train 24 --n_calibration 12 --n_test 12".split()
    command = [sys.executable, "-m", "calib_nb", "run", "--method", "sft", *sizes, "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    [manifest] = tmp_path.glob("facts-*-sft-*/manifest.json")
    shown = run("show", manifest.parent)
    assert shown.exit_code == 0 and "complete" in shown.stdout.splitlines()[0]
    assert "method = 'sft'" in shown.stdout and "training" in shown.stdout
