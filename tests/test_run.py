"""The main job end to end, by papermill, on the embedded model with a few questions."""
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import FEW, ROOT, run_here

from calib_nb.core import Judged, Reading, finished_run, read_json, read_jsonl, read_records, select, write_jsonl
from calib_nb.experiment import (
    Parameters,
    Reader,
    Run,
    comparison_plan,
    notebook_parameters,
    planned_splits,
    read_joint,
    read_more,
    run_method,
    run_name,
)
from calib_nb.matrix import cost_table
from calib_nb.report import original_table
from calib_nb.rules import judge_by_rules

SFT = {"method": "sft", "options": {"epochs": 2}}


def papermill(output, out, **parameters):
    "Run the notebook as a user does; returns the finished process."
    words = []
    for name, value in {**FEW, "out": out, **parameters}.items():
        words += ["-p", name, json.dumps(value) if isinstance(value, dict) else str(value)]
    command = [Path(sys.executable).parent / "papermill", "nbs/run_method.ipynb", str(output), *words]
    return subprocess.run(
        [*command, "--no-progress-bar"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def run_folder(out):
    folders = [f for f in Path(out).iterdir() if (f / "manifest.json").exists()]
    assert len(folders) == 1, folders
    return folders[0]


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    "One run of the main job."
    out = tmp_path_factory.mktemp("sft")
    done = papermill(out / "sft.ipynb", out, **SFT)
    assert done.returncode == 0, done.stderr[-3000:]
    return run_folder(out)


@pytest.mark.slow
def test_files_of_a_run(sft):
    left = {f.name for f in sft.iterdir()}
    assert {"answers.jsonl", "judged.jsonl", "labels.jsonl", "readings.jsonl", "baseline_readings.jsonl"} <= left
    assert {"metrics.json", "manifest.json", "adapter", "reliability.png", "run_method.ipynb"} <= left
    assert (sft / "adapter/adapter_model.safetensors").exists() and not (sft / "checkpoints").exists()
    manifest = read_json(sft / "manifest.json")
    assert manifest["complete"] and manifest["parameters"]["method"] == "sft" and manifest["versions"]["torch"]
    assert manifest["model"]["key"] and manifest["data"]["judged_sha256"] and manifest["schema"] == 2
    untrained = ["baseline_readings", "original_wording"]  # asked by the prompt chosen for the model, and as trained
    stages = ["answers", "judged", *untrained, "labels", "training", "readings", "metrics"]
    assert list(manifest["stages"]) == stages and manifest["peak_memory_gib"] > 0.5
    for name, stage in manifest["stages"].items():
        assert {"key", "code", "seconds", "cpu_seconds", "from_cache"} <= set(stage), name
    history = manifest["history"]
    assert [h for h in history if "loss" in h] and [h for h in history if "calibration_brier" in h]


@pytest.mark.slow
def test_readings_and_metrics(sft):
    readings, metrics = read_records(sft / "readings.jsonl", Reading), read_json(sft / "metrics.json")
    ways = {(readout, split) for readout in ("verbalized", "expected") for split in ("calibration", "test")}
    assert {(r.readout, r.split) for r in readings} == ways
    assert metrics.pop("schema") == 2 and set(metrics) == {"verbalized", "expected"}
    for card in metrics.values():
        assert all({"value", "low", "high", "n", "parsed"} <= set(e) for e in card.values())
    test = select(readings, split="test", readout="expected")
    brier = sum((r.confidence - r.is_correct) ** 2 for r in test) / len(test)
    assert len(test) == FEW["n_test"] and metrics["expected"]["brier_score"]["value"] == pytest.approx(brier)


@pytest.mark.slow
def test_labels_never_see_held_out_questions(sft):
    judged = read_records(sft / "judged.jsonl", Judged)
    label_ids = {row["id"] for _, row in read_jsonl(sft / "labels.jsonl")}
    assert label_ids == {j.id for j in judged if j.extra["split"] == "train"} and len(label_ids) == FEW["n_train"]
    groups = {s: {j.group for j in judged if j.extra["split"] == s} for s in ("train", "calibration", "test")}
    assert not groups["train"] & (groups["test"] | groups["calibration"]) and not groups["calibration"] & groups["test"]
    assert not label_ids & {r.id for r in read_records(sft / "readings.jsonl", Reading)}


@pytest.mark.slow
def test_the_executed_notebook_shows_what_it_should(sft):
    cells = nbformat.read(sft / "run_method.ipynb", 4).cells
    text = "\n".join(json.dumps(cell.get("outputs", [])) for cell in cells)
    for word in ("Brier skill", "AUROC stratified by relation", "RMS calibration error", "ECE", "training time"):
        assert word in text, word
    assert "distinct values" in text and "image/png" in text


@pytest.mark.slow
def test_same_parameters_into_a_fresh_folder_give_identical_metrics(sft, tmp_path):
    again = run_method(**FEW, **SFT, out=str(tmp_path))
    assert again.name == sft.name and again.parent != sft.parent
    for name in ("metrics.json", "readings.jsonl", "labels.jsonl", "judged.jsonl"):
        assert (again / name).read_bytes() == (sft / name).read_bytes(), name


@pytest.mark.slow
def test_baseline_shares_the_answers_of_other_methods(sft):
    out = sft.parent
    before = {f.name: f.stat().st_mtime_ns for f in (out / "cache").iterdir()}
    run_here("run_method", **FEW, out=str(out), method="baseline")
    after = {f.name: f.stat().st_mtime_ns for f in (out / "cache").iterdir()}
    new = set(after) - set(before)
    assert before.items() <= after.items(), "nothing was asked again"
    assert all(name.startswith("metrics-") for name in new), "its metrics are its own"
    baseline = finished_run(next(f for f in out.iterdir() if "-baseline-" in f.name))
    own = [(r.id, r.readout, r.confidence) for r in baseline.readings]
    assert own == [(r.id, r.readout, r.confidence) for r in finished_run(sft).baseline_readings]
    assert not (baseline.path / "adapter").exists()
    shared = ("answers", "judged", "baseline_readings")
    assert all(baseline.manifest["stages"][name]["from_cache"] for name in shared)
    times = [run.manifest["stages"]["answers"]["seconds"] for run in (baseline, finished_run(sft))]
    assert times[0] == times[1] > 0, "what it took when it was made"


def kept(out):
    "What the cache holds of answers and readings."
    return sorted(f.name for f in (out / "cache").iterdir() if f.name.startswith(("answers", "readings")))


@pytest.mark.slow
def test_a_changed_rule_judges_again_and_asks_the_model_nothing(sft, monkeypatch):
    import calib_nb.judge

    same = dict(FEW, out=str(sft.parent), method="baseline", prompt="original")  # others show judged examples
    before = run_name(Parameters(**same))
    judge = calib_nb.judge.judge_by_rules

    def stricter(answer, references, question=""):
        verdict = judge(answer, references, question)
        return replace(verdict, grade="incorrect") if len(answer) > 12 else verdict

    monkeypatch.setattr("calib_nb.judge.judge_by_rules", stricter)
    asked = kept(sft.parent)
    run = Run(**same)
    assert run.folder.path.parent == sft.parent
    assert run.folder.name.split("-")[-1] != before.split("-")[-1], "a folder beside the old one"
    assert run.metrics
    assert asked == kept(sft.parent)
    stages = run.folder.manifest["stages"]
    assert stages["answers"]["from_cache"] and stages["baseline_readings"]["from_cache"]
    assert not stages["judged"]["from_cache"]
    long = [r for r in run.readings if len(r.answer) > 12]
    assert long and not any(r.is_correct for r in long), "readings say what is known of their answers today"


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, labels, options",
    [
        ("performance_sft", {"label"}, {"k": 3}),
        ("dpo", {"label", "rejected_label", "chosen", "rejected"}, {}),
        ("implicit", set(), {}),
        ("self_distill", {"label"}, {"inner_epochs": 1, "folds": 2}),
    ],
)
def test_the_other_methods_end_to_end(sft, method, labels, options):
    short = {**options, "epochs": 1}
    made = run_here("run_method", **FEW, out=str(sft.parent), method=method, options=short)
    run = finished_run(made["run"].folder.path)
    assert set(read_json(run.path / "metrics.json")) == {"schema", "verbalized", "expected"}
    known = {"label", "rejected_label", "chosen", "rejected"}
    assert len(run.labels) == FEW["n_train"] and set(run.labels[0]) & known == labels
    assert (run.path / "label_statistics.json").exists() == bool(labels)
    trained, base = run.readings, run.baseline_readings
    assert [r.answer for r in trained] == [r.answer for r in base], "the same answers for all methods"
    expected = [[r.confidence for r in select(rows, readout="expected")] for rows in (trained, base)]
    assert expected[0] != expected[1]


@pytest.mark.slow
def test_a_finished_run_is_read_by_more_readouts_once(sft, tmp_path):
    two = ("expected", "normalized_probability")
    readings = read_more(sft, ("calibration",), two)
    own = select(read_records(sft / "readings.jsonl", Reading), readout="expected", split="calibration")
    assert len(own) == FEW["n_calibration"]
    again = {r.id: r.confidence for r in select(readings, readout="expected")}
    assert again == pytest.approx({r.id: r.confidence for r in own}, abs=1e-5)
    assert {r.readout for r in readings} == set(two) and {r.split for r in readings} == {"calibration"}
    file = next(sft.glob("more-*.jsonl"))
    before = file.stat().st_mtime_ns
    assert read_more(sft, ("calibration",), two) == readings and file.stat().st_mtime_ns == before
    assert cost_table(sft).loc["normalized_probability", "tokens an answer"] > 5
    with pytest.raises(ValueError, match="there is no manifest.json in it"):
        read_more(tmp_path)


def test_more_readings_of_a_split_or_readout_that_is_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown readout 'expectd'. Did you mean 'expected'"):
        read_more(tmp_path, readouts=("expectd",))
    with pytest.raises(ValueError, match="unknown split 'tests'. Did you mean 'test'"):
        read_more(tmp_path, ("tests",))


def test_a_comparison_without_methods_or_seeds_says_what_to_write():
    with pytest.raises(ValueError, match="parameter 'methods' names none"):
        comparison_plan({"seeds": 0})
    with pytest.raises(ValueError, match="parameter 'seeds' must be whole numbers .* found ''"):
        comparison_plan({"methods": "sft"})


@pytest.mark.slow
def test_a_file_in_the_original_format_replaces_answering(tmp_path):
    rows = []
    for i in range(40):
        said = str(i + i % 7 + (i % 3 == 0))
        rows.append({"question": f"What is {i} plus {i % 7}?", "model_answer": said, "is_correct": i % 3 != 0})
    path = write_jsonl(tmp_path / "original_judged.jsonl", rows)
    run = finished_run(run_method(**FEW, **SFT, out=str(tmp_path), judged=str(path)))
    given = {r["question"]: (r["model_answer"], r["is_correct"]) for r in rows}
    assert len(run.judged) == sum(FEW.values()) and "answers" not in run.manifest["stages"]
    assert all(given[j.question] == (j.model_answer, j.is_correct) for j in run.judged)
    assert all(given[r.question] == (r.answer, r.is_correct) for r in run.readings)
    assert len(run.labels) == FEW["n_train"]


@pytest.mark.slow
def test_joint_protocol_judges_the_new_answer_and_the_original_is_reproduced_beside_it(runs_folder):
    run = Run(**FEW, **SFT, out=str(runs_folder), protocol="joint", original="document")
    assert run.metrics
    judged = {j.id: j for j in run.judged}
    assert {r.protocol for r in run.readings} == {"joint"} and {r.readout for r in run.readings} == {"verbalized"}
    sampled = [r.answer != judged[r.id].model_answer for r in run.baseline_readings]
    assert any(sampled), "a sampled answer is another answer"
    for r in run.readings + run.baseline_readings:
        again = judge_by_rules(r.answer, judged[r.id].answers, r.question)
        assert r.is_correct == (again.grade == "correct")
        assert (r.confidence is None) == (r.provenance == "missing") and r.provenance != "filled"
    assert {r.method for r in run.original_readings} == {"baseline", "sft"}
    for r in run.original_readings:
        assert r.split == "train" and r.is_correct == judged[r.id].is_correct and r.confidence is not None
        assert r.confidence == 0.5 or r.provenance != "filled"
    table = original_table(run)
    assert list(table.index) == [(side, how) for side in ("baseline", "sft") for how in ("as the original", "honest")]


@pytest.mark.slow
def test_a_finished_run_gets_the_original_s_evaluation_later_and_once(sft, capsys):
    import torch

    same, out = {**FEW, **SFT}, str(sft.parent)
    before = (sft / "readings.jsonl").read_bytes()
    assert run_method(**same, out=out, original="repository") == sft, "it is not part of the run's name"
    assert "smollm2-135m, sft, on " in capsys.readouterr().out
    readings = read_records(sft / "original_repository.jsonl", Reading)
    assert len(readings) == 2 * 2 * FEW["n_train"] and {r.split for r in readings} == {"train"}
    assert {r.provenance for r in select(readings, readout="verbalized")} <= {"parsed", "filled", "missing"}
    judged = {j.id: j for j in finished_run(sft).judged}
    assert all(r.is_correct == judged[r.id].is_correct for r in readings)
    assert (sft / "readings.jsonl").read_bytes() == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "__call__", lambda *args, **kwargs: pytest.fail("a model was asked"))
        assert run_method(**same, out=out, original="repository") == sft
    assert capsys.readouterr().out == ""
    assert not (sft / "original_document.jsonl").exists()


