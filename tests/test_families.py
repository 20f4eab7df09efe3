"""Whatever a model's layers are, what is read of it is what brute force finds, in a batch and alone, and its losses and
gradients are trl's."""
from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import small_tokenizer
from families import FAMILIES, random_model
from transformers import DynamicCache

from calib_nb import models
from calib_nb.core import Judged
from calib_nb.labels import labelled_rows, preference_pairs, trl_preferences
from calib_nb.models import DEVICE_SETTINGS, LanguageModel, TextFormat, continue_greedily, spell_levels, token_tree
from calib_nb.prompts import level_grid
from calib_nb.readout import (
    MAX_CONFIDENCE_TOKENS,
    _cost_of,
    _texts_behind,
    _tree_forward,
    read_expected,
    sample_texts,
    tree_passes,
)
from calib_nb.training import OBJECTIVES, collate, dpo_loss, make_example, reference_scores, score, text_loss

pytestmark = pytest.mark.filterwarnings("error:.*path by path:UserWarning")
QUICK = {"Llama 3", "Gemma 3", "gpt-oss", "LFM2", "BLOOM"}
EVERY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
JUDGED = [
    Judged("Who?", "Ann", True),
    Judged("Which of the many rivers that rise in those hills is the longest, and where does it end?", "x", False),
    Judged("What is the capital of the country in whose north that river rises? " * 2, "I do not know", False),
]


@cache
def tokenizer():
    return small_tokenizer(False)


@cache
def model_of(family):
    model = random_model(family, len(tokenizer()))
    return LanguageModel(family, model, tokenizer(), family, None, DEVICE_SETTINGS["cpu"])


def raw():
    return TextFormat(tokenizer(), chat_template=False)


def log_probability(lm, prefix, ids):
    "Of `ids` behind `prefix`, by a pass over that text alone."
    with torch.no_grad():
        logp = lm.model(input_ids=torch.tensor([prefix + ids])).logits[0].log_softmax(-1)
    return sum(logp[len(prefix) - 1 + i, token].item() for i, token in enumerate(ids))


def brute_force(lm, judged):
    "The log-probability of each level, a whole text after the other."
    prefix, spellings = spell_levels(raw(), judged.question, judged.model_answer, level_grid())
    return [log_probability(lm, prefix, ids) for ids in spellings]


@pytest.mark.parametrize("family", EVERY)
def test_levels_are_what_brute_force_finds_together_and_alone(family):
    lm, fmt = model_of(family), raw()
    together = tree_passes(lm, fmt, JUDGED, hidden=True)
    for judged, passed in zip(JUDGED, together):
        assert np.allclose(passed.levels, brute_force(lm, judged), atol=2e-4)
        [alone] = tree_passes(lm, fmt, [judged], hidden=True)
        assert np.allclose(passed.levels, alone.levels, atol=2e-4)
        assert np.allclose(passed.hidden, alone.hidden, atol=1e-3)


@pytest.mark.parametrize("family", EVERY)
def test_expected_confidence_is_that_of_brute_force(family):
    lm, fmt = model_of(family), raw()
    read = read_expected(lm, fmt, JUDGED, tree_passes(lm, fmt, JUDGED))
    for judged, found in zip(JUDGED, read):
        weights = np.exp(brute_force(lm, judged))
        assert found.value == pytest.approx(weights @ np.linspace(0, 1, 11) / weights.sum(), abs=1e-5)


def greedily(lm, prompt, n):
    "The likeliest tokens, the whole text read anew for each."
    ids, stops = list(prompt), set(lm.stop_tokens)
    while len(ids) < len(prompt) + n:
        with torch.no_grad():
            ids.append(lm.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] in stops:
            break
    return lm.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


@pytest.mark.parametrize("family", EVERY)
def test_answers_are_what_brute_force_writes_together_and_alone(family):
    lm, fmt = model_of(family), raw()
    prompts = [fmt.encode(fmt.prompt(j.question)) for j in JUDGED]
    assert continue_greedily(lm, prompts, 12) == [greedily(lm, p, 12) for p in prompts]


@pytest.mark.parametrize("family", EVERY)
def test_a_confidence_that_is_written_on_from_the_pass_is_what_brute_force_writes(family):
    lm, fmt, cost = model_of(family), raw(), {}
    texts = [p.text for p in tree_passes(lm, fmt, JUDGED, writing=cost)]
    heads = [fmt.encode(fmt.response(j.question, j.model_answer)) for j in JUDGED]
    written = [greedily(lm, head, MAX_CONFIDENCE_TOKENS) for head in heads]
    if models._way(lm.model.config, 300) == "tree":  # what is out of sight is left to generation
        assert texts == written and cost["tokens"] > 0
    assert all(text in (None, wanted) for text, wanted in zip(texts, written))


