"""How often intervals for these adapters and for the method err where two methods are equal, and hold the truth.

    python benchmarks/seeds_coverage.py            # writes figures/interval_coverage/seeds.csv

A cell that the file already has is not run again, so the job can be stopped and goes on. It prints the CPU seconds
of each cell."""
import argparse
import time
from itertools import product
from pathlib import Path

import pandas as pd

from calib_nb.interval_checks import seeds_coverage

OUT = Path(__file__).parents[1] / "figures/interval_coverage/seeds.csv"
KEY = ["metric", "seeds", "seed_sd", "difference"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=OUT, help="CSV file, two rows a cell: a claim each")
parser.add_argument("--trials", type=int, default=4000, help="repetitions of each experiment")
parser.add_argument("--resamples", type=int, default=200, help="bootstrap resamples of each interval")
args = parser.parse_args()

done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=KEY)
equal = product(("auroc", "brier_skill_score"), (3, 5, 10, 1), (0.0, 0.02, 0.05, 0.09), (0.0,))
apart = product(("auroc", "brier_skill_score"), (3,), (0.02, 0.05), (0.1,))
for cell in [*equal, *apart]:
    if (done[KEY] == list(cell)).all(axis=1).any():
        continue
    start = time.process_time()
    metric, seeds, seed_sd, difference = cell
    rows = seeds_coverage(metric, seeds, seed_sd, difference, trials=args.trials, n_resamples=args.resamples)
    done = pd.concat([done, pd.DataFrame(rows)], ignore_index=True)
    done.to_csv(args.out, index=False)
    rates = [(row["claim"], round(row["rejected"], 4), round(row["coverage"], 4)) for row in rows]
    print(cell, f"{time.process_time() - start:.0f} s", rates, flush=True)
