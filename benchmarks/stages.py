"""How long stages take, side by side with others, in CPU seconds of one process: one JSON line for each comparison.

    git worktree add /tmp/old 09c68a6
    OMP_NUM_THREADS=1 python benchmarks/stages.py --old /tmp/old                    # all of them
    OMP_NUM_THREADS=1 python benchmarks/stages.py --old /tmp/old --n 16 levels      # one, on 16 answers

`ratio` is their time over ours. The two take turns until the time given is over, one round at least; medians count. That
they give the same is asserted before."""
import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import calib_nb.training  # all modules of ours are there before those of another checkout
from calib_nb import core, labels, models, questions, readout, training

OURS = SimpleNamespace(core=core, labels=labels, models=models, questions=questions, readout=readout, training=training)


@cache
def checkout(folder):
    "The same modules as `OURS`, of another checkout, in the same process."
    mine = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "calib_nb"}
    sys.path.insert(0, str(folder))
    try:
        return SimpleNamespace(**{name: import_module(f"calib_nb.{name}") for name in vars(OURS)})
    finally:
        sys.path.remove(str(folder))
        sys.modules.update(mine)


def clock(work):
    "CPU seconds of a call."
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turn(ours, theirs, seconds):
    "`(ours_s, theirs_s)`: medians over rounds, until `seconds` of wall-clock are over."
    spent, start = [], time.perf_counter()
    while not spent or time.perf_counter() - start < seconds:
        spent.append((clock(ours), clock(theirs)))
    return map(statistics.median, zip(*spent))


def compared(stage, against, n, seconds, ours, theirs):
    "The row of a comparison."
    mine, other = in_turn(ours, theirs, seconds)
    return {"stage": stage, "against": against, "ratio": other / mine, "n": n, "ours_s": mine, "theirs_s": other}


@cache
def setting(library, n):
    "`(lm, fmt, judged)`: the embedded model, and the reference answers of `n` questions, every third called right."
    lm = library.models.load_model("smollm2-135m")
    assert lm.stop_tokens  # looked up once
    facts = library.questions.load_questions("facts")
    some = facts[:: len(facts) // n][:n]
    judged = [
        library.core.Judged(q.question, q.answers[0], i % 3 == 0, q.id, group=q.group, relation=q.relation)
        for i, q in enumerate(some)
    ]
    return lm, library.models.TextFormat(lm.tokenizer, chat_template=True), judged


def read(library, n, *readouts):
    "Confidences by readouts: (readout, value or text) of each reading."
    lm, fmt, judged = setting(library, n)
    found = library.readout.read_confidences(lm, fmt, judged, ["test"] * n, "m", 0, readouts)
    return [(r.confidence, r.extra.get("text")) for r in found]


def assert_alike(ours, theirs, atol=1e-5):
    "Numbers within `atol`, texts the same."
    for (value, text), (other, their_text) in zip(ours, theirs, strict=True):
        assert text == their_text, (text, their_text)
        assert value == other or abs(value - other) < atol, (value, other)


def largest_change(ours, theirs):
    "Of the confidences of two readings."
    return max(abs(a - b) for (a, _), (b, _) in zip(ours, theirs) if a is not None and b is not None)


def levels(n, seconds, old):
    "Expected confidence, against another checkout."
    name = "expected" if "expected" in checkout(old).readout.READOUTS else "level"
    mine, other = partial(read, OURS, n, "expected"), partial(read, checkout(old), n, name)
    ours, theirs = mine(), other()
    assert_alike(ours, theirs)
    row = compared("expected confidence", Path(old).name, n, seconds, mine, other)
    return {**row, "largest_change": largest_change(ours, theirs)}


@torch.no_grad()
def expected_by_strings(n):
    "Each level's string in a forward pass of its own."
    lm, fmt, judged = setting(OURS, n)
    grid, values = np.linspace(0, 1, 11), []
    for j in judged:
        prefix, spellings = models.spell_levels(fmt, j.question, j.model_answer, fmt.wording.unit.texts(1))
        logp = []
        for ids in spellings:
            inputs = torch.tensor([prefix + ids])
            scores = lm.model(input_ids=inputs, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, :-1]
            logp.append(scores.log_softmax(-1)[range(len(ids)), ids].sum().item())
        weights = np.exp(np.array(logp) - max(logp))
        values.append((weights @ grid / weights.sum(), None))
    return values


def levels_by_strings(n, seconds, old):
    "Expected confidence, against each string in its own forward pass."
    mine, other = partial(read, OURS, n, "expected"), partial(expected_by_strings, n)
    assert_alike(mine(), other())
    return compared("expected confidence", "each string in its own forward", n, seconds, mine, other)


def levels_and_texts(n, seconds, old):
    "Expected and verbalized confidence together, which is what a run reads, against another checkout."
    name = "expected" if "expected" in checkout(old).readout.READOUTS else "level"
    mine = partial(read, OURS, n, "verbalized", "expected")
    other = partial(read, checkout(old), n, "verbalized", name)
    ours, theirs = mine(), other()
    assert_alike(ours, theirs)
    row = compared("expected and verbalized", Path(old).name, n, seconds, mine, other)
    return {**row, "largest_change": largest_change(ours, theirs)}


BETA = 0.1
PRESET = {"epochs": 1, "evaluations": 1}


def train(library, n, objective, folder, **options):
    "The losses of a training of one epoch, without dropout; the model is left as it was."
    lm, _, judged = setting(library, n)
    rows = (library.labels.preference_pairs if objective == "dpo" else library.labels.labelled_rows)(judged)
    options = {**options, "beta": BETA} if objective == "dpo" else options
    preset = library.training.Preset(**PRESET)
    with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
        trained, history = library.training.train(lm, rows, objective, preset, 0, Path(checkpoints), **options)
    library.training.remove_adapter(trained)
    return [entry["loss"] for entry in history if "loss" in entry]


def trl_texts(n, objective):
    "The same tokens as trl reads them."
    lm, fmt, judged = setting(OURS, n)
    rows = labels.preference_pairs(judged) if objective == "dpo" else labels.labelled_rows(judged)
    texts = labels.trl_preferences(rows) if objective == "dpo" else [
        {"prompt": fmt.prompt(r["question"]), "completion": r["output"]} for r in rows
    ]
    ends = [name for name in ("chosen", "rejected", "completion") if name in texts[0]]
    prompts = [fmt.prompt(r["question"]) for r in rows]
    return [{**t, "prompt": p, **{name: t[name] + fmt.terminator for name in ends}} for t, p in zip(texts, prompts)]
