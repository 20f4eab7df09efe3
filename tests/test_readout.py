"""Readouts against plain loops: a level has the probability of its whole text, what is read off the tree is what
generation gives, and samples, other questions and probes are what a few lines compute."""
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
from calib_nb.prompts import Confidence, level_grid, training_input
from calib_nb.readout import (
    CONFIDENCE_SAMPLING,
    CORRECT_REQUEST,
    MAX_CONFIDENCE_TOKENS,
    PHRASES,
    READOUTS,
    SURE_REQUEST,
    Readout,
    TreePass,
    confidence_uniforms,
    cross_fit,
    fit_phrases,
    fit_probe,
    greedy_in_tree,
    group_folds,
    question_end,
    read_confidences,
    read_expected,
    read_normalized_probability,
    read_p_true,
    read_phrases,
    read_self_consistency,
    read_sequence_probability,
    read_verbalized_sampled,
    request_prompt,
    sample_by_inversion,
    sample_texts,
    tree_passes,
)

JUDGED = [
    Judged("What is the capital of France?", "Paris", True),
    Judged("Symbol for gold?", "Au", True),
    Judged("Who?", "a long answer, with 3.5 km", False),
]
EIGHT = [
    *JUDGED,
    Judged("Who wrote it?", "Ann", True),
    Judged("When?", "In 1901", False),
    Judged("Where?", "at sea", True),
    Judged("Why?", "", False),
    Judged("How?", "so", True),
]
SPLITS = ["calibration"] * 6 + ["test"] * 2
ALL_BUT_PROBE = [name for name in READOUTS if name != "probe"]


def raw(lm):
    return TextFormat(lm.tokenizer, chat_template=False)


def format_of(lm):
    return TextFormat(lm.tokenizer, chat_template=lm.tokenizer.chat_template is not None)


def heads(fmt, judged):
    "Token ids of the texts that end in `Confidence:`."
    return [fmt.encode(fmt.response(j.question, j.model_answer)) for j in judged]


def text_log_probability(lm, text, start):
    "log P(tokens of `text` from `start` on), by one plain forward pass over the whole text."
    ids = lm.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        logp = lm.model(ids).logits[0].log_softmax(-1)
    return sum(logp[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1]))


@pytest.mark.parametrize("decimals", [1, 2])
def test_a_level_has_the_probability_of_its_whole_text(small, decimals):
    fmt = raw(small)
    for judged, passed in zip(JUDGED, tree_passes(small, fmt, JUDGED, decimals)):
        prefix, _ = spell_levels(fmt, judged.question, judged.model_answer, level_grid(decimals))
        head = fmt.response(judged.question, judged.model_answer)
        texts = [f"{head} {level}{fmt.terminator}" for level in level_grid(decimals)]
        assert np.allclose(passed.levels, [text_log_probability(small, t, len(prefix)) for t in texts], atol=1e-4)


def test_tokenizers_differ_as_they_should(small):
    fmt = raw(small)
    head = fmt.response("Q?", "a")
    prefix, spellings = spell_levels(fmt, "Q?", "a", level_grid())
    merged = max(map(len, spellings)) <= 3
    assert merged == (len(prefix) < len(fmt.encode(head))), "the merging tokenizer joins the colon and the number"
    for level, ids in zip(level_grid(), spellings):
        assert small.tokenizer.decode(prefix + ids) == f"{head} {level}{fmt.terminator}"


def test_the_expected_confidence_is_a_mean_over_the_grid(small):
    fmt = raw(small)
    passes = tree_passes(small, fmt, JUDGED)
    for read, passed in zip(read_expected(small, fmt, JUDGED, passes), passes):
        weights = np.exp(passed.levels)
        mean = (weights * np.arange(11) / 10).sum() / weights.sum()
        assert read.value == pytest.approx(mean)
        assert read.extra["mass"] == pytest.approx(weights.sum())
        assert 0 < read.extra["mass"] <= 1


