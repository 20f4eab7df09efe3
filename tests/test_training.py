"The losses are trl's, the auxiliary loss has the right gradient, an adapter comes back as it was and fits no other."
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import small_model, small_tokenizer

from calib_nb import training
from calib_nb.core import Judged, read_json
from calib_nb.labels import (
    labelled_rows,
    preference_pairs,
    trl_preferences,
    unlabelled_rows,
)
from calib_nb.models import TextFormat
from calib_nb.prompts import level_grid
from calib_nb.training import (
    OBJECTIVES,
    PRESETS,
    Preset,
    Scored,
    add_adapter,
    answer_example,
    brier_loss,
    collate,
    dpo_loss,
    expected_confidence,
    implicit_loss,
    load_adapter,
    log_score_loss,
    make_example,
    reference_scores,
    remove_adapter,
    save_adapter,
    score,
    sequence_likelihood_loss,
    soft_label_loss,
    text_loss,
    train,
)

JUDGED = [
    Judged("What is the capital of France?", "Paris", True),
    Judged("What is the symbol for gold?", "Au", True),
    Judged("Capital of Chad?", "Abuja in the north", False),
    Judged("Who?", "x", False),
]
BRIEF = Preset(chat_template=False, lora_r=4, epochs=2, batch_size=2, evaluations=1)


def adapted(preset=PRESETS["paper"], seed=0):
    "A small model whose adapter is not the identity, in fp32 without dropout."
    lm = add_adapter(small_model(small_tokenizer(False)), preset, seed, dropout=0.0)
    torch.manual_seed(1)
    for name, p in lm.model.named_parameters():
        if "lora_B" in name:
            p.data = 0.1 * torch.randn_like(p)
    return lm


def plain_format(lm):
    return TextFormat(lm.tokenizer, chat_template=False)


def batch_of(lm, rows, confidences, loss_on="completion"):  # row -> texts of confidences
    fmt = plain_format(lm)
    return collate([make_example(fmt, row, confidences(row), loss_on) for row in rows], lm)


def its_label(row):
    return [f"{row['label']:.1f}"]


def every_level(row):
    return level_grid()


def gradient(lm):
    "All gradients of the adapter in one vector; then none."
    g = torch.cat([p.grad.flatten() for p in lm.model.parameters() if p.requires_grad])
    lm.model.zero_grad()
    return g


def adapter_weights(lm):
    "A copy of the adapter in one vector."
    return torch.cat([p.detach().clone().flatten() for n, p in lm.model.named_parameters() if "lora_" in n])


def train_small(rows, preset, folder, seed=0, **how):
    "`train` a fresh small model on text."
    return train(small_model(small_tokenizer(False)), rows, "text", preset, seed, folder, **how)


def losses(history):
    return [entry["loss"] for entry in history if "loss" in entry]


def trl_config(cls, folder, **kwargs):
    return cls(
        output_dir=str(folder),
        report_to="none",
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_length=None,
        **kwargs,
    )


def trl_loss(trainer):
    "The loss of trl's own trainer on all four rows."
    batch = trainer.data_collator([dict(trainer.train_dataset[i]) for i in range(4)])
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    return trainer.compute_loss(trainer.model, tensors)


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_text_loss_and_gradient_equal_trl(tmp_path, loss_on):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    lm, rows = adapted(), labelled_rows(JUDGED)
    ours = text_loss(score(lm.model, batch_of(lm, rows, its_label, loss_on)))
    ours.backward()
    our_gradient = gradient(lm)

    fmt = plain_format(lm)
    texts = [{"prompt": fmt.prompt(r["question"]), "completion": r["output"] + fmt.terminator} for r in rows]
    if loss_on == "all":
        texts = [{"text": t["prompt"] + t["completion"]} for t in texts]
    theirs = trl_loss(
        SFTTrainer(
            model=lm.model,
            args=trl_config(SFTConfig, tmp_path),
            train_dataset=Dataset.from_list(texts),
            processing_class=lm.tokenizer,
        )
    )
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4)
    assert torch.allclose(our_gradient, gradient(lm), atol=1e-4)


