"""How often each 95 % interval contains its estimand, over made-up forecasters and n = 200, 300, 1000.

    python benchmarks/interval_coverage.py            # writes figures/interval_coverage/coverage.csv

A cell (forecaster, n) that the file already has is not run again, so the job can be stopped and goes on; `--sizes`
runs some sizes only. It prints the CPU seconds of each cell; all of them took ten minutes."""
import argparse
import time
from pathlib import Path

import pandas as pd

from calib_nb.interval_checks import FORECASTERS, difference_coverage, interval_coverage

OUT = Path(__file__).parents[1] / "figures/interval_coverage/coverage.csv"
DIFFERENCE = "two forecasters"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=OUT, help="CSV file, one row a forecaster, n and metric")
parser.add_argument("--trials", type=int, default=600, help="repetitions of each experiment")
parser.add_argument("--resamples", type=int, default=500, help="bootstrap resamples of each interval")
parser.add_argument("--sizes", type=int, nargs="+", default=[200, 300, 1000], help="numbers of questions")
args = parser.parse_args()


def simulated(name, n):
    if name == DIFFERENCE:
        return difference_coverage(n, args.trials, args.resamples)
    return interval_coverage(name, n, args.trials, args.resamples)


done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=["forecaster", "n"])
for n in args.sizes:
    for name in [*FORECASTERS, DIFFERENCE]:
        if ((done.forecaster == name) & (done.n == n)).any():
            continue
        start = time.process_time()
        rows = pd.DataFrame(simulated(name, n))
        done = pd.concat([done, rows], ignore_index=True)
        done.to_csv(args.out, index=False)
        seconds = time.process_time() - start
        coverage = rows.set_index("metric").coverage.round(3).to_dict()
        print(f"{name}, n {n}: {seconds:.0f} s", coverage, flush=True)