@pytest.mark.slow
def test_greedy_text_from_the_tree_is_the_generated_text(embedded):
    fmt = TextFormat(embedded.tokenizer)
    passes = tree_passes(embedded, fmt, JUDGED)
    generated = continue_greedily(embedded, heads(fmt, JUDGED), MAX_CONFIDENCE_TOKENS)
    verbalized = READOUTS["verbalized"].read(embedded, fmt, JUDGED, passes)
    assert [v.extra["text"] for v in verbalized] == [g.strip() for g in generated]
    assert any(p.text is not None for p in passes), "some text is read off the tree, or this test shows nothing"


def test_greedy_follows_the_tree_and_stops_where_it_leaves_it():
    tree = token_tree([1, 2], [[5, 6, 9], [5, 7, 9]])  # nodes: 5, 6, 7; 9 ends the line

    def greedy(*best):
        logp = torch.nn.functional.one_hot(torch.tensor(best), 10).float()
        return greedy_in_tree(tree, logp, {9})

    assert greedy(5, 7, 9, 9) == [5, 7, 9]
    assert greedy(9, 0, 0, 0) == [9]
    assert greedy(5, 8, 9, 9) is None


def test_batches_and_order_do_not_matter(small):
    fmt = raw(small)
    for judged, passed in zip(JUDGED, tree_passes(small, fmt, JUDGED)):
        alone, = tree_passes(small, fmt, [judged])
        assert np.allclose(passed.levels, alone.levels, atol=1e-4)


def test_a_missing_confidence_stays_missing(small):
    readings = read_confidences(small, raw(small), JUDGED, ["test"] * 3, "baseline", 0)
    assert len(readings) == 6
    for r in readings:
        allowed = {"scored"} if r.readout == "expected" else {"parsed", "repaired", "missing"}
        assert (r.confidence is None) == (r.provenance == "missing")
        assert r.provenance in allowed


def plain_log_probability(lm, head, ending):
    "log P(tokens of `ending` behind `head`), each token by itself: one plain forward pass over the whole text."
    start = lm.tokenizer(head, add_special_tokens=False).input_ids
    ids = lm.tokenizer(head + ending, add_special_tokens=False).input_ids
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
    prompts = [small.tokenizer(t).input_ids for t in ("Paris is", "a", "one more, which is longer")]
    uniforms = [np.random.default_rng(i).random((n, 8)) for i, n in enumerate((3, 1, 2))]
    for ids, numbers, texts in zip(prompts, uniforms, sample_texts(small, prompts, uniforms, temperature)):
        assert texts == [plain_sample(small, ids, row, temperature) for row in numbers]


def test_inversion_draws_from_the_distribution():
    logits = torch.tensor([1.0, -2.0, 0.5, 3.0])
    uniform = (torch.arange(20_000, dtype=torch.double) + 0.5) / 20_000
    for temperature in (0.7, 1.0):
        drawn = sample_by_inversion(logits, uniform, temperature)
        shares = drawn.bincount(minlength=4) / 20_000
        assert np.allclose(shares, (logits / temperature).softmax(0), atol=1e-3)


@pytest.mark.parametrize("vocabulary", [3, 256, 257, 1000])
def test_inversion_is_that_of_a_plain_cumulative_sum_and_never_draws_what_is_forbidden(vocabulary):
    rng = np.random.default_rng(vocabulary)
    logits = torch.tensor(rng.normal(size=(5, vocabulary), scale=3), dtype=torch.float32)
    logits[:, -1] = logits[2, 0] = -torch.inf
    uniform = torch.tensor(np.concatenate([rng.random((5, 400)), np.tile([0, 1 - 2**-53], (5, 1))], 1))
    drawn = sample_by_inversion(logits, uniform, 0.7)
    p = (logits.double() / 0.7).softmax(-1)
    plain = [np.searchsorted(row, u, side="right") for row, u in zip(p.cumsum(-1).numpy(), uniform.numpy())]
    assert (drawn.numpy() == plain)[:, :400].mean() > 0.999  # it may differ where a number lies on a limit
    assert (p.gather(1, drawn) > 0).all()


