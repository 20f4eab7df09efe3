"""How many samples are needed, and several readings as one."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from calib_nb.resampling import made_up_readings
from calib_nb.sample_budget import AgreementPrior, fit_prior, stacked, stop_early

POSITIVE = st.floats(0.5, 20)


@given(POSITIVE, POSITIVE, st.integers(0, 20), st.integers(0, 20))
def test_the_posterior_is_the_beta_distribution_of_the_textbook(a, b, agreed, other):
    prior, drawn = AgreementPrior(a, b), agreed + other
    known = stats.beta(a + agreed, b + other)
    assert prior.mean(np.array([agreed]), drawn)[0] == pytest.approx(known.mean())
    low, high = prior.interval(np.array([agreed]), drawn, 0.9)
    assert known.cdf(high[0]) - known.cdf(low[0]) == pytest.approx(0.9, abs=1e-6)


def test_a_prior_is_the_most_probable_of_all():
    rng = np.random.default_rng(1)
    agreed = rng.binomial(5, rng.beta(2.0, 0.7, 400))
    found = fit_prior(agreed, 5)
    best = stats.betabinom(5, found.a, found.b).logpmf(agreed).sum()
    for factor in (0.9, 1.1):
        assert best > stats.betabinom(5, found.a * factor, found.b).logpmf(agreed).sum()
        assert best > stats.betabinom(5, found.a, found.b * factor).logpmf(agreed).sum()


@pytest.mark.parametrize("agreed", [np.zeros(50), np.full(50, 5)])
def test_a_prior_stays_finite_where_all_answers_are_alike(agreed):
    prior = fit_prior(agreed, 5)
    assert 0 < prior.a <= 1000.1 and 0 < prior.b <= 1000.1


@pytest.mark.parametrize("agreed, drawn", [([], 5), ([0, 0], 0)])
def test_a_prior_needs_samples(agreed, drawn):
    with pytest.raises(ValueError, match="fitted to samples of some answers; found none"):
        fit_prior(np.array(agreed), drawn)


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_sampling_stops_exactly_when_the_interval_has_left_the_threshold(seed, threshold):
    agree = np.random.default_rng(seed).random((1, 12)) < 0.5
    prior = AgreementPrior(0.7, 1.2)
    [needed], [confidence] = stop_early(agree, prior, threshold, 0.8)
    sides = []
    for drawn in range(1, 13):
        low, high = prior.interval(agree[:, :drawn].sum(axis=1), drawn, 0.8)
        sides.append(bool(low[0] > threshold or high[0] < threshold))
    assert needed == (sides.index(True) + 1 if True in sides else 12)
    assert confidence == pytest.approx((0.7 + agree[0, :needed].sum()) / (1.9 + needed))


def test_later_samples_do_not_change_what_was_decided():
    rng = np.random.default_rng(0)
    agree, prior = rng.random((200, 10)) < 0.7, AgreementPrior(1, 1)
    needed, confidence = stop_early(agree, prior, 0.5)
    other = agree.copy()
    for row, n in enumerate(needed):
        other[row, n:] = ~other[row, n:]
    assert [x.tolist() for x in stop_early(other, prior, 0.5)] == [needed.tolist(), confidence.tolist()]


def views(seed, split, n=300, missing=0.0):
    "Two readouts of the same answers: one honest, one noise."
    honest = made_up_readings(n, base_rate=0.4, spread=1.0, seed=seed, split=split, missing=missing)
    noise = np.random.default_rng(seed).random(n)
    other = [type(r)(**{**vars(r), "confidence": float(c), "provenance": "parsed"}) for r, c in zip(honest, noise)]
    return {"honest": honest, "noise": other}


def auroc(readings):
    return roc_auc_score([r.is_correct for r in readings], [r.confidence for r in readings])


def test_a_stack_learns_whom_to_believe_and_needs_no_confidence_of_all():
    test, calibration = views(1, "test", missing=0.2), views(2, "calibration", missing=0.2)
    found = stacked(test, calibration)
    assert [r.id for r in found] == [r.id for r in test["honest"]] and {r.readout for r in found} == {"stack"}
    assert all(r.provenance == "scored" and 0 < r.confidence < 1 for r in found)
    assert auroc(found) > 0.7 > 0.6 > auroc(test["noise"])


@pytest.mark.filterwarnings("error")
def test_a_stack_chooses_its_strength_where_right_answers_are_rare():
    test, calibration = views(1, "test"), views(2, "calibration")
    sure = sorted(calibration["honest"], key=lambda r: -r.confidence)
    right = {r.id for r in sure[:4]}
    rare = {name: [type(r)(**{**vars(r), "is_correct": r.id in right}) for r in rows]
            for name, rows in calibration.items()}
    assert auroc(stacked(test, rare)) > 0.7


def test_a_stack_does_not_depend_on_the_order_of_rows_nor_on_test_outcomes():
    test, calibration = views(1, "test"), views(2, "calibration")
    first = {r.id: r.confidence for r in stacked(test, calibration)}
    turned = {name: [type(r)(**{**vars(r), "is_correct": not r.is_correct}) for r in rows[::-1]]
              for name, rows in test.items()}
    assert {r.id: r.confidence for r in stacked(turned, calibration)} == pytest.approx(first)


def test_samples_have_a_row_for_each_answer():
    for agree in (np.zeros(3, bool), np.zeros((3, 0), bool)):
        with pytest.raises(ValueError, match=r"must be of shape \(answers, samples\)"):
            stop_early(agree, AgreementPrior(1, 1), 0.5)


def test_a_stack_refuses_other_names_other_questions_and_one_class():
    test, calibration = views(1, "test"), views(2, "calibration")
    with pytest.raises(ValueError, match="`test` is empty"):
        stacked({}, {})
    few = {name: [type(r)(**{**vars(r), "group": "ab"[i % 2]}) for i, r in enumerate(rows)]
           for name, rows in calibration.items()}
    with pytest.raises(ValueError, match="5 folds need as many groups; the calibration split has 2"):
        stacked(test, few)
    with pytest.raises(ValueError, match="test has honest; calibration has honest, noise"):
        stacked({"honest": test["honest"]}, calibration)
    with pytest.raises(ValueError, match="'noise' has other questions than 'honest'"):
        stacked({**test, "noise": test["noise"][1:]}, calibration)
    right = {name: [r for r in rows if r.is_correct] for name, rows in calibration.items()}
    with pytest.raises(ValueError, match="needs right and wrong answers in the calibration split"):
        stacked(test, right)
