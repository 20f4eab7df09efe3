"""How long the stages without a language model take, side by side with others: one JSON line for each comparison.

    git worktree add /tmp/09c68a6 09c68a6
    OMP_NUM_THREADS=1 python benchmarks/without_model.py --old /tmp/09c68a6            # all of them
    OMP_NUM_THREADS=1 python benchmarks/without_model.py --old /tmp/09c68a6 --form quick knn card

`ratio` is their time over ours. That both give the same is asserted before anything is timed."""
import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from measure import Checkout, amount, child, compared, growth, say
from relplot import smECE
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from calib_nb.embeddings import nearest_neighbours
from calib_nb.inference import metric_card
from calib_nb.questions import load_questions
from calib_nb.resampling import made_up_readings, reading_arrays
from calib_nb.rules import judge_by_rules

ROOT = Path(__file__).resolve().parent.parent
K, RESAMPLES, REFERENCE = 20, 2000, 0.3
SAYS = {"continuous": lambda c: c, "steps of 0.1": lambda c: c.round(1)}
SIZES = {  # by form: the committed table, what `make bench` looks at, what a test runs
    "whole": {"knn": (10_000, 40_000), "large": 200_000, "card": (4000, 16_000), "judge": 50_000, "growth": 8},
    "quick": {"knn": (4000,), "large": 0, "card": (1000,), "judge": 2000, "growth": 0},
    "smallest": {"knn": (200,), "large": 300, "card": (100,), "judge": 20, "growth": 1},
}

# ---- k-NN labels


def embedded(n):
    "(n, 384) unit vectors in single precision, about fifty around each centre."
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(2, n // 50), 384)).astype(np.float32)
    vectors = rng.normal(size=(n, 384)).astype(np.float32)
    vectors *= 0.7
    vectors += centres[rng.integers(len(centres), size=n)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def whole_matrix(vectors):
    "All similarities, each row sorted: what the original does."
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, :K]


def by_scikit_learn(vectors):
    "Its exact search."
    search = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(vectors)
    return search.kneighbors(return_distance=False)


def assert_same_neighbours(one, other):
    "In 99.8 % of the rows, as single precision decides for the others."
    same = np.mean((np.sort(one) == np.sort(other)).all(1))
    assert same > 0.998, same


def knn(sizes, seconds, old):
    "Neighbours against the whole matrix, against scikit-learn, and against the other checkout."
    theirs = old and Checkout(old).module("embeddings").nearest_neighbours
    for n in sizes["knn"]:
        vectors = embedded(n)
        ours = partial(nearest_neighbours, vectors, K)
        others = {"scikit-learn brute": partial(by_scikit_learn, vectors)}
        if n <= 10_000:  # 40,000 would need 26 GB
            others["whole matrix sorted"] = partial(whole_matrix, vectors)
        for against, way in others.items():
            assert_same_neighbours(ours()[0], way())
            yield compared("k-NN labels", against, n, ours, way, seconds)
        if old and n <= 10_000:
            assert (ours()[0] == theirs(vectors, K)[0]).all()
            yield compared("k-NN labels", Path(old).name, n, ours, partial(theirs, vectors, K), seconds)


def large(sizes, seconds, old):
    "Memory and time of many, in a process of its own."
    n = sizes["large"]
    if n:
        with tempfile.TemporaryDirectory() as folder:
            way = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})"
            search = f"from without_model import *; nearest_neighbours(embedded({n}), K, folder={folder!r})"
            used = child(f"{way}; {search}", ROOT, OMP_NUM_THREADS="1")
        yield amount("k-NN labels, peak memory", n, used["peak_gib"], "GiB")
        yield amount("k-NN labels, CPU seconds", n, used["seconds"], "s")


# ---- the metric card


def binned_error(p, y, bins, square=False):
    "In bins of equal width."
    index = np.minimum((p * bins + 1e-9).astype(int), bins - 1)
    rows = np.bincount(index, minlength=bins)
    excess = np.bincount(index, p, bins) - np.bincount(index, y, bins)
    gap = np.divide(excess, rows, out=np.zeros(bins), where=rows > 0)
    if square:
        return float(np.sqrt((rows * gap**2).sum() / rows.sum()))
    return float((rows * abs(gap)).sum() / rows.sum())


