"""Texts are those of a plain loop, whatever they are written together with, and after whatever interruption."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calib_nb import models
from calib_nb.core import Judged
from calib_nb.experiment import Reader, read_joint
from calib_nb.models import Sampling, TextFormat, _moves, continue_greedily, sample_responses, sample_texts

QUESTIONS = [f"What is {'very ' * (i % 4)}far from here, and why {i}?" for i in range(9)]


def prompts_of(lm, questions=QUESTIONS):
    fmt = TextFormat(lm.tokenizer, chat_template=False)
    return [fmt.encode(fmt.prompt(q)) for q in questions]


def by(lm, n):
    "The model, with `n` texts in a batch."
    return replace(lm, settings={**lm.settings, "answer_batch": n})


def plainly(lm, prompt, n):
    "Greedy text, the whole of it read anew for each token."
    ids, stops = list(prompt), set(lm.stop_tokens)
    for _ in range(n):
        with torch.no_grad():
            ids.append(lm.model(torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] in stops:
            break
    return lm.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


@pytest.mark.parametrize("n", [1, 2, 64])
def test_greedy_texts_are_those_of_a_plain_loop_in_every_batch(small, n):
    prompts = prompts_of(small)
    assert continue_greedily(by(small, n), prompts, 8) == [plainly(small, p, 8) for p in prompts]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12).map(sorted))
def test_each_new_row_lies_behind_the_one_that_it_continues(parents):
    places, source, to = _moves(parents)
    rows = np.full(max(7, len(parents)), -1)
    rows[:7] = range(7)
    rows[to] = rows[source]
    assert sorted(places) == list(range(len(parents)))
    assert [rows[place] for place in places] == parents


def test_texts_that_end_early_change_nothing_in_those_that_go_on(small):
    prompts = prompts_of(small)
    cut = replace(small)
    cut.stop_tokens = sorted({ids[2] for [ids] in models._write(small, prompts, models._Rule(frozenset(), 3))})[::2]
    assert continue_greedily(cut, prompts, 8) == [plainly(cut, p, 8) for p in prompts]


def test_a_response_depends_on_seed_and_prompt_alone(small):
    prompts = prompts_of(small)
    texts = sample_responses(small, prompts, 1, max_new_tokens=12)
    assert texts == [sample_responses(by(small, 1), [p], 1, max_new_tokens=12)[0] for p in prompts]
    assert texts[::-1] == sample_responses(by(small, 4), prompts[::-1], 1, max_new_tokens=12)
    assert len(set(texts)) == len(texts) and texts != sample_responses(small, prompts, 2, max_new_tokens=12)


def test_samples_that_have_said_the_same_are_read_once(small):
    how, [prompt] = Sampling(6, 1.0, 5), prompts_of(small, QUESTIONS[:1])
    numbers = np.repeat(how.uniforms(0, "same")[:2], 3, 0)
    rows = []
    hook = small.model.get_input_embeddings().register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    first, *others = sample_texts(small, [prompt], [numbers], 1.0)[0]
    hook.remove()
    assert max(rows) <= 2 and others[:2] == [first] * 2 and others[3:] == [others[2]] * 2


def test_a_model_s_own_defaults_of_generation_hold(small, monkeypatch):
    prompts, defaults = prompts_of(small), small.model.generation_config

    def written(ends=frozenset()):
        return [ids for [ids] in models._write(small, prompts, models._Rule(ends, 6))]

    free = written()
    forbidden = {ids[0] for ids in free}
    monkeypatch.setattr(defaults, "suppress_tokens", sorted(forbidden))
    assert not forbidden.intersection(*written())
    monkeypatch.setattr(defaults, "suppress_tokens", None)
    assert max(map(len, written(frozenset(forbidden)))) == 1
    monkeypatch.setattr(defaults, "min_new_tokens", 3)
    assert min(map(len, written(frozenset(forbidden)))) > 3


def test_a_response_ends_behind_the_line_with_its_confidence(small):
    complete = models._confidence_complete(small)
    encode = TextFormat(small.tokenizer, chat_template=False).encode
    assert complete(encode("Answer: Paris\nConfidence: 0.9\n"))
    for text in ("Answer: Paris\nConfidence: 0.9", "Confidence:\n", "Confidence: 0.9\nand", "Paris\n"):
        assert not complete(encode(text))


def test_an_interrupted_joint_evaluation_goes_on_with_the_same_texts(small, tmp_path, monkeypatch):
    lm, write, calls = by(small, 4), models._write, []
    reader = Reader(lm, TextFormat(lm.tokenizer, chat_template=False), "sft", 0)
    judged = [Judged(q, "", False, answers=["far"], extra={"split": "test"}) for q in QUESTIONS]
    whole = read_joint(reader, judged)

    def interrupted(lm, prompts, rule):
        calls.append(len(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(lm, prompts, rule)

    monkeypatch.setattr(models, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_joint(reader, judged, path=tmp_path / "parts.jsonl")
    assert read_joint(reader, judged, path=tmp_path / "parts.jsonl") == whole
    assert calls == [4, 4, 4, 1], "what was written before the interruption is not written again"
