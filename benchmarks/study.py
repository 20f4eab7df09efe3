"""The runs of the study that `nbs/study_plan.ipynb` plans; what they leave lies in `figures/whose_knowledge/`.

    python benchmarks/study.py facts MODEL                           answers to the development set, graded
    python benchmarks/study.py answers MODEL                         answers to the questions of the study, graded
    python benchmarks/study.py choose READER ANSWERS RATE EPOCHS     one setting, scored on the calibration split
    python benchmarks/study.py cell READER ANSWERS METHOD SEED SIZE  one run (SIZE: unlabelled questions, else 0)
    python benchmarks/study.py samples MODEL                         ten samples to each question
    python benchmarks/study.py all --hours H                         what is missing, in the order of the plan

`all` runs two processes of one thread, begins none after H hours, and can be given again: what is there is not made
again. No command prints or computes a score of the test split.
"""
import json
from dataclasses import replace
from itertools import product

import pandas as pd
from slices import Tables, lines_of, main

from calib_nb.answers import answer_questions
from calib_nb.core import project_root, select, write_jsonl
from calib_nb.experiment import Run
from calib_nb.inference import metric_card
from calib_nb.judge import judge_answers
from calib_nb.models import TextFormat, load_model, sample_texts
from calib_nb.questions import load_questions
from calib_nb.readout import _ANSWER_SAMPLING, read_confidences
from calib_nb.responses import short_answer
from calib_nb.study import MODELS, Cell, planned_runs
from calib_nb.study_rows import read_answers
from calib_nb.training import PRESETS

TABLES = Tables(project_root() / "figures/whose_knowledge")
RUNS = project_root() / "runs/whose_knowledge"
SIZES = {"n_train": 300, "n_calibration": 300, "n_test": 636}
RATES, EPOCHS = (0.0002, 0.0004), (2, 4)  # among which a reader's are chosen
WITH_CHAT_TEMPLATE = ("smollm2-135m",)
SEED_OF_CHOICE = 100  # of no other run
AS_GOOD = 0.01  # AUROC: a setting this near the best is as good
CELL = ["reader", "answers_of", "method", "size", "seed"]
ARMS = {  # beside H5, exploratory, with seeds 0 to 2: name -> unlabelled questions, options of the method
    "blended": (947, {"blend": 0.5}),
    "balanced": (947, {"balanced": True}),
    "fixed_updates": (100, {"epochs": 38}),  # as many updates as 947 questions get in 4 epochs
}


# Answers


def graded(model, questions):
    "What a model answers greedily, and whether that is right."
    judged = judge_answers(questions, answer_questions(load_model(model), questions, RUNS / "cache"))
    rows = [(model, j.id, j.model_answer, j.is_correct) for j in judged]
    return pd.DataFrame(rows, columns=["answers_of", "id", "model_answer", "is_correct"])


def make_facts(model: str):
    TABLES.add("facts_answers.csv.gz", graded(model, load_questions("facts")), ["answers_of", "id"])


def make_answers(model: str):
    TABLES.add("answers.csv.gz", graded(model, load_questions("study")), ["answers_of", "id"])


def judged_file(model):
    "The answers as a file for `judged=`, with the splits of the questions."
    judged = read_answers(TABLES.folder / "answers.csv.gz", load_questions("study"))[model]
    path = RUNS / f"judged-{model}.jsonl"
    write_jsonl(path, judged)
    return path


def draw_samples(tables: Tables, model: str, questions: list, sampling=_ANSWER_SAMPLING):
    "Samples of the untrained model to each question that has none in the tables, a hundred questions at a time."
    there = tables.read("samples.csv.gz")
    known = set(there[there.answers_of == model].id) if len(there) else set()
    left = [q for q in questions if q.id not in known]
    lm = load_model(model)
    fmt = TextFormat(lm.tokenizer, chat_template=bool(lm.tokenizer.chat_template))
    for start in range(0, len(left), 100):
        part = left[start : start + 100]
        prompts = [fmt.encode(fmt.answer_prompt(q.question, at_once=True)) for q in part]
        numbers = [sampling.uniforms(0, "consistency", q.question) for q in part]
        texts = sample_texts(lm, prompts, numbers, sampling.temperature)
        said = [json.dumps([short_answer(text) for text in of_one], ensure_ascii=False) for of_one in texts]
        rows = pd.DataFrame({"answers_of": model, "id": [q.id for q in part], "samples": said})
        tables.add("samples.csv.gz", rows, ["answers_of", "id"])


def lacks_samples(tables: Tables, model: str, n: int) -> bool:
    "Whether fewer than `n` questions have samples of the model."
    table = tables.read("samples.csv.gz")
    return not len(table) or (table.answers_of == model).sum() < n


def make_samples(model: str):
    "Ten samples to each question."
    draw_samples(TABLES, model, load_questions("study"))


# Runs


def preset(model, rate, epochs, raw=True):
    "The name of the preset with this learning rate and so many epochs; the calibration split is read once, at the end."
    name = f"{'raw' if raw else 'default'}-{rate}-{epochs}"
    PRESETS[name] = replace(PRESETS[name.split("-")[0]], learning_rate=rate, epochs=epochs, evaluations=1)
    return name


