"""Whether two versions of this repository compute the same values, to the last bit.

    git worktree add /tmp/other 09c68a6
    PYTHONPATH=/tmp/other python benchmarks/same_values.py save other.json
    python benchmarks/same_values.py save this.json
    python benchmarks/same_values.py compare other.json this.json

`save` runs five methods by all readouts, and protocol `joint`, with few questions; `compare` puts the words of today
for the earlier ones (`calib_nb.core.RENAMED`) and says what differs.
"""
import json
import sys
import tempfile
from pathlib import Path

FEW = {"n_train": 40, "n_calibration": 20, "n_test": 16}
NEW = ("schema", "calibrator")  # what earlier versions did not write
TIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "judged_sha256")  # never twice the same
FILES = ("judged", "labels", "baseline_readings", "readings", "original_readings")


def read_lines(path):
    "The JSON values of a file, one a line; none where there is no file."
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.exists() else []


def values_of(folder):
    "All values that a finished run leaves."
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = {name: manifest.get(name) for name in ("history", "weight_shift", "data")}
    kept["metrics"] = json.loads((folder / "metrics.json").read_text())
    return {**kept, **{name: read_lines(folder / f"{name}.jsonl") for name in FILES}}


def run(out, method, **parameters):
    "The values of a run, and for the two-step protocol those of all readouts."
    from calib_nb.experiment import read_more, run_method
    from calib_nb.readout import READOUTS

    folder = run_method(**FEW, out=out, method=method, **parameters)
    values = values_of(folder)
    if "protocol" not in parameters:
        readings = read_more(folder, ("calibration", "test"), tuple(READOUTS))
        values["all readouts"] = [vars(r) for r in readings]
    return values


def save(path):
    "Run everything with the version that is imported, and write its values."
    from calib_nb.methods import METHODS

    distilled = next(name for name in METHODS if name.endswith("consistency_distill"))
    with tempfile.TemporaryDirectory() as out:
        done = {name: run(out, name) for name in ("baseline", "sft", "dpo", "self_distill", distilled)}
        done["joint"] = run(out, "sft", protocol="joint", original=True)
    Path(path).write_text(json.dumps(done))


def renamed(value):
    "A value of 0.1 in the words of today: names, keys and readings with a calibrator."
    from calib_nb.core import RENAMED

    if isinstance(value, dict):
        return {RENAMED.get(name, name): renamed(v) for name, v in value.items()}
    if isinstance(value, list):
        return [renamed(v) for v in value]
    return RENAMED.get(value, value) if isinstance(value, str) else value


def comparable(value):
    "What both versions say: without the words that only one of them has."
    if isinstance(value, dict):
        known = {"parsed" if name == "coverage" else name: v for name, v in value.items()}
        return {name: comparable(v) for name, v in known.items() if name not in NEW and name not in TIMES}
    return [comparable(v) for v in value] if isinstance(value, list) else value


def differences(one, other, where=""):
    "Places where the two differ, as text."
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(set(one) | set(other))
        return [d for name in names for d in differences(one.get(name), other.get(name), f"{where}/{name}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for i, pair in enumerate(zip(one, other)) for d in differences(*pair, f"{where}/{i}")]
    return [] if one == other and type(one) is type(other) else [f"{where}: {one!r} | {other!r}"[:200]]


def numbers_in(value):
    "How many numbers it holds."
    if isinstance(value, dict | list):
        return sum(map(numbers_in, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float)


def compare(path, other):
    "Say what differs; the exit code is 1 where anything does."
    one, other = (json.loads(Path(p).read_text()) for p in (path, other))
    one, other = comparable(renamed(one)), comparable(other)
    found = differences(one, other)
    print(*found[:40], sep="\n")
    print(f"{len(found)} differences in {numbers_in(one)} numbers of {len(one)} runs")
    return bool(found)


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    sys.exit({"save": save, "compare": compare}[command](*paths))
