"""Every method on the answers of the study, read in every way: what `results` is to rest on.

    python benchmarks/methods.py asked MODEL PROMPT       the untrained model, asked by a prompt, on calibration
    python benchmarks/methods.py run MODEL METHOD SEED    one training, and what it says of the test answers
    python benchmarks/methods.py away METHOD SEED SET     the same of SmolLM2's answers to another question set
    python benchmarks/methods.py all --hours H            what is missing of the first two

Answers are those of the study, greedy and fixed. The trainings of seed 0 that stand in the matrix are read by every
readout, all others by the text and the expected confidence; seed 0 reads the calibration answers, too. SET is a known
name, or a file such as `data/popqa.jsonl`. What the runs leave lies in `figures/methods/`.
"""
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import study
from slices import Tables, lines_of, main

from calib_nb.answers import answer_questions
from calib_nb.asking import choose_prompt
from calib_nb.compare import Row, baseline_rows
from calib_nb.core import project_root
from calib_nb.experiment import Parameters, Run, planned_splits
from calib_nb.judge import judge_answers
from calib_nb.methods import METHODS
from calib_nb.models import load_model
from calib_nb.prompts import PROMPTS, with_examples
from calib_nb.publish import published_readings
from calib_nb.readout import READOUTS
from calib_nb.study import MODELS
from calib_nb.training import PRESETS

TABLES = Tables(project_root() / "figures/methods", "OMP_NUM_THREADS=1 python benchmarks/methods.py all")
RUNS = project_root() / "runs/methods"
SIZES = {"n_train": 300, "n_calibration": 300, "n_test": 636}
HELD_OUT = ("calibration", "test")
ASKED = [name for name in PROMPTS if name != "hidden_answer"]
VARIANTS = {"sequence_likelihood_as_original": ("sequence_likelihood", {"as_original": True})}
FIVE = ("sft", "performance_sft", "dpo", "implicit")  # with the untrained model
TAUGHT = ("sequence_likelihood_as_original", "self_distill", "self_consistency_distill")
MATRIX = ("baseline", *FIVE, "brier", "log_score", "soft_labels", *TAUGHT[1:])  # by every readout
CONTROLS = ("sequence_likelihood", "shuffled", "question_only", "constant_target")
SEEDS = {"smollm2-135m": range(5), "gemma-3-270m": range(3)}
N_AWAY, AWAY = 600, ("verbalized", "expected", "self_consistency")
KEY = ["model", "method", "readout", "seed", "split", "id"]


def begun(model: str, method: str, seed: int = 0, prompt: str = "original") -> Run:
    "A run on the model's own answers; `prompt` is that of the untrained model."
    name, options = VARIANTS.get(method, (method, {}))
    usual = PRESETS["default"]
    preset = study.preset(model, usual.learning_rate, usual.epochs, raw=model not in study.WITH_CHAT_TEMPLATE)
    how = {"options": options, "seed": seed, "preset": preset, "prompt": prompt, "out": str(RUNS)}
    judged = str(study.judged_file(model))
    return Run(model=model, method=name, judged=judged, dataset="study", **how, **SIZES)


def asked_by(run, prompt: str):
    "The untrained model, asked by a prompt."
    return run.reader("baseline", 0, wording=with_examples(PROMPTS[prompt], run.of("train")))


def make_asked(model: str, prompt: str):
    "What the untrained model says and expects of each calibration answer, asked by a prompt; the test is not read."
    run = begun(model, "baseline")
    reader = asked_by(run, prompt)
    readings = study.read(reader, study.answers_of(run, "calibration"), METHODS["baseline"].readouts)
    TABLES.add("prompts.csv.gz", lines_of(readings, model=model), [*KEY, "prompt"])


def chosen_prompt(model: str) -> str:
    "The prompt by which the untrained model's text says most on the calibration split."
    by_prompt = {}
    for prompt in ASKED:
        rows = published_readings(TABLES.folder / "prompts.csv.gz", "calibration", model=model, prompt=prompt)
        by_prompt[prompt] = rows[Row("baseline", "verbalized")]
    train = begun(model, "baseline").of("train")
    return choose_prompt(by_prompt, sum(j.is_correct for j in train) / len(train))


def reader_of(model: str, method: str, seed: int):
    "A run, and the model after it as it is read; untrained by the prompt that was chosen."
    prompt = chosen_prompt(model)
    run = begun(model, method, seed, prompt)
    return run, asked_by(run, prompt) if method == "baseline" else run.trained


def make_run(model: str, method: str, seed: str):
    "One training, or none, and what the model says of the test answers; of the calibration answers with seed 0."
    run, reader = reader_of(model, method, int(seed))
    first = not int(seed)
    splits = HELD_OUT if first else ("test",)
    everything = first and method in MATRIX and model == MODELS[0]
    readouts = READOUTS if everything else METHODS[run.parameters.method].readouts
    known = run.baseline_readings if method == "baseline" else []
    left = tuple(name for name in readouts if name not in {r.readout for r in known})
    readings = known + (study.read(reader, study.answers_of(run, *splits), left) if left else [])
    TABLES.add("readings.csv.gz", lines_of(readings, model=model).assign(method=method), KEY)
    if method == "baseline":  # beside it, what asks no model
        forecasts = chain.from_iterable(baseline_rows(run.folder, split).values() for split in HELD_OUT)
        TABLES.add("readings.csv.gz", lines_of(list(chain.from_iterable(forecasts)), model=model), KEY)
    TABLES.note(run)


def make_away(method: str, seed: str, name: str):
    "What SmolLM2, trained on the study's answers or not, says of its answers to questions of another set."
    model = MODELS[0]
    sizes = {**SIZES, "n_test": N_AWAY}
    splits, _ = planned_splits(Parameters(dataset="study", test_dataset=name, **sizes), RUNS / "cache")
    judged = judge_answers(splits["test"], answer_questions(load_model(model), splits["test"], RUNS / "cache"))
    judged = [replace(j, extra={**j.extra, "split": "test"}) for j in judged]
    run, reader = reader_of(model, method, int(seed))
    readouts = AWAY if method == "baseline" else METHODS[run.parameters.method].readouts
    lines = lines_of(study.read(reader, judged, readouts), model=model, set=Path(name).stem).assign(method=method)
    TABLES.add("away.csv.gz", lines, [*KEY, "set"])


def planned() -> list[tuple]:
    "Model, method and seed of each run, in the order in which they are made."
    first, second = MODELS
    runs = [(first, method, 0) for method in (*MATRIX, TAUGHT[0], *CONTROLS)]
    runs += [(second, "baseline", 0)]
    runs += [(first, method, seed) for seed in SEEDS[first][1:] for method in (*FIVE, *TAUGHT)]
    runs += [(second, method, seed) for seed in SEEDS[second] for method in ("sft", "self_consistency_distill")]
    return runs


def stages():
    "Commands that are missing, stage by stage; all prompts are tried before anything is trained."
    key = ["model", "prompt"]
    yield [("asked", *values) for values in TABLES.absent("prompts.csv.gz", key, list(product(MODELS, ASKED)))]
    key = ["model", "method", "seed"]
    yield [("run", *values) for values in TABLES.absent("readings.csv.gz", key, planned())]


if __name__ == "__main__":
    main(__file__, __doc__, {"asked": make_asked, "run": make_run, "away": make_away}, stages)
