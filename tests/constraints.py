"""Renew the pins of constraints.txt, and say what changed: `python tests/constraints.py ALONE...` (`make constraints`).

The pins are what pip would install into an empty environment today: the extras `dev` and `gemma`, and the packages that
are named, without what these depend on. Nothing is installed.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = ROOT / "constraints.txt"
LEFT_OUT = re.compile(
    "calib-nb|pip|setuptools|wheel"  # this package, and what builds packages
    "|triton|(cuda|nvidia)-.*"  # of a CUDA build of torch, which names their versions itself
)

HELD = ("soupsieve<3",)  # newer ones need Python 3.11.5, and Debian 12 has 3.11.2


def normal(name):
    "A package's name as the index compares it."
    return re.sub(r"[-_.]+", "-", name).lower()


def newest(*arguments):
    "name -> version of all that `pip install` with these arguments would bring; a local part such as +cpu is left out."
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    report = subprocess.run([*pip, *arguments], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    found = [item["metadata"] for item in json.loads(report)["install"]]
    return {about["name"]: about["version"].partition("+")[0] for about in found}


def pinned(text):
    "name -> version of the lines of a constraints file."
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def as_file(pins):
    "The text of constraints.txt."
    python = ".".join(map(str, sys.version_info[:2]))
    head = f"# Exact versions that were tested together, on Python {python}."
    lines = [f"{name}=={version}" for name, version in pins.items() if not LEFT_OUT.fullmatch(normal(name))]
    return "\n".join([head, *sorted(lines, key=str.upper), ""])


def changes(before, after):
    "A line for each pin that is new, gone, or another version."
    old, new = ({normal(name): version for name, version in pins.items()} for pins in (before, after))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            lines.append(f"{name}: {old.get(name, 'new')} -> {new.get(name, 'gone')}")
    return lines


def renew(alone):
    "Write the pins of today; what changed, a line each."
    before = pinned(FILE.read_text(encoding="utf-8"))
    found = newest(".[dev,gemma]", *HELD) | newest("--no-deps", *alone)
    FILE.write_text(as_file(found), encoding="utf-8")
    return changes(before, pinned(FILE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    print("\n".join(renew(sys.argv[1:])) or "nothing changed")