@pytest.mark.parametrize("family", ["Llama 3", "GPT-2"])
def test_a_text_goes_on_behind_the_node_where_it_leaves_the_tree(family):
    lm, cache = model_of(family), DynamicCache()
    prefix = tokenizer()("Question: Who? Confidence:", add_special_tokens=False).input_ids
    tree = token_tree(prefix, [[20, 21, 22], [20, 23, 24]])
    short = token_tree(prefix[4:], [[20, 21, 22]])
    scores, _ = _tree_forward(lm, [short, tree], cache=cache)
    forced = scores[1].clone()
    forced[0, 20] = forced[1, 23] = forced[3, 30] = 1  # 20, behind it 23, and behind that 30, which is in no path
    [text] = _texts_behind(lm, [tree], [forced], [1], cache)
    begun = tokenizer().decode([20, 23, 30])
    assert text == begun + greedily(lm, prefix + [20, 23, 30], MAX_CONFIDENCE_TOKENS - 3)


def drawn(lm, prompt, uniforms):
    "A text by inversion, the whole text read anew for each token."
    ids = list(prompt)
    for u in uniforms:
        with torch.no_grad():
            shares = lm.model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()
        ids.append(int(np.searchsorted(shares.cumsum(), u, side="right")))
        if ids[-1] in lm.stop_tokens:
            break
    return lm.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


@pytest.mark.parametrize("family", EVERY)
def test_samples_are_what_brute_force_draws(family):
    lm, fmt = model_of(family), raw()
    prompts = [fmt.encode(fmt.prompt(j.question)) for j in JUDGED]
    numbers = [np.random.default_rng(i).random((2, 6)) for i in range(len(prompts))]
    for texts, prompt, rows in zip(sample_texts(lm, prompts, numbers, 1.0), prompts, numbers):
        assert texts == [drawn(lm, prompt, row) for row in rows]


OPENING = "As to the rivers of that country: "  # longer than the windows
ALIKE = [replace(j, question=OPENING + j.question) for j in JUDGED]


def read_by(lm, monkeypatch, shared):
    "The passes, and how many tokens went through the model."
    tree_passes(lm, raw(), ALIKE)  # checked once
    with monkeypatch.context() as patched, _cost_of(lm) as cost:
        if not shared:
            patched.setattr(models, "_shared", lambda texts: 0)
        passes = tree_passes(lm, raw(), ALIKE)
    return passes, cost["tokens"]


@pytest.mark.parametrize("family", EVERY)
def test_what_all_texts_begin_with_is_read_once_where_attention_is_plain(family, monkeypatch):
    lm = model_of(family)
    once, few = read_by(lm, monkeypatch, shared=True)
    each, many = read_by(lm, monkeypatch, shared=False)
    assert np.allclose([p.levels for p in once], [p.levels for p in each], atol=5e-5)
    begun = len(f"Question: {OPENING}Wh") if lm.plain_attention else 0
    assert many - few == begun * (len(ALIKE) - 1)