def drawn_in_the_tree(lm, judged):
    "The texts that the pass draws, None where one leaves the tree; all are those of generation."
    fmt = format_of(lm)
    passes = tree_passes(lm, fmt, judged, sampling=CONFIDENCE_SAMPLING, seed=3)
    generated = sample_texts(lm, heads(fmt, judged), [confidence_uniforms(j, 3) for j in judged], 1.0)
    read = read_verbalized_sampled(lm, fmt, judged, passes, 3)
    for texts, passed, found in zip(generated, passes, read):
        assert [t.strip() for t in texts] == found.extra["texts"]
        assert all(drawn is None or drawn == t for drawn, t in zip(passed.drawn, texts))
    return [text for p in passes for text in p.drawn]


def test_confidences_drawn_in_the_tree_are_those_that_generation_draws(small):
    drawn_in_the_tree(small, JUDGED)
    assert confidence_uniforms(JUDGED[0], 3).tolist() != confidence_uniforms(JUDGED[0], 4).tolist()


@pytest.mark.slow
def test_confidences_of_the_embedded_model_are_drawn_in_the_tree_or_go_on_behind_it(embedded):
    drawn = drawn_in_the_tree(embedded, JUDGED[1:])
    assert any(text is not None for text in drawn), "some samples stay in the tree, or this test shows nothing"


@pytest.mark.parametrize("texts, confidence, provenance, parsed", [
    (("0.2", "high", "0.4", "0.4"), 1 / 3, "parsed", 0.75),
    (("0.2", "40%"), 0.3, "repaired", 1.0),
    (("high", "85"), None, "missing", 0.0),
])
def test_sampled_confidences_are_averaged_where_they_can_be_read(small, texts, confidence, provenance, parsed):
    found, = read_verbalized_sampled(small, raw(small), JUDGED[:1], [TreePass(np.zeros(11), "", 0, texts)])
    assert found.value == (confidence and pytest.approx(confidence))
    assert (found.provenance, found.extra["parsed"]) == (provenance, parsed)


def plain_p_true(lm, fmt, judged, first, second):
    asked = CORRECT_REQUEST.format(question=judged.question, answer=judged.model_answer, first=first, second=second)
    head = request_prompt(fmt, asked)
    yes, no = (np.exp(plain_log_probability(lm, head, option).sum()) for option in ("Yes", "No"))
    return yes / (yes + no)


@pytest.fixture(scope="session", params=["splits digits", "merges digits", "embedded"])
def any_model(request):
    "A model, and the answers on which it is compared: of the embedded one, one."
    if request.param == "embedded":
        return request.getfixturevalue("embedded"), JUDGED[:1]
    return small_model(small_tokenizer(request.param == "merges digits")), JUDGED


def test_p_true_is_a_plain_computation_over_both_orders(any_model):
    lm, judged = any_model
    fmt = format_of(lm)
    for j, found in zip(judged, read_p_true(lm, fmt, judged, [])):
        shares = [plain_p_true(lm, fmt, j, *order) for order in (("Yes", "No"), ("No", "Yes"))]
        assert found.value == pytest.approx(np.mean(shares), abs=1e-5)
        assert found.extra["yes_first"] == pytest.approx(shares[0], abs=1e-5)


def test_requests_of_ones_own_have_the_form_of_the_format(embedded):
    for fmt in (TextFormat(embedded.tokenizer), raw(embedded)):
        assert request_prompt(fmt, training_input("Who?")) == fmt.prompt("Who?")


