"""Intervals, floors, bounds, tests and the gate keep what they promise."""
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_nb import inference as I
from calib_nb import metrics as M
from calib_nb.core import Reading, jsonable


def readings(confidence, correct, **fields):
    "One reading a row; None is a missing confidence."
    common = dict(answer="a", readout="verbalized", protocol="two_step", method="m", seed=0, split="test", relation="r") | fields
    return [Reading(id=f"q{i:04}", question=f"q{i}?", is_correct=bool(y), confidence=p, provenance="missing" if p is None else "parsed", **common) for i, (p, y) in enumerate(zip(confidence, correct))]


def sample_of(made):
    return I.Sample(I.reading_arrays(made))


def test_a_card_is_complete_and_json():
    card = I.metric_card(I.made_up_readings(200, missing=0.1), 0.3, n_resamples=200)
    assert list(card) == list(I.METRICS)
    json.dumps(jsonable(card), allow_nan=False)
    for name, e in card.items():
        assert np.isfinite(e.value) and (np.isfinite(e.low) or e.reason), name
        assert e.coverage == 1 if name == "accuracy" else 0.8 < e.coverage < 1
        assert (e.floor is not None) == (I.METRICS[name].kind == "calibration") == (e.p_value is not None)
        assert not np.isfinite(e.low) or (e.low <= e.value <= e.high and e.estimand), name


def test_the_same_seed_gives_the_same_card_and_the_order_of_readings_does_not_matter():
    made = I.made_up_readings(150)
    shuffled = [made[i] for i in np.random.default_rng(0).permutation(150)]
    cards = [jsonable(I.metric_card(r, 0.3, n_resamples=100)) for r in (made, made, shuffled)]
    assert cards[0] == cards[1] == cards[2]
    assert cards[0] != jsonable(I.metric_card(made, 0.3, n_resamples=100, seed=1))


def test_values_are_those_of_the_metrics():
    made = I.made_up_readings(120, missing=0.2)
    a = I.reading_arrays(made)
    p, y = a.confidence[a.present], a.correct[a.present]
    card = I.metric_card(made, 0.25, n_resamples=50)
    assert card["auroc"].value == pytest.approx(M.auroc(p, y)) and card["rms_calibration_error"].value == pytest.approx(M.rms_calibration_error(p, y))
    assert card["brier_skill_score"].value == pytest.approx(M.brier_skill_score(p, y, reference=0.25))
    assert card["auroc_within_relation"].value == pytest.approx(M.auroc_within_groups(p, y, a.relation[a.present].astype(str)))
    assert card["accuracy"].value == a.correct.mean() and card["accuracy"].n == 120 and card["auroc"].n == len(p)


def test_bootstrap_agrees_with_resampling_rows_one_by_one():
    made = I.made_up_readings(80, says=lambda c: c.round(1))
    a = I.reading_arrays(made)
    draws = I.bootstrap(sample_of(made), ["auroc", "aurc", "brier_score"], None, 30, seed=3)
    groups, number = np.unique(a.group.astype(str), return_inverse=True)
    counts = np.concatenate(list(I.resample_counts(len(groups), 30, seed=3))).astype(int)
    for b, c in enumerate(counts):
        rows = np.repeat(np.arange(80), c[number])
        for name in draws:
            assert draws[name][b] == pytest.approx(getattr(M, name)(a.confidence[rows], a.correct[rows]))


def test_blocks_do_not_change_the_resamples():
    one, many = (np.concatenate(list(I.resample_counts(7, 50, 0, block=b))) for b in (50, 8))
    assert np.array_equal(one, many) and (one.sum(1) == 7).all()


def test_questions_of_one_group_are_resampled_together():
    "Forty copies of ten questions carry the information of ten."
    p, y = np.tile(np.arange(10) / 10, 40), np.tile(np.arange(10) % 2, 40)
    alone = readings(p.tolist(), y)
    together = [Reading(**{**vars(r), "group": f"g{i % 10}"}) for i, r in enumerate(alone)]
    width = lambda r: np.subtract(*I.percentile_interval(I.bootstrap(sample_of(r), ["brier_score"], None, 400, 0)["brier_score"])[::-1])
    assert width(together) > 4 * width(alone)


