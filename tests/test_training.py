"""The losses are trl's losses; the auxiliary loss has the gradient it should; an adapter comes back as it was and fits no other model."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import small_model, small_tokenizer

from calib_nb.core import Judged
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
    soft_label_loss,
    text_loss,
    train,
)

JUDGED = [Judged("What is the capital of France?", "Paris", True), Judged("What is the symbol for gold?", "Au", True), Judged("Capital of Chad?", "Abuja in the north", False),
          Judged("Who?", "x", False)]


def adapted(preset=PRESETS["paper"], seed=0):
    "A small model whose adapter is not the identity, in fp32 without dropout."
    lm = add_adapter(small_model(small_tokenizer(False)), preset, seed, dropout=0.0)
    torch.manual_seed(1)
    for name, p in lm.model.named_parameters():
        if "lora_B" in name:
            p.data = 0.1 * torch.randn_like(p)
    return lm


def gradient(lm):
    "All gradients of the adapter in one vector; then none."
    g = torch.cat([p.grad.flatten() for p in lm.model.parameters() if p.requires_grad])
    lm.model.zero_grad()
    return g


def trl_config(cls, folder, **kwargs):
    return cls(output_dir=str(folder), report_to="none", use_cpu=True, bf16=False, per_device_train_batch_size=4, gradient_accumulation_steps=1, **kwargs)


@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_text_loss_and_gradient_equal_trl(tmp_path, loss_on):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    lm = adapted()
    fmt, rows = TextFormat(lm.tokenizer, chat_template=False), labelled_rows(JUDGED)
    ours = text_loss(score(lm.model, collate([make_example(fmt, r, [f"{r['label']:.1f}"], loss_on) for r in rows], lm)))
    ours.backward()
    expected = gradient(lm)
    text = [{"prompt": fmt.prompt(r["question"]), "completion": r["output"] + fmt.terminator} for r in rows]
    data = Dataset.from_list(text if loss_on == "completion" else [{"text": t["prompt"] + t["completion"]} for t in text])
    trainer = SFTTrainer(model=lm.model, args=trl_config(SFTConfig, tmp_path, max_length=None), train_dataset=data, processing_class=lm.tokenizer)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    batch = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4)
    assert torch.allclose(expected, gradient(lm), atol=1e-4)


def test_dpo_loss_and_gradient_equal_trl(tmp_path):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    lm, beta = adapted(), 0.3
    fmt, pairs = TextFormat(lm.tokenizer, chat_template=False), preference_pairs(JUDGED)
    examples = [make_example(fmt, p, OBJECTIVES["dpo"].confidences(p, 1)) for p in pairs]
    ours = dpo_loss(score(lm.model, collate(reference_scores(lm, examples), lm)), beta)
    ours.backward()
    expected = gradient(lm)
    data = Dataset.from_list([{**t, "chosen": t["chosen"] + "<end>", "rejected": t["rejected"] + "<end>"} for t in trl_preferences(pairs)])
    # given a model that has an adapter, trl takes that adapter for the reference; so it makes its own, which then gets our weights
    trainer = DPOTrainer(model=small_model(lm.tokenizer).model, args=trl_config(DPOConfig, tmp_path, beta=beta, max_length=None), train_dataset=data, processing_class=lm.tokenizer,
                         peft_config=lm.model.peft_config["default"])
    trainer.model.load_state_dict(lm.model.state_dict())
    trainer.model.eval()
    batch = trainer.data_collator([{k: v for k, v in trainer.train_dataset[i].items()} for i in range(4)])
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4)
    assert torch.allclose(expected, gradient(replace(lm, model=trainer.model)), atol=1e-4) and expected.abs().max() > 1e-3


def test_implicit_gradient_by_finite_differences():
    lm = adapted()
    fmt = TextFormat(lm.tokenizer, chat_template=False)
    batch = collate([make_example(fmt, r, level_grid()) for r in unlabelled_rows(JUDGED)], lm)
    model = lm.model.double()
    batch["model"]["attention_mask"], batch["correct"] = batch["model"]["attention_mask"].double(), batch["correct"].double()

    def loss():
        return implicit_loss(score(model, batch), weight=2.0)
    loss().backward()
    weight = next(p for n, p in model.named_parameters() if "lora_B" in n)
    for place in [(0, 0), (3, 1), (5, 2)]:
        analytic, step = weight.grad[place].item(), 1e-2  # norms are computed in fp32 whatever the weights: a smaller step drowns in rounding
        values = []
        for sign in (1, -1):
            weight.data[place] += sign * step
            values.append(loss().item())
            weight.data[place] -= sign * step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(analytic, rel=1e-2, abs=1e-5)


def test_auxiliary_loss_is_a_brier_score_of_the_expected_level():
    branches = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.0001, 0.0001, 0.9998]]))
    assert torch.allclose(expected_confidence(branches), torch.tensor([0.375, 0.99985]), atol=1e-5)
    scored = Scored(torch.tensor([-1.0, -3.0]), branches, 0, torch.empty(0), torch.tensor([1.0, 1.0]))
    assert implicit_loss(scored, weight=0.0).item() == 2.0
    assert implicit_loss(scored, weight=1.0).item() == pytest.approx(2.0 + (0.625**2 + 0.00015**2) / 2, abs=1e-5)


def test_branches_cannot_see_each_other():
    lm = adapted()
    fmt, row = TextFormat(lm.tokenizer, chat_template=False), unlabelled_rows(JUDGED)[0]
    with torch.no_grad():
        together = score(lm.model, collate([make_example(fmt, row, ["0.9", "0.1"])], lm)).branches[0]
        alone = [score(lm.model, collate([make_example(fmt, row, [c])], lm)).branches[0, 0] for c in ("0.9", "0.1")]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)


def test_training_is_reproducible_and_moved_by_the_seed(tmp_path):
    rows, preset = labelled_rows(JUDGED), Preset(chat_template=False, lora_r=4, epochs=2, batch_size=2, evaluations=1)

    def weights(seed, folder):
        lm, history = train(small_model(small_tokenizer(False)), rows, "text", preset, seed, tmp_path / folder)
        return torch.cat([p.flatten() for n, p in lm.model.named_parameters() if "lora_" in n]), [h["loss"] for h in history if "loss" in h]
    first, again, other = weights(0, "a"), weights(0, "b"), weights(1, "c")
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert not torch.equal(first[0], other[0])


def test_accumulated_batches_weigh_tokens_not_batches(tmp_path):
    rows = labelled_rows([Judged("Who?", "x", True), Judged("Where?", "a much longer answer, with many more tokens in it than the other", False)])

    def weights(batch_size, accumulation):
        preset = Preset(chat_template=False, lora_r=4, epochs=3, batch_size=batch_size, accumulation=accumulation, evaluations=1)
        lm, _ = train(small_model(small_tokenizer(False)), rows, "text", preset, 0, tmp_path / f"{batch_size}x{accumulation}")
        return torch.cat([p.flatten() for n, p in lm.model.named_parameters() if "lora_" in n])
    assert torch.allclose(weights(2, 1), weights(1, 2), atol=1e-5)


def test_an_interrupted_training_resumes_to_the_same_adapter(tmp_path):
    rows, preset = labelled_rows(JUDGED * 2), Preset(chat_template=False, lora_r=4, epochs=2, batch_size=2, evaluations=4)

    def run(folder, interrupt_at=None):
        calls = []

        def measure(lm):
            calls.append(1)
            if len(calls) == interrupt_at:
                raise KeyboardInterrupt
            return {"calibration_brier": 0.25}
        lm, history = train(small_model(small_tokenizer(False)), rows, "text", preset, 0, folder, measure)
        return torch.cat([p.flatten() for n, p in lm.model.named_parameters() if "lora_" in n]), [h["step"] for h in history if "calibration_brier" in h]
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", interrupt_at=3)
    resumed = run(tmp_path / "cut")
    assert torch.allclose(whole[0], resumed[0], atol=1e-7) and whole[1] == resumed[1]


def test_early_stopping_keeps_the_best_adapter(tmp_path):
    rows, preset = labelled_rows(JUDGED), Preset(chat_template=False, lora_r=4, epochs=4, batch_size=2, evaluations=8)
    scores = iter([0.3, 0.2, 0.25, 0.26, 0.1, 0.1, 0.1, 0.1])
    seen = []

    def measure(lm):
        seen.append(torch.cat([p.detach().clone().flatten() for n, p in lm.model.named_parameters() if "lora_" in n]))
        return {"calibration_brier": next(scores)}
    lm, history = train(small_model(small_tokenizer(False)), rows, "text", preset, 0, tmp_path, measure, patience=2)
    assert len(seen) == 4, "stopped after two evaluations without improvement"
    assert torch.equal(torch.cat([p.flatten() for n, p in lm.model.named_parameters() if "lora_" in n]), seen[1])


def test_adapter_comes_back_as_it_was_and_is_refused_by_another_model(tmp_path):
    lm = adapted()
    fmt = TextFormat(lm.tokenizer, chat_template=False)
    batch = collate([make_example(fmt, r, level_grid()) for r in unlabelled_rows(JUDGED)], lm)
    with torch.no_grad():
        before = score(lm.model, batch).branches
        save_adapter(lm, tmp_path / "adapter")
        base = remove_adapter(lm)
        after = score(load_adapter(small_model(small_tokenizer(False)), tmp_path / "adapter").model, batch).branches
        assert torch.equal(before, after) and not torch.equal(before, score(base.model, batch).branches)
    assert {f.suffix for f in (tmp_path / "adapter").iterdir()} <= {".safetensors", ".json", ".md"}
    with pytest.raises(ValueError, match="was trained on small .small-0., not on small .small-1."):
        load_adapter(small_model(small_tokenizer(False), seed=1), tmp_path / "adapter")


def test_a_text_that_is_too_long_is_an_error():
    fmt = TextFormat(small_tokenizer(False), chat_template=False)
    with pytest.raises(ValueError, match="question 'Who.': .* tokens, the preset allows 20"):
        make_example(fmt, unlabelled_rows(JUDGED)[3], ["0.9"], max_length=20)


@pytest.mark.slow
def test_nf4_gradients_on_a_cpu_are_those_of_the_dequantised_model_even_after_reading():
    from bitsandbytes.functional import dequantize_4bit

    from calib_nb.models import load_model
    quantised = load_model("smollm2-135m", quantization="nf4")
    fmt, rows = TextFormat(quantised.tokenizer), labelled_rows(JUDGED)
    batch = collate([make_example(fmt, r, ["0.9"]) for r in rows], quantised)
    with torch.no_grad():
        score(quantised.model.eval(), batch)  # reading first, as a run does
    dense = load_model("smollm2-135m")
    for name, layer in dense.model.named_modules():
        if isinstance(layer, torch.nn.Linear) and "lm_head" not in name:
            weight = quantised.model.get_submodule(name).weight
            layer.weight.data = dequantize_4bit(weight, weight.quant_state).float()
    gradients = []
    for lm in (quantised, dense):
        lm = add_adapter(lm, PRESETS["paper"], 0, dropout=0.0)
        lm.model.train()
        text_loss(score(lm.model, batch)).backward()
        gradients.append({n: p.grad for n, p in lm.model.named_parameters() if p.requires_grad and "lora_B" in n})
    for name, g in gradients[0].items():
        assert torch.allclose(g, gradients[1][name], rtol=1e-2, atol=1e-3 * gradients[1][name].abs().max().item()), name


@pytest.mark.slow
def test_nf4_trains_on_a_cpu_with_adapters_in_fp32(tmp_path):
    from calib_nb.models import load_model

    lm = load_model("smollm2-135m", quantization="nf4")
    preset = replace(PRESETS["paper"], epochs=1, batch_size=4, accumulation=1, evaluations=1)
    before = {n: p.detach().clone() for n, p in add_adapter(lm, preset, 0).model.named_parameters() if p.requires_grad}
    lm, history = train(remove_adapter(load_model("smollm2-135m", quantization="nf4")), labelled_rows(JUDGED), "text", preset, 0, tmp_path)
    after = {n: p for n, p in lm.model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in after.values()) and any("4bit" in type(m).__name__.lower() for m in lm.model.modules())
    assert [h["loss"] for h in history if "loss" in h]
    assert before.keys() == after.keys()


def test_proper_scores_equal_their_formulas_and_their_least_loss_is_at_the_truth():
    rng = np.random.default_rng(0)
    p, y, label = rng.dirichlet(np.ones(11), 5) * 0.8, rng.integers(0, 2, 5), rng.random(5)
    grid, q, mass = np.linspace(0, 1, 11), p / p.sum(1, keepdims=True), p.sum(1)
    scored = Scored(torch.empty(0), torch.log(torch.tensor(p)), 0, torch.empty(0), torch.tensor(y, dtype=torch.float64), torch.tensor(label))
    c = np.clip(q @ grid, 0.01, 0.99)
    assert brier_loss(scored, format_weight=0.5).item() == pytest.approx(np.mean([sum(q[i] * (grid - y[i]) ** 2) for i in range(5)]) - 0.5 * np.log(mass).mean(), abs=1e-9)
    assert log_score_loss(scored, format_weight=0).item() == pytest.approx(-np.mean(y * np.log(c) + (1 - y) * np.log(1 - c)), abs=1e-6)
    target = np.exp(-((grid - label[:, None]) ** 2) / (2 * 0.2**2))
    target /= target.sum(1, keepdims=True)
    assert soft_label_loss(scored, width=0.2).item() == pytest.approx(-np.mean((target * np.log(p)).sum(1)), abs=1e-6)
    with pytest.raises(ValueError, match="need a label in each row"):
        soft_label_loss(replace(scored, label=torch.full((5,), float("nan"))))
