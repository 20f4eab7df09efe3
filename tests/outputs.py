"""What the numbered notebooks show: written anew, or compared with what is committed.

    python tests/outputs.py write [NOTEBOOK ...]    executes them (default: all) and keeps their outputs
    python tests/outputs.py check [NOTEBOOK ...]    executes them (default: those that load no model) and compares
    python tests/outputs.py checked                 a pattern of the names of those that load no model

Texts are compared with numbers to four significant digits, tables as text; of a picture, that there is one.
"""
import base64
import html
import io
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from conftest import NUMBERED, ROOT, code_cells
from nbclient import NotebookClient
from PIL import Image

PROCESSES = 2
SECONDS = 1200  # that one cell may take
WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
PICTURE_BYTES, COLOURS = 60_000, 96  # a larger picture is written with so many colours
LOADS = re.compile(r"\b(load_model|run_method|Run)\(")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.I)
FOUR_DIGITS = {"rel_tol": 5e-4, "abs_tol": 1e-9}
TOP_FOLDERS = "home|root|tmp|var|usr|opt|mnt|work|private|Users"
FORBIDDEN = {  # what it is -> how it looks
    "a path of this machine": re.compile(rf"(?<![\w.:/])/({TOP_FOLDERS})/|\b[A-Z]:\\"),
    "a temporary folder": re.compile(r"\btmp[a-z0-9_]{8}\b"),
    "a duration": re.compile(r"\b\d+\.\d+ ?(s|ms|seconds|minutes|hours)\b|\b\d+ (s|ms)\b"),
    "a date with a time": re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d"),
    "a memory size": re.compile(r"\b\d[\d.,]* ?[MG]i?B\b"),
    "an address in memory": re.compile(r"\b0x[0-9a-f]{6,}\b"),
    "a warning": re.compile(r"\w*Warning\b"),
}


# Executing


def environment():
    "Of a kernel: this checkout's modules, no network, pictures in the page."
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    ours = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    return {"OMP_NUM_THREADS": "1", **kept, **ours}


def is_noise(output):
    "Whether an output is a warning or a progress bar."
    if output.output_type == "stream":
        return output.name == "stderr"
    return WIDGET in output.get("data", {}) or bool(output.get("metadata", {}).get("progress"))


def joined(outputs):
    "Outputs without noise; what was printed in pieces is one piece."
    kept = []
    for output in outputs:
        if is_noise(output):
            continue
        both = [*kept[-1:], output]
        if len(both) == 2 and all(one.output_type == "stream" for one in both):
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def clean(page):
    "Take out what another run would write differently: counts, times, metadata, warnings, progress bars."
    page.metadata.pop("widgets", None)
    page.metadata.pop("language_info", None)
    for cell in page.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, joined(cell.outputs)
        for output in cell.get("outputs", []):
            if output.output_type != "stream":
                output.metadata = {}
            if output.output_type == "execute_result":
                output.execution_count = None
                output.data = without_addresses(output.data)
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small_enough(output.data["image/png"])
    return page


def small_enough(picture):  # base64
    "A PNG as it is, or with few colours where it is too large for git."
    content = base64.b64decode(picture)
    if len(content) <= PICTURE_BYTES:
        return picture
    reduced = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").quantize(COLOURS).save(reduced, "PNG", optimize=True)
    return base64.b64encode(reduced.getvalue()).decode()


def without_addresses(data):
    "What a cell's value looks like, where an object shows its address in memory."
    text = re.sub(r" at 0x[0-9a-f]+", "", data.get("text/plain", ""))
    return {**data, "text/plain": text} if text else data


def execute(path):
    "The notebook after a run of all its cells in its own folder, with clean outputs. Raises what a cell raises."
    page = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    quiet = ["--log-level=ERROR"]
    client = NotebookClient(page, timeout=SECONDS, kernel_name="python3", resources=folder, extra_arguments=quiet)
    client.execute(env=environment())
    return clean(page)


# Reading and comparing


def loads_a_model(path):
    "Whether an example of the notebook loads a model, or runs an experiment, which loads one."
    examples = [cell for cell in code_cells(path) if not re.search(r"^#\|\s*export\b", cell, re.M)]
    return any(map(LOADS.search, examples))


CHECKED = [path for path in NUMBERED if not loads_a_model(path)]


def plain(markup):
    "The text of an HTML table."
    bare = re.sub(r"<style.*?</style>|<[^>]*>", " ", markup, flags=re.S)
    return html.unescape(bare)


def shown(output):
    "What a reader gets to see of an output: its text, or that it is a picture."
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    if any(kind in data for kind in PICTURES):
        return "(a picture)"
    if "text/markdown" in data:
        return data["text/markdown"]
    return plain(data["text/html"]) if "text/html" in data else data.get("text/plain", "")


def same(text, other):
    "Whether two texts agree, numbers to four significant digits, white space in any form."
    words, others = (" ".join(NUMBER.sub(" # ", one).split()) for one in (text, other))
    numbers = [map(float, NUMBER.findall(one)) for one in (text, other)]
    return words == others and all(math.isclose(a, b, **FOUR_DIGITS) for a, b in zip(*numbers))


def title(cell):
    "What a message calls a cell: its last line."
    return cell.source.strip().splitlines()[-1][:80]


def differences(committed, executed):
    "A message for each cell that shows something else than it did."
    found = []
    for old, new in zip(committed.cells, executed.cells):
        before, now = (list(map(shown, cell.get("outputs", []))) for cell in (old, new))
        if len(before) != len(now) or not all(map(same, before, now)):
            found.append(f"{title(new)}\n  committed: {before}\n  now:       {now}")
    return found


def texts(page):
    "Everything in the outputs of a notebook that is text, as `(cell, text)`."
    for cell in page.cells:
        for output in cell.get("outputs", []):
            kinds = {"text": output.get("text", ""), **output.get("data", {})}
            for kind, text in kinds.items():
                if kind.startswith("text"):
                    yield cell, text


def unwanted(page):
    "A message for each text in the outputs that holds a path, a time or a warning."
    found = []
    for cell, text in texts(page):
        for what, pattern in FORBIDDEN.items():
            match = pattern.search(text)
            if match:
                found.append(f"{title(cell)}: {what}: {match[0]!r}")
    return found


# Commands


def write(path):
    "Execute the notebook and keep its outputs; what is wrong with them."
    page = execute(path)
    nbformat.write(page, path)
    subprocess.run([Path(sys.executable).parent / "nbdev_clean", "--fname", path], cwd=ROOT, check=True)
    return unwanted(page)


def check(path):
    "Execute the notebook; what it shows else than is committed."
    return differences(nbformat.read(path, as_version=4), execute(path))


def main(command, *paths):
    "Run a command on notebooks, two at a time; the exit status."
    if command == "checked":
        names = "|".join(path.stem for path in CHECKED)
        print(rf"^[_.]|^({names})\.ipynb$")  # and what nbdev leaves out anyway
        return 0
    work, usual = {"write": (write, NUMBERED), "check": (check, CHECKED)}[command]
    chosen = [Path(path).resolve() for path in paths] or usual
    with ProcessPoolExecutor(PROCESSES) as pool:
        results = dict(zip(chosen, pool.map(work, chosen)))
    for path, messages in results.items():
        print(path.name, *(messages or ["as it should be"]), sep="\n  ")
    return int(any(results.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
