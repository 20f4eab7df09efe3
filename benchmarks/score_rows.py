"""CPU seconds and peak memory of `score`, by number of rows; a process for each size, as a peak never falls.

    python benchmarks/score_rows.py [ROWS ...]    (default: 1,000 to 1,000,000)"""
import subprocess
import sys
import time

SIZES = ("1000", "10000", "100000", "1000000")


def measure(n):
    "One line: rows, resamples, CPU seconds of making the readings and of `score`, the peak before and after."
    from calib_nb.core import peak_memory_gib
    from calib_nb.resampling import made_up_readings
    from calib_nb.scoring import score

    start = time.process_time()
    readings = made_up_readings(n)
    made, before = time.process_time(), peak_memory_gib()
    found = score(readings, 0.3)
    seconds = time.process_time() - made
    size = f"rows {n:9,}  resamples {found.n_resamples:5,}"
    took = f"readings {made - start:5.1f} s, {before:.2f} GiB   score {seconds:6.1f} s"
    print(f"{size}   {took}   peak {peak_memory_gib():.2f} GiB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(int(sys.argv[2]))
    else:
        for size in sys.argv[1:] or SIZES:
            subprocess.run([sys.executable, __file__, "--one", size], check=True)
