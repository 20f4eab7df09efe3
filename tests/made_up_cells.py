"""Cells of sweeps that load nothing: each notes that it was made, and leaves what a finished run leaves."""
import os
import time
from functools import partial
from pathlib import Path

from calib_nb.core import SCHEMA, write_json, write_text

CARD = {"auroc": {"value": 0.8, "low": 0.7, "high": 0.9}, "brier_score": {"value": 0.2, "low": 0.1, "high": None}}


def name(parameters):
    return f"{parameters['method']}-{parameters['seed']}"


def note(parameters, file="made.txt"):
    "Append the cell to a file that all processes write to."
    path = Path(parameters["out"]) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as notes:
        notes.write(name(parameters) + "\n")


def noted(out, file="made.txt"):
    "The cells that were noted, each as often as it was."
    path = Path(out) / file
    return sorted(path.read_text().split()) if path.exists() else []


def at_once(parameters, threads):
    "A finished run."
    folder = Path(parameters["out"]) / f"run-{name(parameters)}"
    for file in ("judged.jsonl", "baseline_readings.jsonl", "readings.jsonl"):
        write_text(folder / file, "")
    write_json(folder / "metrics.json", {"schema": SCHEMA, "expected": CARD, "verbalized": CARD})
    given = {**parameters, "threads": threads, "process": os.getpid()}
    write_json(folder / "manifest.json", {"schema": SCHEMA, "complete": True, "parameters": given, "stages": {}})
    note(parameters)
    return folder


def in_a_while(parameters, threads):
    "The same, after two seconds."
    note(parameters, "begun.txt")
    time.sleep(2)
    return at_once(parameters, threads)


def when_told(parameters, threads):
    "At once for one method; the others wait for a file."
    note(parameters, "begun.txt")
    while parameters["method"] != "dpo" and not (Path(parameters["out"]) / "go.txt").exists():
        time.sleep(0.1)
    return at_once(parameters, threads)


def dpo_takes_much_memory(parameters, threads):
    "At once, but for one method, which takes four gigabytes and keeps them."
    note(parameters, "begun.txt")
    taken = b"x" * (2**32 if parameters["method"] == "dpo" else 1)
    time.sleep(120 if len(taken) > 1 else 0)
    return at_once(parameters, threads)


def dpo_ends_with(error, parameters, threads):
    "At once, but for one method, which ends with this error."
    note(parameters, "begun.txt")
    if parameters["method"] == "dpo":
        raise error
    return at_once(parameters, threads)


NO_MEMORY = "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"  # as torch says it
dpo_fails = partial(dpo_ends_with, ValueError("n_train is\ntoo small"))
dpo_has_no_memory = partial(dpo_ends_with, RuntimeError(NO_MEMORY))


def lists_its_folder(parameters, threads):
    "The same, and which files lie in the working directory."
    folder = at_once(parameters, threads)
    write_text(folder / "files.txt", "\n".join(sorted(str(path) for path in Path().rglob("*"))))
    return folder