def test_running_a_notebook_twice_in_one_kernel_finds_the_same_parameters():
    left_over = {"run": object(), "folders": [Path("a")], "runs": [object()], "In": ["x"], "Out": {}, "_": 1}
    assert notebook_parameters({**left_over, "method": "sft"}) == {"method": "sft"}


CELL = "method = 'sft'\nn_train = n_calibration = n_test = 10\nseed = 0\nout = 'runs'"  # tagged as parameters


def session(*ran, **variables):
    "A notebook's `globals()` after these cells, and these variables."
    names = {"In": ["", *ran], "Out": {}, "_i": "", "pd": object()}
    for source in ran:
        exec(source, {}, names)
    return {**names, **variables}


def test_a_variable_of_ones_own_is_no_parameter():
    names = session(CELL, i=3, text="mine", rows=[{"a": 1}], run=object())
    assert set(notebook_parameters(names)) == {"method", "n_train", "n_calibration", "n_test", "seed", "out"}


def test_what_papermill_injects_or_the_tagged_cell_assigns_is_meant_as_a_parameter():
    for ran in ([CELL, "# Parameters\nthreads = 3\n"], [CELL + "\nthreads = 3"]):
        with pytest.raises(ValueError, match="unknown parameter 'threads'"):
            notebook_parameters(session(*ran))
    assert notebook_parameters(session(CELL, "# Parameters\nseed = 3\n", "threads = 3"))["seed"] == 3


