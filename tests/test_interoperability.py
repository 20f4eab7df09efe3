"""Our numbers against other people's code, under their conventions, and published values from the raw predictions.

Inputs are random, tied and extreme."""

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED

from calib_nb import metrics as M

DATA = SHARED / "predictions"


def cases():
    "Named (confidence, correct) pairs."
    rng = np.random.default_rng(0)
    p = rng.random(500)
    y = (rng.random(500) < p**2).astype(int)
    tied = rng.choice([0.05, 0.15, 0.55, 0.75, 0.95], 500)
    extreme = rng.choice([0.0, 1.0, 0.55], 500)
    constant = np.full(500, 0.55)
    return {
        "random": (p, y),
        "tied": (tied, y),
        "extreme": (extreme, y),
        "constant": (constant, y),
        "small": (p[:40], y[:40]),
    }


each_case = pytest.mark.parametrize("p, y", cases().values(), ids=cases())


@each_case
def test_scikit_learn(p, y):
    sk = pytest.importorskip("sklearn.metrics")
    assert M.brier_score(p, y) == pytest.approx(sk.brier_score_loss(y, p))
    assert M.log_score(p, y, clip=np.finfo(float).eps) == pytest.approx(sk.log_loss(y, p))
    assert M.auroc(p, y) == pytest.approx(sk.roc_auc_score(y, p))


@each_case
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_bins_of_scikit_learn(p, y, strategy):
    "Its curve comes without the bins' counts: the largest gap is compared."
    calibration = pytest.importorskip("sklearn.calibration")
    share, mean = calibration.calibration_curve(y, p, n_bins=10, strategy=strategy)
    ours = M.expected_calibration_error(p, y, norm="max", strategy=strategy, closed="right")
    assert ours == pytest.approx(np.abs(share - mean).max())


@each_case
@pytest.mark.parametrize("n_bins", [10, 100])
def test_netcal(p, y, n_bins):
    netcal = pytest.importorskip("netcal.metrics")
    ece, mce = netcal.ECE(n_bins).measure(p, y), netcal.MCE(n_bins).measure(p, y)
    assert M.expected_calibration_error(p, y, n_bins) == pytest.approx(ece, abs=1e-9)
    assert M.expected_calibration_error(p, y, n_bins, norm="max") == pytest.approx(mce, abs=1e-9)


@each_case
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_torchmetrics(p, y, norm):
    torch = pytest.importorskip("torch")
    theirs_of = pytest.importorskip("torchmetrics.functional.classification").binary_calibration_error
    theirs = float(theirs_of(torch.tensor(p, dtype=torch.float64), torch.tensor(y), n_bins=15, norm=norm))
    assert torchmetrics_convention(p, y, 15, norm) == pytest.approx(theirs, abs=2e-6)
    if not (p == 1).any():
        assert M.expected_calibration_error(p, y, 15, norm=norm) == pytest.approx(theirs, abs=2e-6)


def torchmetrics_convention(p, y, n_bins, norm):
    "Our bins [a, b), with 1.0 alone in a bin of its own."
    parts = [part for part in (p < 1, p == 1) if part.any()]
    shares = [part.mean() for part in parts]
    errors = [M.expected_calibration_error(p[part], y[part], n_bins, norm=norm) for part in parts]
    if norm == "max":
        return max(errors)
    if norm == "l1":
        return np.dot(shares, errors)
    return np.sqrt(np.dot(shares, np.square(errors)))


def relplot_rows(p, y):
    """The tally as relplot weighs it.

    It reflects the line without doubling the end points, so that a row at exactly 0 or 1 counts half."""
    t = M.tally(p, y)
    half = np.where((t.value == 0) | (t.value == 1), 0.5, 1)
    return M.Tally(t.value, t.n * half, t.hits * half, t.first)


@each_case
@pytest.mark.parametrize("sigma", [0.03, 0.06, 0.12])
def test_relplot_at_a_given_bandwidth(p, y, sigma):
    relplot = pytest.importorskip("relplot")
    ours = M.smooth_calibration_error(relplot_rows(p, y), bandwidth=sigma)
    assert ours == pytest.approx(relplot.smECE_sigma(p, y, sigma), abs=4e-3)  # they sum over 200 points


