"""What others install: its version, what is in it, what it needs, and each extra by itself."""
import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from contextlib import suppress
from email.parser import Parser
from functools import cache
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT
from constraints import LEFT_OUT, normal, pinned
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from test_repository import WITHOUT_TORCH
from uv import find_uv_bin

PYTHONS = ("3.11", "3.12", "3.13")
config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = config["DEFAULT"]
EXTRAS = [name.removesuffix("_requirements") for name in SETTINGS if name.endswith("_requirements")]
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # this checkout is not found
PINS = {normal(name): version for name, version in pinned((ROOT / "constraints.txt").read_text()).items()}


# Its version


def test_the_version_is_the_same_wherever_it_stands():
    import calib_nb

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = re.search(r"^## (\S+) \((unreleased|20\d\d-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert {calib_nb.__version__, citation["version"], heading[1]} == {SETTINGS["version"]}


def git(folder, *words):
    "What git prints."
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main"]
    run = {"cwd": folder, "check": True, "capture_output": True, "text": True}
    return subprocess.run(["git", *identity, *words], **run).stdout


def test_the_commands_of_contributing_tag_the_version(tmp_path):
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## A release\n")[2]
    commands = re.search(r"^```bash\n(.*?)^```", section, re.M | re.S)[1]
    clone, other = tmp_path / "clone", tmp_path / "other"
    git(tmp_path, "init", "--bare", str(other))
    git(tmp_path, "init", str(clone))
    shutil.copy(ROOT / "settings.ini", clone)
    for words in (["add", "."], ["commit", "-m", "all"], ["remote", "add", "origin", str(other)]):
        git(clone, *words)
    for name in ("name", "email"):
        git(clone, "config", f"user.{name}", "n@example.org")
    subprocess.run(["bash", "-ec", commands], cwd=clone, check=True, capture_output=True)
    made = git(other, "tag", "--format=%(refname:short) %(objecttype) %(subject)").strip()
    assert made == f"v{SETTINGS['version']} tag calib_nb {SETTINGS['version']}"


# What it needs


def test_each_extra_has_its_packages_and_a_sentence():
    described = {name.removesuffix("_about") for name in SETTINGS if name.endswith("_about")}
    assert set(EXTRAS) == described >= {"train", "judge", "files", "gemma", "facts", "dev"}


def asked_for(extra):
    "The requirements of an extra as settings.ini has them, with the package's own; `dev` has all others but `gemma`."
    parts = {"": [], "dev": [f"{name}_" for name in EXTRAS if name != "gemma"]}.get(extra, [f"{extra}_"])
    return [text for part in ["", *parts] for text in SETTINGS[f"{part}requirements"].split()]


@cache
def needed(extra, python):  # extra: '' for the package alone
    "name -> the versions that are allowed, of all that an extra brings on a Python, as far as it is installed here."
    known = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    allowed, seen, queue = {}, set(), [Requirement(text) for text in asked_for(extra)]
    while queue:
        wanted = queue.pop()
        allowed.setdefault(normal(wanted.name), []).append(wanted.specifier)
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        queue += [child for child in requirements_of(wanted.name) if applies(child, wanted.extras, known)]
    return allowed


@cache
def requirements_of(name):
    "What an installed package requires; nothing of one that is not installed."
    try:
        return [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []


def applies(child, extras, known):
    "Whether a requirement counts, where its parent is wanted with these extras."
    return child.marker is None or any(child.marker.evaluate({**known, "extra": extra}) for extra in ("", *extras))


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_all_that_an_extra_brings_is_pinned_and_fits_together(extra, python):
    allowed = needed(extra, python)
    brought = {name for name in allowed if not LEFT_OUT.fullmatch(name)}
    assert brought - set(PINS) == set(), "make constraints"
    wrong = [name for name in brought for spec in allowed[name] if not spec.contains(PINS[name], prereleases=True)]
    assert wrong == []


def test_the_pins_are_for_each_python_from_its_first_release_on():
    too_new = []
    for name in needed("dev", PYTHONS[0]):
        with suppress(metadata.PackageNotFoundError):
            about = metadata.metadata(name)
            pinned_here = about["Version"].partition("+")[0] == PINS.get(name)
            known = SpecifierSet(about.get("Requires-Python") or "")
            if pinned_here and not all(known.contains(f"{python}.0") for python in PYTHONS):
                too_new.append(f"{name}: {known}")
    assert too_new == [], "hold an older one by `HELD` in tests/constraints.py"


def imported_at_once(module):
    "Third-party packages that a module imports as it is imported itself."
    found = set()
    for node in ast.parse((ROOT / f"calib_nb/{module}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"calib_nb"}


def test_what_loads_no_torch_loads_nothing_that_only_an_extra_brings():
    called = {"sklearn": "scikit-learn"}  # where the package has another name than its distribution
    brought = {normal(Requirement(text).name) for text in asked_for("")}
    imported = {(name, module) for module in WITHOUT_TORCH for name in imported_at_once(module)}
    assert {(name, module) for name, module in imported if called.get(name, name) not in brought} == set()


def test_without_an_extra_there_is_no_torch():
    assert not {"torch", "transformers", "jupyterlab", "nbdev"} & set(needed("", "3.11"))
    assert "torch" in needed("train", "3.11") and "openai" in needed("judge", "3.11")


@pytest.mark.long
@pytest.mark.parametrize("extra, python", [(extra, "3.11") for extra in EXTRAS] + [("dev", "3.12"), ("dev", "3.13")])
def test_uv_finds_versions_of_each_extra_alone_with_the_pins(extra, python):
    command = [find_uv_bin(), "pip", "compile", "--quiet", "--constraint", "constraints.txt", "pyproject.toml"]
    chosen = ["--extra", extra, "--python-version", python]
    ended = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    names = {normal(line.split("==")[0]) for line in ended.stdout.splitlines() if "==" in line}
    assert {normal(Requirement(text).name) for text in SETTINGS[f"{extra}_requirements"].split()} <= names


# What is in it


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "(wheel, source archive): the archive is made from what git knows, the wheel from the archive."
    folder = tmp_path_factory.mktemp("built")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    subprocess.run(command, cwd=folder, env=OUTSIDE, check=True, capture_output=True)
    [wheel], [source] = folder.glob("dist/*.whl"), folder.glob("dist/*.tar.gz")
    return wheel, source


DATA = {f"calib_nb/data/{path.name}" for path in (ROOT / "calib_nb/data").iterdir()}
MODULES = {f"calib_nb/{path.name}" for path in (ROOT / "calib_nb").glob("*.py")}


@pytest.mark.long
def test_the_wheel_has_modules_data_and_licence_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
        about = next(name for name in names if name.endswith(".dist-info/METADATA"))
        said = Parser().parsestr(wheel.read(about).decode())
    apart = {name for name in names if ".dist-info/" not in name}
    assert apart == MODULES | DATA
    assert {Path(name).name for name in names - apart} >= {"LICENSE", "entry_points.txt", "METADATA", "RECORD"}
    assert (said["Name"], said["Version"]) == ("calib_nb", SETTINGS["version"])
    assert set(said.get_all("Provides-Extra")) == set(EXTRAS)
    assert SpecifierSet(said["Requires-Python"]) == SpecifierSet(">=3.11,<3.14")
    assert said.get_payload().startswith("# calib_nb\n"), "the README"


@pytest.mark.long
def test_the_source_archive_builds_the_wheel_and_has_no_tests(built):
    with tarfile.open(built[1]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {"settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"} | MODULES | DATA <= names
    assert {name.split("/")[0] for name in names} & {"tests", "nbs", "figures", "benchmarks", "runs"} == set()


@pytest.mark.long
def test_installed_into_a_fresh_environment_it_scores_without_torch(built, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python, calib = tmp_path / "fresh/bin/python", tmp_path / "fresh/bin/calib_nb"
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "env": OUTSIDE}
    install = [find_uv_bin(), "pip", "install", "--python", python, "--constraint", ROOT / "constraints.txt"]
    ended = subprocess.run([*install, built[0]], **run)
    assert ended.returncode == 0, ended.stderr
    rows = {"confidence": [0.2, 0.4, 0.6, 0.8] * 10, "is_correct": [0, 0, 1, 1] * 10}
    pd.DataFrame(rows).to_csv(tmp_path / "predictions.csv")
    scored = subprocess.run([calib, "score", "predictions.csv"], **run)
    assert scored.returncode == 0 and re.search(r"^AUROC +1 ", scored.stdout, re.M), scored.stdout + scored.stderr
    assert subprocess.run([calib, "--version"], **run).stdout.split()[-1] == SETTINGS["version"]
    told = "import calib_nb.metrics, importlib.util as i; print(calib_nb.__file__, i.find_spec('torch'))"
    place, torch = subprocess.run([python, "-c", told], **run).stdout.split()
    assert Path(place).is_relative_to(tmp_path) and torch == "None"
