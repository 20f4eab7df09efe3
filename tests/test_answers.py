"""Answers are the same in a batch and alone, and are asked for once."""
from dataclasses import replace

import pytest

from calib_nb import answers
from calib_nb.answers import answer_cache, answer_questions
from calib_nb.questions import load_questions


@pytest.mark.slow
def test_batched_equals_one_at_a_time_in_fp32(embedded, tmp_path):
    questions = load_questions("facts")[::140]
    assert str(embedded.model.dtype) == "torch.float32"
    fours = replace(embedded, settings={**embedded.settings, "answer_batch": 4})  # several batches, sorted by length
    together = answer_questions(fours, questions, tmp_path / "batch")
    alone = [answer_questions(embedded, [q], tmp_path / "alone")[0] for q in questions]
    assert together == alone


def test_an_interrupted_run_asks_only_what_is_left(embedded, tmp_path, monkeypatch):
    questions, asked = load_questions("facts")[::250], []

    def first_batch(prompts, done):
        done({0: "Paris"})
        raise KeyboardInterrupt

    def rest(prompts, done):
        asked.extend(prompts)
        done({i: "Rome" for i in range(len(prompts))})

    turns = iter([first_batch, rest])
    monkeypatch.setattr(answers, "continue_greedily", lambda lm, prompts, n, done, progress: next(turns)(prompts, done))
    with pytest.raises(KeyboardInterrupt):
        answer_questions(embedded, questions, tmp_path)
    rows = answer_questions(embedded, questions, tmp_path)
    assert len(asked) == len(questions) - 1
    assert [r["model_answer"] for r in rows] == ["Paris"] + ["Rome"] * (len(questions) - 1)


def test_the_cache_is_named_by_what_an_answer_depends_on(embedded, tmp_path):
    other = replace(embedded, key="other")
    names = {answer_cache(lm, tmp_path, n).name for lm in (embedded, other) for n in (8, 16)}
    assert len(names) == 4


@pytest.mark.slow
def test_a_model_that_thinks_first_is_refused_and_a_finished_thought_is_left_out(embedded, tmp_path, monkeypatch):
    questions = load_questions("facts")[::250]

    def written(text):
        def ask(lm, prompts, n, done, progress):
            done({i: text for i in range(len(prompts))})

        return ask

    monkeypatch.setattr(answers, "continue_greedily", written("<think>\n"))
    with pytest.raises(ValueError, match="all 4 answers are empty"):
        answer_questions(embedded, questions, tmp_path / "thoughts")
    monkeypatch.setattr(answers, "continue_greedily", written("<think>Lyon?</think>Paris"))
    rows = answer_questions(embedded, questions, tmp_path / "whole")
    assert {row["model_answer"] for row in rows} == {"Paris"}