def trl_dpo_trainer(lm, pairs, beta, folder):
    """trl's trainer with the adapter of `lm`.

    Given a model that has an adapter, trl takes that for the reference; so it makes its own, which gets our weights."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    texts = [
        {**t, "chosen": t["chosen"] + "<end>", "rejected": t["rejected"] + "<end>"} for t in trl_preferences(pairs)
    ]
    trainer = DPOTrainer(
        model=small_model(lm.tokenizer).model,
        args=trl_config(DPOConfig, folder, beta=beta),
        train_dataset=Dataset.from_list(texts),
        processing_class=lm.tokenizer,
        peft_config=lm.model.peft_config["default"],
    )
    trainer.model.load_state_dict(lm.model.state_dict())
    trainer.model.eval()
    return trainer


def test_dpo_loss_and_gradient_equal_trl(tmp_path):
    lm, beta = adapted(), 0.3
    fmt, pairs = plain_format(lm), preference_pairs(JUDGED)
    examples = [make_example(fmt, p, OBJECTIVES["dpo"].confidences(p, 1)) for p in pairs]
    ours = dpo_loss(score(lm.model, collate(reference_scores(lm, examples), lm)), beta)
    ours.backward()
    our_gradient = gradient(lm)

    trainer = trl_dpo_trainer(lm, pairs, beta, tmp_path)
    theirs = trl_loss(trainer)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4)
    assert torch.allclose(our_gradient, gradient(replace(lm, model=trainer.model)), atol=1e-4)
    assert our_gradient.abs().max() > 1e-3


def test_implicit_gradient_by_finite_differences():
    lm = adapted()
    batch = batch_of(lm, unlabelled_rows(JUDGED), every_level)
    model = lm.model.double()
    batch["model"]["attention_mask"] = batch["model"]["attention_mask"].double()
    batch["correct"] = batch["correct"].double()

    def loss():
        return implicit_loss(score(model, batch), weight=2.0)

    loss().backward()
    weight = next(p for n, p in model.named_parameters() if "lora_B" in n)
    step = 1e-2  # norms are computed in fp32 whatever the weights: a smaller step drowns in rounding
    for place in [(0, 0), (3, 1), (5, 2)]:
        values = []
        for sign in (1, -1):
            weight.data[place] += sign * step
            values.append(loss().item())
            weight.data[place] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(weight.grad[place].item(), rel=1e-2, abs=1e-5)


def test_auxiliary_loss_is_a_brier_score_of_the_expected_confidence():
    branches = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.0001, 0.0001, 0.9998]]))
    assert torch.allclose(expected_confidence(branches), torch.tensor([0.375, 0.99985]), atol=1e-5)
    scored = Scored(torch.tensor([-1.0, -3.0]), branches, 0, torch.empty(0), torch.tensor([1.0, 1.0]))
    assert implicit_loss(scored, weight=0.0).item() == 2.0
    assert implicit_loss(scored, weight=1.0).item() == pytest.approx(2.0 + (0.625**2 + 0.00015**2) / 2, abs=1e-5)


def in_double_precision(lm):
    "The same weights with twice the digits, so that two ways to the same number can be told from two numbers."
    return replace(lm, model=lm.model.double())


def plain_sequence_likelihood(lm, fmt, judged, weight, as_original):
    "The loss from ordinary forward passes, one text at a time, without padding, trees or masks."
    nll, tokens, squared = 0, 0, []
    for j in judged:
        lead = "" if fmt.tokenizer.chat_template else " "
        start = len(fmt.encode(fmt.answer_prompt(j.question)))
        ids = torch.tensor(fmt.encode(fmt.answer_prompt(j.question) + lead + j.model_answer))
        logp = lm.model(ids[None]).logits[0].log_softmax(-1)
        following = logp[:-1].gather(1, ids[1:, None])[:, 0]  # place t says what the chance of token t + 1 is
        own = logp.gather(1, ids[:, None])[:, 0]  # of the token that is there already
        answer = following[start - 1 :]
        text, path = (following, own) if as_original else (answer, answer)
        nll, tokens = nll - text.sum(), tokens + len(text)
        squared.append((path.mean().exp() - float(j.is_correct)) ** 2)
    return nll / tokens + weight * torch.stack(squared).mean()


@pytest.mark.parametrize("as_original", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.1, 10.0])
def test_sequence_likelihood_equals_a_plain_implementation(as_original, weight):
    lm = in_double_precision(adapted())
    fmt, options = plain_format(lm), dict(weight=weight, as_original=as_original)
    examples = [answer_example(fmt, row, BRIEF, **options) for row in unlabelled_rows(JUDGED)]
    ours = sequence_likelihood_loss(score(lm.model, collate(examples, lm)), **options)
    ours.backward()
    our_gradient = gradient(lm)
    plain = plain_sequence_likelihood(lm, fmt, JUDGED, weight, as_original)
    plain.backward()
    their_gradient = gradient(lm)
    assert ours.item() == pytest.approx(plain.item(), abs=1e-6)
    assert torch.allclose(our_gradient, their_gradient, rtol=0, atol=1e-6) and our_gradient.abs().max() > 1e-2


@pytest.mark.parametrize("merging", [False, True])
def test_what_is_trained_is_what_normalized_probability_reads(merging):
    from calib_nb.readout import read_normalized_probability

    lm = small_model(small_tokenizer(merging))
    fmt = plain_format(lm)
    examples = [answer_example(fmt, row, BRIEF) for row in unlabelled_rows(JUDGED)]
    with torch.no_grad():
        scored = score(lm.model, collate(examples, lm))
    p = (scored.branches / scored.branch_lengths).exp()[:, 0].tolist()
    read = read_normalized_probability(lm, fmt, JUDGED, [])
    assert p == pytest.approx([c.value for c in read], rel=1e-4)
    assert scored.branch_lengths[:, 0].tolist() == [c.extra["tokens"] for c in read]


def test_the_weights_are_ours_and_the_originals_unless_they_are_given():
    scored = Scored(
        text=torch.tensor([-1.0, -3.0]),
        branches=torch.tensor([[-2 * np.log(2)]]),
        branch_tokens=2,
        reference=torch.empty(0),
        correct=torch.zeros(1),
        branch_lengths=torch.tensor([[2]]),
    )
    whole_text = (1 + 3 + 2 * np.log(2)) / 4
    assert sequence_likelihood_loss(scored).item() == pytest.approx(whole_text + 30 * 0.5**2)
    assert sequence_likelihood_loss(scored, weight=2.0).item() == pytest.approx(whole_text + 2 * 0.5**2)
    assert sequence_likelihood_loss(scored, as_original=True).item() == pytest.approx(2 + 0.1 * 0.5**2)
    assert sequence_likelihood_loss(scored, 3.0, True).item() == pytest.approx(2 + 3 * 0.5**2)


def test_an_answer_that_is_empty_or_too_long_cannot_be_trained_by_its_likelihood():
    fmt = TextFormat(small_tokenizer(False), chat_template=False)
    [row] = unlabelled_rows([Judged("Who?", "", False)])
    with pytest.raises(ValueError, match="question 'Who.': an empty answer has no probability"):
        answer_example(fmt, row, BRIEF)
    with pytest.raises(ValueError, match="tokens, the preset allows 20"):
        answer_example(fmt, {**row, "answer": "a"}, replace(BRIEF, max_length=20))


def test_the_prompt_is_part_of_the_loss_where_the_preset_says_so_and_never_of_the_probability():
    fmt = TextFormat(small_tokenizer(False), chat_template=False)
    [row] = unlabelled_rows(JUDGED[:1])
    answer = answer_example(fmt, row, BRIEF)
    whole = answer_example(fmt, row, replace(BRIEF, loss_on="all"))
    assert answer.scored == 0 and whole.scored == len(whole.tree.prefix) - 1
    assert answer.tree == whole.tree


def test_the_repositorys_preset_is_the_documents_but_for_quantisation_and_adapter():
    differ = dict(quantization=None, lora_r=16, lora_alpha=32)
    assert PRESETS["repository"] == replace(PRESETS["paper"], **differ)
    assert (PRESETS["paper"].quantization, PRESETS["paper"].lora_r, PRESETS["paper"].lora_alpha) == ("nf4", 64, 16)
    assert not PRESETS["repository"].chat_template and PRESETS["repository"].loss_on == "all"


@pytest.mark.long
def test_sequence_likelihood_tells_right_from_wrong_and_the_originals_form_does_not(tmp_path, embedded):
    "24 answers: how much further right ones are above wrong ones than before, in the mean probability that is read."
    from calib_nb.experiment import Run
    from calib_nb.readout import read_normalized_probability

    asked = Run(n_train=24, n_calibration=4, n_test=4, out=str(tmp_path)).of("train")
    fmt, right = TextFormat(embedded.tokenizer), np.array([j.is_correct for j in asked])

    def gap(lm):
        p = np.array([c.value for c in read_normalized_probability(lm, fmt, asked, [])])
        return p[right].mean() - p[~right].mean()

    before, gained = gap(embedded), {}
    preset = Preset(epochs=3, evaluations=1)
    for as_original in (False, True):
        how = dict(seed=0, folder=tmp_path / str(as_original), as_original=as_original)
        lm, _ = train(embedded, unlabelled_rows(asked), "sequence_likelihood", preset, **how)
        gained[as_original] = gap(lm) - before
        remove_adapter(lm)
    assert gained[False] > 0.1 > abs(gained[True])


def test_proper_scores_equal_their_formulas_and_their_least_loss_is_at_the_truth():
    rng = np.random.default_rng(0)
    p, y, label = rng.dirichlet(np.ones(11), 5) * 0.8, rng.integers(0, 2, 5), rng.random(5)
    correct = torch.tensor(y, dtype=torch.float64)
    scored = Scored(torch.empty(0), torch.log(torch.tensor(p)), 0, torch.empty(0), correct, torch.tensor(label))
    grid = np.linspace(0, 1, 11)
    mass = p.sum(1)
    q = p / p.sum(1, keepdims=True)

    brier = np.mean([sum(q[i] * (grid - y[i]) ** 2) for i in range(5)])
    off_grid = -np.log(mass).mean()
    assert brier_loss(scored, format_weight=0.5).item() == pytest.approx(brier + 0.5 * off_grid, abs=1e-9)

    c = np.clip(q @ grid, 0.01, 0.99)
    log_score = -np.mean(y * np.log(c) + (1 - y) * np.log(1 - c))
    assert log_score_loss(scored, format_weight=0).item() == pytest.approx(log_score, abs=1e-6)

    target = np.exp(-((grid - label[:, None]) ** 2) / (2 * 0.2**2))
    target /= target.sum(1, keepdims=True)
    cross_entropy = -np.mean((target * np.log(p)).sum(1))
    assert soft_label_loss(scored, width=0.2).item() == pytest.approx(cross_entropy, abs=1e-6)


def test_soft_labels_without_a_label_are_an_error():
    no_label = torch.full((2,), float("nan"))
    scored = Scored(torch.empty(0), torch.zeros(2, 3), 0, torch.empty(0), torch.ones(2), no_label)
    with pytest.raises(ValueError, match="need a label in each row"):
        soft_label_loss(scored)


def test_branches_cannot_see_each_other():
    lm = adapted()
    row = unlabelled_rows(JUDGED)[:1]
    with torch.no_grad():
        together = score(lm.model, batch_of(lm, row, lambda r: ["0.9", "0.1"])).branches[0]
        high = score(lm.model, batch_of(lm, row, lambda r: ["0.9"])).branches[0, 0]
        low = score(lm.model, batch_of(lm, row, lambda r: ["0.1"])).branches[0, 0]
    assert torch.allclose(together, torch.stack([high, low]), atol=1e-5)


@pytest.mark.slow
def test_training_is_reproducible_and_moved_by_the_seed(tmp_path):
    rows = labelled_rows(JUDGED)
    first, first_log = train_small(rows, BRIEF, tmp_path / "a")
    again, again_log = train_small(rows, BRIEF, tmp_path / "b")
    other, _ = train_small(rows, BRIEF, tmp_path / "c", seed=1)
    assert torch.equal(adapter_weights(first), adapter_weights(again))
    assert losses(first_log) == losses(again_log)
    assert not torch.equal(adapter_weights(first), adapter_weights(other))


@pytest.mark.slow
def test_accumulated_batches_weigh_tokens_not_batches(tmp_path):
    long = "a much longer answer, with many more tokens in it than the other"
    rows = labelled_rows([Judged("Who?", "x", True), Judged("Where?", long, False)])
    whole, _ = train_small(rows, replace(BRIEF, epochs=3, batch_size=2), tmp_path / "whole")
    halves, _ = train_small(rows, replace(BRIEF, epochs=3, batch_size=1, accumulation=2), tmp_path / "halves")
    assert torch.allclose(adapter_weights(whole), adapter_weights(halves), atol=1e-5)


@pytest.mark.slow
def test_an_interrupted_training_resumes_to_the_same_adapter(tmp_path):
    rows, preset = labelled_rows(JUDGED * 2), replace(BRIEF, evaluations=4)

    def run(folder, interrupt_at=None):
        calls = []

        def measure(lm):
            calls.append(1)
            if len(calls) == interrupt_at:
                raise KeyboardInterrupt
            return {"calibration_brier": 0.25}

        lm, history = train_small(rows, preset, folder, evaluate_model=measure)
        return adapter_weights(lm), [entry["step"] for entry in history if "calibration_brier" in entry]

    weights, steps = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", interrupt_at=3)
    resumed_weights, resumed_steps = run(tmp_path / "cut")
    assert torch.allclose(weights, resumed_weights, atol=1e-7)
    assert steps == resumed_steps


def test_early_stopping_keeps_the_best_adapter(tmp_path):
    scores = iter([0.3, 0.2, 0.25, 0.26, 0.1, 0.1, 0.1, 0.1])
    seen = []

    def measure(lm):
        seen.append(adapter_weights(lm))
        return {"calibration_brier": next(scores)}

    preset = replace(BRIEF, epochs=4, evaluations=8)
    lm, _ = train_small(labelled_rows(JUDGED), preset, tmp_path, evaluate_model=measure, patience=2)
    assert len(seen) == 4, "stopped after two evaluations without improvement"
    assert torch.equal(adapter_weights(lm), seen[1])


def test_adapter_comes_back_as_it_was_and_is_refused_by_another_model(tmp_path):
    lm, folder = adapted(), tmp_path / "adapter"
    batch = batch_of(lm, unlabelled_rows(JUDGED), every_level)
    with torch.no_grad():
        before = score(lm.model, batch).branches
        save_adapter(lm, folder)
        base = score(remove_adapter(lm).model, batch).branches
        after = score(load_adapter(small_model(small_tokenizer(False)), folder).model, batch).branches
    assert torch.equal(before, after)
    assert not torch.equal(before, base)
    assert {f.suffix for f in folder.iterdir()} <= {".safetensors", ".json", ".md"}
    with pytest.raises(ValueError, match="was trained on small .small-0., not on small .small-1."):
        load_adapter(small_model(small_tokenizer(False), seed=1), folder)


def test_a_second_adapter_on_top_of_one_is_refused():
    with pytest.raises(ValueError, match="has an adapter already"):
        add_adapter(adapted(), PRESETS["paper"], seed=0)


def test_a_text_that_is_too_long_is_an_error():
    fmt = TextFormat(small_tokenizer(False), chat_template=False)
    with pytest.raises(ValueError, match="question 'Who.': .* tokens, the preset allows 20"):
        make_example(fmt, unlabelled_rows(JUDGED)[3], ["0.9"], max_length=20)


def dequantised(quantised):
    "The embedded model with the weights that `quantised` computes with."
    from bitsandbytes.functional import dequantize_4bit

    from calib_nb.models import load_model

    dense = load_model("smollm2-135m")
    for name, layer in dense.model.named_modules():
        if isinstance(layer, torch.nn.Linear) and "lm_head" not in name:
            weight = quantised.model.get_submodule(name).weight
            layer.weight.data = dequantize_4bit(weight, weight.quant_state).float()
    return dense


def gradients_of_b(lm, batch):
    "name -> gradient of each second matrix of a fresh adapter."
    lm = add_adapter(lm, PRESETS["paper"], 0, dropout=0.0)
    lm.model.train()
    text_loss(score(lm.model, batch)).backward()
    return {n: p.grad for n, p in lm.model.named_parameters() if p.requires_grad and "lora_B" in n}


@pytest.mark.slow
def test_nf4_gradients_on_a_cpu_are_those_of_the_dequantised_model_even_after_reading():
    from calib_nb.models import load_model

    quantised = load_model("smollm2-135m", quantization="nf4")
    fmt = TextFormat(quantised.tokenizer)
    batch = collate([make_example(fmt, r, ["0.9"]) for r in labelled_rows(JUDGED)], quantised)
    with torch.no_grad():
        score(quantised.model.eval(), batch)  # reading first, as a run does
    dense = dequantised(quantised)
    expected = gradients_of_b(dense, batch)
    for name, g in gradients_of_b(quantised, batch).items():
        size = expected[name].abs().max().item()
        assert torch.allclose(g, expected[name], rtol=1e-2, atol=1e-3 * size), name


@pytest.mark.slow
def test_nf4_trains_on_a_cpu_with_adapters_in_fp32(tmp_path):
    from calib_nb.models import load_model

    def quantised():
        return load_model("smollm2-135m", quantization="nf4")

    def trainable(lm):
        return {n: p for n, p in lm.model.named_parameters() if p.requires_grad}

    preset = replace(PRESETS["paper"], epochs=1, batch_size=4, accumulation=1, evaluations=1)
    fresh = trainable(add_adapter(quantised(), preset, 0))
    lm, history = train(quantised(), labelled_rows(JUDGED), "text", preset, 0, tmp_path)
    assert all(p.dtype == torch.float32 for p in trainable(lm).values())
    assert any("4bit" in type(module).__name__.lower() for module in lm.model.modules())
    assert losses(history)
    assert fresh.keys() == trainable(lm).keys()


def train_pairs(cache, folder, preset=BRIEF, **how):
    "Losses and log of a fresh small model's training on preference pairs."
    lm, pairs = small_model(small_tokenizer(False)), preference_pairs(JUDGED)
    _, history = train(lm, pairs, "dpo", preset, 0, folder, cache=cache, **how)
    return losses(history), history


def count_references(monkeypatch):
    "A list that grows with each pass of the base model for a reference."
    calls, read = [], training.reference_scores

    def counted(lm, examples, batch_size=16):
        calls.append(len(examples))
        return read(lm, examples, batch_size)

    monkeypatch.setattr(training, "reference_scores", counted)
    return calls


@pytest.mark.slow
def test_reference_scores_are_read_once_for_all_trainings(tmp_path, monkeypatch):
    calls, cache = count_references(monkeypatch), tmp_path / "cache"
    fresh, _ = train_pairs(None, tmp_path / "a")
    first, _ = train_pairs(cache, tmp_path / "b")
    again, history = train_pairs(cache, tmp_path / "c")
    assert fresh == first == again and len(calls) == 2
    [about] = [read_json(file) for file in cache.glob("reference-*.about.json")]
    assert history[-1]["saved_seconds"] == about["seconds"]
    train_pairs(cache, tmp_path / "d", replace(BRIEF, learning_rate=1e-3, epochs=1), beta=0.5)
    assert len(calls) == 2
    train_pairs(cache, tmp_path / "e", replace(BRIEF, prompt="words", epochs=1))
    assert len(calls) == 3


@pytest.mark.slow
def test_reference_scores_that_were_changed_are_read_again(tmp_path, monkeypatch):
    calls, cache = count_references(monkeypatch), tmp_path / "cache"
    first, _ = train_pairs(cache, tmp_path / "a")
    [file] = cache.glob("reference-*.jsonl")
    file.write_text(file.read_text().replace("-", "-1"))
    again, _ = train_pairs(cache, tmp_path / "b")
    assert again == first and len(calls) == 2
