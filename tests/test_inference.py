"""Intervals, floors, bounds, tests and the gate keep what they promise."""
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import readings
from scipy import sparse, stats

from calib_nb import inference as I
from calib_nb import label_noise as N
from calib_nb import metrics as M
from calib_nb import resampling as R
from calib_nb.core import jsonable

JUDGE = N.JudgeQuality(80, 100, 195, 200)


# ---- the card


def test_a_card_is_complete_and_json():
    card = I.metric_card(R.made_up_readings(200, missing=0.1), 0.3, n_resamples=200)
    assert list(card) == list(R.METRICS)
    json.dumps(jsonable(card), allow_nan=False)
    for name, e in card.items():
        assert np.isfinite(e.value) and (np.isfinite(e.low) or e.reason), name
        assert e.parsed == 1 if name == "accuracy" else 0.8 < e.parsed < 1
        assert (e.floor is not None) == (R.METRICS[name].kind == "calibration") == (e.p_value is not None)
        assert not np.isfinite(e.low) or (e.low <= e.value <= e.high and e.estimand), name


def test_a_card_without_a_reference_is_one_without_brier_skill():
    made = R.made_up_readings(100)
    with pytest.raises(ValueError, match="needs the constant forecast"):
        I.metric_card(made, None, n_resamples=20)
    assert "without a reference" in I.metric_card.__doc__
    names = [name for name in R.METRICS if name != "brier_skill_score"]
    assert list(I.metric_card(made, None, 20, n_floor=20, names=names)) == names


def test_the_same_seed_gives_the_same_card_and_the_order_of_readings_does_not_matter():
    made = R.made_up_readings(150)
    shuffled = [made[i] for i in np.random.default_rng(0).permutation(150)]
    cards = [jsonable(I.metric_card(r, 0.3, n_resamples=100)) for r in (made, made, shuffled)]
    assert cards[0] == cards[1] == cards[2]
    assert cards[0] != jsonable(I.metric_card(made, 0.3, n_resamples=100, seed=1))


def test_values_are_those_of_the_metrics():
    made = R.made_up_readings(120, missing=0.2)
    a = R.reading_arrays(made)
    p, y = a.confidence[a.present], a.correct[a.present]
    relation = a.relation[a.present].astype(str)
    card = I.metric_card(made, 0.25, n_resamples=50)
    assert card["auroc"].value == pytest.approx(M.auroc(p, y))
    assert card["rms_calibration_error"].value == pytest.approx(M.rms_calibration_error(p, y))
    assert card["brier_skill_score"].value == pytest.approx(M.brier_skill_score(p, y, reference=0.25))
    assert card["stratified_auroc"].value == pytest.approx(M.stratified_auroc(p, y, relation))
    assert card["accuracy"].value == a.correct.mean()
    assert card["accuracy"].n == 120 and card["auroc"].n == len(p)


def test_several_seeds_are_averaged_within_a_question():
    made = [R.made_up_readings(150, says=lambda c, k=k: np.clip(c + 0.1 * np.sin(9 * c + k), 0, 1)) for k in range(3)]
    seeds = [replace(r, seed=k) for k, rs in enumerate(made) for r in rs]
    names = ["brier_score", "auroc", "rms_calibration_error", "accuracy"]
    card = I.metric_card(seeds, 0.3, 300, names=names)
    single = [I.metric_card(r, 0.3, 300, names=names) for r in made]
    for name in names:
        assert card[name].value == pytest.approx(np.mean([c[name].value for c in single]))
        assert card[name].n == 150
    all_seeds, one_seed = (e.high - e.low for e in (card["accuracy"], single[0]["accuracy"]))
    assert all_seeds == pytest.approx(one_seed), "seeds are no new questions"


def test_a_seed_that_repeats_another_changes_no_p_value():
    made = R.made_up_readings(150, says=lambda c: np.clip(c + 0.1 * np.sin(9 * c), 0, 1))
    thrice = [replace(r, seed=k) for k in range(3) for r in made]
    name = "rms_calibration_error"
    once, same = (I.metric_card(r, 0.3, 300, names=[name])[name] for r in (made, thrice))
    assert same.p_value == pytest.approx(once.p_value, abs=0.05)


DEGENERATE = [
    ([], []),
    ([None, None], [1, 0]),
    ([0.5], [1]),
    ([0.5, 0.7], [1, 1]),
    ([0.5, 0.5], [1, 0]),
    ([0.0, 1.0], [1, 0]),
    ([0.3, None], [0, 1]),
]


@pytest.mark.parametrize("confidence, correct", DEGENERATE)
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


# ---- the debiased error


