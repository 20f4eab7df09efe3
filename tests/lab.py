"""JupyterLab in a headless Chromium, driven as a user would: one server and one browser for all tests."""
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
from conftest import ROOT

TOKEN = "of-the-tests"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser_path():
    "The browser of this machine; None where there is none."
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def notebook(*sources, parameters=None):
    "A notebook of these cells; the one that is tagged as parameters comes first."
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if parameters:
        cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})


@contextmanager
def server(folder):
    "The address of a JupyterLab like that of `make lab`, which shows another folder; its kernels import this checkout."
    shutil.copy(ROOT / "settings.ini", folder)  # the project's root, where saving cleans a notebook
    settings = folder / ".settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # cells that are out of sight are in the page, too
    options = {
        "ServerApp.root_dir": folder,
        "IdentityProvider.token": TOKEN,
        "ServerApp.port": 0,
        "ServerApp.allow_root": True,
        "ServerApp.open_browser": False,
        "LabApp.expose_app_in_browser": True,
        "LabApp.news_url": "",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    config = ["--config", str(ROOT / "jupyter_lab_config.py"), "--no-browser"]
    runtime = {"JUPYTER_RUNTIME_DIR": str(folder / ".runtime"), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings")}
    here = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **runtime}
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | here
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *config, *words],
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "server.log").open("w"),
    )
    try:
        yield _address(folder, process)
    finally:
        process.terminate()
        process.wait(20)


def _address(folder, process):
    "Where the server listens, once it does."
    for _ in range(600):
        known = list((folder / ".runtime").glob("jpserver-*.json"))
        if known and known[0].read_text():
            return json.loads(known[0].read_text())["url"]
        assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
        time.sleep(0.1)
    raise TimeoutError((folder / "server.log").read_text()[-2000:])


class Lab:
    "A page of JupyterLab, and the folder that it shows."

    def __init__(self, page, address, folder: Path):
        self.page, self.address, self.folder = page, address, folder

    def open(self, name, content=None):
        "Open a notebook, which is written first where there is a content; its kernel has started."
        if content is not None:
            nbformat.write(content, self.folder / name)
        self.page.goto(f"{self.address}lab/tree/{name}?token={TOKEN}&reset")
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'",
            timeout=120_000,
        )
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")

    def do(self, command):
        "Carry out a command of JupyterLab to its end."
        self.page.evaluate("command => window.jupyterapp.commands.execute(command).then(() => null)", command)

    def start(self, command):
        "Begin with it, and do not wait."
        self.page.evaluate("command => { window.jupyterapp.commands.execute(command); return null }", command)

    def run_all(self):
        self.do("notebook:run-all-cells")

    def save(self):
        self.do("docmanager:save")

    def restart(self):
        "A fresh kernel, which knows nothing."
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")

    def interrupt(self):
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()")

    def write(self, place, source):
        "Replace the source of a cell."
        script = """([place, source]) => {
            const cells = window.jupyterapp.shell.currentWidget.content.model.cells
            cells.get(place).sharedModel.setSource(source)
        }"""
        self.page.evaluate(script, [place, source])

    def execute(self, place):
        "Run one cell."
        script = """place => {
            window.jupyterapp.shell.currentWidget.content.activeCellIndex = place
            return window.jupyterapp.commands.execute('notebook:run-cell').then(() => null)
        }"""
        self.page.evaluate(script, place)

    def outputs(self, place):
        "The outputs of a cell as its notebook holds them."
        script = "place => window.jupyterapp.shell.currentWidget.content.model.cells.get(place).outputs.toJSON()"
        return self.page.evaluate(script, place)

    def text(self, place):
        "What can be read in the outputs of a cell, in the page."
        areas = self.page.locator(".jp-Notebook .jp-CodeCell").nth(place).locator(".jp-OutputArea-output")
        return "\n".join(areas.all_inner_texts())

    def wait_for(self, place, words, seconds=60):
        "Until words stand in the outputs of a cell."
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(place)
        cell.locator(".jp-OutputArea-output", has_text=words).first.wait_for(timeout=seconds * 1000)
