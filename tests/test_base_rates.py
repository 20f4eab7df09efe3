"""Other shares of right answers: which answers are chosen, and what text is expected after training on them."""
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from calib_nb.base_rates import expected_text, hits, matched, seen_text, spread_of, with_base_rates
from calib_nb.core import Judged, UnknownName
from calib_nb.resampling import made_up_readings

sys.path.insert(0, str(ROOT / "benchmarks"))
import base_rates  # noqa: E402

SHARES = (0.1, 0.3, 0.5, 0.7)


def judged(counts):  # relation -> (right, wrong)
    rows = []
    for relation, (right, wrong) in counts.items():
        ids = [f"{relation}{i}" for i in range(right + wrong)]
        rows += [Judged(f"{id}?", "x", i < right, id=id, relation=relation) for i, id in enumerate(ids)]
    return rows


numbers = st.integers(0, 60)
pools = st.dictionaries(st.sampled_from("abcd"), st.tuples(numbers, numbers), min_size=1).map(judged)


@given(pools)
def test_at_every_share_each_relation_has_as_many_rows_and_no_row_twice(pool):
    made = with_base_rates(pool, SHARES)
    rows = Counter(j.relation for j in made[0.1])
    for share, chosen in made.items():
        assert Counter(j.relation for j in chosen) == rows and len({j.id for j in chosen}) == len(chosen)
        for relation, n in rows.items():
            right = sum(j.is_correct for j in chosen if j.relation == relation)
            assert right == round(share * n)


@given(pools, st.randoms())
def test_which_answers_are_chosen_does_not_depend_on_their_order(pool, random):
    mixed = random.sample(pool, len(pool))
    ids = [{j.id for j in with_base_rates(part, SHARES)[0.3]} for part in (pool, mixed)]
    assert ids[0] == ids[1]


def test_a_relation_gives_what_its_right_and_wrong_answers_suffice_for():
    made = with_base_rates(judged({"a": (7, 100), "b": (100, 9), "c": (0, 50)}), SHARES)
    assert all(Counter(j.relation for j in chosen) == {"a": 10, "b": 10} for chosen in made.values())


@pytest.mark.parametrize("shares", [(0, 0.5), (0.5, 1.0), ()])
def test_a_share_that_is_none_is_refused(shares):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        with_base_rates(judged({"a": (5, 20)}), shares)


@given(st.sampled_from(SHARES))
def test_the_matched_test_has_the_share_in_each_relation_and_all_seeds_of_a_question(share):
    one = [replace(r, id=str(i), relation="ab"[i % 2]) for i, r in enumerate(made_up_readings(400, base_rate=0.4))]
    kept = matched([*one, *(replace(r, seed=1) for r in one)], share)
    assert Counter(Counter(r.id for r in kept).values()).keys() == {2}
    for relation in "ab":
        right = [r.is_correct for r in kept if r.relation == relation]
        assert abs(np.mean(right) - share) < 0.01 and len(right) > 20


@pytest.mark.parametrize("share, accuracy", [(0.1, 0.4), (0.3, 0.3), (0.5, 0.2), (0.7, 0.9)])
@pytest.mark.parametrize("objective, words", [("text", (0.1, 0.9)), ("implicit", (0, 1))])
def test_what_is_expected_is_what_a_simulation_of_the_picture_says(share, accuracy, objective, words):
    rng = np.random.default_rng(0)
    log_odds = logit(share) + 0.7 * rng.standard_normal(400_000)
    right = rng.random(len(log_odds)) < expit(log_odds + logit(accuracy) - logit(share))
    said = np.where(log_odds > 0, words[1], words[0])
    skill = 1 - np.mean((said - right) ** 2) / np.mean((share - right) ** 2)
    found = expected_text(objective, share, 0.7, accuracy)
    assert found["brier_skill"] == pytest.approx(skill, abs=0.01)
    assert found["share of mode"] == pytest.approx(max((log_odds > 0).mean(), (log_odds < 0).mean()), abs=0.01)
    if share != 0.5:
        assert found["mode"] == words[share > 0.5]


