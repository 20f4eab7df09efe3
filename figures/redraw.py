"""Draw the figures of results and README anew from the published readings: `python figures/redraw.py [FOLDER]`.

Nothing is run and no model is loaded. Each title is a sentence that `nbs/results.ipynb` asserts with numbers."""
import sys
from pathlib import Path

from calib_nb.compare import Row, comparison_figure
from calib_nb.core import project_root
from calib_nb.matrix import finding_figure, matrix_figure, place_forests
from calib_nb.plots import save_figure
from calib_nb.publish import published_readings

FIGURES = project_root() / "figures"
PLACES = ("facts", "other relations", "PopQA", "TriviaQA", "Gemma-3-270m")
CONSTANT = Row("training_accuracy", "constant")
KNN = Row("knn", "question_only")
RELATION = Row("relation", "question_only")
MAIN_FINDING = {
    Row("baseline", "self_consistency", "platt"): "untrained: how often ten\nsamples agree (recalibrated)",
    Row("self_distill", "verbalized"): "trained (self_distill):\nthe number that it writes",
    Row("sft", "expected"): "trained (sft):\nexpected confidence",
    KNN: "k-NN on questions:\nno language model",
}


def readings(name, **wanted):
    "Published readings of a publication by row."
    return published_readings(FIGURES / name / "readings.csv.gz", **wanted)


def compared(reference):
    "All methods by the expected confidence."
    said = "By expected confidence, one of four methods beats a constant, and none k-NN on questions"
    return comparison_figure(readings("compare"), "expected", reference, title=said)


def texts(reference):
    "What the greedy text states."
    said = "Text: self_distill is calibrated and beats a constant; sft writes two numbers, and both are wrong"
    return comparison_figure(readings("text"), "verbalized", reference, title=said)


def transfer(reference):
    """The forests of all places.

    A place's constant is what the accuracy of a relation falls back to where it met none of the relations."""
    sets = {place: readings("transfer", place=place) for place in PLACES}
    references = {place: sets[place][RELATION][0].confidence for place in PLACES}
    references["facts"] = reference
    references["Gemma-3-270m"] = readings("gemma")[CONSTANT][0].confidence
    said = "Self-consistency ranks right answers above wrong ones in all five places; sft does not on TriviaQA"
    return place_forests(sets, references, title=said)


def matrix(reference):
    "The heat maps."
    cells = readings("matrix", split="calibration")
    said = "Samples, hidden states and answer probabilities rank answers well, however trained; text less"
    return matrix_figure(cells, reference, said)


def main_finding(reference):
    "Four rows: what the untrained model's samples show, what training taught, and what asks no model."
    rows = {**readings("text"), **readings("matrix")}
    said = (
        "The model knows when it is right: how often ten samples agree\n"
        "beats the confidences that it was trained to state, and k-NN on the questions"
    )
    return finding_figure(rows, MAIN_FINDING, reference, said)


DRAWN = {
    "main_finding/main_finding": main_finding,
    "compare/expected": compared,
    "text/verbalized": texts,
    "matrix/heatmaps": matrix,
    "transfer/forests": transfer,
}


def main(out):
    "Write all figures below a folder."
    reference = readings("compare")[CONSTANT][0].confidence
    for name, draw in DRAWN.items():
        path = Path(out) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        print(*save_figure(draw(reference), str(path)))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else FIGURES)