def begun(cell: Cell, seed: int, preset: str, **sizes) -> Run:
    "The run of a cell."
    _, options = ARMS.get(cell.method, (0, {}))
    method = "self_consistency_distill" if options else cell.method
    parameters = {"model": cell.reader, "method": method, "options": options, "seed": seed, "preset": preset}
    sizes = {**SIZES, "n_unlabelled": cell.size, **sizes}
    judged = str(judged_file(cell.answers))
    return Run(**parameters, **sizes, judged=judged, dataset="study", prompt="original", out=str(RUNS))


def answers_of(run: Run, *splits: str) -> list:
    "The judged answers of these splits."
    return [j for split in splits for j in run.of(split)]


def read(reader, judged: list, readouts: tuple = ("expected",)) -> list:  # reader: a `Reader`; split in `extra`
    "What a model, trained or not, says of these answers."
    of_each = [j.extra["split"] for j in judged]
    about = reader.method, reader.seed, readouts, reader.decimals, "reading"
    return read_confidences(reader.lm, reader.fmt, judged, of_each, *about)


def make_choice(reader: str, answers: str, rate: str, epochs: str):
    "One setting of a reader, by its stratified AUROC on the calibration split; the test split is not read."
    rate, epochs = float(rate), int(epochs)
    cell = Cell(reader, answers)
    run = begun(cell, SEED_OF_CHOICE, preset(reader, rate, epochs), n_test=1)
    readings = read(run.trained, answers_of(run, "calibration"))
    auroc = metric_card(readings, n_resamples=2, names=["stratified_auroc"], reference=None)["stratified_auroc"].value
    row = {"reader": reader, "answers_of": answers, "learning_rate": rate, "epochs": epochs, "auroc": round(auroc, 4)}
    TABLES.add("choice.csv", pd.DataFrame([row]), ["reader", "answers_of", "learning_rate", "epochs"])


def chosen(reader: str) -> tuple[float, int]:
    "Learning rate and epochs: the best on calibration; of those as good, fewer epochs, then the smaller rate."
    table = TABLES.read("choice.csv")
    means = table[table.reader == reader].groupby(["epochs", "learning_rate"]).auroc.mean()
    if len(means) < len(RATES) * len(EPOCHS):
        raise ValueError(f"not all settings of {reader} have been tried. Give `all` again, or `choose` for each")
    epochs, rate = min(means[means > means.max() - AS_GOOD].index)
    return rate, int(epochs)


def splits_read(cell: Cell, seed: int) -> tuple:
    "What a trained reader reads. A hundred levels take long: the first seed of H5 says whether its training took hold."
    return ("test",) if cell.size and seed else ("train", "calibration", "test")


def make_cell(reader: str, answers: str, method: str, seed: str, size: str = "0"):
    "One run of the plan: its readings of training, calibration and test answers, and how it was made."
    cell, seed = Cell(reader, answers, method, int(size)), int(seed)
    rate, epochs = chosen(reader)
    as_usual = cell.size and reader in WITH_CHAT_TEMPLATE  # no other model shares its rows
    run = begun(cell, seed, preset(reader, rate, epochs, raw=not as_usual))
    readings = read(run.trained, answers_of(run, *splits_read(cell, seed)))
    if seed == 0 and method == "sft":  # beside them, the untrained model
        readings += select(run.baseline_readings, readout="expected", split="test")
    where = {"reader": reader, "answers_of": answers, "size": cell.size}
    lines = lines_of(readings, **where).drop(columns=["provenance", "prompt"])
    if method in ARMS:
        lines["method"] = method
    TABLES.add("readings.csv.gz", lines, [*CELL, "split", "id"])
    TABLES.note(run)


# All of them


def stages():
    "Commands that are missing, stage by stage; a stage needs all of those before."
    models = [(model,) for model in MODELS]
    yield [("answers", *values) for values in TABLES.absent("answers.csv.gz", ["answers_of"], models)]
    settings = list(product(MODELS, MODELS, RATES, EPOCHS))
    key = ["reader", "answers_of", "learning_rate", "epochs"]
    yield [("choose", *values) for values in TABLES.absent("choice.csv", key, settings)]
    runs = [(cell.reader, cell.answers, cell.method, cell.size, seed) for cell, seed in planned_runs()]
    left = TABLES.absent("readings.csv.gz", CELL, runs)
    main = [run for run in left if run[2] == "sft"]
    arms = [(model, model, arm, size, seed) for arm, (size, _) in ARMS.items() for seed in range(3) for model in MODELS]
    others = [run for run in left if run not in main]
    n = len(load_questions("study"))
    for part in (main, [*others, *TABLES.absent("readings.csv.gz", CELL, arms)]):
        yield [("cell", *values[:3], values[4], values[3]) for values in part]
        yield [("samples", *values) for values in models if lacks_samples(TABLES, *values, n)]


MAKERS = {
    "facts": make_facts,
    "answers": make_answers,
    "choose": make_choice,
    "cell": make_cell,
    "samples": make_samples,
}

if __name__ == "__main__":
    main(__file__, __doc__, MAKERS, stages)