def test_several_seeds_are_averaged_within_a_question():
    made = [I.made_up_readings(150, says=lambda c, k=k: np.clip(c + 0.1 * np.sin(9 * c + k), 0, 1)) for k in range(3)]
    seeds = [Reading(**{**vars(r), "seed": k}) for k, rs in enumerate(made) for r in rs]
    names = ["brier_score", "auroc", "rms_calibration_error", "accuracy"]
    card, single = I.metric_card(seeds, 0.3, 300, names=names), [I.metric_card(r, 0.3, 300, names=names) for r in made]
    for name in names:
        assert card[name].value == pytest.approx(np.mean([c[name].value for c in single])) and card[name].n == 150
    assert card["accuracy"].high - card["accuracy"].low == pytest.approx(single[0]["accuracy"].high - single[0]["accuracy"].low), "seeds are no new questions"
    same = [Reading(**{**vars(r), "seed": k}) for k in range(3) for r in made[0]]
    assert I.metric_card(same, 0.3, 300, names=names)["rms_calibration_error"].p_value == pytest.approx(single[0]["rms_calibration_error"].p_value, abs=0.05)


@pytest.mark.parametrize("confidence, correct", [([], []), ([None, None], [1, 0]), ([0.5], [1]), ([0.5, 0.7], [1, 1]), ([0.5, 0.5], [1, 0]), ([0.0, 1.0], [1, 0]), ([0.3, None], [0, 1])])
def test_degenerate_readings_give_a_value_or_a_reason(confidence, correct):
    if not confidence:
        with pytest.raises(ValueError, match="no readings"):
            I.metric_card(readings(confidence, correct), 0.3)
        return
    card = I.metric_card(readings(confidence, correct), 0.3, n_resamples=50, n_floor=50)
    for name, e in card.items():
        assert (np.isfinite(e.value) and np.isfinite(e.low)) or e.reason, name
    assert I.diagnose(readings(confidence, correct), n_resamples=50)[0].sentence


def test_mixed_or_repeated_readings_are_refused():
    a, b = readings([0.5], [1]), readings([0.5], [1], method="other")
    with pytest.raises(ValueError, match="one method"):
        I.metric_card(a + b, 0.3)
    with pytest.raises(ValueError, match="more than once"):
        I.metric_card(a + a, 0.3)
    with pytest.raises(ValueError, match="Did you mean 'auroc'"):
        I.metric_card(a, 0.3, names=["aurok"])


def test_the_noise_floor_is_uniform_for_a_calibrated_forecaster():
    "Its p-value is below alpha in a share alpha of experiments."
    name = "expected_calibration_error"
    p = []
    for seed in range(150):
        s = sample_of(I.made_up_readings(200, seed=1000 + seed))
        p.append(I.p_at_least(I.noise_floor(s, [name], 200, seed)[name], s.values([name], None)[name]))
    assert abs(np.mean(np.array(p) < 0.1) - 0.1) < 0.08 and abs(np.mean(p) - 0.5) < 0.08


def test_debiased_interval_covers_and_includes_zero_only_when_it_may():
    rows = I.interval_coverage("claims too much, steps of 0.1", 200, trials=60, n_resamples=300)
    coverage = next(r["coverage"] for r in rows if r["metric"] == "debiased_calibration_error")
    assert coverage > 0.85
    assert I.debiased_estimate(sample_of(I.made_up_readings(300)))[1] == 0
    assert I.debiased_estimate(sample_of(I.made_up_readings(300, says=np.sqrt)))[1] > 0.1


def test_the_mean_of_the_debiased_square_is_the_true_square():
    "Unbiased before it is cut off at 0: the interval's T is centred."
    value = []
    for seed in range(200):
        a = I.reading_arrays(I.made_up_readings(100, says=lambda c: np.full(len(c), 0.45), seed=seed))
        g = I.binned_gaps(a, np.unique(a.group.astype(str)))
        value.append(g.weight @ g.gap**2 - g.weight @ (g.influence**2).sum(0))
    assert np.mean(value) == pytest.approx(0.15**2, abs=4 * np.std(value) / np.sqrt(200))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.booleans(), st.booleans()), min_size=2, max_size=25), st.integers(0, 99))
def test_bounds_hold_for_every_filling(rows, seed):
    p, y, gone = (np.array(c) for c in zip(*rows))
    p, y = p / 10, y.astype(float)
    a = I.reading_arrays(readings([None if g else float(v) for v, g in zip(p, gone)], y))
    names = ["brier_score", "log_score", "auroc", "aurc", "augrc", "mean_confidence", "rms_calibration_error", "expected_calibration_error", "smooth_calibration_error"]
    bounds = I.missing_bounds(a, names, None)
    assert bool(bounds) == bool(gone.any())
    filled = np.where(gone, np.random.default_rng(seed).random(len(p)).round(1), p)
    for name, (low, high) in bounds.items():
        value = getattr(M, name)(filled, y)
        assert np.isnan(value) or low - 2e-3 <= value <= high + 2e-3, name