def test_a_near_miss_is_asked_about_and_a_corrected_one_forgotten():
    with pytest.raises(ValueError, match="is 'n_trian' meant to be the parameter 'n_train'.*`del n_trian`"):
        notebook_parameters(session(CELL, "n_trian = 3"))
    corrected = session(CELL.replace("method", "metodh"), CELL)
    assert corrected["metodh"] == "sft" and notebook_parameters(corrected)["method"] == "sft"


@pytest.mark.parametrize(
    "name, value, taken",
    [
        ("seed", np.int64(3), 3),
        ("judged", Path("mine.jsonl"), "mine.jsonl"),
        ("model", np.str_("a"), "a"),
        ("options", {"beta": np.float64(0.5), "file": Path("a")}, {"beta": 0.5, "file": "a"}),
    ],
)
def test_values_of_numpy_and_paths_are_taken(name, value, taken):
    found = notebook_parameters(session(CELL, **{name: value}))[name]
    assert found == taken and type(found) is type(taken)


@pytest.mark.parametrize("value", [np.zeros(3), ("a", "b"), object(), {1, 2}, [object()]])
def test_a_value_that_is_not_plain_is_refused_by_name_and_never_left_out(value):
    with pytest.raises(TypeError, match="parameter 'judged' must be a text"):
        notebook_parameters(session(CELL, judged=value))


