"""What `calib_nb.prices` measures: forty samples, every readout, supplied answers, and what each costs.

    python benchmarks/prices.py samples MODEL        forty samples to each calibration and test question of `study`
    python benchmarks/prices.py untrained MODEL      each readout of the model as it is
    python benchmarks/prices.py trained MODEL SEED   the same after `sft` on its own answers
    python benchmarks/prices.py costs MODEL          tokens and seconds of each readout, and of 1 to 40 samples
    python benchmarks/prices.py all --hours H        what is missing, two at a time

Answers are those of the study, greedy and fixed; models are addressed as when they gave them. What the runs leave lies
in `figures/prices/`.
"""
from dataclasses import replace
from itertools import product

import pandas as pd
import study
from slices import Tables, lines_of, main

from calib_nb.core import project_root
from calib_nb.prices import _SAMPLES, supplied_answers
from calib_nb.questions import load_questions
from calib_nb.readout import _ANSWER_SAMPLING, _cost_of, read_confidences, read_self_consistency
from calib_nb.study import MODELS, Cell

TABLES = Tables(project_root() / "figures/prices", "OMP_NUM_THREADS=1 python benchmarks/prices.py all")
SEEDS, HELD_OUT = (0, 1, 2), ("calibration", "test")
SAMPLES, SAMPLING = _SAMPLES, replace(_ANSWER_SAMPLING, n=max(_SAMPLES))
ONE_PASS = ("verbalized", "expected", "p_true", "normalized_probability", "sequence_probability", "probe")
OF_SUPPLIED = ("expected", "p_true", "normalized_probability")
KEY = ["model", "method", "seed", "answers", "readout", "split", "id"]
TIMED = 60  # questions of each split, for costs


def begun(model: str, seed: int = 0):
    "A run of the study's design: the model reads its own answers, addressed as when it gave them."
    preset = study.preset(model, *study.chosen(model), raw=model not in study.WITH_CHAT_TEMPLATE)
    return study.begun(Cell(model, model), seed, preset)


def make_samples(model: str):
    "Forty samples to each calibration and test question."
    study.draw_samples(TABLES, model, study.answers_of(begun(model), *HELD_OUT), SAMPLING)


# Readings


def _keep_readings(model, run, reader):
    of_kind = {"own": lines_of(study.read(reader, study.answers_of(run, *HELD_OUT), ONE_PASS))}
    for kind, judged in supplied_answers(run.of("test"), load_questions("study")).items():
        if kind != "own":
            of_kind[kind] = lines_of(study.read(reader, judged, OF_SUPPLIED))
    lines = pd.concat([part.assign(model=model, answers=kind) for kind, part in of_kind.items()])
    TABLES.add("readings.csv.gz", lines.drop(columns="prompt"), KEY)


def make_untrained(model: str):
    "Every readout of the model as it is."
    run = begun(model)
    _keep_readings(model, run, run.reader("baseline", 0))


def make_trained(model: str, seed: str):
    "Every readout of the trained model."
    run = begun(model, int(seed))
    _keep_readings(model, run, run.trained)
    TABLES.note(run)


# Costs


def _cost_rows(reader, judged):
    "What each readout costs, and what 1 to 40 samples cost."
    counts, n = {}, len(judged)
    splits = [j.extra["split"] for j in judged]
    read_confidences(reader.lm, reader.fmt, judged, splits, "baseline", 0, ONE_PASS, reader.decimals, counts=counts)
    for readout, cost in counts["by_readout"].items():
        yield {"readout": readout, "tokens": cost["tokens"] / n, "seconds": cost["seconds"] / n}
    for drawn in SAMPLES:
        with _cost_of(reader.lm) as cost:
            read_self_consistency(reader.lm, reader.fmt, judged, [], how=replace(SAMPLING, n=drawn))
        yield {"readout": f"samples_{drawn}", "tokens": cost["tokens"] / n, "seconds": cost["seconds"] / n}


def make_costs(model: str):
    "Tokens and seconds for one question, in one process of one thread."
    run = begun(model)
    judged = [j for split in HELD_OUT for j in run.of(split)[:TIMED]]
    rows = pd.DataFrame(_cost_rows(run.reader("baseline", 0), judged)).assign(model=model, questions=len(judged))
    TABLES.add("costs.csv", rows.round(3), ["model", "readout"])


# All of them


def stages():
    "Commands that are missing, stage by stage."
    models = [(model,) for model in MODELS]
    n = study.SIZES["n_calibration"] + study.SIZES["n_test"]
    yield [("samples", *values) for values in models if study.lacks_samples(TABLES, *values, n)]
    untrained = TABLES.absent("readings.csv.gz", ["model", "method"], [(model, "baseline") for model in MODELS])
    yield [("untrained", model) for model, _ in untrained]
    wanted = [(model, "sft", seed) for seed, model in product(SEEDS, MODELS)]
    trained = TABLES.absent("readings.csv.gz", ["model", "method", "seed"], wanted)
    yield [("trained", model, seed) for model, _, seed in trained]
    yield [("costs", *values) for values in TABLES.absent("costs.csv", ["model"], models)]


MAKERS = {"samples": make_samples, "untrained": make_untrained, "trained": make_trained, "costs": make_costs}

if __name__ == "__main__":
    main(__file__, __doc__, MAKERS, stages)
