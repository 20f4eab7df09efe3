"""The explorer without a browser: its controls are set from Python, and what it shows is read."""
import base64
import json
import re
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, code_cells
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_nb import explorer as room
from calib_nb.command_line import main
from calib_nb.compare import made_up_run
from calib_nb.core import Reading, RecordError, read_json, read_jsonl, write_json, write_jsonl
from calib_nb.explorer import explore
from calib_nb.inference import metric_card
from calib_nb.readings import Readings

N = 60


@pytest.fixture
def drawn():
    "Asked for by a test that looks at the figure."


@pytest.fixture(autouse=True)
def light(request, monkeypatch):
    "The other tests draw none: a figure takes a quarter of a second."
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(room, "_figure", lambda *_: None)
        monkeypatch.setattr(room, "_png", lambda figure: b"\x89PNG")


@pytest.fixture
def run(tmp_path):
    "The folder of a finished run of a made-up forecaster, some of whose readings are missing."
    return made_up_run(tmp_path / "runs", n=N, base_rate=0.5, missing=0.1)


@pytest.fixture
def shown(run):
    "Its explorer, at the trained model's readings."
    explorer = explore(run)
    explorer.controls.rows.value = "sft, expected"
    return explorer


def png(explorer):
    "The bytes of the one figure."
    (output,) = explorer.picture.outputs
    return base64.b64decode(output["data"]["image/png"])


def value_of(explorer, label):
    "What the table of numbers says of a metric."
    return re.search(rf"<td>{label}</td><td>([-\d.]+)", explorer.texts.numbers.value)[1]


def predictions(path, times=1, **columns):
    "A file of six predictions, three right, or several times these; further columns of it."
    lines = []
    for i, said in enumerate((0.95, 0.9, 0.6, 0.55, 0.2, None) * times):
        line = {"id": f"q{i}", "question": f"Question {i}?", "answer": f"answer {i}", "confidence": said}
        lines.append({**line, "is_correct": i % 2 == 0, **{name: values[i] for name, values in columns.items()}})
    return write_jsonl(path, lines)


# What is chosen, and what follows


def test_numbers_are_those_of_the_metric_card(shown):
    readings = shown.source.rows["sft, expected"]
    card = metric_card(readings, shown.source.reference, n_resamples=20, n_floor=20)
    labels = {"accuracy": "accuracy", "auroc": "AUROC", "brier_skill_score": "Brier skill"}
    for name, label in labels.items():
        assert float(value_of(shown, label)) == pytest.approx(card[name].value, abs=5e-4), name


def test_figure_table_and_bins_follow_each_control(shown, drawn):
    seen, open_before = {png(shown)}, plt.get_fignums()
    for name, value in {"rows": "baseline, expected", "n_bins": 5, "threshold": 0.8}.items():
        getattr(shown.controls, name).value = value
        assert shown.error is None
        seen.add(png(shown))
    assert len(seen) == 4, "each changes the figure"
    assert plt.get_fignums() == open_before, "none is left open"
    assert len(shown.controls.bin.options) == 2, "0.9 throughout, and what is missing"
    stated = [r for r in shown.source.rows["baseline, expected"] if r.confidence is not None]
    right = sum(r.is_correct for r in stated)
    assert shown.controls.bin.label == f"0.80 to 1.00: {len(stated)} answers, {right} right; says 90%"


def test_a_bin_lists_its_answers_and_the_last_one_those_without_a_confidence(shown):
    for label, low in shown.controls.bin.options:
        shown.controls.bin.value = low
        listed = re.findall(r"<tr><td>(question \d+\?)</td>", shown.texts.answers.value)
        inside = [r for r in shown.view.readings if r.confidence is not None and low <= r.confidence < low + 0.1]
        missing = [r for r in shown.view.readings if r.confidence is None]
        assert sorted(listed) == sorted(r.question for r in (missing if low == -1 else inside))
        assert f"{len(listed)} answer" in label
    assert low == -1 and len(missing) > 0