def risks(p, y):
    "(n,) share of wrong answers among the k most confident; tied rows share their errors."
    k = np.arange(1, len(p) + 1)
    _, index = np.unique(-p, return_inverse=True)
    wrong, size = np.bincount(index, 1 - y), np.bincount(index)
    errors = np.interp(k, np.append(0, np.cumsum(size)), np.append(0, np.cumsum(wrong)))
    return errors / k


def within_relations(p, y, relation):
    "AUROC of each relation, weighted by its pairs."
    areas, pairs = [], []
    for name in np.unique(relation):
        part = relation == name
        if 0 < y[part].sum() < part.sum():
            areas.append(roc_auc_score(y[part], p[part]))
            pairs.append(y[part].sum() * (1 - y[part]).sum())
    return np.average(areas, weights=pairs)


def scores(p, y, relation):
    "What gets a bootstrap interval."
    k, risk = np.arange(1, len(p) + 1), risks(p, y)
    best, aurc, rate = np.mean(np.maximum(k - y.sum(), 0) / k), risk.mean(), 1 - y.mean()
    brier = brier_score_loss(y, p)
    return {
        "accuracy": y.mean(),
        "mean_confidence": p.mean(),
        "brier_score": brier,
        "brier_skill_score": 1 - brier / np.mean((REFERENCE - y) ** 2),
        "auroc": roc_auc_score(y, p),
        "stratified_auroc": within_relations(p, y, relation),
        "aurc": aurc,
        "e_aurc": aurc - best,
        "prr": 1 - (aurc - best) / (rate - best),
        "accuracy_at_coverage": 1 - risk[int(np.ceil(0.5 * len(p))) - 1],
    }


def calibration_errors(p, y):
    "What gets a noise floor."
    fit = IsotonicRegression(y_min=0, y_max=1).fit(p, y).predict(p)
    return {
        "expected_calibration_error": binned_error(p, y, 10),
        "rms_calibration_error": binned_error(p, y, 100, square=True),
        "smooth_calibration_error": smECE(p, y),
        "mcb": brier_score_loss(y, p) - brier_score_loss(y, np.clip(fit, 0, 1)),
    }


def plain_loop(p, y, relation, resamples):
    "The same card by a loop of calls."
    rng = np.random.default_rng(0)
    for _ in range(resamples):
        rows = rng.integers(0, len(p), len(p))
        scores(p[rows], y[rows], relation[rows])
        calibration_errors(p, (rng.random(len(p)) < p).astype(float))


def assert_same_values(card, theirs):
    "To nine decimals; relplot has a grid of its own, and a hundred readings lie on it unevenly."
    for name, value in theirs.items():
        close = 5e-3 if name == "smooth_calibration_error" else 1e-9
        assert abs(card[name].value - value) < close, (name, card[name].value, value)


def card(sizes, seconds, old):
    "A whole card against a loop of calls (few resamples, their time multiplied), and its memory."
    theirs = old and Checkout(old).module("inference").metric_card
    for n in sizes["card"]:
        few = 6 if n > 10_000 else 20
        for kind, says in SAYS.items():
            readings = made_up_readings(n, says=says)
            a = reading_arrays(readings)
            columns = a.confidence, a.correct, a.relation.astype(str)
            ours = partial(metric_card, readings, REFERENCE)
            assert_same_values(ours(), scores(*columns) | calibration_errors(*columns[:2]))
            loop, stage = partial(plain_loop, *columns, few), f"metric card, {kind}"
            yield compared(stage, "loop of scikit-learn and relplot", n, ours, loop, seconds, few / RESAMPLES)
            if old:
                yield compared(stage, Path(old).name, n, ours, partial(theirs, readings, REFERENCE), seconds)
        if old:
            yield from card_memory(n, old)


