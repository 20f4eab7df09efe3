"""A bootstrap draws groups of questions, and a noise floor is what chance alone would do."""
from dataclasses import replace

import numpy as np
import pytest
from made_up import readings, sample_of

from calib_nb import inference as I
from calib_nb import metrics as M
from calib_nb import resampling as R


def test_bootstrap_agrees_with_resampling_rows_one_by_one():
    a = R.reading_arrays(R.made_up_readings(80, says=lambda c: c.round(1)))
    draws = R.bootstrap(R.Sample(a), ["auroc", "aurc", "brier_score"], None, 30, seed=3)
    groups, number = np.unique(a.group.astype(str), return_inverse=True)
    counts = np.concatenate(list(R._resample_counts(len(groups), 30, seed=3))).astype(int)
    for resample, count in enumerate(counts):
        rows = np.repeat(np.arange(80), count[number])
        for name in draws:
            direct = getattr(M, name)(a.confidence[rows], a.correct[rows])
            assert draws[name][resample] == pytest.approx(direct)


def test_blocks_do_not_change_the_resamples():
    one, many = (np.concatenate(list(R._resample_counts(7, 50, 0, block=b))) for b in (50, 8))
    assert np.array_equal(one, many) and (one.sum(1) == 7).all()


def interval_width(made):
    draws = R.bootstrap(sample_of(made), ["brier_score"], None, 400, 0)["brier_score"]
    low, high = I.percentile_interval(draws)
    return high - low


def test_questions_of_one_group_are_resampled_together():
    "Forty copies of ten questions carry the information of ten."
    p, y = np.tile(np.arange(10) / 10, 40), np.tile(np.arange(10) % 2, 40)
    alone = readings(p.tolist(), y)
    together = [replace(r, group=f"g{i % 10}") for i, r in enumerate(alone)]
    assert interval_width(together) > 4 * interval_width(alone)


def test_every_metric_is_that_of_the_module_metrics():
    a = R.reading_arrays(R.made_up_readings(90, says=lambda c: c.round(1)))
    values = R.Sample(a).values(list(R.METRICS), 0.3)
    corp = M.corp_decomposition(a.confidence, a.correct)
    for name, value in values.items():
        if name in ("mcb", "dsc", "unc"):
            direct = getattr(corp, name)
        elif name == "stratified_auroc":
            direct = M.stratified_auroc(a.confidence, a.correct, a.relation.astype(str))
        elif name.startswith("penalised"):
            direct = M.penalised_score(a.confidence, a.correct, int(name[-2:]) / 100)
        else:
            options = {"reference": 0.3} if R.METRICS[name].needs_reference else {}
            direct = getattr(M, name)(a.confidence, a.correct, **options)
        assert value == pytest.approx(direct), name


def test_the_noise_floor_is_uniform_for_a_calibrated_forecaster():
    "Its p-value is below alpha in a share alpha of experiments."
    name = "expected_calibration_error"
    p = []
    for seed in range(150):
        sample = sample_of(R.made_up_readings(200, seed=1000 + seed))
        floor = R.noise_floor(sample, [name], 200, seed)[name]
        p.append(R.p_at_least(floor, sample.values([name], None)[name]))
    assert abs(np.mean(np.array(p) < 0.1) - 0.1) < 0.08
    assert abs(np.mean(p) - 0.5) < 0.08
