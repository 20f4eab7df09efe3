"""Long work in slices: tables that several processes add to, and what is missing in them, made a few at a time."""
import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from calib_nb import __version__
from calib_nb.compare import by_row
from calib_nb.core import locked, read_json, write_json, write_text
from calib_nb.publish import _commit, made_with, readings_frame


@dataclass(frozen=True)
class Tables:
    "The tables of a folder; beside them `runs.json` and `made_by.txt`."

    folder: Path
    command: str = ""  # that makes them, for a `made_by.txt` that is not there yet

    def read(self, name: str) -> pd.DataFrame:
        "A table as it is; an empty one where there is none."
        path = self.folder / name
        return pd.read_csv(path, keep_default_na=False) if path.exists() else pd.DataFrame()

    def add(self, name: str, rows: pd.DataFrame, key: list[str]) -> Path:  # key: columns by which a row is known
        "Add rows; those with the same key are replaced. One process writes at a time."
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        with locked(path):
            table = pd.concat([self.read(name), rows]).drop_duplicates(key, keep="last").sort_values(key)
            part = path.with_name(f".part-{path.name}")
            zipped = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None
            table.to_csv(part, index=False, compression=zipped)
            part.replace(path)
        return path

    def absent(self, name: str, key: list[str], wanted: list[tuple]) -> list[tuple]:
        "Those that a table has no row of."
        table = self.read(name)
        there = table[key].drop_duplicates().astype(str) if len(table) else pd.DataFrame(columns=key)
        known = set(there.itertuples(index=False, name=None))
        return [values for values in wanted if tuple(map(str, values)) not in known]

    def note(self, run):  # a `Run` that is finished
        "Add a run to `runs.json`, and what made it to `made_by.txt`."
        path = self.folder / "runs.json"
        with locked(path):
            runs = {**(read_json(path) if path.exists() else {}), **made_with([run.folder])}
            write_json(path, runs)
            seeds = sorted({about["parameters"]["seed"] for about in runs.values()})
            about = {"seeds": f"{', '.join(map(str, seeds))}; split_seed 0"}
            if self.command:  # of the last run
                about |= {"code": f"calib_nb {__version__}, {_commit()}", "date": date.today().isoformat()}
            self._note(about)

    def _note(self, about):
        made_by = self.folder / "made_by.txt"
        known = made_by.read_text(encoding="utf-8") if made_by.exists() else f"command: {self.command}"
        lines = [line for line in known.splitlines() if line.split(":")[0] not in about]
        lines += [f"{name}: {value}" for name, value in about.items()]
        write_text(made_by, "\n".join(lines) + "\n")


def lines_of(readings: list, **where) -> pd.DataFrame:  # where: columns to put in front
    "Readings as lines of a table, confidences with six decimals."
    lines = readings_frame(by_row(readings), **where).drop(columns="calibrator")
    return lines.assign(confidence=lines.confidence.astype(float).round(6))


def make_missing(script: str, stages: Callable, hours: float, processes: int = 2):
    "Commands of a script, stage by stage, some at a time, one thread each; nothing is begun after so many hours."
    end = time.monotonic() + 3600 * hours
    for commands in stages():
        running = []
        for words in map(list, commands):
            while len(running) >= processes:
                running = still(running)
            if time.monotonic() > end:
                break
            print(*words, flush=True)
            command = [sys.executable, script, *map(str, words)]
            running.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}))
        while running:
            running = still(running)
        if time.monotonic() > end:
            return


def still(running):
    "The processes that have not ended, a second later. Raises where one failed."
    time.sleep(1)
    failed = [process.args[2:] for process in running if process.poll()]
    if failed:
        raise RuntimeError(f"{' '.join(failed[0])} failed; what it printed stands above")
    return [process for process in running if process.poll() is None]


def main(script: str, about: str, makers: dict, stages: Callable):  # makers: command -> function of words
    "The command line of such a script: one command with its words, or `all` that is missing."
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*makers, "all"])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--hours", type=float, default=2)
    given = parser.parse_args()
    if given.command == "all":
        make_missing(script, stages, given.hours)
    else:
        makers[given.command](*given.words)