def test_the_answers_probability_is_a_plain_loop_over_its_tokens(any_model):
    lm, judged = any_model
    fmt = format_of(lm)
    lead = "" if fmt.chat_template else " "
    means = read_normalized_probability(lm, fmt, judged, [])
    totals = read_sequence_probability(lm, fmt, judged, [])
    for j, mean, total in zip(judged, means, totals):
        logp = plain_log_probability(lm, fmt.answer_prompt(j.question), lead + j.model_answer)
        assert mean.value == pytest.approx(np.exp(logp.mean()), rel=1e-4)
        assert total.value == mean.extra["total"] == pytest.approx(np.exp(logp.sum()), rel=1e-3)


@pytest.mark.parametrize("read", [read_normalized_probability, read_sequence_probability, read_self_consistency])
def test_an_empty_answer_has_no_probability_and_nothing_to_agree_with(small, read):
    empty, full = read(small, raw(small), [Judged("Who?", "", False), JUDGED[0]], [])
    assert (empty.value, empty.provenance) == (None, "missing")
    assert full.provenance == "scored"


def test_self_consistency_is_the_share_that_the_judge_calls_equivalent(small, monkeypatch):
    same = ["Paris", "The answer is Paris.", "paris"]
    others = ["Lyon", "the city of Lyon", "I do not know", "Lyon, or Paris", "", "Not Paris"]
    said = {
        "What is the capital of France?": [*same, *others, "Paris, France"],
        "Symbol for gold?": ["Ag"] * 10,
    }
    asked = []

    def sampler(lm, prompts, uniforms, temperature, progress=None):
        asked.extend((len(u), temperature) for u in uniforms)
        texts = [small.tokenizer.decode(ids) for ids in prompts]
        return [next(said[question] for question in said if question in text) for text in texts]

    monkeypatch.setattr(readout, "sample_texts", sampler)
    france, gold = read_self_consistency(small, raw(small), JUDGED[:2], [])
    agree = france.extra["groups"][0]
    assert set(same) <= set(agree) and not {"Lyon", "Not Paris", "", "Lyon, or Paris", "I do not know"} & set(agree)
    assert france.value == len(agree) / 10 and ["Lyon", "the city of Lyon"] in france.extra["groups"]
    assert gold.value == 0 and gold.extra["groups"] == [[], ["Ag"] * 10]
    assert asked == [(10, 0.7)] * 2


def test_phrases_are_scored_as_complete_replies(small):
    fmt = raw(small)
    replies = [phrase + fmt.terminator for phrase in PHRASES]
    for j, row in zip(JUDGED, read_phrases(small, fmt, JUDGED, [])):
        head = request_prompt(fmt, SURE_REQUEST.format(question=j.question, answer=j.model_answer))
        assert np.allclose(row, [plain_log_probability(small, head, reply).sum() for reply in replies], atol=1e-4)


def made_up(n, n_groups, seed=0, split="calibration", labels=None):
    "`n` judged answers in `n_groups` groups, with random labels."
    right = np.random.default_rng(seed).random(n) < 0.5 if labels is None else labels
    return [Judged(f"{split} {i}", "a", bool(r), group=f"{split} group {i % n_groups}") for i, r in enumerate(right)]


def turned(judged, which=None):
    "The answers with the opposite label, or those of `which` only."
    which = [True] * len(judged) if which is None else which
    return [replace(j, is_correct=not j.is_correct) if turn else j for j, turn in zip(judged, which)]


