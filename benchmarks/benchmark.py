"""The table of `nbs/benchmark.ipynb`: how long each stage takes beside others, with its target.

    make benchmark       # all rows, an hour at most: writes figures/benchmark/benchmark.json and its picture
    make bench           # five minutes: exit code 1 where a ratio falls below .8 of the committed one

A row's ratio is always reference time / our time, in CPU seconds of one thread; "at most k times" is a target of 1 / k.
The scripts beside this one measure, each in a process of its own, and print a line of JSON for each row."""
import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "figures/benchmark"
OLD, SHARE = "09c68a6", 0.8
HERE = "benchmarks"
SCRIPTS = {  # form: script and its options; those that load a model come last
    "whole": [
        ["without_model.py"],
        ["without_model.py", "--form", "quick", "--seconds", "5", "knn", "card", "judge"],
        ["stages.py"],
        ["stages.py", "--n", "16", "--seconds", "10", "levels"],
        ["generation.py"],
        ["whole_run.py"],
    ],
    "quick": [
        ["without_model.py", "--form", "quick", "--seconds", "5", "knn", "card", "judge"],
        ["stages.py", "--n", "16", "--seconds", "10", "levels"],
    ],
    "smallest": [["without_model.py", "--form", "smallest", "--seconds", "0", "knn"]],
}
TARGETS = {  # stage, against, and n where targets differ by it
    ("expected confidence", "each string in its own forward"): 17,
    ("expected confidence", OLD): 1.38,
    ("expected and verbalized", OLD): 1.8,
    ("greedy answers", "one at a time"): 6,
    ("greedy answers", OLD): 1.5,
    ("joint evaluation", "one at a time"): 3.6,
    ("joint evaluation", OLD): 1.65,
    ("ten samples a question", "generate(num_return_sequences=10)"): 4,
    ("SFT", "trl SFTTrainer"): 2,
    ("DPO", "trl DPOTrainer, reference before"): 4.2,
    ("DPO, reference kept", "our SFT"): 1 / 1.1,
    ("k-NN labels", "whole matrix sorted", 10_000): 8,
    ("k-NN labels", "scikit-learn brute", 40_000): 2,
    ("metric card, steps of 0.1", "loop of scikit-learn and relplot", 4000): 100,
    ("metric card, steps of 0.1", "loop of scikit-learn and relplot", 16_000): 65,
    ("metric card, continuous", "loop of scikit-learn and relplot", 4000): 33,
    ("metric card, continuous", "loop of scikit-learn and relplot", 16_000): 14,
    ("metric card, peak memory", OLD, 16_000): 2,
    ("rules judge, 10 aliases", OLD): 2,
    ("a whole run (dpo)", OLD): 1.5,
    ("a whole run beside two busy processes", "itself, quiet"): 1 / 1.2,
}
LIMITS = {"k-NN labels, peak memory": 2, "a whole run (dpo), peak memory": 2.6}  # GiB
ON_A_GPU = {  # google/gemma-2-2b-it's architecture, NF4 and bf16, 1,000 questions: seconds on one H100
    "GPU: expected confidence": 10,
    "GPU: joint evaluation": 30,
    "GPU: SFT, 3 epochs": 60,
    "GPU: DPO, 3 epochs": 90,
}


@contextmanager
def old_checkout() -> Iterator[Path | None]:  # None where the history is not here
    "The earlier version, in a git worktree that is removed afterwards."
    parent = Path(tempfile.mkdtemp())
    folder = parent / OLD
    git = ["git", "-C", str(ROOT), "worktree"]
    made = subprocess.run([*git, "add", "--detach", folder, OLD], capture_output=True, check=False)
    try:
        yield folder if made.returncode == 0 else None
    finally:
        subprocess.run([*git, "remove", "--force", folder], capture_output=True, check=False)
        shutil.rmtree(parent, ignore_errors=True)