def test_near_one_half_no_mode_is_expected_and_none_is_counted():
    found = expected_text("text", 0.5, 0.6)
    assert np.isnan(found["mode"]) and found["values"] == 2
    rare = expected_text("text", 0.2, 0.6)
    assert rare["values"] == 1 and rare["share of mode"] < 1, "a value under one answer in a hundred is not counted"
    seen = seen_text([replace(r, confidence=0.1) for r in made_up_readings(200)], 0.5, 100)
    assert hits(found, seen)["mode"] is None and hits(found, seen)["values"] is False


def test_text_without_a_number_has_no_mode_and_hits_nothing():
    silent = [replace(r, confidence=None, provenance="missing") for r in made_up_readings(40)]
    seen = seen_text(silent, 0.5, 10)
    assert seen["values"] == 0 and np.isnan(seen["mode"]) and np.isnan(seen["brier_skill"])
    assert not any(hits(expected_text("text", 0.1, 0.6), seen).values())


def test_another_objective_is_refused():
    with pytest.raises(UnknownName, match="dpo"):
        expected_text("dpo", 0.3, 0.6)


def test_the_spread_is_that_of_the_probabilities_behind_expected_confidences():
    rng = np.random.default_rng(1)
    q = expit(logit(0.3) + 0.8 * rng.standard_normal(4000))
    readings = [replace(r, confidence=0.1 + 0.8 * p, relation="a") for r, p in zip(made_up_readings(4000), q)]
    assert spread_of(readings) == pytest.approx(0.8, abs=0.03)
    apart = [replace(r, relation="b", confidence=0.5 + r.confidence / 2) for r in readings]
    assert spread_of([*readings, *apart]) < 1.3, "that relations differ is no spread"


# The runs


def test_the_runs_train_on_as_many_rows_of_each_relation_and_share_their_test():
    relations, tests = [], []
    for share in base_rates.SHARES:
        parts = base_rates.splits(share)
        relations.append(Counter(j.relation for j in parts["train"]))
        tests.append([j.id for j in parts["test"]])
        assert abs(np.mean([j.is_correct for j in parts["train"]]) - share) < 0.02
        groups = [{j.group for j in part} for part in parts.values()]
        assert not groups[0] & groups[2] and not groups[0] & groups[1] and not groups[1] & groups[2]
    assert len(set(map(str, tests))) == 1 and all(counts == relations[0] for counts in relations)
    assert sum(relations[0].values()) > 250


def test_what_is_missing_is_every_share_method_and_seed(monkeypatch, tmp_path):
    monkeypatch.setattr(base_rates, "TABLES", base_rates.Tables(tmp_path))
    [stage] = base_rates.stages()
    assert len(stage) == len(set(stage)) == 4 * 2 * 3 and stage[0] == ("run", 0.1, "sft", 0)


@pytest.mark.long
def test_a_run_leaves_what_it_says_and_expects_of_each_test_answer_and_how_it_was_made(monkeypatch, tmp_path):
    tables = base_rates.Tables(tmp_path / "kept", "python benchmarks/base_rates.py all")
    monkeypatch.setattr(base_rates, "TABLES", tables)
    monkeypatch.setattr(base_rates, "RUNS", tmp_path / "runs")
    parts = {split: part[:: len(part) // 24][:24] for split, part in base_rates.splits(0.3).items()}
    monkeypatch.setattr(base_rates, "splits", lambda share: parts)
    base_rates.make_run("0.3", "sft", "0")
    rows = tables.read("readings.csv.gz")
    assert Counter(rows.readout) == {"expected": 24, "verbalized": 24} and set(rows.id) == {j.id for j in parts["test"]}
    assert (tmp_path / "kept/made_by.txt").read_text().startswith("command: python benchmarks/base_rates.py all")
    assert len(next(base_rates.stages())) == 23