def test_before_the_cell_of_parameters_has_run_the_error_says_so():
    with pytest.raises(ValueError, match="run the cell that is tagged 'parameters' first"):
        notebook_parameters(session("i = 3"))


@pytest.mark.parametrize("method, steps", [("sft", 4), ("baseline", 2)])
def test_an_interrupt_says_at_which_step_it_was_in_one_line(tmp_path, monkeypatch, method, steps):
    def interrupted(*args):
        raise KeyboardInterrupt

    run = Run(**FEW, out=str(tmp_path), method=method)
    monkeypatch.setattr("calib_nb.experiment.load_model", interrupted)
    for ask, step in (("judged", 1), ("readings", 1), ("metrics", 1)):
        with pytest.raises(KeyboardInterrupt) as error:
            getattr(run, ask)
        said = f"interrupted at step {step} of {steps}; run the cells again to go on"
        assert str(error.value) == said
        assert error.value._render_traceback_() == [f"KeyboardInterrupt: {said}"], "what a notebook shows"


def test_the_name_of_a_run_holds_the_content_of_its_data(tmp_path):
    first = run_name(Parameters(), {"dataset": {"sha256": "a"}})
    assert first == run_name(Parameters(), {"dataset": {"sha256": "a"}})
    assert first != run_name(Parameters(), {"dataset": {"sha256": "b"}})


