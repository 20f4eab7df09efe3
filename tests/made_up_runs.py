"""Run folders that never ran, for the tests of what is done with finished runs."""
from dataclasses import replace

import numpy as np

from calib_nb.compare import made_up_run
from calib_nb.core import Reading, read_records, write_jsonl


def nearly_honest(seed):
    "Says its chance of being right, but for noise, with one decimal."
    return lambda c: np.clip(c + np.random.default_rng(seed).normal(0, 0.05, len(c)), 0, 1).round(1)


def always_sure(c):
    return np.full(len(c), 0.9)


def without_confidence(reading):
    return replace(reading, confidence=None, provenance="missing")


def made_up_folders(out):
    "Three seeds of sft, one of dpo, and the baseline; the verbalized readout of dpo says nothing."
    dpo = made_up_run(out, "dpo", says=np.sqrt)
    readings = read_records(dpo / "readings.jsonl", Reading)
    silent = [without_confidence(r) if r.readout == "verbalized" else r for r in readings]
    write_jsonl(dpo / "readings.jsonl", silent)
    sft = [made_up_run(out, "sft", seed, nearly_honest(seed)) for seed in (0, 1, 2)]
    return [*sft, dpo, made_up_run(out, "baseline", says=always_sure)]
