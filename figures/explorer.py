"""What `nbs/explore.ipynb` opens with: `python figures/explorer.py`.

The file joins what lies here already: the confidences of `run_method`, the answers of `whose_knowledge` and the
embedded questions, with the rules' reasons. The picture of the page is taken by tests/test_browser.py."""
import pandas as pd

from calib_nb.compare import Row
from calib_nb.core import project_root, read_jsonl
from calib_nb.publish import published_readings
from calib_nb.rules import judge_by_rules

FIGURES = project_root() / "figures"
MODEL = "smollm2-135m"
SHOWN = [Row(method, readout) for method in ("sft", "baseline") for readout in ("expected", "verbalized")]


def answers():
    "id -> what the model answered."
    frame = pd.read_csv(FIGURES / "whose_knowledge/facts_answers.csv.gz", keep_default_na=False)
    own = frame[frame.answers_of == MODEL]
    return dict(zip(own.id, own.model_answer))


def questions():
    "id -> the embedded question."
    return {row["id"]: row for _, row in read_jsonl(project_root() / "calib_nb/data/facts.jsonl")}


def line(reading, question, answer):
    "A line of the file. Fails where the rules say another thing today than they did of the reading."
    verdict = judge_by_rules(answer, question["answers"], question["question"])
    assert reading.is_correct == (verdict.grade == "correct"), reading.id
    asked = {"id": reading.id, "question": question["question"], "model_answer": answer}
    judged = {"is_correct": reading.is_correct, "verdict": verdict.grade, "reason": verdict.reason}
    said = {"confidence": reading.confidence, "method": reading.method, "readout": reading.readout}
    about = {"answers": "; ".join(question["answers"]), "group": reading.group, "relation": reading.relation}
    return {**asked, **about, **judged, **said}


def predictions():
    "The untrained and the trained model's confidences in the answers to the test questions, as text and expected."
    asked, said = questions(), answers()
    rows, lines = published_readings(FIGURES / "run_method/readings.csv.gz"), []
    for row in SHOWN:
        lines += [line(r, asked[r.id], said[r.id]) for r in rows[row]]
    return pd.DataFrame(lines).round({"confidence": 4})


if __name__ == "__main__":
    same_bytes = {"method": "gzip", "mtime": 0}
    predictions().to_csv(FIGURES / "explorer/predictions.csv.gz", index=False, compression=same_bytes)