@pytest.mark.parametrize("objective", ["text", "dpo", "brier"])
@pytest.mark.parametrize("family", ["Llama 3", "Gemma 3"])
def test_gradients_do_not_depend_on_how_often_the_beginning_is_read(family, objective, monkeypatch):
    lm = model_of(family)
    rows = preference_pairs(JUDGED) if objective == "dpo" else labelled_rows(JUDGED)
    once = batch_of(lm, rows, objective)
    monkeypatch.setattr(models, "_shared", lambda texts: 0)
    each = batch_of(lm, rows, objective)
    assert "beginning" in once["model"] and "beginning" not in each["model"]
    loss_of = OBJECTIVES[objective].loss
    found, wanted = (gradient(loss_of(score(lm.model, batch)), lm.model) for batch in (once, each))
    assert (found - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.filterwarnings("ignore:.*path by path:UserWarning")
def test_a_model_that_is_taken_for_plain_is_noticed_and_read_path_by_path(monkeypatch):
    monkeypatch.setattr(models, "_takes_masks", lambda config: True)
    lm, fmt = replace(model_of("LFM2"), model=random_model("LFM2", len(tokenizer()))), raw()
    said = r"LFM2 \(lfm2\): read as 'tree', a text is .* nats off; it is read path by path"
    with pytest.warns(UserWarning, match=said):
        read = tree_passes(lm, fmt, JUDGED)
    for judged, passed in zip(JUDGED, read):
        assert np.allclose(passed.levels, brute_force(lm, judged), atol=2e-4)


def test_a_model_that_cannot_be_read_in_any_way_is_refused(monkeypatch):
    monkeypatch.setattr(models, "_by_brute_force", lambda lm, tree, path: torch.zeros(len(path)))
    lm = replace(model_of("BLOOM"), model=random_model("BLOOM", len(tokenizer())))
    with pytest.raises(ValueError, match="BLOOM .*its confidences cannot be read here. Take another model"):
        tree_passes(lm, raw(), JUDGED)


TRAINED = ["Gemma 3", "LFM2", "Mistral", "gpt-oss", "GPT-2", "Qwen3-Next", "Mamba", "BLOOM"]
TRAINED = [pytest.param(name, marks=() if name in ("Gemma 3", "LFM2") else pytest.mark.slow) for name in TRAINED]


def assert_alike(ours, theirs):
    "Two gradients, to a thousandth of the largest entry, in single precision."
    assert ours.abs().max() > 1e-3
    assert torch.allclose(ours, theirs, atol=1e-3 * theirs.abs().max().item(), rtol=0)


def batch_of(lm, rows, objective):
    "The rows as a batch of their objective, with a reference where it needs one."
    chosen = OBJECTIVES[objective]
    examples = [make_example(raw(), row, chosen.confidences(row, 1)) for row in rows]
    return collate(reference_scores(lm, examples) if chosen.reference else examples, lm)


def gradient(loss, model):
    "Of the loss, all weights in a row."
    weights = list(model.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def trl_loss(trainer_class, config_class, model, texts, folder, **options):
    "The loss of trl's own trainer on all texts, and its gradient; without what it adds for balanced experts."
    from datasets import Dataset

    model = deepcopy(model)
    experts = {"router_aux_loss_coef": 0.0} if hasattr(model.config, "router_aux_loss_coef") else {}

    arguments = config_class(
        output_dir=str(folder),
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        **experts,
        **options.pop("arguments", {}),
    )
    trainer = trainer_class(
        model=model, args=arguments, train_dataset=Dataset.from_list(texts), processing_class=tokenizer(), **options
    )
    rows = [dict(trainer.train_dataset[i]) for i in range(len(texts))]
    batch = {name: value for name, value in trainer.data_collator(rows).items() if isinstance(value, torch.Tensor)}
    loss = trainer.compute_loss(trainer.model.eval(), batch)
    return loss.item(), gradient(loss, model)


@pytest.mark.parametrize("family", TRAINED)
def test_text_loss_and_gradient_are_trls(family, tmp_path):
    from trl import SFTConfig, SFTTrainer

    lm, rows = model_of(family), labelled_rows(JUDGED)
    ours = text_loss(score(lm.model, batch_of(lm, rows, "text")))
    texts = [{"prompt": raw().prompt(r["question"]), "completion": r["output"] + "<end>"} for r in rows]
    theirs, their_gradient = trl_loss(SFTTrainer, SFTConfig, lm.model, texts, tmp_path)
    assert ours.item() == pytest.approx(theirs, abs=2e-6)
    assert_alike(gradient(ours, lm.model), their_gradient)


@pytest.mark.parametrize("family", TRAINED)
def test_preference_loss_and_gradient_are_trls(family, tmp_path):
    from trl import DPOConfig, DPOTrainer

    lm, pairs = model_of(family), preference_pairs(JUDGED)
    batch = batch_of(lm, pairs, "dpo")
    moved = deepcopy(lm.model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.mul_(1 + 0.05 * torch.randn_like(weight))
    ours = dpo_loss(score(moved, batch), beta=0.05)
    texts = [{**t, **{name: t[name] + "<end>" for name in ("chosen", "rejected")}} for t in trl_preferences(pairs)]
    options = {"ref_model": lm.model, "arguments": {"beta": 0.05}}
    theirs, their_gradient = trl_loss(DPOTrainer, DPOConfig, moved, texts, tmp_path, **options)
    assert ours.item() == pytest.approx(theirs, abs=2e-6)
    assert_alike(gradient(ours, moved), their_gradient)
