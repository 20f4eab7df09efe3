"""CONTRIBUTING.md: its worked example runs as it stands, and what it names exists."""
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, small_model, small_tokenizer

from calib_nb.core import Judged, RunFolder
from calib_nb.methods import METHODS, Workbench, check_options, follow_recipe
from calib_nb.models import TextFormat
from calib_nb.readout import READOUTS, TreePass, read_confidences
from calib_nb.training import OBJECTIVES, Preset, Scored, remove_adapter

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
JUDGED = [Judged(f"Question {i}?", "yes" if i % 2 else "no", bool(i % 2)) for i in range(6)]


@pytest.fixture
def example():
    "The names that the worked example defines; the registries are as before afterwards."
    registries = (OBJECTIVES, METHODS, READOUTS)
    before, names = [dict(r) for r in registries], {}
    code, = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    yield names
    for registry, entries in zip(registries, before):
        registry.clear()
        registry.update(entries)


def test_the_example_adds_one_of_each(example):
    assert "spherical" in OBJECTIVES and "spherical" in METHODS
    assert "median_level" in READOUTS
    assert check_options("spherical", {"format_weight": 0.5})["format_weight"] == 0.5


def test_its_objective_is_least_where_the_expected_confidence_is_the_share_of_right_answers(example):
    def loss(c):
        branches = torch.stack([1 - c, c]).log().repeat(10, 1)
        return example["spherical_loss"](Scored(torch.empty(0), branches, 0, torch.empty(0), correct)).item()

    correct = torch.tensor([1.0] * 3 + [0.0] * 7)
    confidences = torch.linspace(0.01, 0.99, 99)
    least = np.argmin([loss(c) for c in confidences])
    assert confidences[int(least)].item() == pytest.approx(0.3, abs=1e-6)


def test_its_readout_is_the_median_level(example):
    probabilities = ([0.2, 0.2, 0.6], [0.6, 0.2, 0.2], [0.3, 0.3, 0.4])
    passes = [TreePass(np.log(p), None, 1) for p in probabilities]
    read = example["read_median"](None, None, None, passes)
    assert [c.value for c in read] == [1.0, 0.0, 0.5]


def test_its_method_trains_and_its_readout_reads(example, tmp_path):
    lm = small_model(small_tokenizer(False))
    fmt = TextFormat(lm.tokenizer, chat_template=False)
    preset = Preset(chat_template=False, lora_r=4, epochs=6, batch_size=6, learning_rate=5e-3, evaluations=1)

    def read(lm):
        return read_confidences(lm, fmt, JUDGED, ["test"] * len(JUDGED), "spherical", 0, ("expected", "median_level"))

    before = [r.confidence for r in read(lm)]
    run = RunFolder(tmp_path / "run")
    run.begin()
    bench = follow_recipe("spherical", Workbench(lm, JUDGED, preset, 0, run), format_weight=0.1)
    losses = [h["loss"] for h in bench.trainings[0]["history"] if "loss" in h]
    readings = read(bench.lm)
    assert losses[-1] < losses[0]
    assert [r.readout for r in readings] == ["expected"] * 6 + ["median_level"] * 6
    assert all(r.provenance == "scored" and 0 <= r.confidence <= 1 for r in readings)
    assert [r.confidence for r in readings] != before
    remove_adapter(bench.lm)


def test_the_files_commands_and_names_that_it_mentions_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):", makefile, re.M))
    assert set(re.findall(r"`make (\w+)`", TEXT)) <= targets
    assert "`make check`" in TEXT
    for path in re.findall(r"\b(?:nbs/\w+\.ipynb|tests/\w+\.py)", TEXT):
        assert (ROOT / path).is_file(), path
    training = (ROOT / "nbs/11_training.ipynb").read_text()
    assert "What each objective elicits" in training and "cases = {" in training
