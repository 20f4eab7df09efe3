"""Recipes: what a reward pays, and a training by reward that moves text towards it."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import small_model, small_tokenizer

from calib_nb.core import Judged, RunFolder
from calib_nb.labels import unlabelled_rows
from calib_nb.methods import (
    LOGGED,
    METHODS,
    RewardTrainer,
    Workbench,
    check_options,
    confidence_reward,
    follow_recipe,
    self_consistency,
    self_consistency_step,
    soft_step,
    train_by_reward,
)
from calib_nb.training import Preset, load_adapter, remove_adapter

JUDGED = [
    Judged("What is the capital of France?", "Paris", True),
    Judged("Capital of Chad?", "Abuja", False),
    Judged("Who?", "x", False),
]
BRIEF = Preset(chat_template=False, lora_r=4, epochs=1, batch_size=3, evaluations=1)


def bench_in(folder, lm, judged=JUDGED, **fields):
    "A bench whose run lies in `folder`, its cache beside it."
    run = RunFolder(folder / "run")
    run.begin()
    return Workbench(lm, judged, BRIEF, 0, run, **fields)


@pytest.mark.parametrize(
    "text, right, reward",
    [
        (" 0", True, 0),
        (" 0", False, 1),
        (" 1", True, 1),
        (" 1.0", False, 0),
        (" 0.25", True, 1 - 0.75**2),
        (" 0.25", False, 1 - 0.25**2),
        (" 0.7\nQuestion: 0.1", True, 1 - 0.3**2),
        (" 90%", True, 1 - 0.1**2),
        ("", True, -2),
        (" very sure", False, -2),
        (" 0.2 or 0.3", False, -2),
        (" 1.5", True, -2),
        (" -0.5", False, -2),
    ],
)
def test_the_reward_is_a_quadratic_score_and_no_number_costs_the_penalty(text, right, reward):
    assert confidence_reward([text], [right], penalty=2) == [pytest.approx(reward, abs=1e-12)]


def test_a_text_without_a_number_never_pays():
    grid = [f"{c / 100}" for c in range(101)]
    paid = confidence_reward(grid * 2, [True] * 101 + [False] * 101)
    assert confidence_reward(["none"], [True], penalty=0.1)[0] < min(paid)


def by_reward(folder, seed=0, measure=lambda lm: {}, **options):
    "A small model trained by reward."
    rows = unlabelled_rows(JUDGED)
    return train_by_reward(small_model(small_tokenizer(True)), rows, BRIEF, seed, folder, measure, **options)


def test_training_by_reward_moves_the_adapter_and_logs_rewards_and_tokens(tmp_path):
    measured = []

    def measure(lm):
        measured.append(lm.model.training)
        return {"calibration_brier": 0.2}

    lm, history = by_reward(tmp_path / "x", measure=measure, generations=4, steps=3)
    logged = [h for h in history if "loss" in h]
    assert [h["step"] for h in logged] == [1, 2, 3] and all(-1 <= h["reward"] <= 1 for h in logged)
    assert set().union(*logged) <= set(LOGGED) and "train_runtime" in history[-1]
    assert measured == [False] and [h["step"] for h in history if "calibration_brier" in h] == [3]
    assert history[-1]["tokens"] > 3 * 3 * 4 * 30, "three updates of three prompts, four texts each"
    moved = [p.abs().max() > 0 for n, p in lm.model.named_parameters() if "lora_B" in n]
    assert any(moved) and list(lm.model.peft_config) == ["default"]
    assert not list((tmp_path / "x").rglob("*.safetensors")), "no checkpoints"


def test_training_by_reward_is_moved_by_the_seed_alone(tmp_path):
    def weights(seed):
        lm, _ = by_reward(tmp_path, seed, generations=4, steps=2)
        return torch.cat([p.flatten() for n, p in lm.model.named_parameters() if "lora_" in n])

    first = weights(0)
    assert torch.equal(first, weights(0)) and not torch.equal(first, weights(1))


def test_a_pull_to_the_base_model_leaves_one_adapter(tmp_path):
    lm, history = by_reward(tmp_path, generations=2, steps=1, beta=0.1)
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
    [(prompts, texts, ends)] = seen
    expected = {tuple(fmt.encode(fmt.response(j.question, j.model_answer))) for j in JUDGED}
    assert {tuple(p) for p in prompts} == expected and len(prompts) == 6
    assert all(len(t) <= 12 and not set(t[:-1]) & set(ends) for t in texts) and set(ends) == set(lm.stop_tokens)


def test_a_trained_reward_adapter_comes_from_the_cache_the_second_time(tmp_path):
    bench = bench_in(tmp_path, small_model(small_tokenizer(True)))
    first = follow_recipe("grpo", bench, generations=2, steps=1)
    [kept] = (tmp_path / "cache").glob("adapter-*")
    made = (kept / "training.json").stat().st_mtime_ns
    again = follow_recipe("grpo", replace(bench, lm=remove_adapter(first.lm)), generations=2, steps=1)
    assert (kept / "training.json").stat().st_mtime_ns == made
    assert again.trainings[0]["history"] == first.trainings[0]["history"]
    assert (first.trainings[0]["from_cache"], again.trainings[0]["from_cache"]) == (False, True)
    assert again.trainings[0]["seconds"] == first.trainings[0]["seconds"] > 0, "the time that training took"
    other = follow_recipe("grpo", replace(bench, lm=remove_adapter(again.lm)), generations=2, steps=1, penalty=3.0)
    assert len(list((tmp_path / "cache").glob("adapter-*"))) == 2 and not other.trainings[0]["from_cache"]
    assert load_adapter(remove_adapter(other.lm), kept).model.peft_config


def test_the_runs_folder_gets_rows_adapter_and_how_they_were_made(tmp_path):
    bench = bench_in(tmp_path, small_model(small_tokenizer(True)))
    done = follow_recipe("sft", bench)
    stages = bench.folder.manifest["stages"]
    assert list(stages) == ["labels", "training"] and stages["training"]["key"] == done.trainings[0]["key"]
    assert {"seconds", "cpu_seconds", "tokens", "from_cache"} <= set(stages["training"])
    assert (bench.folder.path / "adapter/adapter_model.safetensors").exists()
    assert [row["label"] for row in bench.folder.labels] == [0.9, 0.1, 0.1]
    elsewhere = bench_in(tmp_path / "moved", remove_adapter(done.lm))
    (tmp_path / "moved/run").mkdir(parents=True)
    (bench.folder.path / "adapter").rename(tmp_path / "moved/run/adapter")
    assert follow_recipe("sft", elsewhere).trainings[0]["from_cache"], "found in the folder, though its cache is empty"


def test_consistency_needs_no_label_leaves_out_what_is_empty_and_is_read_once(tmp_path, monkeypatch):
    bench = bench_in(tmp_path, small_model(small_tokenizer(True)), [*JUDGED, Judged("What is nothing?", "", False)])
    answers, shares = self_consistency(bench)
    assert answers == JUDGED and shares.shape == (3,)
    assert np.all(shares * 10 == np.round(shares * 10)) and shares.max() <= 1
    turned = [replace(j, is_correct=not j.is_correct, answers=["other"]) for j in bench.judged]
    monkeypatch.setattr("calib_nb.core.Kept.make", lambda *args: pytest.fail("read again"))
    assert np.array_equal(self_consistency(replace(bench, judged=turned))[1], shares)


def test_labels_from_consistency_are_recalibrated_or_aimed_at_as_they_are(tmp_path, monkeypatch):
    shares = np.array([1.0, 0.2, 0.1])
    monkeypatch.setattr("calib_nb.methods.self_consistency", lambda bench: (bench.judged, shares))
    bench = bench_in(tmp_path, None, decimals=2)
    written = [r["label"] for r in self_consistency_step(bench, "platt").rows]
    assert written[0] > max(written[1:]) and all(0 < c < 1 and round(c, 2) == c for c in written)
    assert [r["label"] for r in soft_step(bench, 20, "self_consistency").rows] == [1.0, 0.2, 0.1]
    with pytest.raises(ValueError, match="unknown centre 'consistancy'. Did you mean 'self_consistency'"):
        soft_step(bench, 20, "consistancy")
    with pytest.raises(ValueError, match="unknown centre 'consistency'. It is called 'self_consistency' since"):
        soft_step(bench, 20, "consistency")


def test_options_of_grpo_are_named():
    known = {"penalty": 1.0, "generations": 8, "steps": None, "epochs": None, "temperature": 1.0, "beta": 0.0}
    assert METHODS["grpo"].options == known
    with pytest.raises(ValueError, match="Did you mean 'penalty'"):
        check_options("grpo", {"penlty": 2})


@pytest.mark.slow
def test_grpo_end_to_end_on_the_embedded_model(tmp_path):
    from calib_nb.core import finished_run
    from calib_nb.experiment import run_method

    few = dict(n_train=8, n_calibration=4, n_test=8, out=str(tmp_path))
    run = finished_run(run_method(method="grpo", **few, options={"steps": 2, "generations": 2}))
    history = run.manifest["history"]
    assert [h["step"] for h in history if "reward" in h] == [1, 2] and [h for h in history if "calibration_brier" in h]
    assert run.manifest["stages"]["training"]["tokens"] > 500 and run.manifest["weight_shift"]["relative"] > 0
