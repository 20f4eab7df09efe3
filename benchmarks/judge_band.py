"""How often the judge's band contains the value under true labels, where errors are counted by confidence tercile.

    python benchmarks/judge_band.py            # writes figures/interval_coverage/judge_band.csv

A cell that the file already has is not run again, so the job can be stopped and goes on. It prints the CPU seconds
of each cell."""
import argparse
import time
from itertools import product
from pathlib import Path

import pandas as pd

from calib_nb.interval_checks import _JUDGES, judge_band_coverage

OUT = Path(__file__).parents[1] / "figures/interval_coverage/judge_band.csv"
KEY = ["forecaster", "judge", "n", "audit"]
AUDITS = {"honest": 300, "claims too much, steps of 0.1": 450}  # the least in which each third has a hundred answers

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=OUT, help="CSV file, two rows a cell: a metric each")
parser.add_argument("--trials", type=int, default=1000, help="repetitions of each experiment")
parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1000], help="numbers of questions")
args = parser.parse_args()

done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=KEY)
for n, forecaster, judge in product(args.sizes, AUDITS, _JUDGES):
    cell = [forecaster, judge, n, AUDITS[forecaster] if n < 1000 else 600]
    if (done[KEY] == cell).all(axis=1).any():
        continue
    start = time.process_time()
    rows = pd.DataFrame(judge_band_coverage(*cell, trials=args.trials))
    done = pd.concat([done, rows], ignore_index=True)
    done.to_csv(args.out, index=False)
    found = rows[["offered", "coverage", "width"]].values.tolist()
    print(cell, f"{time.process_time() - start:.0f} s", found, flush=True)
