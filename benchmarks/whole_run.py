"""What a whole run takes (`dpo`, 64 + 32 + 64 questions), in processes of its own: one JSON line for each comparison.

    git worktree add /tmp/09c68a6 09c68a6
    python benchmarks/whole_run.py --old /tmp/09c68a6            # about a quarter of an hour on a quiet machine

The run of either version in turn; then with as many threads as there are cores, alone and beside two processes that
keep two cores busy."""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import amount, child, growth, row_of, say

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = {"whole": (64, 32, 64), "smallest": (12, 8, 6)}
BUSY = "while True: pass"


def run(folder, questions, **environment):
    "A `dpo` run of the library in a folder, without a cache."
    given = dict(zip(("n_train", "n_calibration", "n_test"), questions))
    if folder == ROOT:  # the only wording that the earlier version has; with another the untrained model is read twice
        given["prompt"] = "original"
    with tempfile.TemporaryDirectory() as out:
        code = f"from calib_nb.experiment import run_method\nrun_method(method='dpo', out={out!r}, **{given})"
        return child(code, folder, **environment)


def against_the_old(old, questions):
    "CPU seconds of one thread, and peak memory."
    n = sum(questions)
    ours, theirs = (run(folder, questions, OMP_NUM_THREADS="1") for folder in (ROOT, old))
    walls = {"ours_wall": ours["wall"], "theirs_wall": theirs["wall"]}
    yield row_of("a whole run (dpo)", Path(old).name, n, ours["seconds"], theirs["seconds"]) | walls
    yield amount("a whole run (dpo), peak memory", n, ours["peak_gib"], "GiB")


def beside_busy_processes(questions):
    "The CPU seconds that the same run takes when others have the cores: threads that wait shall not spin."
    quiet = run(ROOT, questions)
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        busy = run(ROOT, questions)
    finally:
        for other in others:
            other.kill()
            other.wait()
    row = row_of("a whole run beside two busy processes", "itself, quiet", sum(questions), busy["seconds"], 0)
    walls = {"ours_wall": busy["wall"], "theirs_wall": quiet["wall"]}
    return row | {"ratio": quiet["seconds"] / busy["seconds"], "theirs_s": quiet["seconds"]} | walls


def growths(sizes):
    "How the time of answers and readings grows."
    from calib_nb.answers import answer_questions
    from calib_nb.core import Judged
    from calib_nb.models import TextFormat, load_model
    from calib_nb.questions import load_questions
    from calib_nb.readout import read_confidences

    lm, facts = load_model("smollm2-135m"), load_questions("facts")
    fmt = TextFormat(lm.tokenizer, chat_template=True)
    judged = [Judged(q.question, q.answers[0], i % 3 == 0, q.id) for i, q in enumerate(facts)]

    def answer(n):
        with tempfile.TemporaryDirectory() as folder:
            answer_questions(lm, facts[:n], folder)

    def read(n):
        read_confidences(lm, fmt, judged[:n], ["test"] * n, "m", 0, ["expected"])

    yield growth("answers", answer, sizes)
    yield growth("expected confidence", read, sizes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["old", "busy", "growth"], help="default: all")
    parser.add_argument("--old", help="another checkout of this repository")
    parser.add_argument("--form", default="whole", choices=[*QUESTIONS], help="how many questions")
    args = parser.parse_args()
    if "growth" in args.parts:
        for row in growths([16, 32, 64, 128] if args.form == "whole" else [2, 4]):
            say(row)
    if "old" in args.parts and args.old:
        for row in against_the_old(args.old, QUESTIONS[args.form]):
            say(row)
    if "busy" in args.parts:
        say(beside_busy_processes(QUESTIONS[args.form]))