def test_what_is_known_of_an_answer_stands_beside_it(tmp_path):
    columns = {"target": ["Holland; the Netherlands"] * 6, "verdict": ["incorrect"] * 6, "reason": ["no such name"] * 6}
    page = explore(predictions(tmp_path / "mine.jsonl", **columns)).texts.answers.value
    for words in ("Question 0?", "answer 0", "Holland; the Netherlands", "0.950", "incorrect", "no such name"):
        assert words in page


def test_a_group_is_looked_at_by_itself_even_where_it_has_no_confidence_or_one_answer(tmp_path):
    relation = ["capital", "capital", "river", "river", "river", "peak"]
    shown = explore(predictions(tmp_path / "mine.jsonl", relation=relation))
    assert [label for label, _ in shown.controls.group.options] == ["all (6)", "capital (2)", "peak (1)", "river (3)"]
    for _, name in shown.controls.group.options:
        shown.controls.group.value = name
        assert shown.error is None, name
        assert len(shown.view.readings) == (relation.count(name) if name else 6)


def test_methods_and_readouts_of_one_file_are_choices(tmp_path):
    lines = []
    for method, said in (("sft", 0.9), ("dpo", 0.4)):
        for i in range(4):
            line = {"id": f"q{i}", "method": method, "readout": "expected", "confidence": said}
            lines.append({**line, "is_correct": i < 2})
    shown = explore(write_jsonl(tmp_path / "both.jsonl", lines))
    assert [label for label, _ in shown.controls.rows.options] == ["sft", "dpo"]
    shown.controls.rows.value = "dpo"
    assert value_of(shown, "mean confidence") == "0.400"


def test_a_readout_that_has_no_confidence_at_all_is_a_choice_beside_one_that_has(tmp_path, drawn):
    def lines(readout, said):
        return [{"id": f"q{i}", "readout": readout, "confidence": said, "is_correct": i < 2} for i in range(4)]

    silent = lines("verbalized", None)
    shown = explore(write_jsonl(tmp_path / "two.jsonl", lines("expected", 0.4) + silent))
    shown.controls.rows.value = "verbalized"
    assert shown.error is None and len(shown.view.readings) == 4
    with pytest.raises(RecordError, match="none of 4 answers has a confidence"):
        explore(write_jsonl(tmp_path / "one.jsonl", silent))
    with pytest.raises(RecordError, match="none of 8 answers has a confidence"):
        explore(write_jsonl(tmp_path / "none.jsonl", lines("linguistic", None) + silent))
    ungraded = [{**line, "is_correct": None} for line in silent]
    with pytest.raises(RecordError, match=r"none of 4 rows has an outcome \('is_correct'\)"):
        explore(write_jsonl(tmp_path / "ungraded.jsonl", lines("expected", 0.4) + ungraded))


def test_columns_of_a_file_can_be_named_and_one_that_is_not_is_said_at_once(tmp_path):
    path = write_jsonl(tmp_path / "mine.jsonl", [{"q": "a", "sure": 90, "ok": 1}, {"q": "b", "sure": 40, "ok": 0}])
    options = {"confidence": "sure", "correct": "ok", "question": "q", "scale": "percent"}
    assert value_of(explore(path, options=options), "mean confidence") == "0.650"
    with pytest.raises(RecordError, match="no column for confidence"):
        explore(path)
    with pytest.raises(ValueError, match="unknown option of a file 'confidenc'. Did you mean 'confidence'"):
        explore(path, options={"confidenc": "sure"})


def test_runs_of_a_folder_are_choices_and_one_that_is_spoilt_is_said_when_it_is_chosen(tmp_path):
    first = made_up_run(tmp_path, "sft", n=N)
    second = made_up_run(tmp_path, "dpo", n=N)
    third = made_up_run(tmp_path, "brier", n=N)
    write_json(third / "manifest.json", {**read_json(third / "manifest.json"), "complete": False})
    shown = explore(tmp_path)
    assert [name for name, _ in shown.controls.source.options] == sorted([first.name, second.name])
    (first / "readings.jsonl").write_text("{}")
    shown.controls.source.value = first.name
    assert "RecordError" in shown.texts.said.value and "field &#x27;id&#x27; is missing" in shown.texts.said.value
    shown.controls.source.value = second.name
    assert shown.error is None and shown.texts.said.value == ""