def test_the_mean_of_the_debiased_square_is_the_true_square():
    "Unbiased before it is cut off at 0: the interval's T is centred."
    value = []
    for seed in range(200):
        a = R.reading_arrays(R.made_up_readings(100, says=lambda c: np.full(len(c), 0.45), seed=seed))
        gaps = I._binned_gaps(a, np.unique(a.group.astype(str)))
        noise = gaps.weight @ (gaps.influence**2).sum(0)
        value.append(gaps.weight @ gaps.gap**2 - noise)
    assert np.mean(value) == pytest.approx(0.15**2, abs=4 * np.std(value) / np.sqrt(200))


def calibrated(seed):
    return R.Sample(R.made_up_arrays(200, says=lambda c: np.full(len(c), 0.3), seed=seed))


def test_the_debiased_interval_at_the_boundary_holds_as_often_as_it_says():
    "A calibrated forecaster: 0 is left out in about 5 % of the experiments, not in 2.5 %."
    left_out = [I.debiased_estimate(calibrated(seed), 500, seed)[1] > 0 for seed in range(400)]
    assert 0.025 <= np.mean(left_out) <= 0.08


# ---- missing readings

BOUNDED = [
    "brier_score",
    "log_score",
    "auroc",
    "aurc",
    "augrc",
    "mean_confidence",
    "rms_calibration_error",
    "expected_calibration_error",
    "smooth_calibration_error",
]
ROWS = st.lists(st.tuples(st.integers(0, 10), st.booleans(), st.booleans()), min_size=2, max_size=25)


@settings(max_examples=25, deadline=None)
@given(ROWS, st.integers(0, 99))
def test_bounds_hold_for_every_filling(rows, seed):
    p, y, gone = (np.array(c) for c in zip(*rows))
    p, y = p / 10, y.astype(float)
    a = R.reading_arrays(readings([None if g else float(v) for v, g in zip(p, gone)], y))
    bounds = I.missing_bounds(a, BOUNDED, None)
    assert bool(bounds) == bool(gone.any())
    filled = np.where(gone, np.random.default_rng(seed).random(len(p)).round(1), p)
    for name, (low, high) in bounds.items():
        value = getattr(M, name)(filled, y)
        assert np.isnan(value) or low - 2e-3 <= value <= high + 2e-3, name


def test_a_card_has_the_bounds_of_missing_readings():
    made = R.made_up_readings(100, missing=0.2)
    card = I.metric_card(made, 0.3, 50, n_floor=50)
    bounds = I.missing_bounds(R.reading_arrays(made), list(card), 0.3)
    assert set(BOUNDED) <= set(bounds) < set(card)
    for name, e in card.items():
        assert (e.bound_low, e.bound_high) == bounds.get(name, (None, None))
    without = {name: replace(e, bound_low=None, bound_high=None) for name, e in card.items()}
    assert jsonable(I.with_missing_bounds(without, made, 0.3)) == jsonable(card)


# ---- the judge's errors


def test_the_card_has_the_judge_s_band_only_where_asked():
    made = R.made_up_readings(150, missing=0.1)
    plain = I.metric_card(made, 0.3, 50, n_floor=50)
    asked = I.with_judge_error(plain, made, 0.3, JUDGE)
    for name, e in asked.items():
        assert np.isnan([plain[name].judge_low, plain[name].judge_high]).all()
        without = replace(e, judge_value=np.nan, judge_low=np.nan, judge_high=np.nan, judge_errors="")
        assert not e.judge_errors or "alike at every confidence" in e.judge_errors
        assert jsonable(without) == jsonable(plain[name])
        assert np.isfinite([e.judge_low, e.judge_high]).all() == (R.METRICS[name].kind != "count")
        assert ("true labels" in I.as_text(e)) == np.isfinite(e.judge_low)
        assert "true labels" not in I.as_text(plain[name])
        assert not np.isfinite(e.judge_low) or e.judge_low <= e.judge_value <= e.judge_high
    assert "floor" in I.as_text(asked["expected_calibration_error"]) and "[" in I.as_text(asked["auroc"])


HARDLY_ANY = [
    ([None, None], [1, 0]),
    ([0.5], [1]),
    ([0.5, 0.5, 0.5], [1, 0, 0]),
    ([0.2, 0.9], [0, 0]),
    ([0.0, 1.0, None], [0, 1, 1]),
]


@pytest.mark.parametrize("confidence, correct", HARDLY_ANY)
def test_a_judge_s_band_of_degenerate_readings_is_a_value_or_nothing(confidence, correct):
    made = readings(confidence, correct)
    card = I.metric_card(made, 0.3, n_resamples=20, n_floor=20)
    for e in I.with_judge_error(card, made, 0.3, JUDGE).values():
        assert np.isnan(e.judge_low) or e.judge_low <= e.judge_high


# ---- what intervals rest on


