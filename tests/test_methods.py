"""Recipes: what a reward pays, and a training by reward that moves text towards it."""
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import FEW, small_model, small_tokenizer

from calib_nb.core import Judged, RunFolder, broken
from calib_nb.labels import unlabelled_rows
from calib_nb.methods import (
    LOGGED,
    METHODS,
    RewardTrainer,
    Step,
    Workbench,
    _take_label_step,
    check_options,
    confidence_reward,
    follow_recipe,
    self_consistency,
    self_consistency_step,
    soft_step,
    train_by_reward,
)
from calib_nb.posthoc import CALIBRATORS
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


def label_all(bench):
    "A step: a row for each answer, judged or not."
    return replace(bench, rows=unlabelled_rows([*bench.judged, *bench.unlabelled]))


def test_labels_made_with_other_unlabelled_answers_are_not_taken_from_the_cache(tmp_path):
    found = []
    for n in (3, 1, 0):
        run = RunFolder(tmp_path / f"run{n}")
        run.begin()
        lm = SimpleNamespace(key="m", settings={})
        more = [Judged(f"Question {i}?", "x", False) for i in range(n)]
        bench = Workbench(lm, JUDGED, BRIEF, 0, run, unlabelled=more)
        found.append(len(_take_label_step(bench, Step("all", label_all), {}).rows))
    assert found == [6, 4, 3]


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
    assert not broken(tmp_path / "x/checkpoint-3"), "a whole checkpoint, from which it would go on"


@pytest.mark.slow
def test_training_by_reward_is_moved_by_the_seed_alone(tmp_path):
    def weights(seed, folder):
        lm, _ = by_reward(tmp_path / folder, seed, generations=4, steps=2)
        return torch.cat([p.flatten() for n, p in lm.model.named_parameters() if "lora_" in n])

    first = weights(0, "first")
    assert torch.equal(first, weights(0, "again")) and not torch.equal(first, weights(1, "other"))


def in_epochs(folder, measure=lambda lm: {}, **options):
    "Three epochs of three updates, a checkpoint after each; `(weights, log without times)`."
    preset, rows = replace(BRIEF, epochs=3, batch_size=1, evaluations=9), unlabelled_rows(JUDGED)
    lm, history = train_by_reward(
        small_model(small_tokenizer(True)), rows, preset, 0, folder, measure, generations=4, **options
    )
    weights = torch.cat([p.detach().flatten() for n, p in lm.model.named_parameters() if "lora_" in n])
    times = ("runtime", "per_second", "seconds")
    return weights, [{name: value for name, value in entry.items() if not name.endswith(times)} for entry in history]


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_training_by_reward_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, beta):
    undisturbed = in_epochs(tmp_path / "undisturbed", beta=beta)
    losses = [h["loss"] for h in undisturbed[1] if "loss" in h]
    assert undisturbed[1][-1]["train_loss"] == pytest.approx(np.mean(losses)) and len(losses) == 9

    def stop(lm):
        if next(measured) == 0:
            raise KeyboardInterrupt
        return {}

    for so_many in (5, 2, 2):  # within the second epoch, at its end, within the third
        measured = iter(range(so_many)[::-1])
        with pytest.raises(KeyboardInterrupt):
            in_epochs(tmp_path / "stopped", stop, beta=beta)
    last = max((tmp_path / "stopped").glob("checkpoint-*"), key=lambda p: p.name)
    assert last.name == "checkpoint-6"
    (last / "trainer_state.json").write_text("{")  # torn: the one before is taken
    weights, history = in_epochs(tmp_path / "stopped", beta=beta)
    assert torch.equal(weights, undisturbed[0]) and history == undisturbed[1]


@pytest.mark.slow
def test_a_reward_that_leads_to_no_number_stops_at_the_last_good_checkpoint(tmp_path, capsys):
    def ruin(lm):
        calls.append(1)
        if len(calls) == 3:
            for p in lm.model.parameters():
                p.data.fill_(float("nan"))
        return {}

    calls = []
    weights, history = in_epochs(tmp_path, ruin)
    assert weights.isfinite().all() and history[-1]["step"] == 2
    assert "the adapter is that after update 2" in history[-1]["stopped"] and "stopped" in capsys.readouterr().out


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


