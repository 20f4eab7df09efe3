"""Each metric keeps what its docstring promises: values, ranges, identities, and no dependence on the order of rows."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_nb import metrics as M

MEANS = [M.accuracy, M.mean_confidence, M.brier_score, M.log_score]
RANKING = [M.auroc, M.aurc, M.e_aurc, M.augrc, M.prr, M.accuracy_at_coverage]
CALIBRATION = [
    M.rms_calibration_error,
    M.expected_calibration_error,
    M.equal_mass_calibration_error,
    M.debiased_calibration_error,
    M.smooth_calibration_error,
]
SIMPLE = [*MEANS, *RANKING, *CALIBRATION]
UNIT = [m for m in SIMPLE if m not in (M.log_score, M.prr)]

levels = st.one_of(st.floats(0, 1), st.integers(0, 10).map(lambda i: i / 10), st.sampled_from([0.0, 1.0]))
rows = st.lists(st.tuples(levels, st.booleans()), min_size=1, max_size=40)
both_classes = rows.filter(lambda r: 0 < sum(y for _, y in r) < len(r))
few_rows = st.lists(st.tuples(levels, st.booleans()), min_size=2, max_size=7)


def columns(rows):
    p, y = zip(*rows)
    return np.array(p, float), np.array(y, float)


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_never_matters(data, random):
    p, y = columns(data)
    order = list(range(len(p)))
    random.shuffle(order)
    for metric in SIMPLE:
        np.testing.assert_array_equal(metric(p, y), metric(p[order], y[order]), err_msg=metric.__name__)


@settings(max_examples=100, deadline=None)
@given(rows)
def test_ranges(data):
    p, y = columns(data)
    for metric in UNIT:
        value = metric(p, y)
        assert np.isnan(value) or -1e-9 <= value <= 1 + 1e-9, metric.__name__
    assert np.isnan(M.auroc(p, y)) == (y.min() == y.max()) == np.isnan(M.prr(p, y))


@settings(max_examples=100, deadline=None)
@given(both_classes)
def test_identities_of_scores_and_risks(data):
    p, y = columns(data)
    a, area = M.accuracy(p, y), M.auroc(p, y)
    corp = M.corp_decomposition(p, y)
    assert corp.mcb - corp.dsc + corp.unc == pytest.approx(M.brier_score(p, y))
    assert min(corp) > -1e-12
    assert M.augrc(p, y) == pytest.approx((1 - area) * a * (1 - a) + (1 - a) ** 2 / 2)
    assert M.risk_coverage_curve(p, y)[1].mean() == pytest.approx(M.aurc(p, y))
    assert M.aurc(p, y) - M.e_aurc(p, y) == pytest.approx(M.aurc(y, y))
    assert M.accuracy_at_coverage(p, y, 1.0) == pytest.approx(a)
    assert M.brier_skill_score(np.full(len(p), 0.25), y, reference=0.25) == pytest.approx(0)


@settings(max_examples=100, deadline=None)
@given(both_classes)
def test_the_norms_of_the_binned_error_are_ordered(data):
    p, y = columns(data)
    l1, l2, worst = (M.expected_calibration_error(p, y, norm=norm) for norm in ("l1", "l2", "max"))
    assert l1 <= l2 + 1e-12 and l2 <= worst + 1e-12
    overall = abs(M.mean_confidence(p, y) - M.accuracy(p, y))
    assert overall <= l1 + 1e-12, "a binned error is at least the overall gap"


@settings(max_examples=60, deadline=None)
@given(both_classes)
def test_ranking_metrics_see_only_the_order_of_confidences(data):
    p, y = columns(data)
    same_order = np.searchsorted(np.unique(p), p) / len(p)
    for metric in RANKING:
        assert metric(p, y) == pytest.approx(metric(same_order, y)), metric.__name__


@settings(max_examples=30, deadline=None)
@given(few_rows)
def test_ties_are_averaged_over_all_orders(data):
    p, y = columns(data)
    rng, n = np.random.default_rng(0), len(p)
    draws = []
    for _ in range(3000):
        order = np.lexsort((rng.random(n), -p))
        risks = np.cumsum(1 - y[order]) / np.arange(1, n + 1)
        draws.append(risks.mean())
    tolerance = 5 * np.std(draws) / np.sqrt(3000) + 1e-9
    assert np.mean(draws) == pytest.approx(M.aurc(p, y), abs=tolerance)


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(2, 5))
def test_repeating_every_row_changes_no_mean_or_ranking(data, times):
    p, y = columns(data)
    means = M.accuracy, M.brier_score, M.log_score, M.auroc, M.augrc
    errors = M.rms_calibration_error, M.expected_calibration_error, M.smooth_calibration_error
    for metric in (*means, *errors):
        repeated = metric(np.tile(p, times), np.tile(y, times))
        np.testing.assert_allclose(repeated, metric(p, y), atol=1e-9, err_msg=metric.__name__)


def quantile_error(*data):
    return M.expected_calibration_error(*data, strategy="quantile")


def miscalibration(*data):
    return M.corp_decomposition(*data).mcb


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(0, 2**31))
def test_a_resampled_tally_scores_as_the_resampled_rows(data, seed):
    p, y = columns(data)
    index = np.random.default_rng(seed).integers(0, len(p), (3, len(p)))
    t = M.tally(p, y)
    column = np.searchsorted(t.value, p)
    n = np.array([np.bincount(column[i], minlength=t.value.size).astype(float) for i in index])
    hits = np.array([np.bincount(column[i], y[i], t.value.size) for i in index])
    resampled = M.Tally(t.value, n, hits, t.first)
    for metric in [*SIMPLE, quantile_error, miscalibration]:
        one_by_one = [metric(p[i], y[i]) for i in index]
        np.testing.assert_allclose(metric(resampled), one_by_one, atol=1e-9)


def test_the_published_constant():
    y = np.arange(1000) < 194
    assert M.rms_calibration_error(np.full(1000, 0.5), y) == pytest.approx(0.306)
    assert M.rms_calibration_error(np.full(1000, 0.194), y) == pytest.approx(0, abs=1e-12)
    assert np.isnan(M.auroc(np.full(1000, 0.194), np.zeros(1000)))


@pytest.mark.parametrize("value", [i / 100 for i in range(101)])
def test_a_decimal_literal_lies_in_the_bin_that_its_digits_say(value):
    i = round(value * 100)
    assert M.bin_index(np.array([value]), 100, closed="left")[0] == min(i, 99)
    assert M.bin_index(np.array([value]), 100, closed="right")[0] == max(i - 1, 0)


@pytest.mark.parametrize("closed", ["left", "right"])
def test_zero_and_one_are_in_the_outer_bins(closed):
    assert M.bin_index(np.array([0.0, 1.0]), 10, closed=closed).tolist() == [0, 9]
    assert M.expected_calibration_error([0.0, 1.0], [1, 0], closed=closed) == 1


def test_within_groups_ignores_what_lies_between_them():
    group = np.repeat(["easy", "hard"], 50)
    y = np.concatenate([np.arange(50) < 40, np.arange(50) < 10]).astype(float)
    by_group = np.where(group == "easy", 0.9, 0.1)
    assert M.auroc(by_group, y) == pytest.approx(0.8)
    assert M.stratified_auroc(by_group, y, group) == 0.5


def test_the_stratified_auroc_weighs_groups_by_their_pairs():
    group = np.repeat(["easy", "hard", "all right"], [50, 50, 10])
    y = np.concatenate([np.arange(50) < 40, np.arange(50) < 20, np.ones(10)]).astype(float)
    p = np.random.default_rng(0).random(110)
    pairs = [40 * 10, 20 * 30]
    areas = [M.auroc(p[group == g], y[group == g]) for g in ("easy", "hard")]
    assert M.stratified_auroc(p, y, group) == pytest.approx(np.average(areas, weights=pairs))
    assert M.stratified_auroc(p, y, np.zeros(110)) == pytest.approx(M.auroc(p, y))
    assert np.isnan(M.stratified_auroc([0.1, 0.2], [0, 1], ["a", "b"]))


ADDITIVE = [*MEANS, M.penalised_score, M.smooth_calibration_error]  # sums over rows, in any order of a tally's columns
ORDERED = [*RANKING, *(m for m in CALIBRATION if m not in ADDITIVE), M.distinct_values, M.corp_decomposition]


@settings(max_examples=40, deadline=None)
@given(both_classes)
def test_a_tally_with_strata_scores_as_its_rows_or_is_refused(data):
    p, y = columns(data)
    group = np.arange(len(p)) % 2
    t = M.tally(p, y, group)
    for metric in ADDITIVE:
        assert metric(t) == pytest.approx(metric(p, y), abs=1e-9), metric.__name__
    assert M.brier_skill_score(t, reference=0.3) == pytest.approx(M.brier_skill_score(p, y, reference=0.3))
    for metric in (*ORDERED, M.risk_coverage_curve, M.isotonic_fit, M.kumar_bins, quantile_error):
        with pytest.raises(ValueError, match="needs a Tally without strata; here are 2"):
            metric(t)
    assert M.stratified_auroc(t) == pytest.approx(M.stratified_auroc(p, y, group), nan_ok=True)


def test_a_tally_with_strata_is_refused_for_resamples_too():
    t = M.tally([0.1, 0.5, 0.9, 0.5], [0, 1, 1, 0], ["a", "a", "b", "b"])
    resampled = M.Tally(t.value, np.tile(t.n, (3, 1)), np.tile(t.hits, (3, 1)), t.first)
    for metric in ORDERED:
        with pytest.raises(ValueError, match="without strata"):
            metric(resampled)
    assert len(M.stratified_auroc(resampled)) == 3


def test_a_tally_cannot_be_grouped_afterwards():
    p, y, group = [0.1, 0.5, 0.9, 0.5], [0, 1, 1, 0], ["a", "a", "b", "b"]
    for wrong in (M.tally, M.stratified_auroc):
        with pytest.raises(ValueError, match="a Tally has no rows that a group could divide"):
            wrong(M.tally(p, y), None, group)


def by_bisection(falling, size, steps=12):
    "The grid point that `_fixed_point` must find."
    low, high = np.zeros(size), np.ones(size)
    for _ in range(steps):
        middle = (low + high) / 2
        above = falling(middle, np.arange(size)) > middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return high


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(levels, st.floats(0, 60), st.floats(0, 1), levels), min_size=1, max_size=9))
def test_the_smooth_errors_bandwidth_is_that_of_bisection_whatever_falls(shapes):
    height, rate, place, rest = np.array(shapes).T

    def falling(at, rows):
        jump = np.where(at > place[rows], rest[rows], 1)
        return height[rows] * np.exp(-rate[rows] * at) * jump

    found = M._fixed_point(falling, len(shapes))
    np.testing.assert_array_equal(found, by_bisection(falling, len(shapes)))


def test_a_known_sharp_and_honest_forecaster_has_no_smooth_error_and_no_debiased_error():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 2, 20_000)
    y = rng.random(20_000) < p
    assert M.smooth_calibration_error(p, y) < 0.015
    assert M.debiased_calibration_error(p, y) < 0.02
    assert M.smooth_calibration_error(np.clip(p + 0.1, 0, 1), y) == pytest.approx(0.1, abs=0.02)


def test_hle_quirks():
    rng = np.random.default_rng(0)
    p, y = rng.random(250), rng.integers(0, 2, 250)
    top = np.argsort(p)[100:]
    flipped = y.copy()
    flipped[top] = 1 - flipped[top]
    same = M.hle_calibration_error(p, y) == M.hle_calibration_error(p, flipped)
    assert same, "the last bin, here 150 rows, is never counted"
    assert M.hle_calibration_error(p[:199], y[:199]) == 0
    assert np.isnan(M.hle_calibration_error(p[:99], y[:99]))
    with pytest.raises(ValueError, match="'1', '2' or 'infty'"):
        M.hle_calibration_error(p, y, p=2)


def test_equal_mass_error_by_hand():
    p, y = np.repeat([0.2, 0.8], 100), np.concatenate([np.arange(100) < 30, np.arange(100) < 50])
    assert M.equal_mass_calibration_error(p, y) == pytest.approx(np.sqrt((0.1**2 + 0.3**2) / 2))
    tied = M.equal_mass_calibration_error(np.full(200, 0.5), np.arange(200) < 100)
    assert tied == pytest.approx(0, abs=1e-12), "ties are spread, whatever their order"


BAD = [
    ([0.1, np.nan], [1, 0], "row 1 has nan"),
    ([1.01], [1], r"row 0 has 1.01"),
    ([0.5, 0.5], [1, 3], "row 1 has 3"),
    ([0.5], [1, 0], "equally long"),
    ([[0.5]], [[1]], "one-dimensional"),
]


@pytest.mark.parametrize("confidence, correct, message", BAD)
def test_bad_input_is_named(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        M.brier_score(confidence, correct)


def test_a_label_is_needed_for_each_row():
    with pytest.raises(ValueError, match="one label a row"):
        M.stratified_auroc([0.5], [1], ["a", "b"])


@pytest.mark.parametrize("option, value", [("norm", "l3"), ("strategy", "kmeans"), ("closed", "both"), ("n_bins", 0)])
def test_bad_options_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        M.expected_calibration_error([0.5], [1], **{option: value})


def test_brier_skill_needs_a_reference():
    with pytest.raises(ValueError, match="training accuracy"):
        M.brier_skill_score([0.5], [1])


REASONS = [
    ([], [], "no reading"),
    ([0.3], [1], "the only answer is correct"),
    ([0.3, 0.4], [0, 0], "all 2 answers are wrong"),
    ([0.3, 0.3], [0, 1], ""),
]


@pytest.mark.parametrize("confidence, correct, why", REASONS)
def test_a_reason_for_every_missing_value(confidence, correct, why):
    assert M.undefined_because(confidence, correct).startswith(why)
    defined = {metric.__name__: np.isfinite(metric(confidence, correct)) for metric in SIMPLE}
    if not why:
        assert all(defined.values())
    assert defined["brier_score"] == defined["rms_calibration_error"] == bool(len(confidence))


# ---- a price for wrong answers, and what recalibration would remove


def test_a_wrong_answer_costs_t_over_one_minus_t():
    confidence, correct = [0.5, 0.6, 0.8, 0.95, 0.2], [1, 1, 0, 0, 1]
    assert M.penalised_score(confidence, correct) == pytest.approx((1 - 2) / 5), "0.5 abstains, right minus wrong"
    assert M.penalised_score(confidence, correct, 0.75) == pytest.approx(-2 * 3 / 5)
    assert M.penalised_score(confidence, correct, 0.9) == pytest.approx(-9 / 5)
    assert M.penalised_score(confidence, correct, 0) == pytest.approx(3 / 5), "wrong answers are free"
    assert np.isnan(M.penalised_score([], []))
    with pytest.raises(ValueError, match="threshold must lie"):
        M.penalised_score(confidence, correct, 1.0)


def overconfident(seed, step):
    rng = np.random.default_rng(seed)
    chance = rng.beta(1, 2, 200)
    correct = rng.random(200) < chance
    said = np.sqrt(chance)
    return (np.round(said * step) / step if step else said), correct


# probmetrics 1.3.0, MetricsWithCalibration(BrierLoss(binary_as_multiclass=False), scikit-learn's isotonic regression);
# its values are sums over the 200 rows.
PROBMETRICS = [
    (0, None, 8.990437414, 37.155095511),
    (1, 10, 6.118287071, 37.341712929),
    (2, 20, 5.031444316, 34.993555684),
]


@pytest.mark.parametrize("seed, step, gain, refinement", PROBMETRICS)
def test_refinement_and_gain_are_those_of_probmetrics(seed, step, gain, refinement):
    confidence, correct = overconfident(seed, step)
    found = M.cross_validated_refinement(confidence, correct, np.arange(200) % 5)
    assert found == pytest.approx((refinement / 200, gain / 200), abs=1e-9)


def test_refinement_does_not_depend_on_the_order_of_rows_and_adds_up_to_the_brier_score():
    confidence, correct = overconfident(3, 10)
    shuffled = np.random.default_rng(0).permutation(200)
    found = M.cross_validated_refinement(confidence, correct)
    assert found == pytest.approx(M.cross_validated_refinement(confidence[shuffled], correct[shuffled]))
    assert sum(found) == pytest.approx(M.brier_score(confidence, correct))
    assert np.isnan(M.cross_validated_refinement([0.5] * 9, [1] * 9)).all()


def test_a_calibrated_forecaster_gains_nothing_by_cross_validated_recalibration():
    gains = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        chance = rng.beta(1, 2, 300)
        _, gain = M.cross_validated_refinement(chance, rng.random(300) < chance)
        gains.append(gain)
    assert -0.01 < np.mean(gains) < -0.003  # what an isotonic fit to 240 rows costs
