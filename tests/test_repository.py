"""What the repository promises about itself: layers, notebooks that agree with modules, a README that is current and names commands that exist."""
import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

NUMBERED = sorted(ROOT.glob("nbs/[0-9][0-9]*_*.ipynb"))
ANALYSES = sorted(set(ROOT.glob("nbs/*.ipynb")) - set(NUMBERED) - {ROOT / "nbs/index.ipynb"})
ORDER = {nb.stem.partition("_")[2]: place for place, nb in enumerate(NUMBERED)}  # 02 comes before 02a
WITHOUT_TORCH = {
    "core", "metrics", "resampling", "label_noise", "inference", "interval_checks", "plots", "prompts", "rules", "posthoc",
    "compare", "publish", "matrix",
}


def cells(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def imported(module):
    "Names of the package's modules and of other packages that a module imports, at the top or inside functions."
    own, others = set(), set()
    for node in ast.walk(ast.parse((ROOT / "calib_nb" / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("calib_nb")):
            path = (node.module or "").removeprefix("calib_nb").strip(".")
            own |= {path} if path else {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            others |= {a.name.split(".")[0] for a in node.names}
    return own, others


def test_the_rooms_without_torch_exist():
    assert WITHOUT_TORCH <= set(ORDER), "a room was renamed: rename it here too"


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_smaller_numbers(module):
    own, others = imported(module)
    assert {m for m in own if ORDER[m] >= ORDER[module]} == set()
    if module in WITHOUT_TORCH:
        assert not others & {"torch", "transformers"}


def test_metrics_need_no_torch():
    code = "import sys\n" + "".join(f"import calib_nb.{m}\n" for m in sorted(WITHOUT_TORCH)) + "assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_module_comes_from_one_notebook():
    exports = [re.search(r"#\|\s*default_exp (\w+)", "".join(c["source"])) for nb in NUMBERED for c in cells(nb) if c["cell_type"] == "code"]
    names = [m[1] for m in exports if m]
    assert sorted(names) == sorted(ORDER) == sorted(f.stem for f in ROOT.glob("calib_nb/*.py") if f.stem not in ("__init__", "_modidx"))


def test_notebooks_are_clean_and_agree_with_the_modules(tmp_path):
    for name in ("nbs", "calib_nb", "settings.ini", "setup.py", "pyproject.toml", "README.md"):
        source = ROOT / name
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")) if source.is_dir() else shutil.copy(source, tmp_path)
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([Path(sys.executable).parent / command], check=True, cwd=tmp_path, capture_output=True)
    changed = [str(f.relative_to(tmp_path)) for f in sorted(tmp_path.rglob("*")) if f.suffix in (".py", ".ipynb", ".toml")
               and "__pycache__" not in f.parts and f.read_bytes() != (ROOT / f.relative_to(tmp_path)).read_bytes()]
    assert changed == [], "run nbdev_clean and nbdev_export, and commit what changes"


@pytest.mark.parametrize("notebook", [*NUMBERED, *ANALYSES, ROOT / "nbs/index.ipynb"], ids=lambda p: p.stem)
def test_a_notebook_opens_with_title_and_description_and_its_cells_have_ids(notebook):
    found = cells(notebook)
    title = next("".join(c["source"]) for c in found if c["cell_type"] == "markdown")
    assert re.match(r"# .+\n+> .+", title) and found.index(next(c for c in found if c["cell_type"] != "raw")) <= 1
    assert all(c.get("id") for c in found) and len({c["id"] for c in found}) == len(found)


@pytest.mark.parametrize("notebook", [nb for nb in ANALYSES if nb.stem in ("run_method", "compare", "matrix", "elsewhere")], ids=lambda p: p.stem)
def test_a_parameterised_notebook_has_one_tagged_cell(notebook):
    tagged = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert not any(re.search(r"^\s*(def|class|for .+ in range|while) ", "".join(c["source"]), re.M) for c in cells(notebook) if c["cell_type"] == "code"), "no logic in an analysis"


def test_parameters_of_the_notebook_are_the_parameters_of_a_run():
    from dataclasses import asdict

    from calib_nb.experiment import Parameters
    cell = next(c for c in cells(ROOT / "nbs/run_method.ipynb") if "parameters" in c["metadata"].get("tags", []))
    names = {}
    exec("".join(cell["source"]), names)
    assert {k: v for k, v in names.items() if not k.startswith("__")} == asdict(Parameters())


def test_the_readme_is_the_rendered_index(tmp_path):
    subprocess.run([Path(sys.executable).parent / "jupyter", "nbconvert", "--to", "markdown", ROOT / "nbs/index.ipynb", "--output-dir", tmp_path, "--output", "README"], check=True, capture_output=True)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), "run `make readme`"


def test_commands_of_the_readme_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):", makefile, re.M))
    used = set(re.findall(r"\bmake (\w+)", readme))
    assert {"run", "test"} <= used <= targets
    commands = re.findall(r"papermill (nbs/\S+\.ipynb)(.*)", readme)
    for notebook, options in commands:
        known = next("".join(c["source"]) for c in cells(ROOT / notebook) if "parameters" in c["metadata"].get("tags", []))
        assert set(re.findall(r"-p (\w+) ", options)) <= set(re.findall(r"^(\w+) = ", known, re.M)), notebook
    assert len(commands) > 6
    for path in re.findall(r"\]\(((?:nbs|figures|tests|calib_nb)/[^)#]+)", readme):
        assert (ROOT / path).exists(), path


def test_ci_runs_the_readme_command():
    assert "make test" in (ROOT / ".ci/run").read_text() and "bash .ci/run" in (ROOT / ".github/workflows/test.yml").read_text()


def test_exact_versions():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[\w.!]+", line) for line in lines) and len(lines) > 50
