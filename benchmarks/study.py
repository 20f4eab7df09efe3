"""The runs of the study that `nbs/study_plan.ipynb` plans; what they leave lies in `figures/whose_knowledge/`.

    python benchmarks/study.py facts MODEL       a model's answers to the development set, graded
"""
import sys
from pathlib import Path

import pandas as pd

from calib_nb.answers import answer_questions
from calib_nb.core import locked, project_root
from calib_nb.judge import judge_answers
from calib_nb.models import load_model
from calib_nb.questions import load_questions

KEPT = project_root() / "figures/whose_knowledge"
CACHE = project_root() / "runs/cache"


def keep(name: str, rows: pd.DataFrame, key: list[str]) -> Path:  # key: columns by which a row is known
    "Add rows to a compressed table; those with the same key are replaced. One process writes at a time."
    path = KEPT / name
    with locked(path):
        parts = [pd.read_csv(path, keep_default_na=False), rows] if path.exists() else [rows]
        table = pd.concat(parts).drop_duplicates(key, keep="last").sort_values(key)
        table.to_csv(path, index=False, compression={"method": "gzip", "mtime": 0})
    return path


def make_facts(model: str) -> Path:
    "What a model answers to the questions of `facts`, and whether that is right."
    facts = load_questions("facts")
    judged = judge_answers(facts, answer_questions(load_model(model), facts, CACHE))
    rows = [(model, j.id, j.model_answer, j.is_correct) for j in judged]
    table = pd.DataFrame(rows, columns=["answers_of", "id", "model_answer", "is_correct"])
    return keep("facts_answers.csv.gz", table, ["answers_of", "id"])


if __name__ == "__main__":
    commands = {"facts": make_facts}
    print(commands[sys.argv[1]](*sys.argv[2:]))
