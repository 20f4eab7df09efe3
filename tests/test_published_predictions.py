"""Published values from the raw predictions of other projects, read with our own readers from the files as they are.

Each convention is said in a line; what is compared is what its authors printed."""
import json

import numpy as np
import pytest
from conftest import SHARED

from calib_nb import metrics as M
from calib_nb.files import read_rows
from calib_nb.readings import Readings

DATA = SHARED / "predictions"
pytestmark = pytest.mark.skipif(not (DATA / "atlas").is_dir(), reason="published predictions are not here")


def columns(readings):
    "Confidences and outcomes of the readings that have one."
    known = [r for r in readings if r.confidence is not None]
    return np.array([r.confidence for r in known]), np.array([float(r.is_correct) for r in known])


def table(file, *keys):
    "The rows of a published table by their keys."
    return {tuple(row[key] for key in keys): row for _, row in read_rows(DATA / file)}


# ---- RLCR: an Arrow stream; lists of one; ten bins [a, b), the last one closed


RLCR = ("Base", "RLVR", "RLVR-Classifier", "Answer-Prob", "RLCR")
PRINTED = {
    "accuracy": M.accuracy,
    "brier_score": M.brier_score,
    "ece": M.expected_calibration_error,
    "auroc": M.auroc,
    "confidence level": lambda p, y: p.mean(),
}


@pytest.mark.parametrize("model", RLCR)
def test_the_five_values_of_each_model_of_rlcr(model):
    published = json.loads((DATA / "rlcr_7b/commonsenseqa.metrics.json").read_text())[model]
    names = {"question": "problem", "correct": f"{model}-evals", "confidence": f"{model}-confidence_levels"}
    p, y = columns(Readings.from_file(DATA / "rlcr_7b/commonsenseqa.arrow", **names))
    assert len(p) == 1221
    assert {name: metric(p, y) for name, metric in PRINTED.items()} == pytest.approx(
        {name: published[name] for name in PRINTED}, abs=1e-6
    )


# ---- PT-CSFT: JSON arrays, percentages, NaN; questions stand there twice and count twice, NaN is dropped from AUROC


PTCSFT = {  # file -> accuracy and AUROC in *_published.json, to the printed digits
    "gemma-3-4b_before": (0.572, 0.5542074913247601),
    "gemma-3-4b_sampled_targets": (0.497, 0.7742123923961284),
    "gemma-3-4b_shuffled_targets": (None, 0.5),
    "gemma-3-12b_before": (0.748, 0.683730689245395),
    "gemma-3-12b_sampled_targets": (0.656, 0.5399),
    "gemma-3-12b_shuffled_targets": (0.627, 0.5013),
    "gemma-3-12b_probe_targets": (0.673, 0.8167),
}


@pytest.mark.parametrize("file", PTCSFT)
def test_accuracy_and_auroc_of_pt_csft(file):
    path, (accuracy, auroc) = DATA / f"ptcsft/{file}.json", PTCSFT[file]
    stated = next(name for name in ("parsed_confidence", "confidence") if name in read_rows(path).columns)
    names = {"id": "question_id", "correct": "correct", "confidence": stated}
    readings = Readings.from_file(path, **names, scale="percent", repeats="keep")
    if accuracy:
        assert np.mean([r.is_correct for r in readings]) == pytest.approx(accuracy)
    digits = len(str(auroc).split(".")[1])
    assert round(M.auroc(*columns(readings)), min(digits, 12)) == round(auroc, 12)


# ---- the metacognitive atlas: of repeats of model, item and domain the first counts


@pytest.fixture(scope="module")
def atlas():
    "Readings by (model, domain), as the published tables call them."
    models, domains = table("atlas/names.csv", "model"), table("atlas/domains.csv", "domain")
    names = {"id": ["model", "domain", "item_id"], "group": "model", "relation": "domain"}
    found = {}
    for path in sorted((DATA / "atlas/raw").glob("*.csv")):
        for r in Readings.from_file(path, **names, scale="percent", repeats="first"):
            model = models[(r.group,)]["name_in_published_tables"]
            domain = domains[(r.relation,)]["name_in_published_tables"]
            found.setdefault((model, domain), {})[r.id] = r
    return {key: columns(readings.values()) for key, readings in found.items()}


