"""What a confidence costs and what it follows: samples, quality, supplied answers."""
import json
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from calib_nb.core import Judged
from calib_nb.metrics import auroc
from calib_nb.prices import agreement, preferred, quality, sampled_readings, supplied_answers
from calib_nb.resampling import made_up_readings
from calib_nb.sample_budget import AgreementPrior

sys.path.insert(0, str(ROOT / "benchmarks"))
import prices  # noqa: E402

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Peru": "Lima", "Chad": "N'Djamena"}


def capital(country, answer, **fields):
    city = CAPITALS[country]
    known = {"id": country, "answers": [city], "relation": "capital", "extra": {"split": "test"}}
    return Judged(f"What is the capital of {country}?", answer, answer == city, **{**known, **fields})


# Samples


def test_samples_agree_where_they_mean_the_answer():
    judged = [capital("France", "Paris"), capital("Italy", "")]
    samples = {"France": ["paris", "The capital is Paris.", "Lyon"], "Italy": ["", "Rome", "Rome"]}
    assert agreement(judged, samples).tolist() == [[True, True, False], [False] * 3]


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0.1, 5), st.floats(0.1, 5))
def test_the_confidence_is_the_posterior_mean_of_the_first_samples(drawn, a, b):
    for n in range(1, len(drawn) + 1):
        [reading] = sampled_readings([capital("Peru", "Lima")], np.array([drawn]), n, AgreementPrior(a, b))
        assert reading.confidence == pytest.approx((a + sum(drawn[:n])) / (a + b + n))
        assert reading.readout == f"samples_{n}"


@pytest.mark.parametrize("n", [0, 4])
def test_as_many_samples_as_were_not_drawn_are_refused(n):
    with pytest.raises(ValueError, match="1 to 3.*found"):
        sampled_readings([capital("Peru", "Lima")], np.ones((1, 3), bool), n, AgreementPrior(1, 1))


# Quality


def test_quality_of_discrimination_does_not_see_the_scale_and_skill_is_that_after_scaling():
    of = {s: made_up_readings(400, seed=i, split=s, relation="a") for i, s in enumerate(("calibration", "test"))}
    squeezed = {s: [replace(r, confidence=0.4 + 0.1 * r.confidence) for r in rows] for s, rows in of.items()}
    test, calibration = ({"as is": of[s], "squeezed": squeezed[s]} for s in ("test", "calibration"))
    rows = quality(test, calibration, 0.3, n_resamples=100)
    confidence, right = zip(*((r.confidence, r.is_correct) for r in of["test"]))
    assert rows.auroc["as is"] == pytest.approx(auroc(confidence, right)) == rows.auroc["squeezed"]
    assert rows.skill["squeezed"] == pytest.approx(rows.skill["as is"], abs=0.05) and rows.skill["squeezed"] > 0.1


# Supplied answers

answered = st.lists(st.sampled_from([*CAPITALS.values(), "Oslo", ""]), min_size=len(CAPITALS), max_size=len(CAPITALS))


@given(answered)
def test_supplied_answers_are_right_and_wrong_by_the_references(said):
    judged = [capital(country, answer) for country, answer in zip(CAPITALS, said)]
    supplied = supplied_answers(judged)
    assert supplied["own"] == judged
    for kind, is_right in (("reference", True), ("other", False)):
        for j, own in zip(supplied[kind], judged):
            assert (j.id, j.question, j.extra) == (own.id, own.question, own.extra)
            assert (j.model_answer == CAPITALS[j.id]) == j.is_correct == is_right
            assert j.model_answer in CAPITALS.values()


def test_an_answer_that_other_questions_accept_is_not_borrowed_where_it_is_right():
    alike = [capital("France", "Paris"), capital("Italy", "Rome", answers=["Paris"])]
    with pytest.raises(ValueError, match="'capital' has no other question.*'France'"):
        supplied_answers(alike)
    borrowed = supplied_answers(alike, [*alike, capital("Peru", "Lima")])["other"]
    assert [j.model_answer for j in borrowed] == ["Lima", "Lima"]
    with pytest.raises(ValueError, match="'Peru' has no accepted answers"):
        supplied_answers([capital("Peru", "Lima", answers=[])])


def test_the_right_one_is_preferred_as_often_as_it_is_higher():
    right = made_up_readings(60, seed=3)
    wrong = [replace(r, confidence=1 - r.confidence) for r in made_up_readings(60, seed=4)]
    pairs = np.array([(a.confidence, b.confidence) for a, b in zip(right, wrong)])
    often = np.mean((pairs[:, 0] > pairs[:, 1]) + (pairs[:, 0] == pairs[:, 1]) / 2)
    found = preferred(right, wrong, n_resamples=100)
    assert found.value == pytest.approx(often) and found.low < often < found.high
    assert found.n == 60
    unread = [replace(wrong[0], confidence=None, provenance="missing"), *wrong[1:]]
    assert preferred(right, unread, n_resamples=20).n == 59
    assert preferred(wrong, right, n_resamples=100).value == pytest.approx(1 - often)
    with pytest.raises(ValueError, match="same questions.*q00059"):
        preferred(right, wrong[:-1])


# The runs


def test_what_is_missing_is_made_for_each_model_and_seed(monkeypatch, tmp_path):
    monkeypatch.setattr(prices, "TABLES", prices.Tables(tmp_path))
    commands = [command for stage in prices.stages() for command in stage]
    assert Counter(name for name, *_ in commands) == {"samples": 2, "untrained": 2, "trained": 6, "costs": 2}


@pytest.mark.long
def test_the_runs_leave_samples_readings_and_costs_of_few_questions(monkeypatch, tmp_path):
    tables = prices.Tables(tmp_path / "kept", "python benchmarks/prices.py all")
    monkeypatch.setattr(prices, "TABLES", tables)
    monkeypatch.setattr(prices.study, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(prices.study, "SIZES", {"n_train": 24, "n_calibration": 24, "n_test": 24})
    monkeypatch.setattr(prices, "TIMED", 24)
    monkeypatch.setattr(prices, "SAMPLES", (1, 4))
    monkeypatch.setattr(prices, "SAMPLING", replace(prices.SAMPLING, n=4))
    model = "smollm2-135m"
    prices.make_samples(model)
    prices.make_trained(model, "0")
    prices.make_costs(model)
    assert tables.read("samples.csv.gz").samples.map(lambda text: len(json.loads(text))).eq(4).all()
    rows = tables.read("readings.csv.gz")
    own, supplied = 48 * len(prices.ONE_PASS), 2 * 24 * len(prices.OF_SUPPLIED)
    assert len(rows) == own + supplied and set(rows.answers) == {"own", "reference", "other"}
    costs = tables.read("costs.csv").set_index("readout")
    assert costs.tokens.gt(0).all() and costs.tokens["samples_4"] > costs.tokens["samples_1"]