def card_memory(n, old):
    "Peak memory that a card of steps of 0.1 adds, in processes of their own: theirs over ours."
    added = []
    for folder in (ROOT, Path(old)):
        home = "resampling" if (folder / "calib_nb/resampling.py").exists() else "inference"  # where it was before
        begin = f"from calib_nb.{home} import made_up_readings\nfrom calib_nb.inference import metric_card\n"
        made = f"{begin}r = made_up_readings({n}, says=lambda c: c.round(1))\n"
        used = [child(code, folder, OMP_NUM_THREADS="1") for code in (made, f"{made}metric_card(r, {REFERENCE})")]
        added.append(used[1]["peak_gib"] - used[0]["peak_gib"])
    row = amount("metric card, peak memory", n, added[0], "GiB more than without")
    yield row | {"against": Path(old).name, "ratio": added[1] / added[0]}


# ---- the judge by rules

FORMS = (
    "{}",
    "It is {}.",
    "{}, which is well known. It has been so since 1950.",
    "not {}",
    "{} or Paris",
    "The answer to this is {} (as far as is known), in the north of it.",
    "{} and John Q. Smith, after 20 July 1969",
)


def answers_with_aliases(n):
    "`(answer, ten references, question)`: no question stands twice, so that little is remembered from one to the next."
    rng, facts = np.random.default_rng(0), load_questions("facts")
    names = [q.answers[0] for q in facts]
    drawn = rng.integers(len(names), size=(n, 21))
    items = []
    for i, places in enumerate(drawn):
        q, picked = facts[i % len(facts)], [names[place] for place in places]
        made_up = [f"{a} {b}" for a, b in zip(picked[:10], picked[10:20])]
        references = [*q.answers, *made_up][:10]
        said = references[0] if i % 2 else picked[20]
        items.append((FORMS[i % len(FORMS)].format(said), references, f"{q.question} ({i})"))
    return items


def judge(sizes, seconds, old):
    "The rules against those of the other checkout."
    if not old:
        return
    theirs = Checkout(old).module("judge").judge_by_rules
    items = answers_with_aliases(sizes["judge"])
    half = len(items) // 2
    same = np.mean([judge_by_rules(*i).grade == theirs(*i).grade for i in items[: min(half, 500)]])
    assert same > 0.9, same  # rules have changed since; what they say of plain answers has not
    rest = items[half:]
    ours, other = (partial(judged, way, rest) for way in (judge_by_rules, theirs))
    yield compared("rules judge, 10 aliases", Path(old).name, len(rest), ours, other, 0) | {"same": same}


def judged(way, items):
    "All of them, one after another."
    for item in items:
        way(*item)


# ---- the machine's limit, and growth


def machine(sizes, seconds, old):
    "Matrix products at the stages' shapes, and copying."
    rng = np.random.default_rng(0)
    for stage, (m, k, n) in {"linear layer": (1024, 576, 1536), "k-NN labels": (838, 384, 10_000)}.items():
        a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((m, k), (k, n)))
        took = compared("", "", 0, partial(np.matmul, a, b), int, min(seconds, 3))
        yield amount(f"machine: matrix product, {stage}", m, 2 * m * k * n / took["ours_s"] / 1e9, "GFLOP/s")
    data, room = np.ones(2**25), np.ones(2**25)
    took = compared("", "", 0, partial(np.copyto, room, data), int, min(seconds, 3))
    yield amount("machine: copying", data.size, 2 * data.nbytes / took["ours_s"] / 1e9, "GB/s read and written")


def growths(sizes, seconds, old):
    "How time grows with the number of vectors and of readings."
    times = [1, 2, 4, 8]
    if sizes["growth"]:
        vectors = {n: embedded(n) for n in [250 * sizes["growth"] * t for t in times]}
        yield growth("k-NN labels", lambda n: nearest_neighbours(vectors[n], K), [*vectors])
        rows = {n: made_up_readings(n) for n in [62 * sizes["growth"] * t for t in times]}
        yield growth("metric card, continuous", lambda n: metric_card(rows[n], REFERENCE), [*rows])


STAGES = {"machine": machine, "knn": knn, "large": large, "card": card, "judge": judge, "growth": growths}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=[*STAGES], help="default: all")
    parser.add_argument("--old", help="another checkout of this repository")
    parser.add_argument("--form", default="whole", choices=[*SIZES], help="how many of each")
    parser.add_argument("--seconds", type=float, default=10, help="of wall-clock for each comparison, at least")
    args = parser.parse_args()
    for stage in args.stages:
        for row in STAGES[stage](SIZES[args.form], args.seconds, args.old):
            say(row)
