"""The original's two evaluations: their errors to the digit, their parser, and texts as a plain loop writes them."""
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_nb.core import Judged, derived_seed, select
from calib_nb.models import TextFormat, sample_responses
from calib_nb.original import (
    ORIGINALS,
    _parsed_or_half,
    document_error,
    gaps_by_chance,
    original_numbers,
    repository_error,
    squared_gaps,
)
from calib_nb.prompts import parse_response
from calib_nb.resampling import made_up_readings

RIGHT = np.arange(1000) < 194
HALF = np.full(1000, 0.5)


def test_a_constant_half_gives_the_published_error_in_the_repository_and_a_tenth_of_it_in_the_document():
    assert f"{repository_error(HALF, RIGHT):.4f}" == "0.3060"
    assert f"{document_error(HALF, RIGHT):.4f}" == "0.0306"


@pytest.mark.parametrize("row, error", [(0, 0.2282), (999, 0.6721)])
def test_one_readable_row_at_ninety_percent_would_have_changed_the_published_error(row, error):
    said = HALF.copy()
    said[row] = 0.9
    assert repository_error(said, RIGHT) == pytest.approx(error, abs=5e-5)


def test_a_confidence_of_one_and_one_that_is_none_are_in_no_bin():
    said, right = np.array([0.3, 1.0, np.nan]), np.array([1, 0, 0])
    assert squared_gaps(said, right) == pytest.approx([0.49])
    assert repository_error(said, right) == pytest.approx(0.7)
    assert np.isnan(repository_error(said[1:], right[1:])) and document_error(said[1:], right[1:]) == 0


def test_bins_are_closed_below():
    said, right = np.array([0.25, 0.2599, 0.26]), np.array([1, 1, 1])
    assert len(squared_gaps(said, right)) == 2


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.5, 0.5, 0.93, 1.0]), min_size=2, max_size=7), st.integers(0, 2**32 - 1))
def test_what_chance_predicts_is_the_mean_over_all_ways_to_deal_the_right_answers(said, seed):
    said, right = np.array(said), np.random.default_rng(seed).integers(0, 2, len(said))
    dealt = [np.isin(np.arange(len(said)), rows) for rows in combinations(range(len(said)), right.sum())]
    expected = np.mean([squared_gaps(said, order) for order in dealt], axis=0)
    assert gaps_by_chance(said, right) == pytest.approx(expected)


@given(st.integers(1, 60), st.integers(0, 60))
def test_where_nothing_can_be_read_chance_predicts_the_distance_of_a_half_from_the_accuracy(n, k):
    right, half = np.arange(n) < k, np.full(n, 0.5)
    expected = abs(0.5 - right.mean())
    assert repository_error(half, right, gaps_by_chance) == pytest.approx(expected, abs=1e-12)
    assert document_error(half, right, gaps_by_chance) == pytest.approx(expected / 10, abs=1e-12)


def test_the_prediction_does_not_look_at_which_answers_are_right():
    said = np.random.default_rng(0).random(1000).round(1)
    assert repository_error(said, RIGHT, gaps_by_chance) == repository_error(said, RIGHT[::-1], gaps_by_chance)


@pytest.mark.parametrize("text, value, provenance", [
    ("Question: Q?\n\nAnswer: Paris", 0.5, "filled"),
    ("Answer: Paris\nConfidence: 0.9\nConfidence: 0.1", 0.9, "parsed"),
    ("Question: What means Confidence: 0.2 ?\n\nAnswer: x\nConfidence: 0.8", 0.2, "parsed"),
    ("Confidence: .7 or so", 0.7, "parsed"),
    ("Confidence:\n\n1e-1", 0.1, "parsed"),
    ("Confidence: 90%", 0.5, "filled"),
    ("Confidence: 0.9.", 0.5, "filled"),
    ("confidence: 0.9", 0.5, "filled"),
    ("Confidence: ", 0.5, "filled"),
    ("Confidence: 8", None, "missing"),
    ("Confidence: nan", None, "missing"),
])
def test_what_the_repository_reads_from_a_text(text, value, provenance):
    said = _parsed_or_half(text)
    assert (said.value, said.provenance) == (value, provenance)


JUDGED = [Judged(f"What is {'very ' * i}far?", "x", i % 2 == 0, f"q{i}") for i in range(3)]


def plainly(lm, prompt):
    "`(text, log-probabilities)` of 100 greedy tokens, one at a time, each from the whole text."
    ids, logp = list(prompt), []
    ends = [i for i in lm.stop_tokens if "\n" not in lm.tokenizer.decode([i])]
    while len(logp) < 100 and (not logp or ids[-1] not in ends):
        with torch.no_grad():
            scores = lm.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        ids.append(int(scores.argmax()))
        logp.append(float(scores.max()))
    return lm.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True), logp


def test_the_repository_s_texts_and_probabilities_are_those_of_a_plain_loop(small):
    readings = ORIGINALS["repository"].read(small, None, JUDGED, "sft", 3)
    assert [r.readout for r in readings] == ["verbalized", "normalized_probability"] * 3
    for j, said, probable in zip(JUDGED, readings[::2], readings[1::2]):
        text, logp = plainly(small, small.tokenizer(f"Question: {j.question}\n\nAnswer:").input_ids)
        assert said.extra["text"] == probable.extra["text"] == text
        assert probable.confidence == pytest.approx(np.exp(np.mean(logp[:50])), abs=1e-5)
        for r in (said, probable):
            assert (r.id, r.is_correct, r.method, r.seed, r.split) == (j.id, j.is_correct, "sft", 3, "train")
        assert said.provenance == "filled" and said.confidence == 0.5 and probable.provenance == "scored"


def test_the_document_samples_asks_and_fills_in(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    readings = ORIGINALS["document"].read(small, fmt, JUDGED, "sft", 3)
    prompts = [fmt.encode(fmt.prompt(j.question)) for j in JUDGED]
    texts = sample_responses(small, prompts, derived_seed(3, "sampling"))
    for r, j, text in zip(readings, JUDGED, texts):
        stated = parse_response(text)
        expected = (0.5, "filled") if stated.confidence is None else (stated.confidence, stated.provenance)
        assert (r.confidence, r.provenance, r.extra["text"], r.is_correct) == (*expected, text, j.is_correct)


def test_numbers_of_an_evaluation():
    readings = made_up_readings(200, says=lambda chance: np.full(200, 0.5), split="train")
    for r in readings[:150]:
        r.provenance = "filled"
    numbers = original_numbers(readings)
    assert numbers["n"] == 200 and numbers["unreadable"] == 0.75
    assert numbers["RMS"] == numbers["predicted RMS"] == pytest.approx(abs(0.5 - numbers["right"]))
    tenth = original_numbers(readings, "document")
    assert tenth["RMS"] == pytest.approx(numbers["RMS"] / 10) and not select(readings, provenance="missing")
    with pytest.raises(ValueError, match="Did you mean 'repository'"):
        original_numbers(readings, "repo")
