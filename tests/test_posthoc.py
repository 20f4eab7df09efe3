"Post-hoc: the same maps as other implementations; guarantees that hold; baselines that never see the test outcomes."
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from scipy.stats import binom, binomtest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from calib_nb import posthoc
from calib_nb.core import Judged
from calib_nb.posthoc import (
    BASELINES,
    CALIBRATORS,
    CONSTANTS,
    QUESTION_ONLY,
    baseline_forecasts,
    fit_abstention,
    fit_beta,
    fit_histogram,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    log_odds,
    recalibrate,
)
from calib_nb.resampling import made_up_readings


def outcomes(n=400, power=2.0, seed=0, low=0.02, high=0.98):
    "Confidences inside the clip, and outcomes with another chance than stated."
    rng = np.random.default_rng(seed)
    p = rng.uniform(low, high, n)
    return p, (rng.random(n) < p**power).astype(float)


def scikit_learn(method, scores, y, new):
    "What scikit-learn's calibration makes of a classifier whose decision function is its input."
    identity = LogisticRegression()
    identity.coef_, identity.intercept_ = np.array([[1.0]]), np.array([0.0])
    identity.classes_, identity.n_features_in_ = np.array([0, 1]), 1
    model = CalibratedClassifierCV(FrozenEstimator(identity), method=method, ensemble=False)
    model.fit(scores.reshape(-1, 1), y.astype(int))
    return model.predict_proba(new.reshape(-1, 1))[:, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
def test_platt_and_isotonic_equal_scikit_learn(seed, power):
    p, y = outcomes(power=power, seed=seed)
    new = np.linspace(0.02, 0.98, 50)
    sigmoid = scikit_learn("sigmoid", log_odds(p), y, log_odds(new))
    assert np.allclose(fit_platt(p, y)(new), sigmoid, atol=1e-4)
    assert np.allclose(fit_isotonic(p, y)(new), scikit_learn("isotonic", p, y, new), atol=1e-9)


@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
def test_temperature_equals_a_logistic_regression_without_intercept(power):
    p, y = outcomes(power=power)
    plain = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    slope = plain.fit(log_odds(p).reshape(-1, 1), y).coef_[0, 0]
    assert np.isclose(fit_temperature(p, y).slope, max(slope, 0), atol=1e-4)


BETA_CASES = [(0.3, 0), (1.0, 1), (4.0, 2), (2.0, 3)]


@pytest.mark.parametrize("power, seed", BETA_CASES)
def test_beta_equals_a_logistic_regression(power, seed):
    def features(q):
        return np.stack([np.log(q), -np.log1p(-q)], axis=1)

    p, y = outcomes(power=power, seed=seed)
    new = np.linspace(0.02, 0.98, 50)
    plain = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(features(p), y)
    assert (plain.coef_ > 0).all()
    assert np.allclose(fit_beta(p, y)(new), plain.predict_proba(features(new))[:, 1], atol=1e-5)


@pytest.mark.parametrize("power, seed", BETA_CASES)
def test_beta_equals_the_authors_implementation(power, seed):
    betacal = pytest.importorskip("betacal")
    p, y = outcomes(power=power, seed=seed)
    new = np.linspace(0.02, 0.98, 50)
    theirs = betacal.BetaCalibration(parameters="abm").fit(p.reshape(-1, 1), y)  # stops at a wider tolerance
    assert np.allclose(fit_beta(p, y)(new), theirs.predict(new.reshape(-1, 1)), atol=2e-3)


def test_beta_never_turns_the_order_around():
    p, y = outcomes()
    fitted = fit_beta(1 - p, y)  # the more confident, the more often wrong
    assert fitted.a >= 0 and fitted.b >= 0
    assert np.all(np.diff(fitted(np.linspace(0, 1, 100))) >= -1e-12)


def test_histogram_equals_binned_shares_by_hand():
    p, y = outcomes(100)
    order = np.argsort(p)
    shares = y[order].reshape(10, 10).mean(1)
    assert np.allclose(fit_histogram(p, y, 10)(p)[order], np.repeat(shares, 10))


def test_histogram_equals_a_library():
    calibration = pytest.importorskip("calibration")
    p, y = outcomes(100)
    theirs = calibration.HistogramCalibrator(100, 10)
    theirs.train_calibration(p, y)
    assert np.allclose(fit_histogram(p, y, 10)(p), theirs.calibrate(p))


levels = st.integers(0, 10).map(lambda i: i / 10)
answers = st.lists(st.tuples(levels, st.booleans()), min_size=2, max_size=60)


def arrays_of(rows):
    confidence, right = zip(*rows)
    return np.array(confidence), np.array(right, float)


@given(answers, st.sampled_from(sorted(CALIBRATORS)))
@settings(max_examples=150, deadline=None)
def test_every_map_stays_in_range_whatever_the_ties_and_extremes(rows, name):
    p, y = arrays_of(rows)
    assume(0 < y.sum() < len(y))
    mapped = CALIBRATORS[name](p, y)(np.linspace(0, 1, 101))
    assert np.all(np.isfinite(mapped)) and np.all((0 <= mapped) & (mapped <= 1))
    if name in ("beta", "isotonic", "temperature"):
        assert np.all(np.diff(mapped) >= -1e-9)


@given(answers)
@settings(max_examples=60, deadline=None)
def test_isotonic_is_the_least_squares_non_decreasing_fit(rows):
    p, y = arrays_of(rows)
    assume(0 < y.sum() < len(y))
    values, index, counts = np.unique(p, return_inverse=True, return_counts=True)
    best = isotonic_regression(np.bincount(index, y) / counts, weights=counts).x
    assert np.allclose(fit_isotonic(p, y)(values), best)


def test_on_its_own_data_platt_keeps_the_accuracy_and_beats_what_was_stated():
    p, y = outcomes(2000, power=3)
    for name, fit in CALIBRATORS.items():
        mapped = fit(p, y)(p)
        assert np.mean((mapped - y) ** 2) < np.mean((p - y) ** 2), name
    assert np.isclose(fit_platt(p, y)(p).mean(), y.mean(), atol=0.01)
    assert np.isclose(fit_isotonic(p, y)(p).mean(), y.mean())


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("right, word", [(0, "none"), (1, "5")])
def test_calibrators_need_right_and_wrong_answers(name, right, word):
    with pytest.raises(ValueError, match=f"needs right and wrong answers; of the 5 given {word} are right"):
        CALIBRATORS[name]([0.1, 0.2, 0.3, 0.4, 0.5], [right] * 5)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_recalibrated_readings_keep_what_is_missing_and_say_what_was_done(name):
    calibration = made_up_readings(100, missing=0.2, seed=1, split="calibration")
    test = made_up_readings(100, missing=0.2, seed=2, split="test")
    test[0].provenance, test[0].confidence = "filled", 0.5
    mended = recalibrate(test, name, calibration)
    assert [r.confidence is None for r in mended] == [r.confidence is None for r in test]
    assert {(r.readout, r.calibrator) for r in mended} == {("verbalized", name)}
    assert mended[0].provenance == "filled"
    assert {r.provenance for r in mended[1:]} == {"scored", "missing"}
    assert {r.calibrator for r in test} == {""}, "the given readings are left alone"


def test_recalibrated_and_plain_readings_are_not_mixed():
    calibration, test = made_up_readings(100, split="calibration"), made_up_readings(100, seed=2)
    mended = recalibrate(test, "platt", calibration)
    with pytest.raises(ValueError, match=r"same readout, 'verbalized\+platt'; found .* readout 'verbalized'"):
        recalibrate(mended, "isotonic", calibration)


@pytest.mark.parametrize("split, readout", [
    ("test", "verbalized"),
    ("train", "verbalized"),
    ("calibration", "expected"),
])
def test_a_map_is_fitted_on_the_calibration_split_of_the_same_readout_only(split, readout):
    others = made_up_readings(50, split=split, readout=readout)
    with pytest.raises(ValueError, match="fitted on the calibration split of the same readout"):
        recalibrate(made_up_readings(50), "platt", others)


@given(st.integers(1, 300), st.data(), st.sampled_from([0.8, 0.9, 0.95]))
@settings(max_examples=60, deadline=None)
def test_the_bound_is_clopper_and_pearsons(n, data, level):
    wrong = data.draw(st.integers(0, n))
    bound = posthoc._upper_bound(wrong, n, level)
    assert np.isclose(bound, binomtest(wrong, n, alternative="less").proportion_ci(level, "exact").high)
    assert wrong == n or np.isclose(binom.cdf(wrong, n, bound), 1 - level)


def test_no_answers_have_no_bound():
    assert posthoc._upper_bound(0, 0, 0.95) == 1.0


@given(answers, st.sampled_from([0.2, 0.5, 0.8]), st.sampled_from([0.6, 0.95]))
@settings(max_examples=100, deadline=None)
def test_the_rule_is_the_last_of_an_unbroken_run_of_passed_tests(rows, target, level):
    p, y = arrays_of(rows)
    rule = fit_abstention(p, y, target, level)
    kept = y[p >= rule.threshold]
    assert (rule.answered, rule.wrong) == (len(kept), int(np.sum(kept == 0)))
    assert rule.bound <= target or not rule.answered
    assert rule(p).sum() == rule.answered
    if 0 < rule.threshold < np.inf:  # the next threshold failed
        kept = y[p >= round(rule.threshold - 0.01, 2)]
        assert posthoc._upper_bound(int(np.sum(kept == 0)), len(kept), level) > target


def test_the_guarantee_holds_where_every_threshold_is_a_temptation():
    """Confidences that say nothing, and an error rate just above the target.

    Any threshold chosen is a mistake, and at most 5 % of the splits may make it."""
    rng = np.random.default_rng(0)
    rules = [fit_abstention(rng.random(200), rng.random(200) > 0.305, target=0.3) for _ in range(400)]
    mistakes = sum(np.isfinite(rule.threshold) for rule in rules)
    assert mistakes / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert mistakes > 0  # it is a test, not a refusal


def test_all_right_is_answered_all_and_all_wrong_never():
    assert fit_abstention(np.linspace(0, 1, 200), np.ones(200)).threshold == 0
    assert fit_abstention(np.linspace(0, 1, 200), np.zeros(200)).threshold == np.inf


@pytest.mark.parametrize("options", [dict(target=0), dict(target=1), dict(level=1)])
def test_impossible_guarantees_are_refused(options):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        fit_abstention([0.5], [1], **options)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    topic = rng.integers(6, size=300)
    vectors = np.eye(6)[topic] + 0.1 * rng.normal(size=(300, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    right = [bool(rng.random() < (t + 0.5) / 6) for t in topic]
    judged = [Judged(f"q{i}", "a", right[i], relation=f"r{t}") for i, t in enumerate(topic)]
    return judged[:200], judged[200:], (vectors[:200], vectors[200:])


def confidences(name, train, test, vectors=None):
    return [r.confidence for r in baseline_forecasts(name, train, test, vectors)]


@pytest.mark.parametrize("name", BASELINES)
def test_no_baseline_sees_the_test_outcomes(world, name):
    train, test, vectors = world
    turned = [Judged(j.question, j.model_answer, not j.is_correct, relation=j.relation) for j in test]
    before = baseline_forecasts(name, train, test, vectors)
    after = baseline_forecasts(name, train, turned, vectors)
    assert [r.confidence for r in before] == [r.confidence for r in after]
    assert [r.is_correct for r in before] != [r.is_correct for r in after]


@pytest.mark.parametrize("names, readout", [(QUESTION_ONLY, "question_only"), (CONSTANTS, "constant")])
def test_a_forecast_says_which_baseline_it_is_and_what_kind(world, names, readout):
    for name in names:
        readings = baseline_forecasts(name, *world, split="calibration")
        assert {(r.method, r.readout, r.split) for r in readings} == {(name, readout, "calibration")}
    assert set(BASELINES) == set(QUESTION_ONLY) | set(CONSTANTS)


def test_baselines_by_hand(world):
    train, test, vectors = world
    mean = np.mean([j.is_correct for j in train])
    assert confidences("training_accuracy", *world) == [mean] * 100
    assert confidences("half", *world) == [0.5] * 100
    same = [j.is_correct for j in train if j.relation == test[0].relation]
    assert np.isclose(confidences("relation", *world)[0], (sum(same) + mean) / (len(same) + 1))
    similar = [round(float(vector @ vectors[1][0]), 6) for vector in vectors[0]]
    nearest = sorted(range(200), key=lambda i: (-similar[i], i))[:20]
    assert np.isclose(confidences("knn", *world)[0], np.mean([train[i].is_correct for i in nearest]))


def test_an_unknown_relation_gets_the_mean(world):
    train, _, _ = world
    stranger = [Judged("new", "a", True, relation="never seen")]
    assert confidences("relation", train, stranger) == [np.mean([j.is_correct for j in train])]


def test_logistic_separates_topics_and_keeps_groups_together(world, monkeypatch):
    train, test, _ = world
    seen, original = [], GroupKFold.split

    def split(self, X, y=None, groups=None):
        seen.append(list(groups))
        return original(self, X, y, groups)

    monkeypatch.setattr(GroupKFold, "split", split)
    p = np.array(confidences("logistic", *world))
    topic = np.array([int(j.relation[1]) for j in test])
    means = [p[topic == t].mean() for t in range(6)]
    assert all(a < b + 0.15 for a, b in pairwise(means)) and means[5] - means[0] > 0.4
    assert seen and all(groups == [j.group for j in train] for groups in seen)


def test_logistic_needs_right_and_wrong_answers(world):
    train, test, vectors = world
    all_wrong = [Judged(j.question, "a", False) for j in train]
    with pytest.raises(ValueError, match="needs right and wrong answers"):
        baseline_forecasts("logistic", all_wrong, test, vectors)


def test_logistic_is_fitted_where_some_parts_of_the_choice_have_wrong_answers_alone(world):
    train, test, vectors = world
    right = {train[0].group, next(j.group for j in train if j.group != train[0].group)}
    rare = [replace(j, is_correct=j.group in right) for j in train]
    p = baseline_forecasts("logistic", rare, test, vectors)
    assert 0 < np.mean([r.confidence for r in p]) < 0.5


@pytest.mark.parametrize("fit", [fit_histogram, fit_abstention])
def test_a_rule_meets_the_confidences_that_it_was_fitted_on_in_32_bits_too(fit):
    p = np.float32([0.7] * 200 + [0.69] * 200)
    y = np.r_[np.ones(180), np.zeros(20), np.ones(80), np.zeros(120)]
    rule = fit(p, y)
    assert (np.asarray(rule(p), float) == np.asarray(rule(p.astype(str).astype(float)), float)).all()
    assert len(set(rule(p).tolist())) == 2


@pytest.mark.parametrize("name", ["knn", "logistic"])
def test_a_baseline_on_embeddings_asks_for_them(world, name):
    train, test, _ = world
    with pytest.raises(ValueError, match=f"baseline '{name}' needs `vectors`"):
        baseline_forecasts(name, train, test)


def test_nothing_to_recalibrate_is_said():
    with pytest.raises(ValueError, match="there are no readings to recalibrate"):
        recalibrate([], "platt", made_up_readings(10, split="calibration"))


def test_an_unknown_name_is_answered_with_the_known_ones(world):
    with pytest.raises(ValueError, match="Did you mean 'relation'"):
        baseline_forecasts("relations", *world)
    with pytest.raises(ValueError, match="Did you mean 'isotonic'"):
        recalibrate(made_up_readings(10), "isotonics", made_up_readings(10, split="calibration"))
