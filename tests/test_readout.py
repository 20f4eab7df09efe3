"""The level readout is the probability of whole texts; the text that is read off the tree is the text that generation gives."""
import numpy as np
import pytest
import torch

from calib_nb.core import Judged
from calib_nb.models import TextFormat, continue_greedily, spell_levels, token_tree
from calib_nb.prompts import level_grid
from calib_nb.readout import MAX_CONFIDENCE_TOKENS, READOUTS, greedy_in_tree, read_confidences, read_level, tree_passes

JUDGED = [Judged("What is the capital of France?", "Paris", True), Judged("Symbol for gold?", "Au", True), Judged("Who?", "a long answer, with 3.5 km", False)]


def text_log_probability(lm, text, start):
    "log P(tokens of `text` from `start` on), by one plain forward pass over the whole text."
    ids = lm.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        logp = lm.model(ids).logits[0].log_softmax(-1)
    return sum(logp[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1]))


@pytest.mark.parametrize("decimals", [1, 2])
def test_level_is_the_probability_of_each_whole_text(small, decimals):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    for judged, passed in zip(JUDGED, tree_passes(small, fmt, JUDGED, decimals)):
        prefix, _ = spell_levels(fmt, judged.question, judged.model_answer, level_grid(decimals))
        head = fmt.response(judged.question, judged.model_answer)
        brute = [text_log_probability(small, f"{head} {level}{fmt.terminator}", len(prefix)) for level in level_grid(decimals)]
        assert np.allclose(passed.levels, brute, atol=1e-4)


def test_tokenizers_differ_as_they_should(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    prefix, spellings = spell_levels(fmt, "Q?", "a", level_grid())
    merged = max(map(len, spellings)) <= 3
    whole = fmt.encode(fmt.response("Q?", "a"))
    assert merged == (len(prefix) < len(whole)), "the merging tokenizer joins the colon and the number"
    for level, ids in zip(level_grid(), spellings):
        assert small.tokenizer.decode(prefix + ids) == f"{fmt.response('Q?', 'a')} {level}{fmt.terminator}"


def test_expected_level_is_a_mean_over_the_grid(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    passes = tree_passes(small, fmt, JUDGED)
    for value, p in zip(read_level(small, fmt, JUDGED, passes), passes):
        weights = np.exp(p.levels)
        assert value.confidence == pytest.approx((weights * np.arange(11) / 10).sum() / weights.sum())
        assert value.extra["mass"] == pytest.approx(weights.sum()) and 0 < value.extra["mass"] <= 1


def test_greedy_text_from_the_tree_is_the_generated_text(embedded):
    fmt = TextFormat(embedded.tokenizer)
    passes = tree_passes(embedded, fmt, JUDGED)
    generated = continue_greedily(embedded, [fmt.encode(fmt.response(j.question, j.model_answer)) for j in JUDGED], MAX_CONFIDENCE_TOKENS)
    verbalized = READOUTS["verbalized"].read(embedded, fmt, JUDGED, passes)
    assert [v.extra["text"] for v in verbalized] == [g.strip() for g in generated]
    assert any(p.text is not None for p in passes), "some text is read off the tree, or this test shows nothing"


def test_greedy_follows_the_tree_and_stops_where_it_leaves_it():
    tree = token_tree([1, 2], [[5, 6, 9], [5, 7, 9]])  # nodes: 5, 6, 7; 9 ends the line
    def logp(*best):
        return torch.nn.functional.one_hot(torch.tensor(best), 10).float()
    assert greedy_in_tree(tree, logp(5, 7, 9, 9), {9}) == [5, 7, 9]
    assert greedy_in_tree(tree, logp(9, 0, 0, 0), {9}) == [9]
    assert greedy_in_tree(tree, logp(5, 8, 9, 9), {9}) is None


def test_batches_and_order_do_not_matter(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    together = tree_passes(small, fmt, JUDGED)
    for j, p in zip(JUDGED, together):
        assert np.allclose(p.levels, tree_passes(small, fmt, [j])[0].levels, atol=1e-4)


def test_a_missing_confidence_stays_missing(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    readings = read_confidences(small, fmt, JUDGED, ["test"] * 3, "baseline", 0)
    assert len(readings) == 6
    for r in readings:
        assert (r.confidence is None) == (r.provenance == "missing")
        assert r.provenance == "scored" if r.readout == "level" else r.provenance in ("parsed", "repaired", "missing")