@pytest.mark.slow
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


def test_a_longer_list_of_answers_is_sampled_from_where_a_shorter_one_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("calib_nb.methods._AT_ONCE", 2)
    bench = bench_in(tmp_path, small_model(small_tokenizer(True)), JUDGED[:2])
    _, shares = self_consistency(bench)
    [first] = bench.folder.cache.glob("self*.jsonl")
    made = first.stat().st_mtime_ns
    answers, more = self_consistency(replace(bench, judged=JUDGED))
    assert answers == JUDGED and np.array_equal(more[:2], shares)
    assert len([*bench.folder.cache.glob("self*.jsonl")]) == 2 and first.stat().st_mtime_ns == made


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


def test_balanced_labels_are_trained_on_equally_often_and_are_as_many(tmp_path, monkeypatch):
    judged = [Judged(f"Who is {i}?", "x", False) for i in range(11)]
    shares = np.array([1.0] * 8 + [0.5] * 2 + [0.0])
    monkeypatch.setattr("calib_nb.methods.self_consistency", lambda bench: (bench.judged, shares))
    monkeypatch.setitem(CALIBRATORS, "none", lambda confidence, right: np.asarray)
    bench = bench_in(tmp_path, None, judged, decimals=2)
    rows = self_consistency_step(bench, "none", balanced=True).rows
    assert Counter(row["label"] for row in rows) == {0.0: 4, 0.5: 4, 1.0: 3}
    asked = Counter(row["question"] for row in rows)
    assert asked["Who is 10?"] == 4 and asked["Who is 8?"] == asked["Who is 9?"] == 2, "rare ones come again, in turn"
    assert rows == self_consistency_step(bench, "none", balanced=True).rows, "the seed decides which are left out"
    other = self_consistency_step(replace(bench, seed=1), "none", balanced=True).rows
    assert {row["question"] for row in other} != set(asked)


def test_options_of_grpo_are_named():
    known = {"penalty": 1.0, "generations": 8, "steps": None, "epochs": None, "temperature": 1.0, "beta": 0.0}
    assert METHODS["grpo"].options == known
    with pytest.raises(ValueError, match="Did you mean 'penalty'"):
        check_options("grpo", {"penlty": 2})


@pytest.mark.slow
def test_grpo_end_to_end_on_the_embedded_model(runs_folder):
    from calib_nb.core import finished_run
    from calib_nb.experiment import run_method

    few = dict(FEW, out=str(runs_folder))
    run = finished_run(run_method(method="grpo", **few, options={"steps": 2, "generations": 2}))
    history = run.manifest["history"]
    assert [h["step"] for h in history if "reward" in h] == [1, 2] and [h for h in history if "calibration_brier" in h]
    assert run.manifest["stages"]["training"]["tokens"] > 500 and run.manifest["weight_shift"]["relative"] > 0


@pytest.fixture
def no_training(monkeypatch):
    "A recipe stops where it would train; what it would train on is in its folder."
    monkeypatch.setattr("calib_nb.methods._kept_training", lambda bench, *args: bench)


def labels_of(method, folder, judged=JUDGED, **options):
    bench = bench_in(folder, small_model(small_tokenizer(True)), judged)
    return follow_recipe(method, bench, **options).rows


def answered(judged):
    return [replace(j, answers=["the reference"]) for j in judged]


def test_the_controls_teach_nothing_about_which_answers_are_right(tmp_path, no_training):
    judged = [Judged(f"question {i}?", "a", i < 3, relation="ab"[i % 2]) for i in range(10)]
    shuffled = labels_of("shuffled", tmp_path / "a", judged)
    within = labels_of("shuffled", tmp_path / "b", judged, within_relation=True)
    for rows in (shuffled, within):
        assert sorted(row["label"] for row in rows) == [0.1] * 7 + [0.9] * 3
        assert [row["is_correct"] for row in rows] == [j.is_correct for j in judged], "what was true stays"
    of_a = [row["label"] for row in within[::2]]
    assert sorted(of_a) == [0.1] * 3 + [0.9] * 2
    constant = labels_of("constant_target", tmp_path / "c", judged)
    assert {row["label"] for row in constant} == {0.3} and constant[0]["output"].endswith("Confidence: 0.30")
    controls = [name for name, method in METHODS.items() if method.summary.startswith("control:")]
    assert {"shuffled", "constant_target"} <= set(controls)


