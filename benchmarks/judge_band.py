"""How often the judge's band contains the value under true labels, where errors are counted by confidence tercile.

    python benchmarks/judge_band.py            # writes figures/interval_coverage/judge_band.csv

A cell that the file already has is not run again, so the job can be stopped and goes on. It prints the CPU seconds
of each cell."""
import argparse
import time
from itertools import product
from pathlib import Path

import pandas as pd

from calib_nb.interval_checks import judge_band_coverage

OUT = Path(__file__).parents[1] / "figures/interval_coverage/judge_band.csv"
KEY = ["forecaster", "judge", "n", "audit"]
AUDITS = {"honest": 300, "claims too much, steps of 0.1": 450}  # the least in which each third has a hundred answers

JUDGES = "convinced by confidence", "convinced by doubt", "errs alike"  # at both sizes
ALSO = "better where confident", "worse where confident"  # at 300 questions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=OUT, help="CSV file, two rows a cell: a metric each")
parser.add_argument("--trials", type=int, default=1000, help="repetitions of each experiment")
parser.add_argument("--sizes", type=int, nargs="+", default=[300, 500], help="numbers of questions")
args = parser.parse_args()

done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=KEY)
cells = [*product(JUDGES, args.sizes, AUDITS), *product(ALSO, [n for n in args.sizes if n == 300], AUDITS)]
for judge, n, forecaster in cells:
    cell = [forecaster, judge, n, 600 if n > 300 else AUDITS[forecaster]]
    if (done[KEY] == cell).all(axis=1).any():
        continue
    start = time.process_time()
    rows = pd.DataFrame(judge_band_coverage(*cell, trials=args.trials))
    done = pd.concat([done, rows], ignore_index=True)
    done.to_csv(args.out, index=False)
    found = rows[["offered", "coverage", "width"]].values.tolist()
    print(cell, f"{time.process_time() - start:.0f} s", found, flush=True)
