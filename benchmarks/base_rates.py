"""The runs of `nbs/base_rates.ipynb`: training answers of which 10 to 70 % are right, the relations as they were.

    python benchmarks/base_rates.py run SHARE METHOD SEED   one run, such as `run 0.3 sft 0`
    python benchmarks/base_rates.py all --hours H           what is missing, two at a time

The training answers are chosen among SmolLM2-135M's to the training and calibration questions of `study`; 100 of the
unlabelled questions are looked at while it trains; the test is that of `study`. What the runs leave lies in
`figures/base_rates/`.
"""
from dataclasses import replace
from itertools import chain, product

from slices import Tables, lines_of, main

from calib_nb.base_rates import with_base_rates
from calib_nb.core import project_root, select, write_jsonl
from calib_nb.experiment import Run
from calib_nb.questions import load_questions
from calib_nb.study_rows import read_answers

MODEL = "smollm2-135m"
SHARES, METHODS, SEEDS = (0.1, 0.3, 0.5, 0.7), ("sft", "implicit"), (0, 1, 2)
N_CALIBRATION = 100
TABLES = Tables(project_root() / "figures/base_rates", "OMP_NUM_THREADS=1 python benchmarks/base_rates.py all")
RUNS = project_root() / "runs/base_rates"
ANSWERS = project_root() / "figures/whose_knowledge/answers.csv.gz"
KEY = ["share", "method", "readout", "seed", "id"]


def splits(share):
    "The judged answers of a run by split."
    of_split = {}
    for judged in read_answers(ANSWERS, load_questions("study"))[MODEL]:
        of_split.setdefault(judged.extra["split"], []).append(judged)
    pool = of_split["train"] + of_split["calibration"]
    train = with_base_rates(pool, SHARES)[share]
    parts = {"train": train, "calibration": of_split["unlabelled"][:N_CALIBRATION], "test": of_split["test"]}
    return {split: [replace(j, extra={**j.extra, "split": split}) for j in part] for split, part in parts.items()}


def begun(share: float, method: str, seed: int, **sizes) -> Run:
    "The run of one share."
    parts = splits(share)
    path = RUNS / f"judged-{share}.jsonl"
    write_jsonl(path, list(chain(*parts.values())))
    sizes = {f"n_{split}": len(part) for split, part in parts.items()} | sizes
    return Run(model=MODEL, method=method, seed=seed, judged=str(path), dataset="study", out=str(RUNS), **sizes)


def make_run(share: str, method: str, seed: str):
    "One run: what it says and expects of each test answer."
    share = float(share)
    run = begun(share, method, int(seed))
    readings = select(run.readings, split="test")
    TABLES.add("readings.csv.gz", lines_of(readings, share=share).drop(columns="prompt"), KEY)
    TABLES.note(run)


def stages():
    "The runs that are missing."
    wanted = [(share, method, seed) for seed, method, share in product(SEEDS, METHODS, SHARES)]
    yield [("run", *values) for values in TABLES.absent("readings.csv.gz", ["share", "method", "seed"], wanted)]


if __name__ == "__main__":
    main(__file__, __doc__, {"run": make_run}, stages)
