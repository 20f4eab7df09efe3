"""The expected confidence is the probability of whole texts; the text that is read off the tree is the text that generation gives; samples, other questions and probes are what plain loops compute."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import small_model, small_tokenizer
from peft import LoraConfig, get_peft_model

from calib_nb import readout
from calib_nb.core import Judged
from calib_nb.metrics import auroc
from calib_nb.models import TextFormat, continue_greedily, spell_levels, token_tree
from calib_nb.prompts import level_grid, training_input
from calib_nb.readout import (
    CONFIDENCE_SAMPLING,
    CORRECT_REQUEST,
    MAX_CONFIDENCE_TOKENS,
    PHRASES,
    READOUTS,
    SURE_REQUEST,
    Readout,
    TreePass,
    Value,
    confidence_uniforms,
    cross_fit,
    fit_phrases,
    fit_probe,
    greedy_in_tree,
    group_folds,
    invert,
    question_end,
    read_confidences,
    read_self_consistency,
    read_expected,
    read_p_true,
    read_phrases,
    read_normalized_probability,
    read_sequence_probability,
    read_verbalized_sampled,
    request_prompt,
    sample_texts,
    tree_passes,
)

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
    for value, p in zip(read_expected(small, fmt, JUDGED, passes), passes):
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
        assert r.provenance == "scored" if r.readout == "expected" else r.provenance in ("parsed", "repaired", "missing")


def plain_log_probability(lm, head, ending):
    "log P(tokens of `ending` behind `head`), each token by itself: one plain forward pass over the whole text."
    start, ids = lm.tokenizer(head, add_special_tokens=False).input_ids, lm.tokenizer(head + ending, add_special_tokens=False).input_ids
    n = next((i for i, (a, b) in enumerate(zip(start, ids)) if a != b), len(start))
    with torch.no_grad():
        logp = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return np.array([logp[i - 1, ids[i]].item() for i in range(n, len(ids))])


def plain_sample(lm, ids, uniforms, temperature):
    "One text by inversion, token by token, without batch and cache, and with numpy."
    new = []
    for u in uniforms:
        with torch.no_grad():
            logits = lm.model(torch.tensor([ids + new])).logits[0, -1].double().numpy() / temperature
        p = np.exp(logits - logits.max())
        new.append(int(np.searchsorted(np.cumsum(p / p.sum()), u, side="right")))
        if new[-1] in lm.stop_tokens:
            break
    return lm.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_samples_are_what_a_plain_loop_draws(small, temperature):
    prompts, uniforms = [small.tokenizer(t).input_ids for t in ("Paris is", "a", "one more, which is longer")], [np.random.default_rng(i).random((n, 8)) for i, n in enumerate((3, 1, 2))]
    for ids, numbers, texts in zip(prompts, uniforms, sample_texts(small, prompts, uniforms, temperature)):
        assert texts == [plain_sample(small, ids, row, temperature) for row in numbers]


def test_inversion_draws_from_the_distribution():
    logits = torch.tensor([1.0, -2.0, 0.5, 3.0])
    for temperature in (0.7, 1.0):
        drawn = invert(logits, (torch.arange(20_000, dtype=torch.double) + 0.5) / 20_000, temperature)
        assert np.allclose(drawn.bincount(minlength=4) / 20_000, (logits / temperature).softmax(0), atol=1e-3)


def test_confidences_drawn_in_the_tree_are_those_that_generation_draws(small, embedded):
    for lm in (small, embedded):
        fmt = TextFormat(lm.tokenizer, chat_template=lm is embedded)
        passes = tree_passes(lm, fmt, JUDGED, sampling=CONFIDENCE_SAMPLING, seed=3)
        generated = sample_texts(lm, [fmt.encode(fmt.response(j.question, j.model_answer)) for j in JUDGED], [confidence_uniforms(j, 3) for j in JUDGED], 1.0)
        for texts, p, v in zip(generated, passes, read_verbalized_sampled(lm, fmt, JUDGED, passes, 3)):
            assert [t.strip() for t in texts] == v.extra["texts"] and all(d is None or d == t for d, t in zip(p.drawn, texts))
    assert any(t is not None for p in passes for t in p.drawn), "some samples stay in the tree, or this test shows nothing"
    assert confidence_uniforms(JUDGED[0], 3).tolist() != confidence_uniforms(JUDGED[0], 4).tolist()


@pytest.mark.parametrize("texts, confidence, provenance, parsed", [(("0.2", "high", "0.4", "0.4"), 1 / 3, "parsed", 0.75), (("0.2", "40%"), 0.3, "repaired", 1.0), (("high", "85"), None, "missing", 0.0)])
def test_sampled_confidences_are_averaged_where_they_can_be_read(small, texts, confidence, provenance, parsed):
    value, = read_verbalized_sampled(small, None, JUDGED[:1], [TreePass(np.zeros(11), "", 0, texts)])
    assert (value.confidence, value.provenance, value.extra["parsed"]) == (confidence and pytest.approx(confidence), provenance, parsed)


def test_p_true_is_a_plain_computation_over_both_orders(small, embedded):
    for lm in (small, embedded):
        fmt = TextFormat(lm.tokenizer, chat_template=lm is embedded)
        for j, v in zip(JUDGED[: 1 if lm is embedded else 3], read_p_true(lm, fmt, JUDGED, [])):
            shares = []
            for first, second in (("Yes", "No"), ("No", "Yes")):
                head = request_prompt(fmt, CORRECT_REQUEST.format(question=j.question, answer=j.model_answer, first=first, second=second))
                yes, no = (np.exp(plain_log_probability(lm, head, option).sum()) for option in ("Yes", "No"))
                shares.append(yes / (yes + no))
            assert v.confidence == pytest.approx(np.mean(shares), abs=1e-5) and v.extra["yes_first"] == pytest.approx(shares[0], abs=1e-5)


def test_requests_of_ones_own_have_the_form_of_the_format(embedded):
    chat, raw = TextFormat(embedded.tokenizer), TextFormat(embedded.tokenizer, chat_template=False)
    assert request_prompt(chat, training_input("Who?")) == chat.prompt("Who?") and request_prompt(raw, training_input("Who?")) == raw.prompt("Who?")


def test_sequence_is_a_plain_loop_over_the_answers_tokens(small, embedded):
    for lm in (small, embedded):
        fmt = TextFormat(lm.tokenizer, chat_template=lm is embedded)
        for j, v, total in zip(JUDGED[: 1 if lm is embedded else 3], read_normalized_probability(lm, fmt, JUDGED, []), read_sequence_probability(lm, fmt, JUDGED, [])):
            logp = plain_log_probability(lm, fmt.answer_prompt(j.question), j.model_answer if lm is embedded else f" {j.model_answer}")
            assert v.confidence == pytest.approx(np.exp(logp.mean()), rel=1e-4) and total.confidence == v.extra["total"] == pytest.approx(np.exp(logp.sum()), rel=1e-3)


def test_an_empty_answer_has_no_probability_and_nothing_to_agree_with(small):
    fmt, empty = TextFormat(small.tokenizer, chat_template=False), [Judged("Who?", "", False), JUDGED[0]]
    for read in (read_normalized_probability, read_sequence_probability, read_self_consistency):
        values = read(small, fmt, empty, [])
        assert (values[0].confidence, values[0].provenance) == (None, "missing") and values[1].provenance == "scored"


def test_consistency_is_the_share_that_the_judge_calls_equivalent(small, monkeypatch):
    said = {"What is the capital of France?": ["Paris", "The answer is Paris.", "paris", "Lyon", "the city of Lyon", "I do not know", "Lyon, or Paris", "", "Not Paris", "Paris, France"], "Symbol for gold?": ["Ag"] * 10}
    asked = []
    def sampler(lm, prompts, uniforms, temperature, progress=None):
        asked.extend((len(u), temperature) for u in uniforms)
        return [next(texts for question, texts in said.items() if question in small.tokenizer.decode(ids)) for ids in prompts]
    monkeypatch.setattr(readout, "sample_texts", sampler)
    france, gold = read_self_consistency(small, TextFormat(small.tokenizer, chat_template=False), JUDGED[:2], [])
    same = france.extra["groups"][0]
    assert {"Paris", "The answer is Paris.", "paris"} <= set(same) and not {"Lyon", "Not Paris", "", "Lyon, or Paris", "I do not know"} & set(same)
    assert france.confidence == len(same) / 10 and ["Lyon", "the city of Lyon"] in france.extra["groups"]
    assert gold.confidence == 0 and gold.extra["groups"] == [[], ["Ag"] * 10]
    assert asked == [(10, 0.7)] * 2


def test_phrases_are_scored_as_complete_replies(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    for j, row in zip(JUDGED, read_phrases(small, fmt, JUDGED, [])):
        head = request_prompt(fmt, SURE_REQUEST.format(question=j.question, answer=j.model_answer))
        assert np.allclose(row, [plain_log_probability(small, head, phrase + fmt.terminator).sum() for phrase in PHRASES], atol=1e-4)


def made_up(n, n_groups, seed=0, split="calibration", labels=None):
    "`n` judged answers in `n_groups` groups, with random labels."
    right = np.random.default_rng(seed).random(n) < 0.5 if labels is None else labels
    return [Judged(f"{split} {i}", "a", bool(r), group=f"{split} group {i % n_groups}") for i, r in enumerate(right)]


def test_a_phrase_is_worth_the_smoothed_share_of_right_answers():
    said, right = [0, 0, 0, 6], [True, True, False, False]
    fitted = fit_phrases([np.eye(7)[k] for k in said], made_up(4, 4, labels=right), weight=2.0)
    assert np.allclose(fitted.numbers, [(2 + 1) / (3 + 2), *[0.5] * 5, (0 + 1) / (1 + 2)]) and fitted.counts == (3, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize("fit, rows", [(fit_phrases, np.random.default_rng(1).normal(size=(60, 7))), (fit_probe, np.random.default_rng(1).normal(size=(60, 2, 4, 5)))])
def test_learned_readouts_see_neither_test_labels_nor_their_own(fit, rows):
    judged, splits = made_up(40, 20) + made_up(20, 10, split="test"), ["calibration"] * 40 + ["test"] * 20
    values = cross_fit(fit, list(rows), judged, splits)
    turned = [replace(j, is_correct=not j.is_correct) for j in judged]
    assert cross_fit(fit, list(rows), judged[:40] + turned[40:], splits) == values
    assert cross_fit(fit, list(rows), turned[:40] + judged[40:], splits)[40:] != values[40:], "the test split is read by a fit on the calibration split"
    fold = group_folds(judged[:40])
    for f in np.unique(fold):
        again = cross_fit(fit, list(rows), [t if i < 40 and fold[i] == f else j for i, (j, t) in enumerate(zip(judged, turned))], splits)
        assert [again[i] for i in np.flatnonzero(fold == f)] == [values[i] for i in np.flatnonzero(fold == f)]


def test_folds_keep_groups_together_in_any_order():
    judged = made_up(60, 23)
    folds = dict(zip([j.id for j in judged], group_folds(judged)))
    assert len({(j.group, folds[j.id]) for j in judged}) == 23 and np.bincount(list(folds.values())).max() <= 15
    assert dict(zip([j.id for j in judged[::-1]], group_folds(judged[::-1]))) == folds
    with pytest.raises(ValueError, match="at least two groups"):
        group_folds(made_up(5, 1))


def test_the_probe_finds_what_is_there_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    rows, judged = rng.normal(size=(150, 2, 4, 60)), made_up(150, 150)
    right = np.array([j.is_correct for j in judged])
    scores = []
    for shuffle in range(4):
        labels = rng.permutation(right)
        shuffled = [replace(j, is_correct=bool(y)) for j, y in zip(judged, labels)]
        scores.append(auroc([v.confidence for v in cross_fit(fit_probe, list(rows), shuffled, ["calibration"] * 150)], labels))
        assert auroc([v.confidence for v in fit_probe(list(rows), shuffled)(list(rows))], labels) > 0.7, "in-sample the same probe looks informative"
    assert abs(np.mean(scores) - 0.5) < 0.08
    rows[:, 1, 3, :5] += 1.5 * right[:, None]
    values = cross_fit(fit_probe, list(rows), judged, ["calibration"] * 150)
    assert auroc([v.confidence for v in values], right) > 0.9 and {(v.extra["position"], v.extra["layer"]) for v in values} == {("question", 3)}


@pytest.mark.parametrize("labels, message", [([True] * 20, "of the calibration answers, 20, 20 are right"), ([False] * 20, "20, none are right"), ([True] + [False] * 19, "outside one fold")])
def test_the_probe_refuses_labels_of_one_class(labels, message):
    with pytest.raises(ValueError, match=message):
        fit_probe(list(np.zeros((20, 2, 4, 5))), made_up(20, 20, labels=labels))


def test_hidden_states_are_those_of_a_plain_pass(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    for j, p in zip(JUDGED, tree_passes(small, fmt, JUDGED, hidden=True)):
        prefix, _ = spell_levels(fmt, j.question, j.model_answer, level_grid())
        end = question_end(fmt, j.question)
        assert small.tokenizer.decode(prefix[: end + 1]).endswith(j.question)
        with torch.no_grad():
            states = torch.stack(small.model(torch.tensor([prefix]), output_hidden_states=True).hidden_states, 0)[:, 0]
        assert np.allclose(p.hidden, states[:, [len(prefix) - 1, end]].transpose(0, 1), atol=1e-4)


ALL = tuple(READOUTS)
EIGHT = JUDGED + [Judged("Who wrote it?", "Ann", True), Judged("When?", "In 1901", False), Judged("Where?", "at sea", True), Judged("Why?", "", False), Judged("How?", "so", True)]


def test_the_order_of_rows_does_not_matter_and_neither_does_what_is_read_beside(small):
    fmt, splits = TextFormat(small.tokenizer, chat_template=False), ["calibration"] * 6 + ["test"] * 2
    counts = {}
    readings = read_confidences(small, fmt, EIGHT, splits, "m", 1, [r for r in ALL if r != "probe"], counts=counts)
    back = {(r.id, r.readout): r for r in read_confidences(small, fmt, EIGHT[::-1], splits[::-1], "m", 1, [r for r in ALL if r != "probe"])}
    for r in readings:
        other = back[r.id, r.readout]
        assert r.provenance == other.provenance and r.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert (r.confidence is None) == (r.provenance == "missing")
    assert set(counts["by_readout"]) == set(ALL) - {"probe"} and all(cost["tokens"] > 0 and cost["seconds"] > 0 for cost in counts["by_readout"].values())
    assert counts["by_readout"]["expected"]["tokens"] >= counts["tokens"] == sum(p.tokens for p in tree_passes(small, fmt, EIGHT))
    plain = read_confidences(small, fmt, EIGHT, splits, "m", 1)
    assert plain == [r for r in readings if r.readout in ("verbalized", "expected")] and {r.readout for r in plain} == {"verbalized", "expected"}


def test_what_learns_needs_the_calibration_split(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    with pytest.raises(ValueError, match="needs answers of the calibration split"):
        read_confidences(small, fmt, JUDGED, ["test"] * 3, "m", 0, ["linguistic"])


def test_a_new_readout_is_one_entry(small, monkeypatch):
    monkeypatch.setitem(READOUTS, "length", Readout(lambda lm, fmt, judged, passes, seed=0: [Value(1 / (1 + len(j.model_answer)), "scored") for j in judged]))
    counts = {}
    readings = read_confidences(small, TextFormat(small.tokenizer, chat_template=False), JUDGED, ["test"] * 3, "m", 0, ["length"], counts=counts)
    assert [r.confidence for r in readings] == [1 / 6, 1 / 3, 1 / 27] and counts["by_readout"]["length"]["tokens"] == counts["tokens"] == 0


def test_adapters_are_read_by_every_readout():
    lm = small_model(small_tokenizer(False))
    fmt, splits = TextFormat(lm.tokenizer, chat_template=False), ["calibration"] * 6 + ["test"] * 2
    names = [r for r in ALL if r != "probe"]
    before = read_confidences(lm, fmt, EIGHT, splits, "m", 0, names)
    lm.model = get_peft_model(lm.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    with lm.base():
        assert read_confidences(lm, fmt, EIGHT, splits, "m", 0, names) == before
    counts = {}
    after = read_confidences(lm, fmt, EIGHT, splits, "m", 0, names, counts=counts)
    for name in ("expected", "p_true", "normalized_probability", "sequence_probability"):
        assert [r.confidence for r in after if r.readout == name] != [r.confidence for r in before if r.readout == name]
    assert counts["by_readout"]["self_consistency"]["tokens"] > 0
