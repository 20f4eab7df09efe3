"""What the repository promises about itself: layers, notebooks that agree with modules, a README that is current."""
import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import MODULES, NUMBERED, ROOT, cells, code_cells

INDEX = ROOT / "nbs/index.ipynb"
ANALYSES = sorted(set(ROOT.glob("nbs/*.ipynb")) - {*NUMBERED, INDEX})
PARAMETERISED = [ROOT / f"nbs/{name}.ipynb" for name in ("run_method", "compare", "matrix", "transfer")]
ORDER = {module: place for place, module in enumerate(MODULES)}
WITHOUT_TORCH = {
    "core",
    "metrics",
    "resampling",
    "label_noise",
    "inference",
    "interval_checks",
    "plots",
    "prompts",
    "rules",
    "posthoc",
    "compare",
    "publish",
    "matrix",
    "transfer",
}
WITH_TORCH = {  # at the top or inside a function, or by a room that has it
    "embeddings",
    "questions",
    "models",
    "answers",
    "judge",
    "judge_quality",
    "labels",
    "training",
    "readout",
    "methods",
    "experiment",
    "report",
}


def own_name(name):
    "The first part below the package of `calib_nb.a.b`, `.a` or `a`; empty for the package itself."
    return name.removeprefix("calib_nb").strip(".").split(".")[0]


def imported(module):
    "Names of the package's modules and of other packages that a module imports, at the top or inside functions."
    own, others = set(), set()
    tree = ast.parse((ROOT / f"calib_nb/{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            bare = source in (".", "calib_nb")
            names = [f".{alias.name}" for alias in node.names] if bare else [source]
        else:
            continue
        ours = [name for name in names if name.startswith((".", "calib_nb."))]
        own |= {own_name(name) for name in ours}
        others |= {name.split(".")[0] for name in names if name not in ours}
    return own, others


def test_each_room_is_said_to_import_torch_or_not():
    listed = WITHOUT_TORCH | WITH_TORCH
    assert not WITHOUT_TORCH & WITH_TORCH
    assert listed - set(ORDER) == set(), "a room was renamed or left: rename it in this file, too"
    assert set(ORDER) - listed == set(), "a new room: say in this file whether it may import torch"


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_smaller_numbers(module):
    own, _ = imported(module)
    assert own <= set(ORDER)
    assert {name for name in own if ORDER[name] >= ORDER[module]} == set()


@pytest.mark.parametrize("module", sorted(WITHOUT_TORCH))
def test_a_module_without_torch_does_not_import_it_even_inside_a_function(module):
    _, others = imported(module)
    assert not others & {"torch", "transformers"}


def test_rules_are_strings_alone_and_import_nothing_of_ours():
    own, _ = imported("rules")
    assert own == set()


def test_modules_without_torch_load_none():
    imports = "".join(f"import calib_nb.{module}\n" for module in sorted(WITHOUT_TORCH))
    code = f"import sys\n{imports}assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_module_comes_from_one_notebook():
    sources = [source for notebook in NUMBERED for source in code_cells(notebook)]
    found = [re.search(r"#\|\s*default_exp (\w+)", source) for source in sources]
    exported = sorted(match[1] for match in found if match)
    modules = {file.stem for file in ROOT.glob("calib_nb/*.py")} - {"__init__", "_modidx"}
    assert exported == sorted(ORDER) == sorted(modules)


def copy_of_the_repository(folder):
    "What nbdev reads and writes, copied into `folder`."
    leave = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("nbs", "calib_nb"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)


def test_notebooks_are_clean_and_agree_with_the_modules(tmp_path):
    copy_of_the_repository(tmp_path)
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([Path(sys.executable).parent / command], check=True, cwd=tmp_path, capture_output=True)
    files = [file.relative_to(tmp_path) for file in sorted(tmp_path.rglob("*")) if "__pycache__" not in file.parts]
    written = [file for file in files if file.suffix in (".py", ".ipynb", ".toml")]
    changed = [str(file) for file in written if (tmp_path / file).read_bytes() != (ROOT / file).read_bytes()]
    assert changed == [], "run nbdev_clean and nbdev_export, and commit what changes"


@pytest.mark.parametrize("notebook", [*NUMBERED, *ANALYSES, INDEX], ids=lambda path: path.stem)
def test_a_notebook_opens_with_title_and_description_and_its_cells_have_ids(notebook):
    found = cells(notebook)
    title = next("".join(cell["source"]) for cell in found if cell["cell_type"] == "markdown")
    first = next(cell for cell in found if cell["cell_type"] != "raw")
    ids = [cell.get("id") for cell in found]
    assert re.match(r"# .+\n+> .+", title)
    assert found.index(first) <= 1
    assert all(ids)
    assert len(set(ids)) == len(ids)


def tagged_parameters(notebook):
    "The sources of the cells that are tagged as parameters."
    tagged = [cell for cell in cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    return ["".join(cell["source"]) for cell in tagged]


@pytest.mark.parametrize("notebook", PARAMETERISED, ids=lambda path: path.stem)
def test_a_parameterised_notebook_has_one_tagged_cell(notebook):
    assert len(tagged_parameters(notebook)) == 1


STATEMENTS = ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.For, ast.If, ast.IfExp, ast.Try
COMPREHENSIONS = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp


def statements_in(source):
    "Definitions, branches and loops in a cell's code."
    tree = ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M))
    return [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, STATEMENTS)]