OUTCOMES_AND_GROUPS = st.lists(st.tuples(st.booleans(), st.integers(0, 30)), min_size=2, max_size=60)
SUPPORTED = ["auroc", "accuracy", "brier_score", "debiased_calibration_error", "mean_confidence"]


@settings(max_examples=30, deadline=None)
@given(OUTCOMES_AND_GROUPS)
def test_an_interval_is_offered_only_with_ten_groups_of_either_outcome(rows):
    y, group = zip(*rows)
    p = (np.arange(len(y)) % 10 / 10).tolist()
    made = [replace(r, group=f"g{g}") for r, g in zip(readings(p, y), group)]
    right, wrong = ({g for v, g in rows if v == side} for side in (True, False))
    card = I.metric_card(made, 0.3, n_resamples=30, n_floor=30, names=SUPPORTED)
    enough = min(len(right), len(wrong)) >= 10
    for name, e in card.items():
        expected = len(right | wrong) >= 10 if name == "mean_confidence" else enough
        assert np.isfinite(e.low) == expected, name
        assert np.isfinite(e.low) or e.reason
    if not enough and right and wrong:
        assert "needs 10 groups" in card["auroc"].reason
        d = I.paired_difference(made, made, "auroc", n_resamples=30)
        assert np.isnan(d.low) and np.isnan(d.p_value) and "needs 10 groups" in d.reason


def width(draws, support=np.inf):
    low, high = I.percentile_interval(draws, support)
    return high - low


def test_intervals_widen_as_student_s_t_does():
    assert I._widened(np.inf) == pytest.approx(1.959964, abs=1e-6)
    assert I._widened(10) == pytest.approx(2.262157 * np.sqrt(10 / 9), abs=1e-5)
    draws = np.random.default_rng(0).normal(size=4000)
    assert width(draws, 10) > width(draws, 30) > width(draws) == pytest.approx(3.92, abs=0.15)


def test_few_resamples_make_no_narrower_interval():
    few = [width(np.random.default_rng(seed).normal(size=99)) for seed in range(400)]
    assert np.mean(few) > 3.9


# ---- two methods


