"""The main job end to end, by papermill, on the embedded model with a few questions."""
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from calib_nb.matrix import cost_table
from calib_nb.report import original_table
from calib_nb.rules import judge_by_rules
from conftest import ROOT

from calib_nb.core import (
    Judged,
    Reading,
    read_json,
    read_jsonl,
    read_records,
    write_jsonl,
)
from calib_nb.experiment import (
    Parameters,
    Run,
    planned_splits,
    read_joint,
    read_more,
    run_name,
)

FEW = dict(n_train=12, n_calibration=6, n_test=16)


def papermill(output, out, **parameters):
    "Run the notebook as a user does; returns the finished process."
    words = [w for k, v in {**FEW, "out": out, **parameters}.items() for w in ("-p", k, str(v))]
    return subprocess.run([Path(sys.executable).parent / "papermill", "nbs/run_method.ipynb", str(output), *words, "--no-progress-bar"],
                          cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def run_folder(out):
    folders = [f for f in Path(out).iterdir() if (f / "manifest.json").exists()]
    assert len(folders) == 1, folders
    return folders[0]


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    "One run of the main job."
    out = tmp_path_factory.mktemp("sft")
    done = papermill(out / "sft.ipynb", out, method="sft")
    assert done.returncode == 0, done.stderr[-3000:]
    return run_folder(out)


@pytest.mark.slow
def test_files_of_a_run(sft):
    assert {"judged.jsonl", "labels.jsonl", "readings.jsonl", "metrics.json", "manifest.json", "adapter", "reliability.png", "run_method.ipynb"} <= {f.name for f in sft.iterdir()}
    assert (sft / "adapter/adapter_model.safetensors").exists() and not (sft / "checkpoints").exists()
    manifest = read_json(sft / "manifest.json")
    assert manifest["complete"] and manifest["parameters"]["method"] == "sft" and manifest["versions"]["torch"]
    assert manifest["model"]["key"] and manifest["data"]["judged_sha256"] and manifest["code"]
    assert {"answers", "baseline readings", "training", "readings"} <= set(manifest["stages"]) and manifest["peak_memory_gib"] > 0.5
    assert [h for h in manifest["history"] if "loss" in h] and [h for h in manifest["history"] if "calibration_brier" in h]


@pytest.mark.slow
def test_readings_and_metrics(sft):
    readings, metrics = read_records(sft / "readings.jsonl", Reading), read_json(sft / "metrics.json")
    assert {(r.readout, r.split) for r in readings} == {(a, b) for a in ("verbalized", "expected") for b in ("calibration", "test")}
    assert set(metrics) == {"verbalized", "expected"}
    for card in metrics.values():
        assert all({"value", "low", "high", "n", "parsed"} <= set(e) for e in card.values())
    test = [r for r in readings if r.split == "test" and r.readout == "expected"]
    assert len(test) == FEW["n_test"] and metrics["expected"]["brier_score"]["value"] == pytest.approx(sum((r.confidence - r.is_correct) ** 2 for r in test) / len(test))


@pytest.mark.slow
def test_labels_never_see_held_out_questions(sft):
    judged = read_records(sft / "judged.jsonl", Judged)
    label_ids = {row["id"] for _, row in read_jsonl(sft / "labels.jsonl")}
    assert label_ids == {j.id for j in judged if j.extra["split"] == "train"} and len(label_ids) == FEW["n_train"]
    groups = {s: {j.group for j in judged if j.extra["split"] == s} for s in ("train", "calibration", "test")}
    assert not (groups["train"] & groups["test"] or groups["train"] & groups["calibration"] or groups["calibration"] & groups["test"])
    assert not label_ids & {r.id for r in read_records(sft / "readings.jsonl", Reading)}


@pytest.mark.slow
def test_the_executed_notebook_shows_what_it_should(sft):
    text = "\n".join(json.dumps(o) for c in nbformat.read(sft / "run_method.ipynb", 4).cells for o in c.get("outputs", []))
    for word in ("Brier skill", "AUROC stratified by relation", "RMS calibration error", "ECE", "training time", "distinct values", "image/png"):
        assert word in text, word


@pytest.mark.slow
def test_same_parameters_into_a_fresh_folder_give_identical_metrics(sft, tmp_path):
    done = papermill(tmp_path / "again.ipynb", tmp_path, method="sft")
    assert done.returncode == 0, done.stderr[-3000:]
    again = run_folder(tmp_path)
    assert again.name == sft.name
    for name in ("metrics.json", "readings.jsonl", "labels.jsonl", "judged.jsonl"):
        assert (again / name).read_bytes() == (sft / name).read_bytes(), name


@pytest.mark.slow
def test_baseline_shares_the_answers_of_other_methods(sft):
    out = sft.parent
    before = {f.name: f.stat().st_mtime_ns for f in (out / "cache").iterdir()}
    done = papermill(out / "baseline.ipynb", out, method="baseline")
    assert done.returncode == 0, done.stderr[-3000:]
    assert before == {f.name: f.stat().st_mtime_ns for f in (out / "cache").iterdir()}, "nothing was asked again"
    baseline = next(f for f in out.iterdir() if "-baseline-" in f.name)
    own = [(r.id, r.readout, r.confidence) for r in read_records(baseline / "readings.jsonl", Reading)]
    assert own == [(r.id, r.readout, r.confidence) for r in read_records(sft / "baseline_readings.jsonl", Reading)]
    assert not (baseline / "adapter").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method, labels", [("performance_sft", {"label"}), ("dpo", {"label", "rejected_label", "chosen", "rejected"}), ("implicit", set()), ("self_distill", {"label"})])
def test_the_other_methods_end_to_end(sft, method, labels):
    out = sft.parent
    done = papermill(out / f"{method}.ipynb", out, method=method, n_train=24)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = next(f for f in out.iterdir() if f"-{method}-" in f.name)
    assert read_json(folder / "manifest.json")["complete"] and set(read_json(folder / "metrics.json")) == {"verbalized", "expected"}
    rows = [row for _, row in read_jsonl(folder / "labels.jsonl")]
    assert len(rows) == 24 and set(rows[0]) & {"label", "rejected_label", "chosen", "rejected"} == labels
    assert (folder / "label_statistics.json").exists() == bool(labels)
    trained, base = (read_records(folder / f"{name}.jsonl", Reading) for name in ("readings", "baseline_readings"))
    assert [r.answer for r in trained] == [r.answer for r in base], "the same answers for all methods"
    assert [r.confidence for r in trained if r.readout == "expected"] != [r.confidence for r in base if r.readout == "expected"]


@pytest.mark.slow
def test_a_finished_run_is_read_by_more_readouts_once(sft, tmp_path):
    readings = read_more(sft, ("calibration",), ("expected", "normalized_probability"))
    own = {r.id: r.confidence for r in read_records(sft / "readings.jsonl", Reading) if (r.readout, r.split) == ("expected", "calibration")}
    assert {r.id: r.confidence for r in readings if r.readout == "expected"} == pytest.approx(own, abs=1e-5) and len(own) == FEW["n_calibration"]
    assert {r.readout for r in readings} == {"expected", "normalized_probability"} and {r.split for r in readings} == {"calibration"}
    file = next(sft.glob("more-*.jsonl"))
    before = file.stat().st_mtime_ns
    assert read_more(sft, ("calibration",), ("expected", "normalized_probability")) == readings and file.stat().st_mtime_ns == before
    assert cost_table(sft).loc["normalized_probability", "tokens an answer"] > 5
    with pytest.raises(ValueError, match="no finished run"):
        read_more(tmp_path)


@pytest.mark.slow
def test_a_file_in_the_original_format_replaces_answering(tmp_path):
    rows = [{"question": f"What is {i} plus {i % 7}?", "model_answer": str(i + i % 7 + (i % 3 == 0)), "is_correct": i % 3 != 0} for i in range(40)]
    path = write_jsonl(tmp_path / "original_judged.jsonl", rows)
    done = papermill(tmp_path / "judged.ipynb", tmp_path / "out", method="sft", judged=path)
    assert done.returncode == 0, done.stderr[-3000:]
    judged = read_records(run_folder(tmp_path / "out") / "judged.jsonl", Judged)
    given = {r["question"]: (r["model_answer"], r["is_correct"]) for r in rows}
    assert len(judged) == sum(FEW.values()) and all(given[j.question] == (j.model_answer, j.is_correct) for j in judged)


@pytest.mark.slow
def test_joint_protocol_judges_the_new_answer_and_the_original_is_reproduced_beside_it(tmp_path):
    run = Run(**FEW, out=str(tmp_path), method="sft", protocol="joint", original=True)
    for stage in (run.load, run.answer, run.read_base, run.train, run.read, run.measure):
        stage()
    judged = {j.id: j for j in run.judged}
    assert {r.protocol for r in run.readings} == {"joint"} and {r.readout for r in run.readings} == {"verbalized"}
    assert any(r.answer != judged[r.id].model_answer for r in run.base), "a sampled answer is another answer"
    for r in run.readings + run.base:
        assert r.is_correct == (judge_by_rules(r.answer, judged[r.id].answers, r.question).grade == "correct")
        assert (r.confidence is None) == (r.provenance == "missing") and r.provenance != "filled"
    assert {r.method for r in run.as_original} == {"baseline", "sft"}
    for r in run.as_original:
        assert r.split == "train" and r.is_correct == judged[r.id].is_correct and r.confidence is not None
        assert r.confidence == 0.5 or r.provenance != "filled"
    table = original_table(run)
    assert list(table.index) == [(side, how) for side in ("baseline", "sft") for how in ("as the original", "honest")]


def test_running_a_notebook_twice_in_one_kernel_finds_the_same_parameters():
    from calib_nb.experiment import notebook_parameters
    left_over = {"run": object(), "folders": [Path("a")], "runs": [object()], "In": ["x"], "Out": {}, "_": 1}
    assert notebook_parameters({**left_over, "method": "sft"}) == {"method": "sft"}


def test_the_name_of_a_run_holds_the_content_of_its_data(tmp_path):
    first = run_name(Parameters(), {"dataset": {"sha256": "a"}})
    assert first != run_name(Parameters(), {"dataset": {"sha256": "b"}}) and first == run_name(Parameters(), {"dataset": {"sha256": "a"}})


def test_training_on_one_set_and_testing_on_another_shares_nothing(tmp_path):
    words = "red blue green brown black white grey pink gold rose".split()
    own = [{"question": f"Who painted the {w} {thing}?", "answers": ["A"], "group": f"{w} {thing}"} for w in words for thing in ("house", "horse")]
    shared = [{"question": "What is the capital of France?", "answers": ["Paris"], "group": "France"}]
    path = write_jsonl(tmp_path / "own.jsonl", [{"id": f"own{i}", "relation": "painter", **r} for i, r in enumerate(own + shared)])
    splits, source = planned_splits(Parameters(test_dataset=str(path), n_train=900, n_calibration=50, n_test=4), tmp_path)
    assert {len(splits["train"]), len(splits["calibration"]), len(splits["test"])} == {900, 50, 4} and all(q.id.startswith(str(path)) for q in splits["test"])
    groups = {s: {q.group for q in splits[s]} for s in splits}
    assert not groups["test"] & (groups["train"] | groups["calibration"])
    assert source["dataset"]["name"] == "facts" and source["test_dataset"]["sha256"]


def test_training_on_some_relations_and_testing_on_others(tmp_path):
    p = Parameters(dataset="facts:country_*", test_dataset="facts:state_*,capital_state", n_train=200, n_calibration=50, n_test=100)
    splits, source = planned_splits(p, tmp_path)
    relations = {s: {q.relation.split("_")[0] for q in splits[s]} for s in splits}
    assert relations == {"train": {"country"}, "calibration": {"country"}, "test": {"state", "capital"}}
    assert source["test_dataset"]["relations"] == "state_*,capital_state" and "*" not in run_name(p, source) and run_name(p, source).startswith("facts-")


def test_joint_protocol_needs_accepted_answers():
    with pytest.raises(ValueError, match="'q' has no accepted answers"):
        read_joint(None, None, [Judged("q", "a", True)], "sft", 0)


@pytest.mark.parametrize("wrong, message", [
    (dict(metodh="sft"), "unknown parameter 'metodh'. Did you mean 'method'?"),
    (dict(method="stf"), "unknown method 'stf'. Did you mean 'sft'? Known: baseline, sft"),
    (dict(preset="papr"), "unknown preset 'papr'. Did you mean 'paper'?"),
    (dict(judge="lm"), "judge 'lm' asks a model: parameter 'grader' must name one"),
    (dict(protocol="join"), "unknown protocol 'join'. Did you mean 'joint'?"),
    (dict(original=1), "parameter 'original' must be bool"),
    (dict(readout="expectd"), "unknown readout 'expectd'. Did you mean 'expected'?"),
    (dict(n_test=0), "parameter 'n_test' must be at least 1"),
    (dict(options="beta"), "parameter 'options' must be dict")])
def test_wrong_parameters_are_errors_before_anything_is_loaded(wrong, message):
    from calib_nb.experiment import notebook_parameters
    with pytest.raises((ValueError, TypeError), match=message.replace("?", r"\?")):
        Parameters(**notebook_parameters(wrong))


@pytest.mark.slow
def test_a_misspelt_parameter_fails_on_the_command_line(tmp_path):
    done = papermill(tmp_path / "x.ipynb", tmp_path, metodh="sft")
    assert done.returncode != 0 and "Did you mean 'method'?" in done.stderr


@pytest.mark.parametrize("parameters, message", [
    (dict(model="smollm2-135"), "unknown model .*Did you mean 'smollm2-135m'"),
    (dict(dataset="fcts"), "unknown question set .*Did you mean 'facts'"),
    (dict(n_train=990), "too few questions: there are 1000 in .* groups, asked for 990 train"),
    (dict(judged="nowhere.jsonl"), "nowhere.jsonl: no such file")])
def test_unknown_names_and_too_few_questions_before_a_model_is_loaded(tmp_path, parameters, message):
    with pytest.raises(ValueError, match=message):
        Run(**{**FEW, "out": str(tmp_path), **parameters}).load()