def logic_in(source):
    "The same, and comprehensions that are more than one loop: two, with a condition, or with another one inside."
    found = statements_in(source)
    for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M))):
        inner = [part for part in ast.walk(node) if part is not node and isinstance(part, COMPREHENSIONS)]
        loops = node.generators if isinstance(node, COMPREHENSIONS) else []
        heavy = len(loops) > 1 or any(loop.ifs for loop in loops) or loops and inner
        if heavy:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("notebook", PARAMETERISED, ids=lambda path: path.stem)
def test_an_analysis_holds_no_logic(notebook):
    found = [line for source in code_cells(notebook) for line in logic_in(source)]
    assert found == [], "put it into a numbered notebook, with its example and test"


def test_results_only_reads_selects_and_asserts():
    found = [line for source in code_cells(ROOT / "nbs/results.ipynb") for line in statements_in(source)]
    assert found == [], "put it into a numbered notebook, with its example and test"


def test_logic_is_seen_where_it_is():
    assert logic_in("def f(x):\n    return x") and logic_in("f = lambda x: x") and logic_in("while True:\n    pass")
    assert logic_in("for x in xs:\n    found.append(x)") and logic_in("[r for rows in sets for r in rows]")
    assert logic_in("{k: [f(r) for r in rows] for k, rows in sets.items()}") and logic_in("[x for x in xs if x]")
    assert logic_in("[run_method(**given) for given in plan]\n{row: rows[row] for row in shown}") == []


def test_parameters_of_the_notebook_are_the_parameters_of_a_run():
    from calib_nb.experiment import Parameters

    names = {}
    exec(tagged_parameters(ROOT / "nbs/run_method.ipynb")[0], names)
    given = {name: value for name, value in names.items() if not name.startswith("__")}
    assert given == asdict(Parameters())


def test_the_readme_is_the_rendered_index(tmp_path):
    render = [Path(sys.executable).parent / "jupyter", "nbconvert", "--to", "markdown", INDEX]
    to = ["--output-dir", tmp_path, "--output", "README"]
    subprocess.run([*render, *to], check=True, capture_output=True)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), "run `make readme`"


def recipes():
    "The commands of each target of the Makefile, variables put in."
    make = ["make", "--always-make", "--dry-run", "--no-print-directory"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    run = {"cwd": ROOT, "env": environment, "check": True, "capture_output": True, "text": True}
    return {target: subprocess.run([*make, target], **run).stdout.splitlines() for target in targets}


def test_commands_of_the_readme_and_of_contributing_exist():
    readme = (ROOT / "README.md").read_text()
    used = set(re.findall(r"\bmake ([a-z-]+)", readme + (ROOT / "CONTRIBUTING.md").read_text()))
    assert {"run", "test", "check"} <= used <= set(recipes())
    commands = re.findall(r"papermill (nbs/\S+\.ipynb)(.*)", readme)
    for notebook, options in commands:
        known = re.findall(r"^(\w+) = ", tagged_parameters(ROOT / notebook)[0], re.M)
        assert set(re.findall(r"-p (\w+) ", options)) <= set(known), notebook
    assert len(commands) > 6
    for path in re.findall(r"\]\(((?:nbs|figures|tests|calib_nb)/[^)#]+)", readme):
        assert (ROOT / path).exists(), path


def test_three_sizes_of_test_each_begin_with_the_style_and_end_with_the_closing_line_of_pytest():
    sizes = recipes()
    for target in ("check", "test", "test-all"):
        commands = sizes[target]
        style = next(line for line in commands if "ruff check" in line)
        assert commands.index(style) == len(commands) - (2 if target == "check" else 3), target
        assert "/pytest tests" in commands[-1], target
        assert not re.search(r" -q\b| --quiet", commands[-1]), "a second -q hides the closing line"
    assert sizes["check"][-1].endswith('-m "not slow and not long"')
    assert sizes["test"][-1].endswith('-m "not long"')
    assert "-m" not in sizes["test-all"][-1]
    assert all("nbdev_test" in sizes[target][-2] for target in ("test", "test-all"))


def test_ci_runs_the_readme_command():
    assert "make test\n" in (ROOT / ".ci/run").read_text()
    assert "bash .ci/run" in (ROOT / ".github/workflows/test.yml").read_text()


def test_exact_versions():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[\w.!]+", pin) for pin in pins)
    assert len(pins) > 50
    assert {"ruff", "pytest-xdist", "execnet"} <= {pin.split("==")[0] for pin in pins}