def test_a_phrase_is_worth_the_smoothed_share_of_right_answers():
    said, right = [0, 0, 0, 6], [True, True, False, False]
    fitted = fit_phrases([np.eye(7)[k] for k in said], made_up(4, 4, labels=right), weight=2.0)
    assert np.allclose(fitted.numbers, [(2 + 1) / (3 + 2), *[0.5] * 5, (0 + 1) / (1 + 2)])
    assert fitted.counts == (3, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize("fit, shape", [(fit_phrases, (7,)), (fit_probe, (1, 2, 5))])
def test_learned_readouts_see_neither_test_labels_nor_their_own(fit, shape):
    rows = list(np.random.default_rng(1).normal(size=(60, *shape)))
    calibration, test = made_up(40, 20), made_up(20, 10, split="test")
    splits = ["calibration"] * 40 + ["test"] * 20
    values = cross_fit(fit, rows, calibration + test, splits)
    assert cross_fit(fit, rows, calibration + turned(test), splits) == values
    after = cross_fit(fit, rows, turned(calibration) + test, splits)
    assert after[40:] != values[40:], "the test split is read by a fit on the calibration split"
    folds = group_folds(calibration)
    for f in np.unique(folds)[:2]:
        again = cross_fit(fit, rows, turned(calibration, folds == f) + test, splits)
        own = np.flatnonzero(folds == f)
        assert [again[i] for i in own] == [values[i] for i in own]


def test_folds_keep_groups_together_in_any_order():
    judged = made_up(60, 23)
    folds = dict(zip([j.id for j in judged], group_folds(judged)))
    assert len({(j.group, folds[j.id]) for j in judged}) == 23
    assert np.bincount(list(folds.values())).max() <= 15
    assert dict(zip([j.id for j in judged[::-1]], group_folds(judged[::-1]))) == folds
    with pytest.raises(ValueError, match="at least two groups"):
        group_folds(made_up(5, 1))


def values_of(confidences):
    return [c.value for c in confidences]


def test_the_probe_finds_nothing_in_noise():
    rng = np.random.default_rng(0)
    rows, judged = list(rng.normal(size=(150, 2, 4, 60))), made_up(150, 150)
    right = np.array([j.is_correct for j in judged])
    scores = []
    for _ in range(4):
        labels = rng.permutation(right)
        shuffled = [replace(j, is_correct=bool(y)) for j, y in zip(judged, labels)]
        scores.append(auroc(values_of(cross_fit(fit_probe, rows, shuffled, ["calibration"] * 150)), labels))
        in_sample = values_of(fit_probe(rows, shuffled)(rows))
        assert auroc(in_sample, labels) > 0.7, "in-sample the same probe looks informative"
    assert abs(np.mean(scores) - 0.5) < 0.08


def test_the_probe_finds_what_is_there():
    rows, judged = np.random.default_rng(0).normal(size=(150, 2, 4, 60)), made_up(150, 150)
    right = np.array([j.is_correct for j in judged])
    rows[:, 1, 3, :5] += 1.5 * right[:, None]
    found = cross_fit(fit_probe, list(rows), judged, ["calibration"] * 150)
    assert auroc(values_of(found), right) > 0.9
    assert {(c.extra["position"], c.extra["layer"]) for c in found} == {("question", 3)}


@pytest.mark.parametrize("labels, message", [
    ([True] * 20, "of 20 calibration answers 20 are right"),
    ([False] * 20, "of 20 calibration answers none are right"),
    ([True] + [False] * 19, "outside one fold"),
])
def test_the_probe_refuses_labels_of_one_class(labels, message):
    with pytest.raises(ValueError, match=message):
        fit_probe(list(np.zeros((20, 2, 4, 5))), made_up(20, 20, labels=labels))


def test_hidden_states_are_those_of_a_plain_pass(small):
    fmt = raw(small)
    for j, passed in zip(JUDGED, tree_passes(small, fmt, JUDGED, hidden=True)):
        prefix, _ = spell_levels(fmt, j.question, j.model_answer, level_grid())
        end = question_end(fmt, j.question)
        assert small.tokenizer.decode(prefix[: end + 1]).endswith(j.question)
        with torch.no_grad():
            layers = small.model(torch.tensor([prefix]), output_hidden_states=True).hidden_states
        states = torch.stack(layers, 0)[:, 0]
        assert np.allclose(passed.hidden, states[:, [len(prefix) - 1, end]].transpose(0, 1), atol=1e-4)


def test_the_order_of_rows_does_not_matter(small):
    fmt = raw(small)
    readings = read_confidences(small, fmt, EIGHT, SPLITS, "m", 1, ALL_BUT_PROBE)
    backwards = read_confidences(small, fmt, EIGHT[::-1], SPLITS[::-1], "m", 1, ALL_BUT_PROBE)
    other = {(r.id, r.readout): r for r in backwards}
    for r in readings:
        same = other[r.id, r.readout]
        assert r.provenance == same.provenance
        assert r.confidence == pytest.approx(same.confidence, abs=1e-5)
        assert (r.confidence is None) == (r.provenance == "missing")


def test_what_is_read_beside_does_not_matter_and_each_readout_has_its_cost(small):
    fmt, counts = raw(small), {}
    readings = read_confidences(small, fmt, EIGHT, SPLITS, "m", 1, ALL_BUT_PROBE, counts=counts)
    costs = counts["by_readout"]
    assert set(costs) == set(ALL_BUT_PROBE)
    assert all(cost["tokens"] > 0 and cost["seconds"] > 0 for cost in costs.values())
    shared = sum(p.tokens for p in tree_passes(small, fmt, EIGHT))
    assert costs["expected"]["tokens"] >= counts["tokens"] == shared
    plain = read_confidences(small, fmt, EIGHT, SPLITS, "m", 1)
    assert {r.readout for r in plain} == {"verbalized", "expected"}
    assert plain == [r for r in readings if r.readout in ("verbalized", "expected")]


def test_what_learns_needs_the_calibration_split(small):
    with pytest.raises(ValueError, match="needs answers of the calibration split"):
        read_confidences(small, raw(small), JUDGED, ["test"] * 3, "m", 0, ["linguistic"])


def test_a_new_readout_is_one_entry(small, monkeypatch):
    def read_length(lm, fmt, judged, passes, seed=0):
        return [Confidence(1 / (1 + len(j.model_answer)), "scored") for j in judged]

    monkeypatch.setitem(READOUTS, "length", Readout(read_length))
    counts = {}
    readings = read_confidences(small, raw(small), JUDGED, ["test"] * 3, "m", 0, ["length"], counts=counts)
    assert [r.confidence for r in readings] == [1 / 6, 1 / 3, 1 / 27]
    assert counts["by_readout"]["length"]["tokens"] == counts["tokens"] == 0


def test_adapters_are_read_by_every_readout():
    lm = small_model(small_tokenizer(False))
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    counts = {}

    def read(counts=None):
        return read_confidences(lm, raw(lm), EIGHT, SPLITS, "m", 0, ALL_BUT_PROBE, counts=counts)

    def confidences(readings, name):
        return [r.confidence for r in readings if r.readout == name]

    before = read()
    lm.model = get_peft_model(lm.model, config).eval()
    with lm.base():
        assert read() == before
    after = read(counts)
    for name in ("expected", "p_true", "normalized_probability", "sequence_probability"):
        assert confidences(after, name) != confidences(before, name)
    assert counts["by_readout"]["self_consistency"]["tokens"] > 0


def test_a_fine_grid_over_a_large_vocabulary_is_read_in_smaller_batches_with_the_same_readings(small, monkeypatch):
    fmt = raw(small)
    whole = tree_passes(small, fmt, JUDGED, decimals=2)
    levels, read, sizes = fmt.wording.unit.texts(2), readout.read_trees, []
    trees = [token_tree(*spell_levels(fmt, j.question, j.model_answer, levels)) for j in JUDGED]
    places = max(1 + len(tree.tokens) for tree in trees)

    def counting(model, batch, *rest):
        sizes.append(len(batch["input_ids"]))
        return read(model, batch, *rest)

    monkeypatch.setattr(readout, "_LOGITS_AT_ONCE", 2 * places * len(small.tokenizer))
    monkeypatch.setattr(readout, "read_trees", counting)
    fewer = tree_passes(small, fmt, JUDGED, decimals=2)
    assert max(sizes) == 2 < len(JUDGED)
    assert all(np.allclose(a.levels, b.levels, atol=1e-4) for a, b in zip(whole, fewer))