def test_a_new_registry_entry_or_figure_renames_no_run_but_a_changed_step_does(monkeypatch):
    from calib_nb import methods, plots, training
    from calib_nb.readout import READOUTS, Readout

    names = [run_name(Parameters(method=m)) for m in ("sft", "dpo")]
    monkeypatch.setitem(READOUTS, "mine", Readout(lambda *args: []))
    monkeypatch.setitem(methods.METHODS, "mine", methods.Method("new"))
    monkeypatch.setattr(plots, "reliability_figure", lambda *args: None)
    assert [run_name(Parameters(method=m)) for m in ("sft", "dpo")] == names
    pairs = training.chosen_and_rejected
    loss = training.Objective(lambda scored, beta=0.1: scored.branches.sum(), pairs, reference=True)
    monkeypatch.setitem(training.OBJECTIVES, "dpo", loss)
    changed = methods.Method("dpo", (methods.METHODS["dpo"].steps[0], methods.training_step("dpo", beta=0.1)))
    monkeypatch.setitem(methods.METHODS, "dpo", changed)
    assert run_name(Parameters(method="sft")) == names[0] and run_name(Parameters(method="dpo")) != names[1]


@pytest.mark.parametrize("file", ["chat_template.jinja", "generation_config.json", "tokenizer.json"])
def test_an_edited_local_model_is_another_model(tmp_path, file):
    for name in ("config.json", "model.safetensors", file):
        (tmp_path / name).write_text("{}")
    before = run_name(Parameters(model=str(tmp_path)))
    (tmp_path / "README.md").write_text("no part of it")
    assert run_name(Parameters(model=str(tmp_path))) == before
    (tmp_path / file).write_text('{"a": 1}')
    assert run_name(Parameters(model=str(tmp_path))) != before


def painters(folder):
    "A file of questions, one of them about a subject that the embedded questions have too."
    words = "red blue green brown black white grey pink gold rose".split()
    rows = []
    for subject in [f"{word} {thing}" for word in words for thing in ("house", "horse")]:
        rows.append({"question": f"Who painted the {subject}?", "answers": ["A"], "group": subject})
    rows.append({"question": "What is the capital of France?", "answers": ["Paris"], "group": "France"})
    numbered = [{"id": f"own{i}", "relation": "painter", **row} for i, row in enumerate(rows)]
    return write_jsonl(folder / "own.jsonl", numbered)


def test_training_on_one_set_and_testing_on_another_shares_nothing(tmp_path):
    path = painters(tmp_path)
    p = Parameters(test_dataset=str(path), n_train=900, n_calibration=50, n_test=4)
    splits, source = planned_splits(p, tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 900, "calibration": 50, "test": 4}
    assert all(q.id.startswith(str(path)) for q in splits["test"])
    groups = {name: {q.group for q in part} for name, part in splits.items()}
    assert not groups["test"] & (groups["train"] | groups["calibration"])
    assert source["dataset"]["name"] == "facts" and source["test_dataset"]["sha256"]


def test_training_on_some_relations_and_testing_on_others(tmp_path):
    sets = dict(dataset="facts:country_*", test_dataset="facts:state_*,capital_state")
    p = Parameters(**sets, n_train=200, n_calibration=50, n_test=100)
    splits, source = planned_splits(p, tmp_path)
    relations = {s: {q.relation.split("_")[0] for q in splits[s]} for s in splits}
    assert relations == {"train": {"country"}, "calibration": {"country"}, "test": {"state", "capital"}}
    assert source["test_dataset"]["relations"] == "state_*,capital_state"
    assert "*" not in run_name(p, source) and run_name(p, source).startswith("facts-")


def test_joint_protocol_needs_accepted_answers():
    with pytest.raises(ValueError, match="'q' has no accepted answers"):
        read_joint(Reader(None, None, "sft", 0), [Judged("q", "a", True)])


