"""Recipes: what a reward pays, and a training by reward that moves text towards it."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import small_model, small_tokenizer

from calib_nb.core import Judged
from calib_nb.labels import unlabelled_rows
from calib_nb.methods import (
    METHODS,
    RewardTrainer,
    Workbench,
    check_options,
    confidence_reward,
    self_consistency_step,
    follow_recipe,
    self_consistency,
    soft_step,
    train_by_reward,
)
from calib_nb.training import Preset, load_adapter, remove_adapter

JUDGED = [Judged("What is the capital of France?", "Paris", True), Judged("Capital of Chad?", "Abuja", False), Judged("Who?", "x", False)]
BRIEF = Preset(chat_template=False, lora_r=4, epochs=1, batch_size=3, evaluations=1)


@pytest.mark.parametrize("text, right, reward", [
    (" 0", True, 0), (" 0", False, 1), (" 1", True, 1), (" 1.0", False, 0), (" 0.25", True, 1 - 0.75**2), (" 0.25", False, 1 - 0.25**2), (" 0.7\nQuestion: 0.1", True, 1 - 0.3**2),
    (" 90%", True, 1 - 0.1**2), ("", True, -2), (" very sure", False, -2), (" 0.2 or 0.3", False, -2), (" 1.5", True, -2), (" -0.5", False, -2)])
def test_the_reward_is_a_quadratic_score_and_no_number_costs_the_penalty(text, right, reward):
    assert confidence_reward([text], [right], penalty=2) == [pytest.approx(reward, abs=1e-12)]


def test_a_text_without_a_number_never_pays():
    assert confidence_reward(["none"], [True], penalty=0.1)[0] < min(confidence_reward([f"{c / 100}" for c in range(101)] * 2, [True] * 101 + [False] * 101))


def test_training_by_reward_moves_the_adapter_and_logs_rewards_and_tokens(tmp_path):
    measured = []
    lm, history = train_by_reward(small_model(small_tokenizer(True)), unlabelled_rows(JUDGED), BRIEF, 0, tmp_path / "x", lambda lm: measured.append(lm.model.training) or {"calibration_brier": 0.2},
                                  generations=4, steps=3)
    logged = [h for h in history if "loss" in h]
    assert [h["step"] for h in logged] == [1, 2, 3] and all(-1 <= h["reward"] <= 1 for h in logged)
    assert not set().union(*logged) - {"step", "epoch", "loss", "grad_norm", "learning_rate", "reward", "reward_std", "frac_reward_zero_std"} and "train_runtime" in history[-1]
    assert measured == [False] and [h["step"] for h in history if "calibration_brier" in h] == [3]
    assert history[-1]["tokens"] > 3 * 3 * 4 * 30, "three updates of three prompts, four texts each"
    assert any(p.abs().max() > 0 for n, p in lm.model.named_parameters() if "lora_B" in n) and list(lm.model.peft_config) == ["default"]
    assert not list((tmp_path / "x").rglob("*.safetensors")), "no checkpoints"


def test_training_by_reward_is_moved_by_the_seed_alone(tmp_path):
    def weights(seed):
        lm, _ = train_by_reward(small_model(small_tokenizer(True)), unlabelled_rows(JUDGED), BRIEF, seed, tmp_path, generations=4, steps=2)
        return torch.cat([p.flatten() for n, p in lm.model.named_parameters() if "lora_" in n])
    first = weights(0)
    assert torch.equal(first, weights(0)) and not torch.equal(first, weights(1))


def test_a_pull_to_the_base_model_leaves_one_adapter(tmp_path):
    lm, history = train_by_reward(small_model(small_tokenizer(True)), unlabelled_rows(JUDGED), BRIEF, 0, tmp_path, generations=2, steps=1, beta=0.1)
    assert list(lm.model.peft_config) == ["default"] and [h for h in history if "reward" in h]


def test_prompts_are_the_training_text_and_nothing_is_put_before_it(tmp_path, monkeypatch):
    from calib_nb.models import TextFormat
    seen = []
    original = RewardTrainer._generate_single_turn

    def spy(self, prompt_ids, *args, **kwargs):
        ids = original(self, prompt_ids, *args, **kwargs)
        seen.append((prompt_ids, ids[0], self.eos_token_ids))
        return ids
    monkeypatch.setattr(RewardTrainer, "_generate_single_turn", spy)
    lm = small_model(small_tokenizer(True))
    train_by_reward(lm, unlabelled_rows(JUDGED), BRIEF, 0, tmp_path, generations=2, steps=1)
    fmt = TextFormat(lm.tokenizer, False)
    (prompts, texts, ends), = seen
    assert {tuple(p) for p in prompts} == {tuple(fmt.encode(fmt.response(j.question, j.model_answer))) for j in JUDGED} and len(prompts) == 6
    assert all(len(t) <= 12 and not set(t[:-1]) & set(ends) for t in texts) and set(ends) == set(lm.stop_tokens)


def test_a_trained_reward_adapter_comes_from_the_cache_the_second_time(tmp_path):
    bench = Workbench(small_model(small_tokenizer(True)), JUDGED, BRIEF, 0, tmp_path, tmp_path / "cache")
    first = follow_recipe("grpo", bench, generations=2, steps=1)
    kept, = (tmp_path / "cache").iterdir()
    made = (kept / "training.json").stat().st_mtime_ns
    again = follow_recipe("grpo", replace(bench, lm=remove_adapter(first.lm)), generations=2, steps=1)
    assert (kept / "training.json").stat().st_mtime_ns == made and again.history == first.history and again.saved_seconds > 0 and first.saved_seconds == 0
    other = follow_recipe("grpo", replace(bench, lm=remove_adapter(again.lm)), generations=2, steps=1, penalty=3.0)
    assert len(list((tmp_path / "cache").iterdir())) == 2 and other.saved_seconds == 0
    assert load_adapter(remove_adapter(other.lm), kept).model.peft_config


def test_consistency_needs_no_label_leaves_out_what_is_empty_and_is_read_once(tmp_path, monkeypatch):
    lm = small_model(small_tokenizer(True))
    bench = Workbench(lm, [*JUDGED, Judged("What is nothing?", "", False)], BRIEF, 0, tmp_path, tmp_path)
    answers, shares = self_consistency(bench)
    assert answers == JUDGED and shares.shape == (3,) and np.all(shares * 10 == np.round(shares * 10)) and shares.max() <= 1
    turned = [replace(j, is_correct=not j.is_correct, answers=["other"]) for j in bench.judged]
    monkeypatch.setattr("calib_nb.methods.read_confidences", lambda *args, **kwargs: pytest.fail("read again"))
    assert np.array_equal(self_consistency(replace(bench, judged=turned))[1], shares)


def test_labels_from_consistency_are_recalibrated_or_aimed_at_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("calib_nb.methods.self_consistency", lambda bench: (bench.judged, np.array([1.0, 0.2, 0.1])))
    bench = Workbench(None, JUDGED, BRIEF, 0, tmp_path, tmp_path, decimals=2)
    written = [r["label"] for r in self_consistency_step(bench, "platt").rows]
    assert written[0] > max(written[1:]) and all(0 < c < 1 and round(c, 2) == c for c in written)
    assert [r["label"] for r in soft_step(bench, 20, "self_consistency").rows] == [1.0, 0.2, 0.1]
    with pytest.raises(ValueError, match="unknown centre 'consistancy'. Did you mean 'self_consistency'"):
        soft_step(bench, 20, "consistancy")


def test_options_of_grpo_are_named():
    assert METHODS["grpo"].options == {"penalty": 1.0, "generations": 8, "steps": None, "epochs": None, "temperature": 1.0, "beta": 0.0}
    with pytest.raises(ValueError, match="Did you mean 'penalty'"):
        check_options("grpo", {"penlty": 2})


@pytest.mark.slow
def test_grpo_end_to_end_on_the_embedded_model(tmp_path):
    from calib_nb.core import Reading, read_json, read_records
    from calib_nb.experiment import run_method

    folder = run_method(method="grpo", n_train=8, n_calibration=4, n_test=8, out=str(tmp_path), options={"steps": 2, "generations": 2})
    manifest = read_json(folder / "manifest.json")
    assert manifest["complete"] and [h["step"] for h in manifest["history"] if "reward" in h] == [1, 2] and [h for h in manifest["history"] if "calibration_brier" in h]
    assert manifest["stages"]["training"]["tokens"] > 500 and manifest["weight_shift"]["relative"] > 0
    trained, base = (read_records(folder / f"{name}.jsonl", Reading) for name in ("readings", "baseline_readings"))
    assert [r.answer for r in trained] == [r.answer for r in base]
    assert [r.confidence for r in trained if r.readout == "expected"] != [r.confidence for r in base if r.readout == "expected"]
