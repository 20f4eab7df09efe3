"""Makes a publication again, and compares its headline numbers with the published ones.

    make reproduce NAME=text                            # or: python benchmarks/reproduce.py text
    python benchmarks/reproduce.py text --folder DIR    # compares what lies there already; runs nothing

The command in `figures/NAME/made_by.txt` runs into a fresh folder, with a cache of its own: hours, for most. Then the
share of right answers, Brier skill and AUROC of each row are compared within the tolerances that the file states. The
exit code is 1 where one differs, 2 where the publication cannot be made again in this way.
"""
import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from calib_nb.compare import Row
from calib_nb.core import project_root
from calib_nb.publish import publish_run, published_readings
from calib_nb.resampling import Sample, reading_arrays

METRICS = {"Brier skill": "brier_skill_score", "AUROC": "auroc"}
LEAST = 30  # confidences; a metric of fewer turns on single answers


def made_by(name):
    "What `made_by.txt` of a publication says, by the words before its colons."
    path = project_root() / f"figures/{name}/made_by.txt"
    return dict(line.split(": ", 1) for line in path.read_text(encoding="utf-8").splitlines())


def tolerances_of(name):
    "What the numbers of a publication may differ by."
    parts = [part.rsplit(" ", 1) for part in made_by(name)["tolerances"].split(", ")]
    return {metric: float(value) for metric, value in parts}


# Headline numbers


def constant_of(rows):
    "The constant forecast of Brier skill: where none is published, the share of right answers."
    known = rows.get(Row("training_accuracy", "constant"))
    if known:
        return known[0].confidence
    return float(np.mean([r.is_correct for readings in rows.values() for r in readings]))


def headline(readings, reference):
    "The numbers of one row; no Brier skill and AUROC where it has too few confidences."
    values = dict.fromkeys(METRICS, np.nan)
    if sum(r.confidence is not None for r in readings) >= LEAST:
        found = Sample(reading_arrays(readings)).values([*METRICS.values()], reference)
        values = {label: found[name] for label, name in METRICS.items()}
    return {"right": np.mean([r.is_correct for r in readings]), **values}


def headlines(path):
    "A frame with the numbers of each place, split and row in a file of readings."
    columns = pd.read_csv(path, keep_default_na=False)
    found = {}
    for place in columns["place"].unique() if "place" in columns else [""]:
        wanted = {"place": place} if place else {}
        for split in sorted(columns["split"].unique()):
            rows = published_readings(path, split, **wanted)
            reference = constant_of(rows)
            found |= {(place, split, *row): headline(readings, reference) for row, readings in rows.items()}
    return pd.DataFrame(found).T.rename_axis(["place", "split", *Row._fields])


def differences(published, found, tolerances):
    "A line for each number that differs by more than its tolerance, or that only one side has; none where all agree."
    both = {"published": published, "found": found}
    sides = pd.concat({name: side[list(tolerances)].stack().dropna() for name, side in both.items()}, axis=1)
    sides.index.names = [*published.index.names, "metric"]
    sides["difference"] = sides["found"] - sides["published"]
    allowed = sides.index.get_level_values("metric").map(tolerances)
    return sides[~(sides["difference"].abs() <= allowed)]


# Making it again


def command_into(command, folder):
    "The words of a notebook's command with another place for its results, and nothing published."
    words = shlex.split(command)
    if "publish" in words:
        at = words.index("publish")
        del words[at - 1 : at + 2]
    words[words.index("papermill") + 2] = str(folder / "executed.ipynb")
    return [*words, "-p", "out", str(folder)]


def readings_in(folder):
    "The file of readings that a notebook left; a single run's is written first."
    if not list(folder.rglob("readings.csv.gz")):
        publish_run(next(folder.glob("*/manifest.json")).parent, folder.resolve() / "published")
    return next(folder.rglob("readings.csv.gz"))


def report(name, folder):
    "Compare what lies in a folder with what is published; the exit code."
    published = headlines(project_root() / f"figures/{name}/readings.csv.gz")
    tolerances = tolerances_of(name)
    different = differences(published, headlines(readings_in(folder)), tolerances)
    if different.empty:
        print(f"{name}: all {published.count().sum()} numbers of {len(published)} rows agree")
        return 0
    print(different.round(3).to_string())
    print(f"{name}: {len(different)} numbers differ by more than {made_by(name)['tolerances']}")
    return 1


def main(name, folder=None):
    "The exit code."
    if not (project_root() / f"figures/{name}/readings.csv.gz").exists():
        print(f"'{name}' has no published readings to compare; figures/README.md lists those that have")
        return 2
    if folder:
        return report(name, folder)
    with tempfile.TemporaryDirectory(prefix=f"reproduce-{name}-") as fresh:
        words = command_into(made_by(name)["command"], Path(fresh))
        print(" ".join(words), flush=True)
        subprocess.run(["env", *words], check=True, stdin=subprocess.DEVNULL, cwd=project_root())
        return report(name, Path(fresh))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a publication: the name of a folder of figures/")
    parser.add_argument("--folder", type=Path, help="what was made again already")
    args = parser.parse_args()
    sys.exit(main(args.name, args.folder))
