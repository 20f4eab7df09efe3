"""What a run shows, on a made-up run that has loaded no model."""
import json
from dataclasses import asdict, replace
from functools import cached_property
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import psutil
import pytest

from calib_nb import report
from calib_nb.core import Judged, Reading, RunFolder, write_json, write_jsonl
from calib_nb.experiment import PROTOCOLS, Parameters
from calib_nb.inference import metric_card
from calib_nb.methods import METHODS
from calib_nb.report import (
    _label_statistics,
    comparison_table,
    findings,
    keep_notebook,
    original_finding,
    original_table,
    overconfident,
    show_labels,
    show_reliability,
    show_training,
    time_table,
)

N = 30
STAGES = {
    "answers": {"seconds": 100.0},
    "baseline_readings": {"seconds": 40.4, "from_cache": True},
    "labels": {"seconds": 2.3},
    "training": {"seconds": 11.2, "from_cache": True},
    "readings": {"seconds": 50.6},
    "metrics": {"seconds": 3.0},
}
HISTORY = [
    {"step": 0, "calibration_brier": 0.3},
    {"step": 1, "loss": 1.5},
    {"step": 1, "calibration_brier": 0.2},
]


def right(i):
    return i % 3 == 0


def reading(i, method, readout, confidence):
    "The reading of answer `i`."
    return Reading(
        id=f"q{i}",
        question=f"Question {i}?",
        answer=f"answer {i}",
        is_correct=right(i),
        confidence=confidence,
        provenance="missing" if confidence is None else "parsed",
        readout=readout,
        protocol="two_step",
        method=method,
        seed=0,
        split="test",
        group=f"group {i}",
        relation="relation",
    )


def readings_of(method, readouts):
    "The untrained model says nearly the same of all; a trained one is surer of the later answers, and silent once."
    spread = 0.001 if method == "baseline" else 0.03
    readings = [reading(i, method, readout, 0.05 + spread * i) for readout in readouts for i in range(N)]
    silent = replace(readings[1], confidence=None, provenance="missing")
    return [readings[0], silent, *readings[2:]]


