"""The analyses run: results on what is published, the matrix and the places with a few questions."""
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, code_cells, run_here


def run_notebook(name, executed, **parameters):
    "Run a notebook as a user does; its cells. Shows the end of what it wrote where it fails."
    words = [word for key, value in parameters.items() for word in ("-p", key, str(value))]
    papermill = Path(sys.executable).parent / "papermill"
    command = [papermill, f"nbs/{name}.ipynb", executed, *words, "--no-progress-bar"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(executed, 4).cells


def text_of(cells):
    "All outputs, as one text."
    return json.dumps([cell.get("outputs", []) for cell in cells])


@pytest.mark.slow
def test_what_results_claims_holds_of_the_published_files():
    run_here("results")
    assert sum("assert " in source for source in code_cells(ROOT / "nbs/results.ipynb")) >= 8


FEW = dict(n_train=12, n_calibration=24, n_test=12)  # fewer hold no right and wrong answers for each fold of the probe


@pytest.mark.long
def test_the_matrix_runs_with_few_questions(tmp_path):
    cells = run_notebook("matrix", tmp_path / "matrix.ipynb", methods="baseline,sft", out=tmp_path, **FEW)
    assert len(list(tmp_path.glob("matrix-*/readings.csv.gz"))) == 1
    shown = text_of(cells)
    assert all(word in shown for word in ("image/png", "self_consistency", "p (Holm)", "heatmaps.png"))


@pytest.mark.long
def test_the_original_is_tried_again_with_few_questions(tmp_path):
    few = dict(models="smollm2-135m", methods="baseline,sft", out=tmp_path, **FEW)
    cells = run_notebook("original_again", tmp_path / "again.ipynb", **few)
    assert len(list(tmp_path.glob("original-*/pattern.csv"))) == 1
    shown = text_of(cells)
    assert all(word in shown for word in ("image/png", "predicted RMS", "unreadable", "pattern.png"))
    assert shown.count("smollm2-135m, sft, on the CPU") == 1, "the first line of a run"


@pytest.mark.long
def test_other_places_run_with_few_questions(tmp_path):
    places = "facts,other relations"
    cells = run_notebook("transfer", tmp_path / "transfer.ipynb", settings=places, out=tmp_path, **FEW)
    assert (tmp_path / "transfer/scores.csv").exists()
    shown = text_of(cells)
    assert all(word in shown for word in ("image/png", "other relations", "Brier skill", "forests.png"))
