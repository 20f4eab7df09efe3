"""CPU seconds and memory of a whole metric card, by number of questions and resamples.

    python benchmarks/metric_card.py"""
import time

from calib_nb.core import peak_memory_gib
from calib_nb.inference import metric_card
from calib_nb.resampling import made_up_readings

SAYS = {"steps of 0.1": lambda c: c.round(1), "continuous": lambda c: c}

for n, n_resamples in ((300, 2000), (1000, 2000), (4326, 2000), (4326, 10_000)):
    for kind, says in SAYS.items():
        readings = made_up_readings(n, says=says)
        start = time.process_time()
        metric_card(readings, 0.3, n_resamples)
        seconds = time.process_time() - start
        size = f"n {n:5}  resamples {n_resamples:6}  {kind:14}"
        print(f"{size}{seconds:7.1f} s   peak {peak_memory_gib():.2f} GiB", flush=True)