@pytest.mark.parametrize("bias", [0, 0.05, 0.1])
@each_case
def test_relplot_smooth_ece(p, y, bias):
    "Where the error is below 0.15. Beyond, their kernel, which is cut off at half the interval, is no longer Gaussian."
    relplot = pytest.importorskip("relplot")
    y = (np.random.default_rng(1).random(len(p)) < p - bias).astype(int)
    theirs = relplot.smECE(p, y)
    assert theirs < 0.15
    assert M.smooth_calibration_error(relplot_rows(p, y)) == pytest.approx(theirs, abs=2e-3)


@each_case
def test_uncertainty_calibration_debiased(p, y):
    calibration = pytest.importorskip("calibration")
    theirs = calibration.get_calibration_error(p, y)
    assert M.debiased_calibration_error(p, y) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("n", [100, 199, 200, 250, 1000])
@pytest.mark.parametrize("p", ["1", "2", "infty"])
@pytest.mark.parametrize("kind", ["random", "tied", "extreme"])
def test_hendrycks_calib_err(n, p, kind):
    confidence, correct = (np.resize(x, n) for x in cases()[kind])
    theirs = calib_err(confidence, correct, p)
    assert M.hle_calibration_error(confidence, correct, p=p) == pytest.approx(theirs, abs=1e-12)


