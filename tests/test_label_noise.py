"""What a judge's errors do to a metric: the band contains the value under true labels, and never more is claimed."""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb import inference as I
from calib_nb import label_noise as N
from calib_nb import resampling as R

NAMES = [
    "accuracy",
    "brier_score",
    "brier_skill_score",
    "auroc",
    "e_aurc",
    "rms_calibration_error",
    "debiased_calibration_error",
    "smooth_calibration_error",
]


def audit_of(sensitivity, specificity, rng, n=1000):
    return N.JudgeQuality(rng.binomial(n, sensitivity), n, rng.binomial(n, specificity), n)


def values(arrays, reference):
    return np.array(list(R.Sample(arrays).values(NAMES, reference).values()))


def band_truth_and_judged(base_rate, sensitivity, specificity, seed):
    "An entry for each of NAMES: the ends of the band, the value under true labels, and the value as judged."
    rng = np.random.default_rng(seed)
    true = R.made_up_readings(500, base_rate=base_rate, says=lambda c: np.sqrt(c).round(1), seed=seed)
    seen = R.reading_arrays(N.judged_by(true, sensitivity, specificity, seed))
    audit = audit_of(sensitivity, specificity, rng)
    fair = float(N.rogan_gladen(0.2, audit.sensitivity, audit.specificity))
    draws = N.judge_draws(seen, NAMES, 0.2, audit, 100, seed)
    low, high = (np.array([np.quantile(draws[k], q) for k in NAMES]) for q in (0.025, 0.975))
    return low, high, values(R.reading_arrays(true), fair), values(seen, fair)


JUDGES = [(0.3, 0.8, 0.97), (0.5, 0.5, 0.99), (0.1, 0.7, 0.98)]


@pytest.mark.parametrize("base_rate, sensitivity, specificity", JUDGES)
def test_the_judge_s_band_contains_the_value_under_true_labels(base_rate, sensitivity, specificity):
    "In most of 30 trials of a forecaster who claims too much; the values as judged are often outside."
    inside, as_judged = [], []
    for seed in range(30):
        low, high, value, judged = band_truth_and_judged(base_rate, sensitivity, specificity, seed)
        inside.append((low - 1e-9 <= value) & (value <= high + 1e-9))
        as_judged.append((low <= judged) & (judged <= high))
    assert np.mean(inside, axis=0).min() >= 0.7 and np.mean(inside) >= 0.88
    assert np.mean(as_judged) < np.mean(inside) - 0.2


def test_a_perfect_judge_changes_no_metric():
    a = R.reading_arrays(R.made_up_readings(300, missing=0.1, seed=3))
    names = ["accuracy", "brier_score", "stratified_auroc", "expected_calibration_error"]
    perfect = N.JudgeQuality(10**9, 10**9, 10**9, 10**9)
    draws = N.judge_draws(a, names, None, perfect, n_draws=5)
    value = R.Sample(a).values(names, None)
    for name in names:
        assert draws[name] == pytest.approx(np.full(5, value[name]), abs=1e-3)


def test_all_seeds_of_a_question_get_one_truth():
    made = R.made_up_readings(50, seed=1)
    again = [replace(r, seed=1, confidence=r.confidence / 2) for r in made]
    both = R.reading_arrays(made + again)
    truths = N.judge_truths(both, N.JudgeQuality(70, 100, 90, 100), n_draws=3)
    first, second = both.seed == 0, both.seed == 1
    assert np.array_equal(truths[:, first], truths[:, second])
    assert both.id[first].tolist() == both.id[second].tolist()


@given(st.floats(0, 1), st.floats(0.55, 1), st.floats(0.55, 1))
def test_rogan_gladen_undoes_the_judge(truth, sensitivity, specificity):
    seen = truth * sensitivity + (1 - truth) * (1 - specificity)
    assert abs(N.rogan_gladen(seen, sensitivity, specificity) - truth) < 1e-6


def test_a_judge_no_better_than_chance_corrects_nothing():
    with pytest.raises(ValueError, match="says nothing about the truth"):
        N.rogan_gladen(0.5, 0.3, 0.7)
    made = R.made_up_readings(30)
    card = I.metric_card(made, 0.3, 10, n_floor=10)
    hopeless = N.JudgeQuality(1, 1000, 1, 1000)
    with pytest.raises(ValueError, match="says nothing about the truth"):
        I.with_judge_error(card, made, 0.3, hopeless)
    with pytest.raises(ValueError, match="says nothing about the truth"):
        hopeless.draws(10, np.random.default_rng(0))


def test_limits_of_a_judge_are_checked():
    with pytest.raises(ValueError, match="specificity needs two limits"):
        N.judge_from_limits((0.5, 0.6), (0.9, 0.9))
    quality = N.judge_from_limits((0.5, 0.6), (0.97, 0.99))
    assert (quality.sensitivity, quality.specificity) == pytest.approx((0.55, 0.98))


def audit_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    said, truth = rng.random(n), rng.random(n) < 0.4
    return rng.random(n) < np.where(truth, 0.6 + 0.3 * said, 0.2 * said), truth, said


def test_errors_are_counted_by_third_where_each_has_a_hundred_answers():
    judge = N.judge_from_audit(*audit_rows(330))
    assert [part.right + part.wrong for part in judge.thirds] == [110, 110, 110]
    assert judge.accepted_right == sum(part.accepted_right for part in judge.thirds)
    assert "by confidence tercile" in judge.assumption
    for few in (N.judge_from_audit(*audit_rows(270)), N.judge_from_audit(*audit_rows(330)[:2])):
        assert not few.thirds and "alike at every confidence" in few.assumption
    one_value = N.judge_from_audit(*audit_rows(600)[:2], np.full(600, 0.5))
    assert not one_value.thirds, "equal confidences are not parted"


def test_a_third_with_few_right_answers_widens_the_band_and_is_no_error():
    accepted, truth, said = audit_rows(600)
    low = said < np.quantile(said, 1 / 3)
    truth[low] = False
    one = np.flatnonzero(low)[0]
    truth[one], accepted[one] = True, False
    judge = N.judge_from_audit(accepted, truth, said)
    assert judge.thirds[0].right == 1 and N._least_counted(judge) == 2
    made = R.made_up_readings(200)
    card = I.metric_card(made, 0.3, 20, n_floor=20, names=["auroc"])
    band = I.with_judge_error(card, made, 0.3, judge)["auroc"]
    middle = np.quantile(N.judge_draws(R.reading_arrays(made), ["auroc"], 0.3, judge)["auroc"], [0.025, 0.975])
    assert band.judge_low < middle[0] and middle[1] < band.judge_high


def test_the_table_says_what_was_assumed_of_the_judge():
    made = R.made_up_readings(100)
    card = I.metric_card(made, 0.3, 20, n_floor=20, names=["auroc"])
    for n, words in ((270, "alike at every confidence"), (600, "by confidence tercile")):
        band = I.with_judge_error(card, made, 0.3, N.judge_from_audit(*audit_rows(n)), n_draws=50)
        assert words in I.as_text(band["auroc"])


def test_a_question_without_a_confidence_gets_the_whole_audit_s_errors():
    made = R.reading_arrays(R.made_up_readings(60, missing=0.3))
    truths = N.judge_truths(made, N.judge_from_audit(*audit_rows(600)), n_draws=20)
    assert truths.shape == (20, 60) and set(np.unique(truths)) <= {0, 1}