def test_paired_difference_is_sharper_than_two_intervals_and_antisymmetric():
    a, b = I.made_up_readings(300), I.made_up_readings(300, says=lambda c: np.clip(c * 1.2, 0, 1), method="b")
    d, back = I.paired_difference(a, b, "brier_score"), I.paired_difference(b, a, "brier_score")
    assert (d.value, d.low, d.high) == pytest.approx((-back.value, -back.high, -back.low)) and d.p_value == pytest.approx(back.p_value)
    single = I.metric_card(a, 0.3, names=["brier_score"])["brier_score"]
    assert d.high - d.low < 0.5 * (single.high - single.low) and d.n == 300 and d.coverage == 1


def test_paired_difference_uses_common_questions_only():
    y = np.arange(20) % 2
    a, b = readings([None] * 5 + [0.6] * 15, y), readings([0.4] * 15 + [None] * 5, y)
    d = I.paired_difference(a, b, "mean_confidence", n_resamples=50)
    assert (d.n, d.coverage) == (10, 0.5) and d.value == pytest.approx(0.2)
    with pytest.raises(ValueError, match="no question in common"):
        I.paired_difference(readings([None, 0.5], [0, 1]), readings([0.5, None], [0, 1]))


@pytest.mark.parametrize("metric", ["brier_score", "rms_calibration_error"])
def test_p_values_of_equal_methods_are_not_small_too_often(metric):
    "Two methods whose confidences are exchangeable: p < 0.1 in about a tenth of the experiments."
    p = []
    for seed in range(120):
        jitter = [lambda c, k=k: np.clip(c + np.random.default_rng(7 * seed + k).normal(0, 0.15, len(c)), 0, 1).round(1) for k in (1, 2)]
        a, b = (I.made_up_readings(120, seed=500 + seed, says=j) for j in jitter)
        p.append(I.paired_difference(a, b, metric, n_resamples=200, seed=seed).p_value)
    assert abs(np.mean(np.array(p) < 0.1) - 0.1) < 0.09 and min(p) > 0


def test_swapping_seeds_needs_equally_many():
    two = [Reading(**{**vars(r), "seed": k}) for k in (0, 1) for r in I.made_up_readings(50)]
    with pytest.raises(ValueError, match="as many seeds"):
        I.paired_difference(two, I.made_up_readings(50), "rms_calibration_error")
    assert I.paired_difference(two, two, "rms_calibration_error", n_resamples=50).p_value == 1


def test_holm_by_hand():
    assert I.holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert I.holm([0.9, 0.9]) == pytest.approx([1, 1]) and I.holm([]).size == 0
    assert list(I.holm({"b": 0.04, "a": 0.01})) == ["b", "a"]


def test_power_formulas_by_simulation():
    n, spread = 300, 0.2
    effect = I.smallest_mean_difference(n, spread)
    rng = np.random.default_rng(0)
    found = np.abs(rng.normal(effect, spread, (4000, n)).mean(1)) > 1.96 * spread / np.sqrt(n)
    assert found.mean() == pytest.approx(0.8, abs=0.03)
    assert np.isnan(I.smallest_auroc(0, 10)) and I.smallest_auroc(6, 194) == pytest.approx(0.5 + 2.8016 * np.sqrt(201 / (12 * 6 * 194)), abs=1e-3)


CONSTANT = lambda value: lambda c: np.full(len(c), value)
NOISE = lambda c: np.random.default_rng(11).random(len(c)).round(1)


@pytest.mark.parametrize("options, code, cause", [(dict(), "ok", None), (dict(missing=0.2), "missing", None), (dict(says=CONSTANT(0.5)), "collapsed", "one value learned"), (dict(says=CONSTANT(1.0)), "collapsed", "ceiling"),
                                                  (dict(says=CONSTANT(0.0)), "collapsed", "floor"), (dict(base_rate=0.01, says=NOISE), "unpowered", None), (dict(says=NOISE), "uninformative", None)])
def test_the_gate(options, code, cause):
    found = I.diagnose(I.made_up_readings(400, **options), reference=0.3, n_resamples=300)
    assert found[0].code == code and found[0].numbers.get("cause") == cause
    assert any(c.isdigit() for c in found[0].sentence) and found[0].sentence.endswith(".")
    assert [f.code for f in found] == sorted((f.code for f in found), key=["missing", "collapsed", "unpowered", "uninformative", "ok"].index)


def test_filled_readings_are_the_headline_and_the_cause_of_the_collapse():
    filled = [Reading(**{**vars(r), "confidence": 0.5, "provenance": "filled"}) if i % 10 else r for i, r in enumerate(I.made_up_readings(300))]
    found = I.diagnose(filled, n_resamples=100)
    assert [f.code for f in found[:2]] == ["missing", "collapsed"] and found[0].numbers["filled"] == 270 and found[1].numbers["cause"] == "fallback"
