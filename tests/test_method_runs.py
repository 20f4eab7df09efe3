"""The runs that `results` is to rest on: which are missing, and what one leaves."""
import sys
from collections import Counter

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import methods  # noqa: E402


def test_what_is_missing_is_every_prompt_and_then_every_method_and_seed(monkeypatch, tmp_path):
    monkeypatch.setattr(methods, "TABLES", methods.Tables(tmp_path))
    asked, runs = methods.stages()
    assert len(asked) == 2 * 6 and len(runs) == len(set(runs))
    seeds = Counter((model, method) for _, model, method, _ in runs)
    five = {seeds["smollm2-135m", method] for method in methods.FIVE}
    assert five == {5} and seeds["gemma-3-270m", "sft"] == 3 and seeds["smollm2-135m", "baseline"] == 1


@pytest.mark.long
def test_a_run_is_asked_by_the_prompt_that_was_chosen_and_leaves_each_readout(monkeypatch, tmp_path):
    tables = methods.Tables(tmp_path / "kept", "python benchmarks/methods.py all")
    monkeypatch.setattr(methods, "TABLES", tables)
    monkeypatch.setattr(methods, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(methods.study, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(methods, "SIZES", {"n_train": 24, "n_calibration": 24, "n_test": 24})
    monkeypatch.setattr(methods, "ASKED", ["original", "few_shot"])
    monkeypatch.setattr(methods, "N_AWAY", 12)
    model = "smollm2-135m"
    for prompt in methods.ASKED:
        methods.make_asked(model, prompt)
    for method in ("baseline", "sequence_likelihood_as_original"):
        methods.make_run(model, method, "0")
    rows = tables.read("readings.csv.gz")
    untrained = rows[rows.method == "baseline"]
    assert Counter(untrained.readout) == dict.fromkeys(methods.READOUTS, 48)
    assert set(untrained.prompt[untrained.readout == "verbalized"]) == {methods.chosen_prompt(model)}
    assert set(rows.method[rows.readout == "question_only"]) == {"relation", "knn", "logistic"}
    trained = rows[rows.method == "sequence_likelihood_as_original"]
    assert Counter(trained.readout) == dict.fromkeys(("verbalized", "expected", "normalized_probability"), 48)
    assert set(rows.split) == set(methods.HELD_OUT)
    made_by = (tmp_path / "kept/made_by.txt").read_text()
    assert {line.split(":")[0] for line in made_by.splitlines()} == {"command", "code", "date", "seeds"}
    methods.make_away("baseline", "0", "facts")
    away = tables.read("away.csv.gz")
    assert Counter(away.readout) == dict.fromkeys(methods.AWAY, 12) and set(away.set) == {"facts"}