class MadeUpRun:
    "What a `Run` offers, made up; what it was asked for, in `asked`."

    def __init__(self, folder, **parameters):
        self.parameters = p = Parameters(**parameters)
        self.method, self.asked = METHODS[p.method], []
        made = STAGES if self.method.steps else {name: STAGES[name] for name in ("answers", "baseline_readings")}
        trained = {"history": HISTORY, "weight_shift": {"relative": 0.0123}} if self.method.steps else {}
        write_json(folder / "manifest.json", {"parameters": asdict(p), "stages": made, **trained})
        self.folder = RunFolder(folder)
        self.judged = [Judged(f"Question {i}?", "a", right(i), f"q{i}", answers=["A", "B", "C"]) for i in range(N)]
        self.accuracy = {"train": 0.3}
        self.baseline_readings = readings_of("baseline", PROTOCOLS[p.protocol])
        self.readings = readings_of(p.method, PROTOCOLS[p.protocol])
        self.original_readings = self.baseline_readings + self.readings
        self.original_wording = []

    @property
    def trained(self):
        "As of a run: to ask for it writes the labels."
        self.asked.append("trained")
        rows = [{"id": f"q{i}", "label": i / N, "is_correct": right(i)} for i in range(N)]
        write_jsonl(self.folder.path / "labels.jsonl", rows)
        return self

    def sides(self):
        return {"baseline": self.baseline_readings, self.parameters.method: self.readings}

    @cached_property
    def cards(self):
        "With few resamples: only what they are called matters here."
        cards = {}
        for side, readings in self.sides().items():
            for readout in PROTOCOLS[self.parameters.protocol]:
                own = [r for r in readings if r.readout == readout]
                cards.setdefault(side, {})[readout] = metric_card(own, 0.3, n_resamples=20)
        return cards


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    return MadeUpRun(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def table(sft):
    return comparison_table(sft)


def test_times_are_the_seconds_of_the_making_in_this_run_or_an_earlier_one(sft):
    times = time_table(sft)
    method = times.loc["sft"]
    assert method["training time (s)"] == "14", "the making of labels is part of training: 2.3 + 11.2"
    assert method["evaluation time (s)"] == "51"
    assert times.loc["baseline", "evaluation time (s)"] == "40", "also where they came from the cache"


def test_the_untrained_model_took_no_training_time(sft):
    assert time_table(sft).loc["baseline", "training time (s)"] == "0"


def test_costs_stand_in_a_table_of_their_own(table):
    assert not [row for row in table.index if "time" in row]


def test_the_table_has_a_column_for_each_readout_and_side(table):
    readouts = PROTOCOLS["two_step"]
    assert list(table.columns) == [(readout, side) for readout in readouts for side in ("baseline", "sft")]
    for row in ("n", "parsed", "Brier skill", "AUROC stratified by relation", "ECE", "distinct values"):
        assert row in table.index
    assert table["verbalized", "sft"]["n"] == str(N - 1)
    assert table["verbalized", "sft"]["parsed"] == "96.7%"
    assert list(table.index[:3]) == ["n", "parsed", "diagnosis"], "which metrics mean something stands before them"
    assert set(table.loc["diagnosis"]) == {"unpowered"}


def test_a_table_is_shown_whole_and_its_header_over_every_column(table):
    assert table._repr_html_().count("<th>verbalized</th>") == 2
    assert repr(table).split("\n")[0].split() == ["verbalized", "verbalized", "expected", "expected"]
    long = "the capital of a country with a very " + 10 * "very " + "long name"
    shown = report._Table({"answer": [long]})
    assert long in repr(shown.round(3)) and long in shown.round(3)._repr_html_()


def test_no_line_breaks_an_interval(table):
    skill = table["expected", "sft"]["Brier skill"]
    assert skill.startswith("-") and "[" in skill and " " not in skill


def test_a_run_of_the_untrained_model_has_one_column_for_each_readout(tmp_path):
    run = MadeUpRun(tmp_path, method="baseline")
    table = comparison_table(run)
    assert list(table.columns) == [(readout, "baseline") for readout in PROTOCOLS["two_step"]]
    assert set(time_table(run)["training time (s)"]) == {"0"}
    assert len(findings(run).text.splitlines()) == 2
    assert show_reliability(run).get_suptitle().count(" to ") == 0
    assert list(overconfident(run).columns) == ["question", "answer", "accepted", "baseline"]


def test_findings_are_a_sentence_for_each_side_and_difference(sft):
    lines = findings(sft).text.splitlines()
    heads = [line.partition(":")[0] for line in lines]
    readouts = PROTOCOLS["two_step"]
    assert heads[:4] == [f"- **{side}, {readout}**" for side in ("baseline", "sft") for readout in readouts]
    assert lines[4] == "- **sft**: training changed the adapted weights by 1.2 % of their size (Frobenius norm)."
    assert heads[5:] == [f"- **sft minus baseline, {readout}**" for readout in readouts for _ in range(2)]
    metrics = [line.partition("**: ")[2].split(" +")[0].split(" -")[0] for line in lines[5:]]
    assert metrics == ["Brier skill", "AUROC"] * 2
    assert all(line.endswith(".") for line in lines)


def test_sentences_are_shown_as_markdown_and_can_be_read_without_a_notebook(sft):
    shown = findings(sft)
    assert shown._repr_markdown_() == str(shown) == repr(shown) == shown.text


def test_overconfident_lists_wrong_answers_the_surest_first(sft):
    worst = overconfident(sft, 5)
    assert list(worst["question"]) == [f"Question {i}?" for i in (29, 28, 26, 25, 23)]
    assert list(worst["sft"]) == pytest.approx([0.05 + 0.03 * i for i in (29, 28, 26, 25, 23)])
    assert list(worst["baseline"]) == pytest.approx([0.05 + 0.001 * i for i in (29, 28, 26, 25, 23)])
    assert set(worst["accepted"]) == {"A; B"}, "two accepted answers are enough to see"


def test_overconfident_leaves_out_what_says_nothing(tmp_path):
    run = MadeUpRun(tmp_path, readout="verbalized")
    shown = list(overconfident(run, N)["question"])
    assert "Question 1?" not in shown
    assert len(shown) == sum(not right(i) for i in range(N)) - 1


@pytest.mark.parametrize("protocol, shown", [("two_step", "expected"), ("joint", "verbalized")])
def test_the_figure_shows_the_chosen_readout_where_the_protocol_has_it(tmp_path, protocol, shown):
    run = MadeUpRun(tmp_path, protocol=protocol)
    figure = show_reliability(run)
    assert f"sft, {shown} readout" in figure.get_suptitle()
    assert (tmp_path / "reliability.svg").exists()
    assert (tmp_path / "reliability.png").exists()


def test_labels_of_neighbours_are_shown_whatever_their_step_is_called(tmp_path):
    run = MadeUpRun(tmp_path, method="performance_sft")
    step = replace(run.method.steps[0], name="labels under another name")
    run.method = replace(run.method, steps=(step, *run.method.steps[1:]))
    figure = show_labels(run)
    assert run.asked == ["trained"], "labels are written by the training, which is asked for"
    assert f"Labels of {N} training questions" in figure.axes[0].get_title(loc="left")
    statistics = _label_statistics(run)
    assert "original" in statistics
    assert statistics.loc["n", "these labels"] == f"{N}", "a count has no decimals"


@pytest.mark.parametrize("method", ["baseline", "sft"])
def test_a_method_without_neighbours_shows_no_labels_and_is_not_trained_for_it(tmp_path, method):
    run = MadeUpRun(tmp_path, method=method)
    sentence = report._Prose(f"**{method}** has no labels from neighbouring questions (k-NN).")
    assert show_labels(run) == _label_statistics(run) == sentence
    assert run.asked == []


def test_the_training_is_shown_and_a_method_that_does_not_train_says_so(tmp_path, sft):
    figure = show_training(sft)
    assert figure.get_suptitle() == "Training sft: the calibration split's Brier score went from 0.300 to 0.200"
    assert len(figure.axes) == 2
    assert show_training(MadeUpRun(tmp_path, method="baseline")) == report._Prose("**baseline** trains nothing.")


def test_a_figure_that_is_the_value_of_a_cell_is_shown_once(sft):
    before = plt.get_fignums()
    assert show_training(sft) and show_reliability(sft)
    assert plt.get_fignums() == before, "what is left open is shown behind the cell's value, too"


def test_the_original_evaluation_is_shown_where_it_was_asked_for(tmp_path, sft):
    assert "`original = ''`" in str(original_table(sft)) and str(original_finding(sft)) == ""
    run = MadeUpRun(tmp_path, original="repository")
    first = replace(run.original_readings[1], confidence=0.5, provenance="filled")
    run.original_readings = [r for r in run.original_readings if r.readout == "verbalized"]
    run.original_readings[1] = first
    table = original_table(run)
    ways = ("as the original", "honest", "honest, by probability")
    assert list(table.index) == [(side, how) for side in ("baseline", "sft") for how in ways]
    assert list(table["unreadable"]) == ["3.3%", "3.3%", "0.0%"] * 2, "what was filled in could not be read"
    assert list(table.columns) == [
        "n", "right", "unreadable", "predicted RMS", "RMS", "diagnosis", "Brier skill", "AUROC"
    ]
    said = str(original_finding(run))
    assert f"{table.loc[('sft', 'as the original'), 'RMS']} where" in said and "(3.3% of 30 texts" in said
    assert table.loc[("sft", "honest, by probability"), "AUROC"].replace("\N{NO-BREAK SPACE}", " ")[:4] in said


def test_a_model_whose_texts_say_nothing_gets_the_distance_of_a_half_from_the_accuracy(tmp_path):
    run = MadeUpRun(tmp_path, original="repository")
    texts = [r for r in run.original_readings if r.readout == "verbalized"]
    silent = [replace(r, confidence=0.5, provenance="filled") for r in texts]
    probable = [replace(r, confidence=0.6, provenance="scored", readout="normalized_probability") for r in texts]
    run.original_readings = silent + probable
    table = original_table(run)
    for side in ("baseline", "sft"):
        row = table.loc[(side, "as the original")]
        assert row["RMS"] == row["predicted RMS"] == f"{0.5 - 1 / 3:.3f}" and row["unreadable"] == "100.0%"
        assert table.loc[(side, "as the original, by probability"), "RMS"] == f"{0.6 - 1 / 3:.3f}"


def executed_by(monkeypatch, words, folder, session=""):
    "As if the process that runs the kernel had been started with `words` in `folder`."
    parent = SimpleNamespace(cmdline=lambda: words, cwd=lambda: str(folder))
    monkeypatch.setattr(report.psutil, "Process", lambda: SimpleNamespace(parent=lambda: parent))
    monkeypatch.setenv("JPY_SESSION_NAME", session and str(folder / session))


def test_the_notebook_that_papermill_writes_is_kept(tmp_path, monkeypatch):
    run = MadeUpRun(tmp_path / "run", seed=3)
    output = tmp_path / "sft-3.ipynb"
    output.write_text(json.dumps({"cells": []}))
    words = ["python", "/bin/papermill", "nbs/run_method.ipynb", "{method}-{seed}.ipynb", "-p", "seed", "3"]
    executed_by(monkeypatch, words, tmp_path)
    said = keep_notebook(run)
    assert (run.folder.path / "run_method.ipynb").read_text() == output.read_text()
    assert said == "runs/run: manifest.json, run_method.ipynb"


def saved(monkeypatch, folder, parameters, *shown):
    "As if JupyterLab had saved a notebook with these parameters and tables."
    executed_by(monkeypatch, ["python", "-m", "jupyterlab"], folder, "mine.ipynb")
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    for table in shown:
        output = nbformat.v4.new_output("execute_result", {"text/html": table._repr_html_()})
        cells.append(nbformat.v4.new_code_cell("comparison_table(run)", outputs=[output]))
    cells.append(nbformat.v4.new_code_cell("keep_notebook(run)"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "mine.ipynb")
    return folder / "mine.ipynb"


@pytest.fixture
def shown(sft, table, monkeypatch):
    "The run, its table made once, and no copy of a notebook."
    monkeypatch.setattr(report, "comparison_table", lambda run: table)
    copy = sft.folder.path / "run_method.ipynb"
    yield sft, copy
    copy.unlink(missing_ok=True)


def test_values_that_a_run_takes_as_the_same_are_the_same(shown, table, tmp_path, monkeypatch):
    run, _ = shown
    asked = "method = 'sft'\nseed = 0\noptions = {'epochs': %r}"
    monkeypatch.setattr(run, "parameters", replace(run.parameters, options={"epochs": 3}))
    saved(monkeypatch, tmp_path, asked % "3", table)
    assert "Save" not in keep_notebook(run)
    saved(monkeypatch, tmp_path, asked % "4", table)
    assert "has another options" in keep_notebook(run)


def test_the_notebook_of_a_jupyter_session_is_kept_where_it_shows_the_run(shown, table, tmp_path, monkeypatch):
    run, copy = shown
    file = saved(monkeypatch, tmp_path, "method = 'sft'\nseed = 0\nout = str('runs')", table)
    assert "run_method.ipynb" in keep_notebook(run) and "Save" not in keep_notebook(run)
    assert copy.read_bytes() == file.read_bytes()


def test_a_saved_notebook_of_another_run_is_not_kept_and_the_sentence_says_what_to_do(
    shown, table, tmp_path, monkeypatch
):
    run, copy = shown
    other = table.replace("29", "28")
    for parameters, tables, reason in (
        ("method = 'baseline'\nseed = 4", [table], "has another method, seed"),
        ("seed = 0", [other], "does not show this run yet"),
        ("seed = 0", [], "does not show this run yet"),
        ("seed = ", [table], "cannot be read"),
    ):
        saved(monkeypatch, tmp_path, parameters, *tables)
        assert f"as saved, mine.ipynb {reason}. Save and run this cell again." in keep_notebook(run)
        assert not copy.exists()


def test_a_kernel_whose_parent_cannot_be_seen_ends_without_an_error(tmp_path, monkeypatch):
    def hidden():
        raise psutil.AccessDenied()

    run = MadeUpRun(tmp_path / "run")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    for parent in (lambda: None, hidden, lambda: SimpleNamespace(cmdline=hidden)):
        monkeypatch.setattr(report.psutil, "Process", lambda seen=parent: SimpleNamespace(parent=seen))
        assert keep_notebook(run) == "runs/run: manifest.json"


def test_text_of_strangers_is_text_in_a_table(tmp_path):
    hostile = "</td><script>\x1b[31m\u202eabc"
    table = report._Table({hostile: [hostile]}, index=[hostile])
    for shown in (repr(table), table._repr_html_()):
        assert "\x1b" not in shown and "\u202e" not in shown and shown.count("\\u202eabc") == 3
    assert table._repr_html_().count("&lt;script&gt;") == 3
    assert table.iloc[0, 0] == hostile, "what is computed with is unchanged"


def test_without_a_notebook_only_the_files_are_listed(tmp_path, monkeypatch):
    executed_by(monkeypatch, ["python"], tmp_path)
    assert keep_notebook(MadeUpRun(tmp_path / "run")) == "runs/run: manifest.json"