def lines_of(
    script: list[str],  # its name and options
    old: Path | None,  # the other checkout
) -> list[dict]:
    "The rows that a script prints; what goes wrong in it stands in a row of its own, and the others are kept."
    given = ["--old", str(old)] if old else []
    name, *options = script
    if not (ROOT / HERE / name).exists():
        return [{"stage": name, "against": None, "ratio": None, "note": "not measured: there is no such script"}]
    command = [sys.executable, str(ROOT / HERE / name), *given, *options]
    threads = {} if name == "whole_run.py" else {"OMP_NUM_THREADS": "1"}
    known = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"} | threads
    with subprocess.Popen(command, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, problem = process.communicate()
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if process.returncode:
        why = problem.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        rows.append({"stage": " ".join(script), "against": None, "ratio": None, "note": f"failed: {why[0][:200]}"})
    return rows


def machine():
    "What it ran on, in words."
    cores = os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {cores} cores, {platform.system()}"


def as_row(
    line: dict,  # as a script prints it
    where: str,  # the machine
) -> dict:  # stage, against, ratio, target, limit, n, seconds, threads, machine, and what else the line says
    "A row of the table."
    key = line["stage"], line["against"]
    target = TARGETS.get((*key, line.get("n")), TARGETS.get(key))
    used = ("stage", "against", "ratio", "n", "ours_s", "theirs_s", "ours_wall", "theirs_wall")
    names = {"ours": "ours_s", "theirs": "theirs_s", "ours_wall": "ours_wall", "theirs_wall": "theirs_wall"}
    row = {
        "stage": line["stage"],
        "against": line["against"],
        "ratio": line["ratio"],
        "target": target,
        "limit": LIMITS.get(line["stage"]),
        "n": line.get("n"),
        "seconds": {name: line[said] for name, said in names.items() if said in line},
        "threads": os.cpu_count() if "busy" in line["stage"] else 1,
        "machine": where,
    }
    return row | {name: value for name, value in line.items() if name not in used}


def gpu_rows():
    "What only a GPU can show; where there is none, that it was not measured."
    import torch

    if torch.cuda.is_available():
        made = [as_row(line, torch.cuda.get_device_name()) for line in lines_of(["gpu.py"], None)]
        return [row | {"limit": ON_A_GPU.get(row["stage"]), "threads": None} for row in made]
    rows = []
    for stage, limit in ON_A_GPU.items():
        line = {"stage": stage, "against": None, "ratio": None, "n": 1000, "unit": "s", "note": "not measured"}
        rows.append(as_row(line, "one H100") | {"limit": limit, "threads": None})
    return rows


def too_slow(
    rows: list[dict],  # just measured
    committed: list[dict],  # of `benchmark.json`
    share: float = SHARE,  # of the committed ratio that must be reached
) -> list[str]:  # a sentence for each
    "Which ratios fell. Rows are the same where stage, other and n are; one that failed counts as fallen."
    known = {(r["stage"], r["against"], r["n"]): r["ratio"] for r in committed if r["ratio"]}
    fallen = [f"{r['stage']}: {r['note']}" for r in rows if str(r.get("note", "")).startswith("failed")]
    for row in rows:
        before = known.get((row["stage"], row["against"], row["n"]))
        if before and row["ratio"] and row["ratio"] < share * before:
            name = f"{row['stage']}, n = {row['n']}, against {row['against']}"
            fallen.append(f"{name}: {row['ratio']:.2f}, committed {before:.2f}")
    return fallen


def line_of(row):
    "A row in words."
    said = f"{row['stage']:44} {row['against'] or '':34} n {row['n'] or '':>7}"
    if row["ratio"]:
        wanted = f"   target {row['target']:.3g}" if row["target"] else ""
        return f"{said}   {row['ratio']:8.3g} times{wanted}"
    if "value" in row:
        limit = f"   limit {row['limit']}" if row["limit"] else ""
        return f"{said}   {row['value']:8.3g} {row['unit']}{limit}"
    return f"{said}   {row.get('note', '')}"


def measured(form: str) -> list[dict]:  # in `SCRIPTS`
    "All rows of a form, printed as they come."
    rows, where = [], machine()
    with old_checkout() as old:
        for script in SCRIPTS[form]:
            for line in lines_of(script, old):
                rows.append(as_row(line, where))
                print(line_of(rows[-1]), flush=True)
    return rows


def draw(rows: list[dict], path: Path):  # without a suffix
    "Each ratio beside its target, as a picture."
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row["ratio"]][::-1]
    place = range(len(shown))
    fig, ax = plt.subplots(figsize=(8.3, 1.5 + 0.32 * len(shown)), layout="constrained")
    below = [row["target"] is not None and row["ratio"] < row["target"] for row in shown]
    colours = ["tab:orange" if missed else "tab:blue" for missed in below]
    ax.barh(place, [row["ratio"] for row in shown], color=colours, label="measured (orange: below its target)")
    ax.plot([row["target"] or None for row in shown], place, "k|", markersize=12, label="target, where there is one")
    ax.set_yticks(place, [f"{row['stage']}, {row['n']}\nagainst {row['against']}" for row in shown], fontsize=7)
    ax.axvline(1, color="0.5", linewidth=0.8)
    ax.margins(y=0.01)
    ax.set_xscale("log")
    ax.set_xlabel("their time / our time (1: equally fast)")
    ax.set_title("How many times as fast each stage is as what else does it", loc="left", fontsize="medium")
    fig.legend(loc="outside lower right", frameon=False, fontsize=8, ncols=2)
    for suffix in (".png", ".svg"):
        fig.savefig(path.with_suffix(suffix), metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(fig)


def write(rows: list[dict], folder: Path = FOLDER):
    "The rows and their picture."
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    (folder / "benchmark.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    draw(rows, folder / "ratios")


def main(arguments: list[str] | None = None) -> int:  # exit code
    "`whole` writes, `quick` compares; another folder is for trials."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=[*SCRIPTS], help="whole: writes; else: compares with what was written")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of benchmark.json")
    parser.add_argument("--write", action="store_true", help="write the rows of another form, too")
    args = parser.parse_args(arguments)
    rows = measured(args.form)
    if args.form == "whole" or args.write:
        write(rows + gpu_rows(), args.folder)
        return 0
    path = args.folder / "benchmark.json"
    if not path.exists():
        print(f"{path}: not there; `make benchmark` writes it")
        return 1
    fallen = too_slow(rows, json.loads(path.read_text(encoding="utf-8")))
    print(*fallen, sep="\n")
    return int(bool(fallen))


if __name__ == "__main__":
    sys.exit(main())
