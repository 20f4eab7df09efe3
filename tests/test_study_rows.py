"""What stands beside the study: samples, baselines, and verdicts that were read again."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from calib_nb.core import Judged, Question
from calib_nb.questions import load_questions
from calib_nb.study import MODELS, Cell, simulated
from calib_nb.study_rows import (
    _mean_of,
    _question_cells,
    added_by,
    cell_scores,
    read_answers,
    reread,
    sampled_cells,
    split_halves,
)

ANSWERS = ROOT / "figures/whose_knowledge/answers.csv.gz"
VERDICTS = ROOT / "figures/whose_knowledge/verdicts_read.csv.gz"


def judged(id, answer, split="test", right=True, **fields):
    return Judged("What is the capital of France?", answer, right, id=id, extra={"split": split}, **fields)


def test_answers_are_in_the_order_of_the_questions(tmp_path):
    questions = [Question(id, f"Which is {id}?", ["x"], extra={"split": "test"}) for id in ("b", "a")]
    rows = [("m", "a", "NA", True), ("m", "b", "y", False), ("n", "a", "x", True), ("n", "b", "", False)]
    table = pd.DataFrame(rows, columns=["answers_of", "id", "model_answer", "is_correct"])
    table.to_csv(tmp_path / "answers.csv.gz", index=False)
    found = read_answers(tmp_path / "answers.csv.gz", questions)
    assert [(j.id, j.model_answer, j.is_correct) for j in found["m"]] == [("b", "y", False), ("a", "NA", True)]
    assert found["n"][0].model_answer == "" and found["m"][0].extra == {"split": "test"}
    with pytest.raises(KeyError, match="c"):
        read_answers(tmp_path / "answers.csv.gz", [replace(questions[0], id="c")])


def test_samples_are_counted_for_the_answers_of_both_models():
    answers = {"m": [judged("q", "Paris"), judged("t", "Paris", "train")], "n": [judged("q", "Rome", right=False)]}
    samples = {"m": {"q": ["Paris"] * 6 + ["The capital is Paris."] * 2 + ["Rome"] * 2}, "n": {"q": ["rome"] * 10}}
    shares = {cell: [r.confidence for r in readings] for cell, readings in sampled_cells(answers, samples).items()}
    expected = {("m", "m"): 0.8, ("m", "n"): 0.2, ("n", "m"): 0.0, ("n", "n"): 1.0}
    assert shares == {Cell(*pair, "ten_samples"): [share] for pair, share in expected.items()}
    same = sampled_cells(answers, samples, "identical text")
    assert same[Cell("m", "m", "ten_samples")][0].confidence == 0.6, "a sentence is another text"
    assert same[Cell("n", "n", "ten_samples")][0].confidence == 1.0, "case is none"


def test_an_empty_answer_has_no_share_of_samples():
    [reading] = sampled_cells({"m": [judged("q", "", right=False)]}, {"m": {"q": ["Paris"] * 10}})[
        Cell("m", "m", "ten_samples")
    ]
    assert reading.confidence is None and reading.provenance == "missing"


@pytest.mark.parametrize("steady, reliable", [(True, 1.0), (False, 0.0)])
def test_halves_agree_as_far_as_samples_tell_of_the_answer(steady, reliable):
    rng = np.random.default_rng(0)
    chances = rng.integers(0, 2, 400) if steady else np.full(400, 0.5)
    answers = {"m": [judged(f"q{i}", "Paris") for i in range(400)]}
    drawn = [["Paris" if rng.random() < chance else "Rome" for _ in range(10)] for chance in chances]
    found = split_halves(answers, {"m": {f"q{i}": said for i, said in enumerate(drawn)}}).loc["m"]
    assert found["all"] == pytest.approx(reliable, abs=0.3) and found.n == 400
    assert found["all"] == pytest.approx(2 * found.halves / (1 + found.halves)), "Spearman and Brown"


def test_baselines_learn_from_the_training_answers_of_the_model_that_is_read():
    splits = ["train", "test"] * 60
    common = [judged(f"q{i}", "x", split, group=f"g{i}") for i, split in enumerate(splits)]
    questions = [replace(j, relation="ab"[i // 2 % 2]) for i, j in enumerate(common)]
    answers = {}
    for model, known in (("m", "a"), ("n", "b")):
        answers[model] = [replace(j, is_correct=j.relation == known, verdict="") for j in questions]
    vectors = {j.id: np.eye(2)["ab".index(j.relation)] for j in questions}
    cells = _question_cells(answers, vectors)
    for model in ("m", "n"):
        for name in ("relation", "knn", "logistic"):
            forecasts = cells[Cell(name, model, "question_only_baseline")]
            assert len(forecasts) == 60 and all((r.confidence > 0.5) == r.is_correct for r in forecasts)


def test_other_verdicts_replace_those_of_the_answers_own_model():
    cells = sampled_cells({"m": [judged("q", "Paris")], "n": [judged("q", "Rome")]}, {"m": {"q": ["Paris"]}})
    said = pd.DataFrame({"answers_of": ["m", "n"], "id": ["q", "q"], "is_correct": [True, False]})
    again = reread(cells, said)
    assert [readings[0].is_correct for readings in again.values()] == [True, False]
    with pytest.raises(KeyError, match="q"):
        reread(cells, said.assign(id="other"))


def test_a_cell_took_hold_where_it_orders_answers():
    asked = [Question(f"q{i}", f"Question {i}?", ["x"], group=f"g{i}", relation="a") for i in range(300)]
    cells = simulated(asked, {"m": {"a": 0.5}, "n": {"a": 0.5}}, seeds=2, gap=0.3, auroc=0.65, seed_sd=0.0)
    scores = cell_scores(cells, n_resamples=200).set_index(["reader", "answers"])
    assert scores.took_hold[[("m", "m"), ("n", "n")]].all() and not scores.took_hold[[("m", "n"), ("n", "m")]].any()
    assert (scores.low < scores.auroc).all() and (scores.auroc < scores.high).all() and set(scores.seeds) == {2}


def test_cities_carry_three_quarters_of_what_the_study_compares():
    answers = read_answers(ANSWERS, load_questions("study"))
    for model, said in (("gemma-3-270m", 0.78), ("smollm2-135m", 0.76)):
        right = {}
        for j in answers[model]:
            if j.extra["split"] == "test":
                right.setdefault(j.relation, []).append(j.is_correct)
        pairs = {relation: sum(found) * (len(found) - sum(found)) for relation, found in right.items()}
        cities = pairs["city_country"] + pairs["city_continent"]
        assert round(cities / sum(pairs.values()), 2) == said


def test_every_test_answer_was_read_a_second_time_and_the_rules_agree_with_it():
    answers = read_answers(ANSWERS, load_questions("study"))
    read = pd.read_csv(VERDICTS).set_index(["answers_of", "id"]).is_correct
    for model in MODELS:
        tested = [j for j in answers[model] if j.extra["split"] == "test"]
        truth = np.array([read[model, j.id] for j in tested])
        accepted = np.array([j.is_correct for j in tested])
        assert len(read[model]) == len(tested) == 636
        assert accepted[truth].mean() > 0.94 and (~accepted[~truth]).mean() > 0.96


@pytest.mark.parametrize("apart, adds", [(True, True), (False, False)])
def test_what_the_peer_already_says_adds_nothing(apart, adds):
    rng = np.random.default_rng(1)
    asked = [judged(f"q{i}", "x", right=bool(i % 2), group=f"g{i}", relation="a") for i in range(400)]
    cells = {}
    for whose in ("m", "n"):
        noise = {reader: rng.normal(size=len(asked)) for reader in ("m", "n")}
        for reader in ("m", "n"):
            says = noise[reader if apart else "m"]
            how = {"readout": "self_consistency", "method": "ten_samples", "seed": 0, "split": "test"}
            cells[Cell(reader, whose, "ten_samples")] = [
                j.reading(confidence=float(1 / (1 + np.exp(-x - j.is_correct))), provenance="scored", **how)
                for j, x in zip(asked, says)
            ]
    added = added_by(cells, n_resamples=200)
    assert (added.low > 0).all() == adds and (added.gap.abs().max() < 1e-9) == (not adds)


def test_a_confidence_that_one_model_lacks_is_missing_in_the_mean_of_both():
    answers = {"m": [judged("q", "")], "n": [judged("q", "Rome")]}
    cells = sampled_cells(answers, {"m": {"q": ["Rome"]}, "n": {"q": ["x"]}})
    both = _mean_of(cells["m", "n", "ten_samples", 0], cells["n", "n", "ten_samples", 0])
    assert [r.confidence for r in both] == [0.5]
    [missing] = _mean_of(cells["m", "m", "ten_samples", 0], cells["n", "m", "ten_samples", 0])
    assert missing.confidence is None and missing.provenance == "missing"