def test_a_finished_run_is_asked_without_loading_a_model_and_an_old_one_is_refused(tmp_path, monkeypatch):
    few = dict(FEW, out=str(tmp_path))
    run = Run(**few)
    for name in ("judged", "baseline_readings", "readings"):
        write_jsonl(run.folder.path / f"{name}.jsonl", [])
    (run.folder.path / "metrics.json").write_text("{}")
    run.folder.add(complete=True)
    monkeypatch.setattr("calib_nb.experiment.load_model", lambda *args: pytest.fail("loaded"))
    assert run_name(run.parameters, run.folder.manifest["questions"]) == run.folder.name
    assert Run(**few).folder.finished
    old = read_json(run.folder.path / "manifest.json")
    old.pop("schema")
    (run.folder.path / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match="this run has schema 1"):
        Run(**few)
    shutil.rmtree(run.folder.path)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(metodh="sft"), "unknown parameter 'metodh'. Did you mean 'method'?"),
        (dict(method="stf"), "unknown method 'stf'. Did you mean 'sft'? Known: baseline, sft"),
        (dict(method="consistency_distill"), "It is called 'self_consistency_distill' since version 0.2."),
        (dict(preset="papr"), "unknown preset 'papr'. Did you mean 'paper'?"),
        (dict(judge="lm"), "judge 'lm' asks a model: parameter 'grader' must name one"),
        (dict(protocol="join"), "unknown protocol 'join'. Did you mean 'joint'?"),
        (dict(original=1), "parameter 'original' must be str"),
        (dict(original=True), r"parameter 'original' is one of 'document' \(what True meant\), 'repository'"),
        (dict(original=False), "or '' for neither; found False"),
        (dict(original="repo"), "unknown evaluation of the original 'repo'. Did you mean 'repository'?"),
        (dict(readout="expectd"), "unknown readout 'expectd'. Did you mean 'expected'?"),
        (dict(readout="level"), "unknown readout 'level'. It is called 'expected' since version 0.2."),
        (dict(n_test=0), "parameter 'n_test' must be at least 1"),
        (dict(options="beta"), "parameter 'options' must be dict"),
    ],
)
def test_wrong_parameters_are_errors_before_anything_is_loaded(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message.replace("?", r"\?")):
        Parameters(**notebook_parameters(wrong))


TYPED = [  # as papermill's `-p` and a notebook give them
    (dict(revision=float("12e4567")), "'revision' must be str, found inf. .*`-r revision VALUE`"),
    (dict(revision=12345), "'revision' must be str, found 12345. .*`-r revision VALUE`"),
    (dict(grader=True), "'grader' must be str, found True"),
    (dict(original="true"), "what True meant.*found true"),
    (dict(seed="one"), "'seed' must be int, found 'one'. .*`-p seed 300`"),
    (dict(n_train=12.5), "'n_train' must be int, found 12.5"),
    (dict(options="beta"), "`-y 'options: {a: b}'`"),
    (dict(out=" "), "'out' is empty. Leave it out for 'runs'"),
    (dict(model=""), "'model' is empty"),
    (dict(columns={"question": "q"}), "'columns' is about a file, and there is none"),
    (dict(confidence_scale="percent", dataset="x.csv"), "'confidence_scale' is about a file of judged answers"),
    (dict(confidence_scale="persent", judged="x.csv"), "Did you mean 'percent'"),
]


