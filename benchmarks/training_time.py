"""CPU seconds that each method's training takes for the same answers, as a ratio to sft, in one run.

    python benchmarks/training_time.py                # 64 answers, one epoch; prints a table

Labels, reference scores and embeddings are counted, loading the model is not. CPU time, so that a busy machine matters
less."""
import argparse
import tempfile
import time
from pathlib import Path

from calib_nb.core import Judged
from calib_nb.embeddings import embed
from calib_nb.methods import METHODS, Workbench, follow_recipe
from calib_nb.models import load_model
from calib_nb.questions import load_questions
from calib_nb.training import Preset, remove_adapter

TIMED = "sft,performance_sft,dpo,implicit,brier,log_score,soft_labels,self_distill"


def judged_answers(n):
    "The reference answers of `n` questions, every third counted as right."
    questions = load_questions("facts")[:n]
    return [
        Judged(q.question, q.answers[0], i % 3 == 0, q.id, group=q.group, relation=q.relation)
        for i, q in enumerate(questions)
    ]


def cpu_seconds(method, lm, judged):
    "CPU seconds of the method's recipe, and the base model again."
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(lm, judged, Preset(epochs=1, evaluations=1), 0, Path(folder), Path(folder))
        start = time.process_time()
        bench = follow_recipe(method, bench)
        return time.process_time() - start, remove_adapter(bench.lm)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--questions", type=int, default=64, help="answers to train on")
parser.add_argument("--methods", default=TIMED, help="names, separated by commas; sft must be the first")
args = parser.parse_args()

lm = load_model("smollm2-135m")
judged = judged_answers(args.questions)
embed(["load the embedder before the clock runs"])
seconds = {}
for method in args.methods.split(","):
    seconds[method], lm = cpu_seconds(method, lm, judged)
    ratio = seconds[method] / seconds["sft"]
    print(f"{method:16} {seconds[method]:7.1f} CPU s   {ratio:5.2f} x sft   {METHODS[method].summary}", flush=True)