def test_accuracy_and_auroc_of_each_model_and_domain_of_the_atlas(atlas):
    published = table("atlas/atlas_summary_matrix.csv", "model")
    assert len(atlas) == 19 * 6
    for (model, domain), (p, y) in atlas.items():
        assert M.auroc(p, y) == pytest.approx(float(published[(model,)][domain]), abs=1e-12)
    for model in {model for model, _ in atlas}:
        parts = [pair for (name, _), pair in atlas.items() if name == model]
        p, y = (np.concatenate(column) for column in zip(*parts))
        assert y.mean() == pytest.approx(float(published[(model,)]["acc"]), abs=1e-12)
        assert M.auroc(p, y) == pytest.approx(float(published[(model,)]["aggregate"]), abs=1e-12)


@pytest.mark.slow
def test_intervals_of_the_atlas_within_resampling_error(atlas):
    "Theirs: percentiles 2.5 and 97.5 of 1,000 resamples of items; an end moves by about a tenth of the width."
    published, off = table("atlas/atlas_bootstrap_cis.csv", "model", "domain"), []
    rng = np.random.default_rng(0)
    for key in sorted(atlas)[::19]:
        (p, y), row = atlas[key], published[key]
        assert len(p) == int(row["n"]) and M.auroc(p, y) == pytest.approx(float(row["auroc"]), abs=6e-5)
        draws = [rng.integers(0, len(p), len(p)) for _ in range(1000)]
        ends = np.nanpercentile([M.auroc(p[i], y[i]) for i in draws], [2.5, 97.5])
        off.append(np.abs(ends - [float(row["ci_lo"]), float(row["ci_hi"])]) / float(row["ci_w"]))
    assert np.max(off) < 0.15 and np.mean(off) < 0.04


# ---- LifeEval's BoolQ: the questions that all eleven models answered, bins (a, b], the first one with its lower end


def test_accuracy_confidence_and_ece_of_eleven_models_on_boolq():
    names = {"id": ["llm", "question_id"], "confidence": "stated_confidence", "correct": "correct", "group": "llm"}
    names["question"] = "question_id"
    by_model = {}
    for r in Readings.from_file(DATA / "lifeeval/boolq_11_models.csv", **names):
        by_model.setdefault(r.group, {})[r.question] = r
    common = set.intersection(*(set(readings) for readings in by_model.values()))
    ours = []
    for readings in by_model.values():
        p, y = columns([readings[q] for q in sorted(common)])
        ours.append((len(p), M.expected_calibration_error(p, y, closed="right"), y.mean(), p.mean()))
    theirs = [
        tuple(float(row[name]) for name in ("num_tot", "ece", "accuracy", "confidence"))
        for row in table("lifeeval/published_boolq.csv", "llm").values()
    ]
    assert np.allclose(sorted(ours), sorted(theirs), atol=1e-9, rtol=0) and len(ours) == 11


# ---- MMLU-Pro (Linwei): complete rows, bins (a, b], exactly 0 in none though it counts in N


KINDS = ("verbal_numerical_confidence", "verbal_linguistic_confidence", "logit_perplexity_confidence")
MMLU_PRO = {
    "Llama-3.2-1B-Instruct": "Llama-3.2-1b-instruct",
    "Qwen3-0.6B": "Qwen3-0.6b",
    "gemma-3-1b-it": "Gemma-3-1b-it",
    "gpt-4o-mini-2024-07-18": "Gpt-4o-mini-2024-07-18",
}


def complete_rows(file):
    "`(category, right, confidences by kind)` of rows that have an answer and each kind the model has, in [0, 1]."
    rows = [row for _, row in read_rows(DATA / f"linwei_mmlu_pro/mmlu_pro_{file}.csv")]
    kinds = [kind for kind in KINDS if any(row[kind] for row in rows)]
    found = []
    for row in rows:
        said = {kind: float(row[kind] or "nan") for kind in kinds}
        if row["extracted_answer"] and all(0 <= p <= 1 for p in said.values()):
            found.append((row["category"], float(row["extracted_answer"] == row["correct_answer"]), said))
    return found, kinds


def test_size_and_ece_of_all_168_cells_of_mmlu_pro():
    published, cells = table("linwei_mmlu_pro/category_df.csv", ""), 0
    for file, model in MMLU_PRO.items():
        rows, kinds = complete_rows(file)
        for category in sorted({category for category, _, _ in rows}):
            part = [(y, said) for name, y, said in rows if name == category]
            assert len(part) == float(published[(model,)][f"{category}_sample_size"])
            for kind in kinds:
                p, y = np.array([said[kind] for _, said in part]), np.array([y for y, _ in part])
                ece = M.expected_calibration_error(p[p > 0], y[p > 0], closed="right") * (p > 0).mean()
                assert ece == pytest.approx(float(published[(model,)][f"{category}_ece_{kind}"]), abs=2e-7)
                cells += 1
    assert cells == 168
