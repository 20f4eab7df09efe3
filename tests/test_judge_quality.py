"""The judge against people: accuracies with intervals, the judge's own errors, and what they do."""
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED

from calib_nb.core import Judged, Question, RecordError, UnknownName, write_jsonl
from calib_nb.inference import smallest_auroc
from calib_nb.judge import judge_answers
from calib_nb.judge_quality import (
    accuracy_by,
    accuracy_by_set,
    corrected_accuracy,
    evouna_judged,
    human_judged,
    judge_simply,
    quality_table,
)
from calib_nb.label_noise import JudgeQuality, judge_from_audit
from calib_nb.rules import judge_by_rules

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent")


@pytest.fixture
def judged():
    "Four answers: one right, two wrong, one empty."
    questions = [
        Question("1", "What is the capital of France?", ["Paris"]),
        Question("2", "Who led the country?", ["Margaret Thatcher"]),
        Question("3", "How many were there?", ["12"]),
        Question("4", "Who was it?", ["Ada Lovelace"]),
    ]
    said = {"1": "Paris", "2": "the Iron Lady", "3": "13", "4": ""}
    return judge_answers(questions, [{"id": i, "model_answer": answer} for i, answer in said.items()])


# Accuracy


def test_accuracy_tables_add_up(judged):
    together = accuracy_by(judged)
    assert accuracy_by(judged, "verdict")["n"].sum() == 4
    assert together["accuracy"].item() == 0.25
    assert together["not_attempted"].item() == 0.25


def test_accuracy_by_set_says_which_auroc_each_set_can_show(judged):
    table = accuracy_by_set({("m", "some"): judged, ("m", "none right"): judged[1:]}).set_index("set")
    assert table["n"].tolist() == [4, 3]
    assert table["correct"].tolist() == [1, 0]
    assert table["accuracy"].tolist() == [0.25, 0]
    assert table.loc["some", "smallest_auroc"] == round(smallest_auroc(1, 3), 3)
    assert np.isnan(table.loc["none right", "smallest_auroc"])


def test_an_accuracy_of_nothing_or_by_an_unknown_field_is_refused(judged):
    with pytest.raises(ValueError, match="there are no judged answers"):
        accuracy_by([])
    with pytest.raises(UnknownName, match="Did you mean 'relation'"):
        accuracy_by(judged, "relaton")


@pytest.mark.parametrize("read, field", [(human_judged, "answer"), (evouna_judged, "references")])
def test_a_file_that_is_no_audit_names_line_and_field(tmp_path, read, field):
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "Who?"}])
    with pytest.raises(RecordError, match=f"a.jsonl:1: field '{field}' is missing"):
        read(path)


# What a judge's errors do


def test_both_kinds_of_answers_are_needed_to_measure_a_judge():
    with pytest.raises(ValueError, match="right and wrong answers are both needed"):
        judge_from_audit([True], [True])


def test_the_quality_table_holds_sensitivity_and_specificity():
    table = quality_table(judge_from_audit([1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0])).set_index("measure")
    assert table.loc["sensitivity", "value"] == 0.6667
    assert table.loc["specificity", ["value", "n"]].tolist() == [1, 3]


def corrected_interval(rng, truth, seed):
    "The interval of one simulated study: a judge is drawn, audited, and judges 400 answers."
    sensitivity, specificity = rng.beta(110, 90), rng.beta(985, 15)
    audit = JudgeQuality(rng.binomial(200, sensitivity), 200, rng.binomial(1000, specificity), 1000)
    accepted = rng.random(400) < np.where(rng.random(400) < truth, sensitivity, 1 - specificity)
    answers = [Judged("q", "a", bool(yes)) for yes in accepted]
    return corrected_accuracy(answers, audit, n_draws=500, seed=seed)


def test_the_corrected_accuracy_covers_the_truth_about_as_often_as_it_says():
    rng, truth = np.random.default_rng(1), 0.3
    intervals = [corrected_interval(rng, truth, seed) for seed in range(200)]
    covered = sum(interval["low"] <= truth <= interval["high"] for interval in intervals)
    assert 0.90 <= covered / 200 <= 0.99


INCLUDES = [  # answer, references, verdict of `includes()` in inspect_ai 0.3.285
    ("It is PARIS.", ["Paris"], True),
    ("Comparison", ["Paris"], True),
    ("Lyon", ["Paris"], False),
    ("Not Paris", ["Paris"], True),
    ("the U.S.A.", ["USA"], False),
    ("The  Beatles", ["The Beatles"], False),
    ("Lyon or Nice", ["Paris", "nice"], True),
    ("STRASSE", ["straße"], True),
    ("", ["Paris"], False),
    ("Paris", ["Paris, France"], False),
    ("Paris", [" Paris"], False),
]


def test_includes_says_what_inspect_ai_says():
    rows = pd.DataFrame(INCLUDES, columns=["answer", "references", "verdict"])
    assert judge_simply(rows, "includes").tolist() == rows["verdict"].tolist()


# Against people


@needs_shared
def test_the_rules_on_human_judged_predictions_do_not_get_worse():
    "Fails when a change of rules loses what was reached."
    rows = human_judged(SHARED / "nq_open/efficientqa_human_judged_half.jsonl")
    definite = rows[rows["human"].isin(["definitely correct", "definitely incorrect"])]
    accepted = [judge_by_rules(r.answer, r.references, r.question).grade == "correct" for r in definite.itertuples()]
    quality = judge_from_audit(accepted, definite["human"] == "definitely correct")
    assert quality.sensitivity >= 0.52
    assert quality.specificity >= 0.979