def test_a_folder_without_a_finished_run_is_none(tmp_path):
    with pytest.raises(RecordError, match="neither a run's folder nor one with finished runs in it. Name another"):
        explore(tmp_path)
    with pytest.raises(RecordError, match="there is nothing to explore"):
        explore([])


# The threshold


CONFIDENCES = st.lists(st.tuples(st.none() | st.floats(0, 1), st.booleans()), min_size=1, max_size=30)


def reading(i, confidence, is_correct):
    how = dict(readout="given", protocol="two_step", method="mine", seed=0, split="test")
    provenance = "missing" if confidence is None else "scored"
    return Reading(f"q{i}", f"question {i}?", "an answer", is_correct, confidence, provenance, **how)


@given(rows=CONFIDENCES, threshold=st.floats(0, 1), cost=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_threshold_counts_as_numpy_does(rows, threshold, cost):
    found = room._at_threshold([reading(i, p, y) for i, (p, y) in enumerate(rows)], threshold, cost)
    p = np.array([np.nan if p is None else p for p, _ in rows], float)
    y = np.array([y for _, y in rows])
    given = p >= threshold
    assert found["answered"] == given.sum() and found["wrong"] == (given & ~y).sum()
    assert found["cost"] == pytest.approx(np.where(given, ~y, cost).mean())
    assert np.isnan(found["accuracy"]) if not given.any() else found["accuracy"] == pytest.approx(y[given].mean())


def test_accuracy_share_and_cost_stand_below_the_slider(tmp_path):
    shown = explore(predictions(tmp_path / "mine.jsonl"))
    shown.controls.threshold.value, shown.controls.cost.value = 0.6, 0.25
    said = "From 0.60 on: 3 of 6 answered (50.0%), 66.7% of them right; cost per question 0.292 "
    assert said in shown.texts.answered.value
    shown.controls.threshold.value = 1.0
    assert "0 of 6 answered (0.0%), so none is wrong; cost per question 0.250" in shown.texts.answered.value


# Verdicts by hand


def correct(explorer, low, place, verdict="correct", by="Ann", why=""):
    "Correct the verdict on an answer of a bin, as a user does."
    c = explorer.controls
    c.bin.value = low
    c.answer.index = place
    c.verdict.value, c.by.value, c.why.value = verdict, by, why
    c.save.click()


def test_a_corrected_verdict_moves_every_number_and_is_kept_with_who_when_and_why(tmp_path, drawn):
    shown = explore(predictions(tmp_path / "mine.jsonl", 6, verdict=["", "incorrect", "", "", "", ""] * 6))
    picture, accuracy, auroc = png(shown), value_of(shown, "accuracy"), value_of(shown, "AUROC")
    correct(shown, 0.9, 6, why="another name")
    assert shown.error is None and (accuracy, value_of(shown, "accuracy")) == ("0.500", "0.528")
    assert value_of(shown, "AUROC") != auroc
    assert png(shown) != picture and shown.controls.bin.label == "0.90 to 1.00: 12 answers, 7 right; says 93%"
    assert "From 0.50 on: 24 of 36 answered (66.7%), 54.2% of them right" in shown.texts.answered.value
    assert "by hand: another name (Ann)" in shown.texts.answers.value
    lines = [line for _, line in read_jsonl(tmp_path / "mine.by_hand.jsonl")]
    (changed,) = [line for line in lines if "by_hand" in line]
    assert len(lines) == 36 and changed["id"] == "q1" and changed["is_correct"] is True
    when = changed["by_hand"].pop("at")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", when)
    assert changed["by_hand"] == {"by": "Ann", "why": "another name", "was": "incorrect", "because": ""}


def test_the_file_of_corrected_verdicts_scores_as_the_explorer_counts(tmp_path):
    shown = explore(predictions(tmp_path / "mine.jsonl"))
    correct(shown, 0.9, 1)
    command = shown.source.usage["mine"].split()
    assert command[:2] == ["calib_nb", "score"] and command[2] in shown.texts.said.value
    ended = CliRunner().invoke(main, [*command[1:], "--json"])
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["metrics"]["accuracy"]["value"] == pytest.approx(4 / 6)
    assert [r.is_correct for r in Readings.from_file(tmp_path / "mine.jsonl")] == [True, False] * 3, "as it was"


def test_opened_again_it_counts_with_them_and_two_pages_lose_none(tmp_path):
    path = predictions(tmp_path / "mine.jsonl", 6)
    one, two = explore(path), explore(path)
    correct(one, 0.9, 6, by="Ann")
    correct(two, 0.5, 0, by="Bob")
    again = explore(path)
    assert value_of(again, "accuracy") == "0.556" and "2 verdicts by hand, from" in again.texts.said.value
    correct(again, 0.9, 6, "not_attempted", "Cid", "it declines")
    (line,) = [line for _, line in read_jsonl(tmp_path / "mine.by_hand.jsonl") if line["id"] == "q1"]
    assert line["is_correct"] is False and line["verdict"] == "not_attempted"
    assert line["by_hand"]["by"] == "Cid" and line["by_hand"]["was"] is False, "what the judge had said, not Ann"


@pytest.mark.slow
def test_a_run_is_made_with_the_corrected_verdicts_and_the_same_splits(run, shown):
    from calib_nb.experiment import Parameters, planned_splits

    wrong = next(r for r in shown.view.readings if not r.is_correct and r.confidence is not None)
    low = next(low for low, part in shown.view.bins.items() if wrong in part)
    before = (run / "judged.jsonl").read_bytes()
    correct(shown, low, [r.id for r in shown.view.bins[low]].index(wrong.id))
    assert (run / "judged.jsonl").read_bytes() == before
    path = run.parent / f"{run.name}.by_hand.jsonl"
    assert f"-p judged {path} -p split_seed 0" in shown.texts.said.value
    sizes = dict(n_train=300, n_calibration=100, n_test=N)
    splits, _ = planned_splits(Parameters(judged=str(path), split_seed=0, **sizes), run.parent / "cache")
    first = [line for _, line in read_jsonl(run / "judged.jsonl")]
    for split, judged in splits.items():
        asked = [(line["id"], line["model_answer"]) for line in first if line["extra"]["split"] == split]
        assert [(j.id, j.model_answer) for j in judged] == asked, "in the same order, so that the cache knows them"
    (again,) = [j for j in splits["test"] if j.id == wrong.id]
    assert again.is_correct and again.extra["by_hand"]["by"] == "Ann"
    untouched = {j.id: j.is_correct for j in splits["test"] if j.id != wrong.id}
    assert untouched == {r.id: r.is_correct for r in shown.view.readings if r.id != wrong.id}


def test_a_file_of_verdicts_that_was_spoilt_by_hand_is_refused_with_its_line(tmp_path):
    path = predictions(tmp_path / "mine.jsonl")
    correct(explore(path), 0.9, 1)
    by_hand = tmp_path / "mine.by_hand.jsonl"
    by_hand.write_text(by_hand.read_text().replace('"verdict": "correct"', '"verdict": "incorrect"'))
    with pytest.raises(RecordError, match=r"jsonl:2: field 'is_correct' is true, field 'verdict' is 'incorrect'"):
        explore(path)


def test_the_verdict_counts_for_every_confidence_in_the_same_answer(shown):
    wrong = [r for r in shown.view.bins[0.5] if not r.is_correct][0]
    correct(shown, 0.5, shown.view.bins[0.5].index(wrong))
    for readings in shown.source.rows.values():
        assert [r.is_correct for r in readings if r.id == wrong.id] == [True]


def test_nobody_corrects_without_a_name_nor_an_answer_that_is_gone(tmp_path):
    path = predictions(tmp_path / "mine.jsonl")
    shown = explore(path)
    correct(shown, 0.9, 1, by=" ")
    assert "write your name into the field &#x27;who&#x27;" in shown.texts.said.value
    assert not (tmp_path / "mine.by_hand.jsonl").exists()
    correct(shown, 0.9, 1)
    changed = path.read_text().replace("answer 1", "another answer")
    path.write_text(changed)
    with pytest.raises(RecordError, match="is of an answer that is not there any more. Move the file away"):
        explore(path)


def test_a_run_of_the_joint_protocol_says_why_its_verdicts_stay(run, shown):
    lines = [line for _, line in read_jsonl(run / "readings.jsonl")]
    write_jsonl(run / "readings.jsonl", [{**line, "protocol": "joint", "answer": "of its own"} for line in lines])
    joint = explore(run)
    joint.controls.rows.value = "sft, expected"
    joint.controls.save.click()
    assert "the joint protocol judges each response by itself" in joint.texts.said.value


# What users of comparable explorers have met


def collected(monkeypatch):
    "A list that gets what is displayed."
    found = []
    monkeypatch.setattr("IPython.display.display", lambda *things, **_: found.extend(things))
    return found


def test_beside_the_controls_stand_a_plain_table_and_a_plain_picture(shown, drawn, monkeypatch):
    displayed = collected(monkeypatch)
    shown._ipython_display_()
    controls, table, picture = displayed
    assert controls is shown.box
    assert "<td>AUROC</td>" in table.data and "answered" in table.data
    assert base64.b64decode(picture["image/png"]) == png(shown) and png(shown).startswith(b"\x89PNG")


def test_twenty_changes_leave_one_figure(shown):
    for i in range(20):
        shown.controls.cost.value = i / 20
    assert len(shown.picture.outputs) == 1
    assert shown.controls.threshold in shown.box.children[1].children, "and the slider is still there"


def test_a_choice_is_one_step_whatever_options_it_sets(shown):
    for name, value in {"rows": "baseline, verbalized", "n_bins": 20, "threshold": 0.7, "bin": -1}.items():
        before = shown.steps
        getattr(shown.controls, name).value = value
        assert shown.steps == before + 1, name
    before = shown.steps
    shown.controls.bin.value = shown.controls.bin.value
    assert shown.steps == before, "nothing was chosen"


def test_a_cell_that_is_run_twice_calls_once_for_a_click(run):
    names = {"explore": explore, "run": run}
    for _ in range(2):
        exec("shown = explore(run)", names)
    shown = names["shown"]
    before = shown.steps
    shown.controls.intervals.click()
    shown.box.children[1].children[0].value = 0.9
    assert shown.steps == before + 2


def test_controls_wait_until_they_are_let_go_and_no_step_but_the_button_resamples(shown, monkeypatch):
    c = shown.controls
    for control in (c.threshold, c.cost, c.by, c.why):
        assert control.continuous_update is False
    monkeypatch.setattr("calib_nb.inference.bootstrap", None)
    monkeypatch.setattr("calib_nb.inference.noise_floor", None)
    for name, value in {"threshold": 0.7, "cost": 0.5, "rows": "baseline, expected", "n_bins": 5}.items():
        getattr(c, name).value = value
        assert shown.error is None, name
    c.intervals.click()
    assert isinstance(shown.error, TypeError)


def test_the_button_brings_intervals_and_diagnosis_and_the_next_choice_takes_them_away(shown):
    shown.controls.intervals.click()
    assert re.search(r"<td>Brier score</td><td>0\.\d+ \[0\.\d+, 0\.\d+\]", shown.texts.numbers.value)
    assert "2000 resamples" in shown.texts.numbers.value
    shown.controls.n_bins.value = 5
    assert "[" not in shown.texts.numbers.value


def test_an_error_and_a_print_of_a_step_are_seen_in_the_explorer_until_the_next(shown, drawn, monkeypatch):
    def fails(*_):
        print("half way <b>")
        raise RuntimeError("the figure <i>fails</i>")

    monkeypatch.setattr(room, "_figure", fails)
    shown.controls.threshold.value = 0.9
    said = shown.texts.said.value
    assert "half way &lt;b&gt;" in said and "RuntimeError: the figure &lt;i&gt;fails&lt;/i&gt;" in said
    assert shown.texts.busy.value == "" and isinstance(shown.error, RuntimeError)
    monkeypatch.undo()
    shown.controls.threshold.value = 0.8
    assert shown.error is None and shown.texts.said.value == "" and shown.steps > 2


def test_a_sign_says_that_a_step_is_computing(shown, drawn, monkeypatch):
    seen = []
    monkeypatch.setattr(room, "_figure", lambda *_: seen.append(shown.texts.busy.value) or plt.figure())
    shown.controls.threshold.value = 0.9
    assert seen == ["computing ..."] and shown.texts.busy.value == ""
    plt.close()


def test_the_same_explorer_in_two_cells_is_one(shown, monkeypatch):
    displayed = collected(monkeypatch)
    shown._ipython_display_()
    shown._ipython_display_()
    assert displayed[0] is displayed[3], "two views of one widget, which both follow"


def test_the_figure_is_drawn_whichever_backend_is_switched_on(shown, drawn):
    before = plt.get_backend()
    plt.switch_backend("template")
    try:
        shown.controls.threshold.value = 0.9
        assert shown.error is None and png(shown).startswith(b"\x89PNG")
    finally:
        plt.switch_backend(before)


def test_without_ipywidgets_a_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"^the explorer needs 'ipywidgets': pip install 'calib_nb\[explore\]'$"):
        explore(run)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)></td></table>\x1b[31m\u202e $x^2$"


def test_what_strangers_wrote_is_text_wherever_it_is_shown(tmp_path):
    columns = dict.fromkeys(("question", "answer", "target", "reason", "relation"), [HOSTILE] * 5 + ["another"])
    shown = explore(predictions(tmp_path / "mine.jsonl", **columns))
    shown.controls.group.index = 1
    correct(shown, 0.9, 0, why=HOSTILE)
    assert shown.error is None
    for name, text in vars(shown.texts).items():
        assert "<script" not in text.value and "<img" not in text.value and "\x1b" not in text.value, name
        assert "\u202e" not in text.value, name
    assert "&lt;script&gt;" in shown.texts.answers.value
    labels = [label for control in ("group", "answer") for label, _ in getattr(shown.controls, control).options]
    assert not any("\x1b" in label or "\u202e" in label for label in labels)


def test_readings_from_anywhere_are_explored(tmp_path):
    readings = [reading(i, i / 10, i > 4) for i in range(10)]
    shown = explore(readings, tmp_path, reference=0.5)
    assert shown.controls.rows.value == "mine, given"
    correct(shown, 0.0, 0)
    assert shown.error is None and shown.source.rows["mine, given"][0].is_correct
    assert not readings[0].is_correct and (tmp_path / "mine.by_hand.jsonl").exists(), "what was given stays as it was"


# The page


def test_the_page_explores_what_is_published_and_the_file_is_what_its_sources_say():
    import runpy

    made = runpy.run_path(str(ROOT / "figures/explorer.py"))["predictions"]()
    where = {"method": "sft", "readout": "expected"}
    kept = Readings.from_file(ROOT / "figures/explorer/predictions.csv.gz", where=where)
    own = made[(made.method == "sft") & (made.readout == "expected")]
    assert [(r.id, r.is_correct, r.confidence) for r in kept] == list(zip(own.id, own.is_correct, own.confidence))


@pytest.mark.slow
def test_papermill_and_nbconvert_keep_table_and_picture_without_a_browser(run, tmp_path):
    import papermill
    from nbconvert import HTMLExporter

    made = tmp_path / "explore.ipynb"
    given = {"source": str(run), "verdicts": str(tmp_path)}
    page = papermill.execute_notebook(ROOT / "nbs/explore.ipynb", made, given, progress_bar=False, cwd=str(ROOT))
    outputs = [output for cell in page.cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert "image/png" in kinds and not any(output["output_type"] == "error" for output in outputs)
    assert any("<td>AUROC</td>" in output.get("data", {}).get("text/html", "") for output in outputs)
    html, _ = HTMLExporter().from_notebook_node(page)
    assert "data:image/png;base64" in html and "<td>AUROC</td>" in html


def test_the_page_has_parameters_and_one_call():
    sources = code_cells(ROOT / "nbs/explore.ipynb")
    assert sources[-1].strip() == "explore(source, verdicts, options, reference)"