def test_paired_difference_is_antisymmetric():
    a, b = R.made_up_readings(300), R.made_up_readings(300, says=lambda c: np.clip(c * 1.2, 0, 1), method="b")
    d, back = I.paired_difference(a, b, "brier_score"), I.paired_difference(b, a, "brier_score")
    assert (d.value, d.low, d.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert d.p_value == pytest.approx(back.p_value)


def test_paired_difference_is_sharper_than_two_intervals():
    a, b = R.made_up_readings(300), R.made_up_readings(300, says=lambda c: np.clip(c * 1.2, 0, 1), method="b")
    d = I.paired_difference(a, b, "brier_score")
    single = I.metric_card(a, 0.3, names=["brier_score"])["brier_score"]
    assert d.high - d.low < 0.5 * (single.high - single.low)
    assert d.n == 300 and d.shared == 1


def test_paired_difference_uses_common_questions_only():
    y = np.arange(20) % 2
    a, b = readings([None] * 5 + [0.6] * 15, y), readings([0.4] * 15 + [None] * 5, y)
    d = I.paired_difference(a, b, "mean_confidence", n_resamples=50)
    assert (d.n, d.shared) == (10, 0.5) and d.value == pytest.approx(0.2)
    with pytest.raises(ValueError, match="no question in common"):
        I.paired_difference(readings([None, 0.5], [0, 1]), readings([0.5, None], [0, 1]))


def grouped(says, name):
    "Readings of 120 questions in 40 groups; `name` gives a group's name from its number."
    made = R.made_up_readings(120, says=says)
    return [replace(r, group=name(i % 40)) for i, r in enumerate(made)]


@pytest.mark.parametrize("metric", ["brier_score", "expected_calibration_error"])
def test_a_question_is_drawn_on_both_sides_or_on_neither(metric):
    "A side without groups takes the other's: two that say the same differ by exactly 0, and swaps move pairs."
    a, plain = grouped(jittered(1), "subject {}".format), grouped(jittered(1), lambda number: "")
    for pair in ((a, plain), (plain, a)):
        d = I.paired_difference(*pair, metric, n_resamples=200)
        assert d.value == 0 and d.p_value == 1 and (metric != "brier_score" or d.low == d.high == 0)
    b, bare = grouped(jittered(2), "subject {}".format), grouped(jittered(2), lambda number: "")
    wanted = I.paired_difference(a, b, metric, n_resamples=200)
    assert I.paired_difference(a, bare, metric, n_resamples=200) == wanted
    worded = [replace(r, question=r.question.upper()) for r in bare]
    assert I.paired_difference(plain, worded, metric, n_resamples=200) == I.paired_difference(
        plain, bare, metric, n_resamples=200
    )


def test_a_question_with_two_groups_cannot_be_paired():
    a, b = grouped(jittered(1), "subject {}".format), grouped(jittered(2), "topic {}".format)
    for metric in ("brier_score", "expected_calibration_error"):
        with pytest.raises(ValueError, match="'q00000' has the group 'subject 0' .*'topic 0'.* the same `group`"):
            I.paired_difference(a, b, metric, n_resamples=20)
    with pytest.raises(ValueError, match="the same `group`"):
        I.premium_gap({"a": a}, {"a": b}, "auroc", n_resamples=20)
    related = [replace(r, relation=f"{r.relation}!") for r in a]
    with pytest.raises(ValueError, match="the relation 'relation 0'.* the same `relation`"):
        I.paired_difference(a, related, "auroc", n_resamples=20, resample="relation")
    assert I.paired_difference(a[:60], b[60:] + a[:60], "auroc", n_resamples=20).n == 60  # only common ones matter


def jittered(seed):
    "What a forecaster says whose noise is drawn from `seed`."
    def says(chance):
        noise = np.random.default_rng(seed).normal(0, 0.15, len(chance))
        return np.clip(chance + noise, 0, 1).round(1)
    return says


@pytest.mark.parametrize("metric", ["brier_score", "rms_calibration_error"])
def test_p_values_of_equal_methods_are_not_small_too_often(metric):
    "Two methods whose confidences are exchangeable: p < 0.1 in about a tenth of the experiments."
    p = []
    for seed in range(120):
        a, b = (R.made_up_readings(120, seed=500 + seed, says=jittered(7 * seed + k)) for k in (1, 2))
        p.append(I.paired_difference(a, b, metric, n_resamples=200, seed=seed).p_value)
    assert abs(np.mean(np.array(p) < 0.1) - 0.1) < 0.09 and min(p) > 0


def shifted(seed):
    def says(chance):
        return np.clip(chance + np.random.default_rng(seed).normal(0.08, 0.25, len(chance)), 0, 1)
    return says


def test_p_values_agree_with_intervals():
    "p < 0.05 where the interval leaves 0 out, but for the coarseness of resamples."
    for seed in range(30):
        a, b = R.made_up_readings(80, seed=seed), R.made_up_readings(80, seed=seed, says=shifted(seed))
        d = I.paired_difference(a, b, "brier_score", n_resamples=999, seed=seed)
        left_out = d.low > 0 or d.high < 0
        assert left_out == (d.p_value < 0.05) or abs(d.p_value - 0.05) < 0.01


def test_a_difference_says_why_it_has_no_interval():
    a, b = R.made_up_readings(100), R.made_up_readings(100, says=jittered(1))
    for name in ("log_score", "penalised_75", "distinct_values", "dsc"):
        alone = I.metric_card(a, None, 20, names=[name])[name].reason
        assert I.paired_difference(a, b, name, n_resamples=20).reason == alone and "biased" not in alone
    for name in ("rms_calibration_error", "mcb"):
        assert I.paired_difference(a, b, name, n_resamples=20).reason == "biased upward: no valid interval"


def test_swapping_seeds_needs_equally_many():
    one = R.made_up_readings(50)
    two = [replace(r, seed=k) for k in (0, 1) for r in one]
    with pytest.raises(ValueError, match="as many seeds"):
        I.paired_difference(two, one, "rms_calibration_error")
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
    assert np.isnan(I.smallest_auroc(0, 10))
    assert I.smallest_auroc(6, 194) == pytest.approx(0.5 + 2.8016 * np.sqrt(201 / (12 * 6 * 194)), abs=1e-3)


# ---- these adapters, or the method


def trained(seeds, spread, start=0):
    "Readings of trainings that differ by `spread` in how much noise is in what they say."
    made = []
    for seed in range(seeds):
        noise = np.random.default_rng(start + seed)
        size = 0.05 + spread * seed

        def says(chance, noise=noise, size=size):
            return np.clip(chance + noise.normal(0, size, len(chance)), 0, 1).round(2)

        made += [replace(r, seed=seed) for r in R.made_up_readings(200, says=says)]
    return made


def test_one_seed_makes_no_claim_about_a_method():
    one, other = trained(1, 0.1), trained(1, 0.1, start=50)
    assert I.paired_difference(one, other, "auroc", n_resamples=100).claim == "these adapters"
    refused = I.paired_difference(one, other, "auroc", n_resamples=100, estimand="the method")
    assert np.isfinite(refused.value) and np.isnan([refused.low, refused.p_value]).all()
    assert "one seed gives no claim about a method" in refused.reason
    assert "no interval: one seed" in I.difference_text(refused)
    card = I.metric_card(one, 0.3, 100, n_floor=50, names=["auroc"], estimand="the method")
    assert "one seed" in card["auroc"].reason and np.isnan(card["auroc"].low)
    unequal = I.paired_difference(trained(3, 0.1), trained(2, 0.1), "auroc", n_resamples=100, estimand="the method")
    assert "as many seeds" in unequal.reason and np.isnan(unequal.low)


def test_several_seeds_are_about_the_method_and_its_interval_is_the_wider_one():
    a, b = trained(3, 0.4), R.made_up_readings(200, says=np.sqrt)
    b = [replace(r, seed=seed) for seed in range(3) for r in b]
    method = I.paired_difference(a, b, "auroc", n_resamples=300)
    fixed = I.paired_difference(a, b, "auroc", n_resamples=300, estimand="these adapters")
    assert (method.claim, fixed.claim) == ("the method", "these adapters") and method.value == fixed.value
    assert method.high - method.low > fixed.high - fixed.low and method.p_value > fixed.p_value
    assert method.detectable > fixed.detectable > 0
    assert (method.low > 0 or method.high < 0) == (method.p_value < 0.05)
    text = I.difference_text(method)
    assert "for the method" in text and "with 3 seeds and n = 200 a difference below" in text
    cards = [I.metric_card(a, 0.3, 300, n_floor=50, names=["auroc"], estimand=e)["auroc"] for e in (None, fixed.claim)]
    assert [card.claim for card in cards] == ["the method", "these adapters"]
    assert np.diff([cards[0].low, cards[0].high]) > np.diff([cards[1].low, cards[1].high])


def test_trainings_that_do_not_differ_leave_the_bootstrap_s_interval():
    made = R.made_up_readings(200)
    thrice = [replace(r, seed=seed) for seed in range(3) for r in made]
    card, single = (I.metric_card(r, 0.3, 200, n_floor=50, names=["auroc"])["auroc"] for r in (thrice, made))
    assert (card.low, card.high) == pytest.approx((single.low, single.high))


def test_a_spread_over_seeds_by_hand():
    "No noise of questions leaves the one-sample t interval of the seeds; no difference of seeds the questions'."
    values, draws = np.array([0.1, 0.2, 0.4]), np.random.default_rng(0).normal(0, 1, 500)
    of_seeds = I._spread_over_seeds(values, np.repeat(values[:, None], 500, 1), 100)
    assert of_seeds.quantile(0.975) == pytest.approx(4.302653 * values.std(ddof=1) / np.sqrt(3), rel=1e-5)
    of_questions = I._spread_over_seeds(np.full(3, 0.2), np.tile(draws, (3, 1)), 100)
    assert of_questions.quantile(0.975) == pytest.approx(1.984217 * draws.std(ddof=1) * np.sqrt(100 / 99), rel=1e-5)
    assert of_seeds.p_value(of_seeds.quantile(0.975)) == pytest.approx(0.05) and of_seeds.p_value(0) == 1


def test_a_difference_that_no_chance_makes_has_a_p_value():
    "Where the search for the tail ends, p is the tail there, and never less."
    spread = I._Spread(1, 1e-4, 1, 299, 9)
    beyond, at_end = spread.p_value(9), 2 * stats.norm.sf(8)
    assert beyond == at_end == spread.p_value(1e6)
    assert at_end < spread.p_value(5) < spread.p_value(3) < 0.01
    sure, unsure = (
        [replace(r, seed=k) for k in range(10) for r in R.made_up_readings(100, says=jittered_about(mean, k))]
        for mean in (0.9, 0.2)
    )
    d = I.paired_difference(sure, unsure, "mean_confidence", n_resamples=200)
    assert d.claim == "the method" and d.low > 0 and 0 < d.p_value < 1e-10


def jittered_about(mean, seed):
    "Says nearly the same of every question."
    return lambda chance: mean + np.random.default_rng(seed).uniform(-0.05, 0.05, len(chance))


def test_claims_beyond_these_relations_resample_relations():
    made = [replace(r, relation=f"relation {i % 20}") for i, r in enumerate(R.made_up_readings(300))]
    by_group, by_relation = (I.metric_card(made, 0.3, 200, n_floor=50, resample=u) for u in ("group", "relation"))
    assert by_group["auroc"].unit == "group" and by_relation["auroc"].unit == "relation"
    assert by_group["auroc"].value == by_relation["auroc"].value and by_group["auroc"].low != by_relation["auroc"].low
    assert I.paired_difference(made, made, "auroc", n_resamples=50, resample="relation").unit == "relation"
    few = I.metric_card(R.made_up_readings(300), 0.3, 50, n_floor=50, resample="relation")
    assert "needs 10 relations" in few["auroc"].reason and np.isnan(few["auroc"].low)
    with pytest.raises(ValueError, match="Did you mean 'relation'"):
        I.metric_card(made, 0.3, 50, resample="relations")
    with pytest.raises(ValueError, match="'the method'"):
        I.metric_card(made, 0.3, 50, estimand="method")
    with pytest.raises(ValueError, match="relation of each reading"):
        I.metric_card([replace(r, relation="") for r in made], 0.3, 50, resample="relation")


def test_power_over_seeds_grows_with_seeds_and_is_never_above_that_of_fixed_ones():
    fixed = I.smallest_auroc_difference(300, 0.3)
    few, many = (I.smallest_auroc_difference(300, 0.3, seeds=s, seed_sd=0.05) for s in (3, 10))
    assert few > many > fixed
    assert I.smallest_auroc_difference(10**6, 0.3, seeds=3, seed_sd=0.05) > 0.15, "questions do not replace seeds"


# ---- too few to say


@pytest.mark.parametrize("n", [1, 3, 29])
def test_a_few_right_answers_are_no_perfect_score(n):
    card = I.metric_card(readings([1.0] * n, [1] * n), 0.3, n_resamples=20, n_floor=20)
    for name in ("brier_skill_score", "expected_calibration_error", "accuracy"):
        assert I.as_text(card[name]).startswith("too few: "), I.as_text(card[name])
    assert I.as_text(card["mean_confidence"])[0] == "1"


def test_a_cell_says_what_is_too_few():
    def cell(n, right, name="brier_skill_score"):
        made = readings((np.arange(n) % 10 / 10).tolist(), [i < right for i in range(n)])
        return I.as_text(I.metric_card(made, 0.3, 20, n_floor=20, names=[name])[name])

    assert cell(3, 1) == "too few: 3 answers, 30 are needed" and cell(1, 0).startswith("too few: 1 answer,")
    assert cell(60, 4) == "too few: 4 right of 60 answers, 5 are needed"
    assert cell(60, 56) == "too few: 4 wrong of 60 answers, 5 are needed"
    assert cell(60, 4, "accuracy").startswith("0.067") and "too few" not in cell(30, 5)


def test_an_undefined_value_has_a_reason_that_is_not_undefined():
    same = readings([0.2, 0.9, 0.4], [0, 0, 0])
    assert I.difference_text(I.paired_difference(same, same, "auroc", n_resamples=20)) == (
        "undefined: all 3 answers are wrong"
    )
    card = I.metric_card(readings([0.2], [0]), 0.3, 20, n_floor=20, names=["auroc"])
    assert I.as_text(card["auroc"]) == "undefined: the only answer is wrong"
    assert "The only answer is wrong" in I.diagnose(readings([0.2], [0]), n_resamples=20)[-1].sentence


# ---- the gate


def constant(value):
    return lambda chance: np.full(len(chance), value)


def noise(chance):
    return np.random.default_rng(11).random(len(chance)).round(1)


GATE = [
    (dict(), "ok", None),
    (dict(missing=0.2), "missing", None),
    (dict(says=constant(0.5)), "collapsed", "one value learned"),
    (dict(says=constant(1.0)), "collapsed", "ceiling"),
    (dict(says=constant(0.0)), "collapsed", "floor"),
    (dict(base_rate=0.01, says=noise), "unpowered", None),
    (dict(says=noise), "uninformative", None),
    (dict(says=lambda chance: 1 - chance), "inverted", None),
    (dict(says=lambda chance: chance**0.3), "miscalibrated", None),
]
PRECEDENCE = ["missing", "constant_labels", "collapsed", "unpowered", "uninformative", "inverted"]
PRECEDENCE += ["miscalibrated", "ok"]


@pytest.mark.parametrize("options, code, cause", GATE)
def test_the_gate(options, code, cause):
    found = I.diagnose(R.made_up_readings(400, **options), reference=0.3, n_resamples=300)
    assert found[0].code == code and found[0].numbers.get("cause") == cause
    assert any(c.isdigit() for c in found[0].sentence) and found[0].sentence.endswith(".")
    codes = [f.code for f in found]
    assert codes == sorted(codes, key=PRECEDENCE.index)


def test_filled_readings_are_the_headline_and_the_cause_of_the_collapse():
    made = R.made_up_readings(300)
    filled = [replace(r, confidence=0.5, provenance="filled") if i % 10 else r for i, r in enumerate(made)]
    found = I.diagnose(filled, n_resamples=100)
    assert [f.code for f in found[:2]] == ["missing", "collapsed"]
    assert found[0].numbers["filled"] == 270 and found[1].numbers["cause"] == "fallback"


def test_a_gate_without_an_interval_is_not_ok():
    "Eight subjects with fifty questions each: enough answers, too few subjects for an interval."
    few = [replace(r, group=f"subject {i % 8}") for i, r in enumerate(R.made_up_readings(400))]
    found = I.diagnose(few, n_resamples=100)
    assert [f.code for f in found] == ["unpowered"] and "needs 10 groups" in found[0].sentence


def labelled(values):
    return [{"label": value, "is_correct": i % 2 == 0} for i, value in enumerate(values)]


def test_a_training_on_equal_targets_is_a_finding_ahead_of_what_came_of_it():
    made = R.made_up_readings(400)
    found = I.diagnose(made, n_resamples=100, training=labelled([0.9] * 24))
    assert [f.code for f in found] == ["constant_labels"] and found[0].numbers == {"target": 0.9, "n": 24}
    assert "All 24 training targets are 0.9" in found[0].sentence
    flat = [replace(r, confidence=0.9) for r in made]
    codes = [f.code for f in I.diagnose(flat, n_resamples=100, training=labelled([0.9] * 24))]
    assert codes[:2] == ["constant_labels", "collapsed"]
    for told in (labelled([0.9, 0.1]), [{"is_correct": True}, {"is_correct": False}], []):
        assert I.diagnose(made, n_resamples=100, training=told)[0].code == "ok"
    assert I.find_constant_labels([{"is_correct": False}] * 3).numbers["target"] == 0


# The leak test


def says_nothing(readings):
    "What each metric is where confidences have nothing to do with the outcomes, but are what they are."
    confidence = np.array([r.confidence for r in readings])
    share = np.mean([r.is_correct for r in readings])
    off, wrong = np.mean((confidence - share) ** 2), 1 - share
    return {
        "brier_skill_score": -off / (share * wrong),
        "brier_score": off + share * wrong,
        "auroc": 0.5,
        "stratified_auroc": 0.5,
        "prr": 0.0,
        "aurc": wrong,
        "augrc": wrong / 2,
        "accuracy_at_coverage": share,
        "debiased_calibration_error": off**0.5,
    }


def test_with_permuted_outcomes_every_metric_of_published_readings_says_nothing():
    "A 95 % interval holds what says nothing in at least 17 of 20 permutations; before, it holds no AUROC of 0.5."
    from conftest import ROOT

    from calib_nb.compare import Row
    from calib_nb.publish import published_readings

    sets = published_readings(ROOT / "figures/compare/readings.csv.gz")
    trained = sets[Row("sft", "expected")]
    known = I.metric_card(trained, 0.3, n_resamples=200, names=["auroc"])["auroc"]
    assert known.low > 0.5, "there is something to lose"
    held = {name: 0 for name in says_nothing(trained)}
    for seed in range(10):
        for row in (Row("sft", "expected"), Row("baseline", "expected")):
            permuted = R.permuted_outcomes(sets[row], seed)
            nothing = says_nothing(permuted)
            share = np.mean([r.is_correct for r in permuted])
            card = I.metric_card(permuted, share, n_resamples=200, names=list(nothing))
            for name, value in nothing.items():
                held[name] += card[name].low <= value <= card[name].high
    assert min(held.values()) >= 17, held


def test_permuted_outcomes_are_one_for_all_readings_of_a_question():
    seeds = [replace(r, seed=seed) for seed in (0, 1) for r in R.made_up_readings(50)]
    permuted = R.permuted_outcomes(seeds, 3)
    assert [replace(r, is_correct=s.is_correct) for r, s in zip(permuted, seeds)] == seeds
    first, second = [[r.is_correct for r in permuted if r.seed == seed] for seed in (0, 1)]
    assert first == second != [r.is_correct for r in seeds[:50]]
    assert sum(first) == sum(r.is_correct for r in seeds[:50])
    assert R.permuted_outcomes(seeds, 3) == permuted != R.permuted_outcomes(seeds, 4)


def test_an_order_that_is_plain_is_not_called_unpowered():
    "Twelve right of sixty: an AUROC of .65 would be missed, this one is not."
    right = np.arange(60) < 12
    confidence = np.where(right, 0.6, 0.3) + np.random.default_rng(0).normal(0, 0.15, 60)
    made = readings(np.clip(confidence, 0, 1).tolist(), right)
    assert I.smallest_auroc(12, 48) > 0.65
    finding = I.diagnose(made, n_resamples=300)[0]
    assert finding.code == "ok" and finding.numbers["low"] > 0.5


def test_ok_does_not_stand_beside_a_negative_brier_skill():
    made = R.made_up_readings(400, says=lambda chance: chance**0.3)
    finding = I.diagnose(made, reference=0.3, n_resamples=200)[0]
    assert finding.code == "miscalibrated" and finding.numbers["brier_skill_score"] < 0
    assert "always saying the training accuracy" in finding.sentence and "AUROC is" in finding.sentence


# ---- faces


def test_a_card_an_estimate_and_a_difference_are_one_line_and_in_jupyter_a_table_that_escapes():
    made = R.made_up_readings(100, missing=0.1)
    card = I.metric_card(made, 0.3, 50, n_floor=50)
    difference = I.paired_difference(made, made, "auroc", n_resamples=50)
    for thing in (card, card["auroc"], difference):
        assert "\n" not in repr(thing) and len(repr(thing)) < 250
    assert repr(card["auroc"]) == f"Estimate({I.as_text(card['auroc'])}, n = {card['auroc'].n})"
    assert card._repr_html_().count("<tr>") == len(card) + 1
    assert difference._repr_html_().count("<tr>") == 2
    card["auroc"].reason, card["auroc"].estimand = "<script>", ""
    assert "&lt;script&gt;" in card._repr_html_() and "<script>" not in card._repr_html_()
    assert "&lt;b&gt;" in replace(difference, low=np.nan, reason="<b>")._repr_html_()


def test_a_card_with_a_judge_and_without_is_a_card_and_plain_json():
    made = R.made_up_readings(100)
    card = I.metric_card(made, 0.3, 20, n_floor=20, names=["auroc"])
    judged = I.with_judge_error(card, made, 0.3, JUDGE)
    assert type(judged) is type(card) and isinstance(card, dict)
    assert set(jsonable(card)) == {"auroc"} and jsonable(card)["auroc"]["value"] == card["auroc"].value


# ---- numbers that are one


def test_confidences_that_print_the_same_are_one_value_in_every_part_of_a_card():
    said = [0.3, 0.1 + 0.2, 0.7, 0.9] * 20
    off, plain = (readings(p, [0, 0, 1, 1] * 20) for p in (said, [round(p, 1) for p in said]))
    cards = [jsonable(I.metric_card(r, 0.3, 50, n_floor=50)) for r in (off, plain)]
    assert cards[0] == cards[1]


# ---- the premium of reading oneself
def told_apart(noise, seed):
    "Readings of 300 answers by three trainings that order them with so much noise."
    rng = np.random.default_rng(0)
    certain = rng.uniform(0, 1, 300)
    right = rng.uniform(0, 1, 300) < certain
    made = []
    for training in range(3):
        blur = np.random.default_rng([seed, training]).normal(0, noise, 300)
        made += readings(np.clip(certain + blur, 0, 1), right, seed=training)
    return made


def test_the_premium_is_the_mean_of_the_paired_differences():
    own, peer = {"a": told_apart(0.2, 1), "b": told_apart(0.5, 2)}, {"a": told_apart(0.6, 3), "b": told_apart(0.4, 4)}
    gap = I.premium_gap(own, peer, "auroc")
    alone = [I.paired_difference(own[whose], peer[whose], "auroc").value for whose in own]
    assert np.isclose(gap.value, np.mean(alone)) and (gap.claim, gap.seeds, gap.n) == ("the method", 3, 600)
    turned = I.premium_gap(peer, own, "auroc")
    assert np.isclose(turned.value, -gap.value) and np.isclose(turned.low, -gap.high)
    one = I.premium_gap({"a": own["a"]}, {"a": peer["a"]}, "auroc")
    pair = I.paired_difference(own["a"], peer["a"], "auroc")
    assert (one.value, one.low, one.high, one.p_value) == (pair.value, pair.low, pair.high, pair.p_value)


def test_a_reader_that_is_better_of_every_answer_has_no_premium():
    own, peer = {"a": told_apart(0.1, 1), "b": told_apart(0.6, 2)}, {"a": told_apart(0.6, 3), "b": told_apart(0.1, 4)}
    gap = I.premium_gap(own, peer, "auroc")
    assert gap.low < 0 < gap.high
    assert I.paired_difference(own["a"], peer["a"], "auroc").low > 0


def test_a_premium_of_other_answers_or_without_an_interval_is_refused():
    some = {"a": told_apart(0.2, 1)}
    with pytest.raises(ValueError, match="own has the answers of a; peer those of b"):
        I.premium_gap(some, {"b": some["a"]})
    with pytest.raises(ValueError, match="no interval"):
        I.premium_gap(some, some, "expected_calibration_error")


def test_the_debiased_interval_draws_the_same_noise_whatever_the_signs_of_eigenvectors(monkeypatch):
    gaps = sparse.csr_array(np.random.default_rng(0).normal(size=(30, 6)))
    root, eigh = I._root_of_covariance(gaps), np.linalg.eigh

    def turned(matrix):
        value, vector = eigh(matrix)
        return value, vector * [1, -1, -1, 1, -1, 1]

    monkeypatch.setattr(np.linalg, "eigh", turned)
    np.testing.assert_allclose(I._root_of_covariance(gaps), root, atol=1e-12)
    np.testing.assert_allclose(root @ root, (gaps.T @ gaps).toarray(), atol=1e-12)
