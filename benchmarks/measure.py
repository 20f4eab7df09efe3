"""Clocks, comparisons and memory for the scripts beside it."""
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module


def clock(work: Callable):  # no arguments
    "`(value, CPU seconds of this process, seconds)` of a call."
    gc.collect()
    start, cpu = time.perf_counter(), time.process_time()
    value = work()
    return value, time.process_time() - cpu, time.perf_counter() - start


def compared(
    stage: str,  # what is done
    against: str,  # who else does it
    n: int,  # how many things
    ours: Callable,  # no arguments
    theirs: Callable,
    seconds: float = 10,  # of wall-clock, at least; one round at least
    share: float = 1.0,  # of the work that `theirs` does; its time is divided by it
) -> dict:
    "The row of a comparison: both take turns, medians of the CPU seconds count, `ratio` is their time over ours."
    spent, start = [], time.perf_counter()
    while not spent or time.perf_counter() - start < seconds:
        spent.append([*clock(ours)[1:], *clock(theirs)[1:]])
    cpu, wall, their_cpu, their_wall = map(statistics.median, zip(*spent))
    walls = {"ours_wall": wall, "theirs_wall": their_wall / share, "rounds": len(spent)}
    return row_of(stage, against, n, cpu, their_cpu / share) | walls


def row_of(stage, against, n, ours_s, theirs_s):
    "A comparison of two times."
    return {
        "stage": stage,
        "against": against,
        "ratio": theirs_s / ours_s,
        "n": n,
        "ours_s": ours_s,
        "theirs_s": theirs_s,
    }


def amount(stage, n, value, unit):
    "A row in units, which is compared with a limit or with nothing."
    return {"stage": stage, "against": None, "ratio": None, "n": n, "value": value, "unit": unit}


def slope(sizes, seconds):
    "Of a straight line through the logarithms, by least squares: 1 where twice the number takes twice the time."
    return statistics.linear_regression([*map(_log, sizes)], [*map(_log, seconds)]).slope


def _log(x):
    return math.log(x)


def growth(
    stage: str,  # what is done
    work: Callable,  # takes how many
    sizes: list[int],  # 1x, 2x, 4x, 8x
) -> dict:
    "How the CPU seconds grow: the row of a slope, with the seconds of each size, the least of two."
    seconds = [min(clock(lambda n=n: work(n))[1] for _ in range(2)) for n in sizes]
    row = amount(f"{stage}, growth", sizes[-1], slope(sizes, seconds), "slope on a log-log plot")
    return row | {"sizes": sizes, "ours_each": seconds}


def say(row: dict):
    "A row as a line of JSON."
    print(json.dumps(row), flush=True)


class Checkout:
    "The modules of another checkout of this repository, in this process."

    def __init__(self, folder):
        self.folder, self.known = str(folder), {}

    def module(self, name):  # such as 'inference'
        "One of them; what it imports is of the same checkout."
        mine = {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] == "calib_nb"}
        sys.modules.update(self.known)
        sys.path.insert(0, self.folder)
        try:
            module = import_module(f"calib_nb.{name}")
        finally:
            sys.path.remove(self.folder)
            theirs = [key for key in sys.modules if key.partition(".")[0] == "calib_nb"]
            self.known |= {key: sys.modules.pop(key) for key in theirs}
            sys.modules.update(mine)
        assert module.__file__.startswith(self.folder), module.__file__
        return module


PEAK = """
# not ru_maxrss, which begins at the parent's size
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def child(
    code: str,  # Python
    folder: str,  # the checkout whose library it imports
    **environment: str,
) -> dict:  # `seconds` of CPU, `wall`, `peak_gib`
    "What a process of its own takes (Linux). RuntimeError where it fails."
    known = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    known |= {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", **environment}
    start, before = time.perf_counter(), os.times()
    whole = [sys.executable, "-c", code + PEAK]
    done = subprocess.run(whole, env=known, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    wall, after = time.perf_counter() - start, os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "wall": wall, "peak_gib": int(done.stdout.split()[-1]) / 2**20}