@pytest.mark.parametrize("given, message", TYPED, ids=[next(iter(given)) for given, _ in TYPED])
def test_a_value_that_the_command_line_made_another_is_refused_with_the_remedy(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Parameters(**given)


def test_what_can_only_mean_one_thing_is_taken_for_it():
    given = notebook_parameters({"n_train": np.int64(20), "seed": 1e3, "judged": Path("~/mine.jsonl"), "out": "~/runs"})
    p = Parameters(**given, columns="question=q, answers=a, answers=b", options='{"right": 0.8}')
    assert (p.n_train, p.seed, p.options) == (20, 1000, {"right": 0.8})
    assert p.columns == {"question": "q", "answers": ["a", "b"]}
    assert (p.judged, p.out) == (str(Path.home() / "mine.jsonl"), str(Path.home() / "runs"))


def test_neighbours_and_folds_are_compared_with_the_training_questions_before_a_model_is_loaded(tmp_path):
    sizes = dict(n_train=12, n_calibration=4, n_test=4)
    for method, message in (("performance_sft", "k = 20 neighbours; n_train is 12"), ("self_distill", "40 folds of")):
        options = {"folds": 40} if method == "self_distill" else {}
        with pytest.raises(ValueError, match=message):
            planned_splits(Parameters(method=method, options=options, **sizes), tmp_path)


def test_twins_of_a_judged_file_are_in_one_split(tmp_path):
    texts = [text for i in range(6) for text in (f"Capital of land {i}?", f"CAPITAL OF LAND {i} ?")]
    rows = [{"question": text, "model_answer": "A", "is_correct": i % 2 == 0} for i, text in enumerate(texts)]
    path = write_jsonl(tmp_path / "j.jsonl", rows)
    splits, source = planned_splits(Parameters(judged=str(path), n_train=4, n_calibration=2, n_test=4), tmp_path)
    words = {name: {j.question.casefold().replace(" ?", "?") for j in part} for name, part in splits.items()}
    assert not words["train"] & words["test"] and source["grouping"]["joined_by_wording"] == 6


def test_the_splits_that_a_file_names_are_those_of_the_run(tmp_path):
    names = ["test", "train", "calibration", "unlabelled", "test", "train"]
    about = ["Paris", "Berlin", "Rome", "Oslo", "Bern", "Riga"]
    questions = [{"question": f"Where is {a}?", "answers": [a], "split": s} for a, s in zip(about, names)]
    judged = [{**row, "model_answer": "Here", "is_correct": True} for row in questions]
    sizes = dict(n_train=1, n_calibration=1, n_test=2, n_unlabelled=1, method="self_consistency_distill")
    for kind, rows in (("dataset", questions), ("judged", judged)):
        path = str(write_jsonl(tmp_path / f"{kind}.jsonl", rows))
        splits, _ = planned_splits(Parameters(**{kind: path}, **sizes), tmp_path)
        asked = {name: [q.question for q in part] for name, part in splits.items()}
        assert asked["test"] == ["Where is Paris?", "Where is Bern?"] and asked["unlabelled"] == ["Where is Oslo?"]


def test_what_is_alike_a_test_question_of_another_set_is_left_out_of_splits_that_a_file_names(tmp_path):
    asked = ["Who wrote Hamlet?", "Which metal is Au?", "Which river flows through Cairo?"]
    splits = ["train", "train", "calibration"]
    rows = [{"question": q, "answers": ["A"], "group": q, "split": s} for q, s in zip(asked, splits)]
    twin = [{"question": "WHO WROTE HAMLET ?", "answers": ["A"], "group": "A play"}]
    home, away = (str(write_jsonl(tmp_path / f"{i}.jsonl", r)) for i, r in enumerate((rows, twin)))
    p = Parameters(dataset=home, test_dataset=away, n_train=1, n_calibration=1, n_test=1)
    planned, _ = planned_splits(p, tmp_path)
    assert [q.question for q in planned["train"]] == ["Which metal is Au?"]


def test_unlabelled_questions_are_refused_for_a_method_that_needs_labels():
    with pytest.raises(ValueError, match="n_unlabelled.*'sft' learns from labelled answers alone.*self_consistency"):
        Parameters(method="sft", n_unlabelled=5)


@pytest.mark.slow
def test_a_misspelt_parameter_fails_on_the_command_line(tmp_path):
    done = papermill(tmp_path / "x.ipynb", tmp_path, metodh="sft")
    assert done.returncode != 0 and "Did you mean 'method'?" in done.stderr


@pytest.mark.parametrize(
    "parameters, message",
    [
        (dict(model="smollm2-135"), "unknown model .*Did you mean 'smollm2-135m'"),
        (dict(dataset="fcts"), "unknown question set .*Did you mean 'facts'"),
        (dict(n_train=990), "too few questions: there are 1000 in .* groups, asked for 990 train"),
        (dict(judged="nowhere.jsonl"), "nowhere.jsonl: no such file"),
    ],
)
def test_unknown_names_and_too_few_questions_before_a_model_is_loaded(tmp_path, parameters, message):
    with pytest.raises(ValueError, match=message):
        Run(**{**FEW, "out": str(tmp_path), **parameters}).lm  # noqa: B018  asked for, so loaded