def test_the_targets_of_the_originals_script_are_references_and_one_number(tmp_path, no_training):
    rows = labels_of("sft", tmp_path, answered(JUDGED), targets="repository")
    assert [row["answer"] for row in rows] == ["Paris", "the reference", "the reference"]
    assert [row["output"] for row in rows] == [f"Answer: {row['answer']}\nConfidence: 0.9" for row in rows]
    assert METHODS["sft"].options["targets"] == "binary"
    with pytest.raises(ValueError, match="unknown targets 'repo'.*binary, repository"):
        labels_of("sft", tmp_path / "x", targets="repo")


ALL_WRONG = [replace(j, is_correct=False) for j in JUDGED]


@pytest.mark.parametrize(
    "method, options, judged, said",
    [
        ("sft", {}, JUDGED, ""),
        ("implicit", {}, JUDGED, ""),
        ("sft", {"targets": "repository"}, answered(JUDGED), "All 3 training targets are 0.9"),
        ("constant_target", {}, JUDGED, "All 3 training targets are 0.33"),
        ("sft", {}, ALL_WRONG, "All 3 training targets are 0.1"),
        ("implicit", {}, ALL_WRONG, "All 3 training targets are 0"),
    ],
)
def test_targets_that_are_all_equal_are_said_before_it_trains(
    tmp_path, no_training, capsys, method, options, judged, said
):
    labels_of(method, tmp_path, judged, **options)
    printed = capsys.readouterr().out
    assert printed.startswith(said) and bool(printed) == bool(said)


def test_pairs_of_wrong_answers_alone_stay_an_error(tmp_path, no_training):
    with pytest.raises(ValueError, match="preference pairs need right and wrong answers"):
        labels_of("dpo", tmp_path, ALL_WRONG)


def test_sequence_likelihood_leaves_out_empty_answers_and_is_read_by_their_probability(tmp_path, no_training):
    rows = labels_of("sequence_likelihood", tmp_path, [*JUDGED, Judged("What is nothing?", "", False)])
    assert [row["answer"] for row in rows] == ["Paris", "Abuja", "x"]
    method = METHODS["sequence_likelihood"]
    assert method.readouts == ("verbalized", "expected", "normalized_probability")
    assert method.options == {"patience": None, "epochs": None, "weight": None, "as_original": False}
    others = {m.readouts for name, m in METHODS.items() if name != "sequence_likelihood"}
    assert others == {("verbalized", "expected")}


@pytest.mark.slow
def test_sequence_likelihood_end_to_end_is_read_and_compared_by_its_own_readout(runs_folder):
    from calib_nb.compare import differences, load_runs, readouts_of, test_readings
    from calib_nb.core import finished_run
    from calib_nb.experiment import run_method

    few = dict(FEW, out=str(runs_folder))
    own = run_method(method="sequence_likelihood", **few, readout="normalized_probability")
    run = finished_run(own)
    for readings in (run.readings, run.baseline_readings):
        assert {r.readout for r in readings} == {"verbalized", "expected", "normalized_probability"}
    assert [r.answer for r in run.readings] == [r.answer for r in run.baseline_readings]
    runs = load_runs([run_method(method="baseline", **few), own])
    assert readouts_of(runs) == ["verbalized", "expected", "normalized_probability"]
    sides = test_readings(runs, "normalized_probability")
    assert [row.method for row in sides] == ["baseline", "sequence_likelihood", "baseline (original wording)"]
    assert [len(readings) for readings in sides.values()] == [8, 8, 8]
    frame = differences(runs, "normalized_probability", "brier_score")
    assert frame["method"].tolist() == ["sequence_likelihood"]