def calib_err(confidence, correct, p="2", beta=100):
    """A reimplementation of the documented formula, for this test.

    Sort, bins of beta rows with the rest in the last, sum over all bins but the last."""
    order = np.argsort(confidence)
    confidence, correct = confidence[order], correct[order]
    starts = [i * beta for i in range(len(confidence) // beta)]
    total = 0.0
    for start, end in zip(starts[:-1], starts[1:]):
        gap = abs(confidence[start:end].mean() - correct[start:end].mean())
        if p == "infty":
            total = max(total, gap)
        else:
            total += beta / len(confidence) * gap ** int(p)
    return np.sqrt(total) if p == "2" else total


@each_case
def test_prr_and_aurc_as_documented_by_lm_polygraph(p, y):
    """A reimplementation of the documented formula.

    Mean accuracy over rejection rates, normalised between random and oracle; random orders of ties averaged."""
    rng, n = np.random.default_rng(1), len(p)

    def area(score):
        order = np.lexsort((rng.random(n), -score))
        return (np.cumsum(y[order]) / np.arange(1, n + 1)).mean()

    theirs = np.mean([area(p) for _ in range(200)])
    assert 1 - M.aurc(p, y) == pytest.approx(theirs, abs=6e-3)
    random, oracle = y.mean(), area(y)
    assert M.prr(p, y) == pytest.approx((theirs - random) / (oracle - random), abs=0.03)


@each_case
def test_corp_is_isotonic_regression(p, y):
    isotonic = pytest.importorskip("sklearn.isotonic")
    fit = isotonic.IsotonicRegression().fit(p, y).predict(p)
    recalibrated = np.mean((fit - y) ** 2)
    corp = M.corp_decomposition(p, y)
    assert corp.mcb == pytest.approx(np.mean((p - y) ** 2) - recalibrated)
    assert corp.dsc == pytest.approx(y.var() - recalibrated)
    assert corp.unc == pytest.approx(y.var())


def test_where_conventions_part_company():
    """0.3 lies on an edge.

    Our edge 3 / 10 is the literal 0.3; netcal's linspace gives 0.30000000000000004, so that 0.3 is one bin lower."""
    netcal = pytest.importorskip("netcal.metrics")
    p, y = np.array([0.3] * 5 + [0.25] * 5), np.array([1] * 5 + [0] * 5)
    assert M.expected_calibration_error(p, y) == pytest.approx(0.5 * 0.7 + 0.5 * 0.25)
    assert netcal.ECE(10).measure(p, y) == pytest.approx(0.5 - 0.275)


published = pytest.mark.skipif(not DATA.is_dir(), reason="published predictions are not here")
MODELS = {
    "Llama-3.2-1B-Instruct": "Llama-3.2-1b-instruct",
    "Qwen3-0.6B": "Qwen3-0.6b",
    "gemma-3-1b-it": "Gemma-3-1b-it",
    "gpt-4o-mini-2024-07-18": "Gpt-4o-mini-2024-07-18",
}
KINDS = ["verbal_numerical_confidence", "verbal_linguistic_confidence", "logit_perplexity_confidence"]


def published_aurocs():
    "By (dataset, model)."
    table = pd.read_csv(DATA / "bplaut_mcq/confidence_intervals.csv")
    table = table.query("prompt == 'first_prompt' and value == 'norm_logits'")
    return table.set_index(["dataset", "model"]).sample_auroc


@published
def test_published_auroc_of_multiple_choice():
    """Every model and set of which both predictions and a published value are there.

    An unparseable answer counts as wrong."""
    table = published_aurocs()
    rows = pd.read_csv(DATA / "bplaut_mcq/norm_logits_first_prompt.csv")
    groups = {key: group for key, group in rows.groupby(["dataset", "model"]) if key in table.index}
    assert len(groups) == 5
    for key, group in groups.items():
        ours = M.auroc(group.confidence, group.grade == "Correct")
        assert ours == pytest.approx(table[key], abs=1e-9), key


@published
def test_published_ece_and_auroc_of_mmlu_pro():
    """Every cell whose N agrees.

    Published: rows without answer or confidence are dropped. Bins are (a, b]: exactly 0 is in none but counts in N."""
    table = pd.read_csv(DATA / "linwei_mmlu_pro/category_df.csv", index_col=0)
    cells = 0
    for file, model in MODELS.items():
        answers = pd.read_csv(DATA / f"linwei_mmlu_pro/mmlu_pro_{file}.csv")
        for category, group in answers.groupby("category"):
            cells += sum(cell_agrees(group, kind, table.loc[model], category) for kind in KINDS)
    assert cells == 123


def cell_agrees(answers, kind, table, category):
    "Whether some way of dropping incomplete rows gives the published N; if so ECE and AUROC must agree."
    size = table[f"{category}_sample_size"]
    rows = rows_of_size(answers, kind, size)
    if rows is None:
        return False
    p, y = rows[kind].to_numpy(), (rows.extracted_answer == rows.correct_answer).to_numpy(float)
    binned = (p > 0) & (p <= 1)
    ece = M.expected_calibration_error(p[binned], y[binned], closed="right") * binned.mean()
    assert ece == pytest.approx(table[f"{category}_ece_{kind}"], abs=1e-5), (category, kind)
    auroc = M.auroc(p / max(p.max(), 1), y)
    nearest = np.diff(np.unique(p)).min()
    within = 1e-9 if nearest > 1e-12 else 5e-4  # means that differ in a last bit are ties here, and were not there
    assert auroc == pytest.approx(table[f"{category}_auroc_{kind}"], abs=within), (category, kind)
    return True


def rows_of_size(answers, kind, size):
    "The rows that have an answer and this kind of confidence, or every kind, whichever are so many; else None."
    for needed in ([kind], KINDS):
        rows = answers.dropna(subset=["extracted_answer", *needed])
        if len(rows) == size:
            return rows
    return None


@published
def test_simpleqa_scores_are_read_and_ranked():
    "gpt-4o's trustworthiness scores on 4,326 questions lie in [0, 1], and the metrics take all of them at once."
    rows = pd.read_csv(DATA / "cleanlab_simpleqa/gpt-4o-baseline-responses.csv")
    score = rows.trustworthiness_score.dropna().to_numpy()
    assert len(score) == 4326 and 0 <= score.min() <= score.max() <= 1
    # whether the answer is part of the response: a crude judge, only to have outcomes
    pairs = zip(rows.answer, rows.response)
    contains = np.array([str(answer).strip().lower() in str(response).lower() for answer, response in pairs], float)
    assert M.auroc(score, contains) > 0.6
