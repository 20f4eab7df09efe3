"""What the repository promises about itself: layers, notebooks that agree with modules, a README that is current."""
import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import MODULES, NUMBERED, ROOT, cells, code_cells
from constraints import as_file, changes, pinned
from readme import LINK, from_the_root, heading_in_lab, heading_on_github, rendered

INDEX = ROOT / "nbs/index.ipynb"
ANALYSES = sorted(set(ROOT.glob("nbs/*.ipynb")) - {*NUMBERED, INDEX})
WITH_PARAMETERS = ("run_method", "compare", "matrix", "transfer", "original_again", "fair_asking", "explore")
PARAMETERISED = [ROOT / f"nbs/{name}.ipynb" for name in WITH_PARAMETERS]
ORDER = {module: place for place, module in enumerate(MODULES)}
WITHOUT_TORCH = {
    "core",
    "files",
    "help",
    "progress",
    "metrics",
    "resampling",
    "label_noise",
    "inference",
    "study",
    "study_rows",
    "base_rates",
    "prices",
    "interval_checks",
    "plots",
    "choices",
    "prompts",
    "responses",
    "rules",
    "posthoc",
    "sample_budget",
    "endpoint",
    "compare",
    "publish",
    "matrix",
    "transfer",
    "formats",
    "readings",
    "display",
    "scoring",
    "command_line",
    "larger",
    "explorer",
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
    "endpoint_readout",
    "original",
    "methods",
    "outlook",
    "experiment",
    "report",
    "replication",
    "asking",
    "hub",
    "sweep",
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
    modules = {file.stem for file in ROOT.glob("calib_nb/*.py")} - {"__init__", "__main__", "_modidx"}
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
    ids = [cell.get("id") for cell in found]
    assert re.match(r"# .+\n+> .+", title)
    assert found[0]["cell_type"] == "markdown"
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_a_notebook_keeps_no_state_of_widgets():
    for notebook in [*NUMBERED, *ANALYSES, INDEX]:
        assert "widgets" not in json.loads(notebook.read_text(encoding="utf-8"))["metadata"], notebook.stem


def test_a_notebook_that_is_not_executed_says_so_in_its_last_cell():
    for notebook in [*NUMBERED, *ANALYSES, INDEX]:
        *others, last = [cell["cell_type"] for cell in cells(notebook)]
        assert "raw" not in others, notebook.stem
        assert last != "raw" or "skip_exec: true" in "".join(cells(notebook)[-1]["source"]), notebook.stem


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


README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README, re.M | re.S))


def test_the_readme_is_the_rendered_index():
    assert rendered() == README, "run `make readme`"


def written_links(text):
    "The links of a page, but for those to other places."
    return [link for link in LINK.findall(text) if not re.match(r"\w+:", link)]


def broken_links(text, folder, heading):
    "Links from a page in `folder` to files that are not there, and to headings of its own that it does not have."
    headings = {"#" + heading(title) for title in re.findall(r"^#+ (.+)", text, re.M)}
    links = written_links(text)
    here = [link for link in links if link.startswith("#") and link not in headings]
    return here + [link for link in links if not link.startswith("#") and not (folder / link).exists()]


def test_links_of_the_index_and_of_the_readme_lead_somewhere():
    index = "\n\n".join("".join(cell["source"]) for cell in cells(INDEX))
    assert len(written_links(index)) == len(written_links(README)) > 15
    assert broken_links(index, INDEX.parent, heading_in_lab) == []
    assert broken_links(README, ROOT, heading_on_github) == []


@pytest.mark.parametrize("link, there", [
    ("results.ipynb", "nbs/results.ipynb"),
    ("../figures/a.png", "figures/a.png"),
    ("#Use-your-own-answers", "#use-your-own-answers"),
    ("https://arxiv.org/abs/2207.05221", "https://arxiv.org/abs/2207.05221"),
])
def test_a_link_of_the_index_becomes_one_of_the_readme(link, there):
    assert from_the_root(link) == there


def test_before_its_first_command_the_readme_has_one_picture_three_doors_and_few_numbers():
    before, _, after = README.partition("```bash")
    assert len(re.findall(r"\.\d", before)) <= 12
    assert before.count("![") == 1
    assert "make run" in after.split("```")[0]
    assert after.split("```")[1].count("](") == 3


def table_of(section):
    "The rows of the first table of a section of the README: the name in backticks -> the other cells."
    rows = re.findall(r"^\|(.*)\|$", SECTIONS[section], re.M)[2:]
    split = [[cell.strip().replace("\u00a0", " ") for cell in row.split("|")] for row in rows]
    named = [(next(cell for cell in row if cell.startswith("`")), row) for row in split]
    return {re.search(r"`(\w+)`", name)[1]: [cell for cell in row if cell != name] for name, row in named}


def published(name, file):
    "Where a file of a publication lies: in a folder of its own, or beside the others."
    paths = ROOT / f"figures/{name}/{file}", ROOT / f"figures/data/{name}_{file}"
    return next(path for path in paths if path.exists())


def test_the_table_of_readouts_has_each_and_the_values_of_the_matrix():
    from calib_nb.readout import READOUTS

    values = pd.read_csv(published("matrix", "values.csv"), keep_default_na=False)
    auroc = values[(values.metric == "auroc") & (values.calibrator == "")].set_index("method")
    table = table_of("Readouts")
    assert set(table) == set(READOUTS)
    for readout, row in table.items():
        for method, shown in zip(("baseline", "sft"), row[-2:]):
            known = auroc[readout][method]
            assert (shown == known == "") or shown == f"{float(known):.2f}", (readout, method)


def published_cells():
    "`Row` -> its test readings, of what the table of methods is from."
    from calib_nb.publish import published_readings

    files = [published(name, "readings.csv.gz") for name in ("exploratory", "text", "compare")]
    return {row: readings for file in files for row, readings in published_readings(file).items()}


def minutes_of_training():
    "method -> minutes, a mean over seeds."
    files = [published(name, "runs.json") for name in ("exploratory", "text", "compare")]
    runs = [run for file in files for run in json.loads(file.read_text()).values()]
    seconds = [(run["parameters"]["method"], run["stages"].get("training", {}).get("seconds", 0)) for run in runs]
    return (pd.DataFrame(seconds, columns=["method", "seconds"]).groupby("method").seconds.mean() / 60).round()


def near_published(shown, readings, reference):
    "Whether a shown AUROC and Brier skill, if any, are those of the readings."
    from calib_nb.inference import metric_card

    names = ("auroc", "brier_skill_score")[: len(shown)]
    card = metric_card(readings, reference, n_resamples=20, names=names) if names else {}
    return all(float(value) == pytest.approx(card[name].value, abs=0.0051) for value, name in zip(shown, names))


def test_the_table_of_methods_has_each_that_was_compared_and_the_published_values():
    from calib_nb.compare import Row
    from calib_nb.methods import METHODS

    table, cells, minutes = table_of("Methods"), published_cells(), minutes_of_training()
    reference = cells[Row("training_accuracy", "constant")][0].confidence
    not_compared = {"grpo", "sequence_likelihood", "shuffled", "question_only", "constant_target"}
    assert set(table) == set(METHODS) - not_compared
    for method, (_, shown, text, expected) in table.items():
        by_text, by_probability = cells[Row(method, "verbalized")], cells[Row(method, "expected")]
        parsed, *scores = text.split(", ")
        assert int(shown) == minutes[method], method
        assert int(parsed[:-2]) == round(100 * sum(r.confidence is not None for r in by_text) / len(by_text)), method
        assert near_published(scores, by_text, reference), method
        assert near_published(expected.split(", "), by_probability, reference), method


def test_the_tree_of_the_readme_names_each_notebook_and_each_folder():
    tree = SECTIONS["The repository"].split("```")[1]
    named = re.findall(r"^ *([\w./]+)(?:, ([\w./]+))?  ", tree, re.M)
    names = {name for pair in named for name in pair if name}
    notebooks = {path.stem for path in ROOT.glob("nbs/*.ipynb")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    folders = {f"{path.split('/')[0]}/" for path in tracked if "/" in path}
    assert notebooks | folders <= names
    assert not {name for name in names - notebooks if not (ROOT / name).exists()} - {"runs/", "_docs/", "data/"}


def test_python_of_the_readme_runs_and_gives_what_its_comments_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9] * 5
    for name, right in (("predictions.csv", [0, 0, 1, 0, 1, 0, 1, 1]), ("rival.csv", [1, 0, 1, 0, 1, 0, 0, 1])):
        rows = {"question": [f"q{i}" for i in range(40)], "confidence": said, "is_correct": right * 5}
        pd.DataFrame(rows).to_csv(name, index=False)
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    assert len(blocks) == 2
    names = {}
    for code in blocks:
        exec(code, names)
        for line, value in re.findall(r"^(\w+\(.*\))  # ([\d.]+\d)", code, re.M):
            assert eval(line, names) == pytest.approx(float(value), abs=0.005), line
    assert len(names["scored"].table()) == 10 and names["readings"][0].confidence == 0.1


def test_what_is_saved_in_jupyterlab_after_reading_is_what_was_there(tmp_path, monkeypatch):
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from nbdev.clean import clean_jupyter

    copy_of_the_repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    manager = LargeFileManager(root_dir=str(tmp_path))
    manager.pre_save_hook = clean_jupyter
    for path in sorted(Path("nbs").glob("*.ipynb")):
        model = manager.get(str(path))
        model["content"]["metadata"]["language_info"] = {"name": "python", "version": "3.13.0"}
        model["content"]["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
        manager.save(model, str(path))
        assert path.read_bytes() == (ROOT / path).read_bytes(), path


def test_jupyterlab_has_the_repository_as_root_and_the_main_job_as_first_page(monkeypatch):
    class Settings(dict):
        __getattr__ = dict.__getitem__

    monkeypatch.delenv("PYTHONSTARTUP", raising=False)
    kept = Settings(ServerApp=Settings(), FileContentsManager=Settings())
    path = ROOT / "jupyter_lab_config.py"
    runpy.run_path(str(path), {"get_config": lambda: kept})
    assert vars(kept.ServerApp) == {"root_dir": str(ROOT)}
    assert vars(kept.FileContentsManager)["pre_save_hook"].__name__ == "clean_jupyter"
    assert recipes()["lab"][-1].endswith("jupyter lab --config jupyter_lab_config.py nbs/run_method.ipynb")
    assert "jupyter_hooks = True" in (ROOT / "settings.ini").read_text()
    assert runpy.run_path(os.environ["PYTHONSTARTUP"])["calib_nb"].__version__, "what its kernels begin with"


def recipes(*variables):  # NAME=VALUE
    "The commands of each target of the Makefile, variables put in."
    make = ["make", "--always-make", "--dry-run", "--no-print-directory", *variables]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    run = {"cwd": ROOT, "env": environment, "check": True, "capture_output": True, "text": True}
    return {target: subprocess.run([*make, target], **run).stdout.splitlines() for target in targets}


def test_commands_of_the_readme_and_of_contributing_exist():
    used = set(re.findall(r"\bmake ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text()))
    assert {"run", "test", "check", "lab"} <= used <= set(recipes())
    commands = re.findall(r"papermill (nbs/\S+\.ipynb)(.*)", README)
    for notebook, options in commands:
        known = re.findall(r"^(\w+) = ", tagged_parameters(ROOT / notebook)[0], re.M)
        assert set(re.findall(r"-p (\w+) ", options)) <= set(known), notebook
    assert len(commands) > 6


def test_torch_comes_from_another_index_only_where_one_is_named():
    usual, cpu = recipes()["setup"], recipes("TORCH_INDEX=https://host/whl/cpu")["setup"]
    assert not any("index-url" in line for line in usual)
    changed = [line for line in cpu if line not in usual]
    assert len(usual) == len(cpu) and len(changed) == 1
    assert "--constraint constraints.txt --extra-index-url https://host/whl/cpu --editable" in changed[0]


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


def test_ci_runs_the_readme_command_once_a_push_on_each_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert "make test\n" in (ROOT / ".ci/run").read_text()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run", "make docs"]
    assert job["strategy"]["matrix"]["python-version"] == ["3.11", "3.12", "3.13"]
    assert workflow[True] == {"push": {"branches": ["main"]}, "pull_request": None}  # YAML reads `on` as True


def test_hooks_run_what_is_installed_and_need_no_network():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert {repository["repo"] for repository in repositories} == {"local"}
    assert [hook["entry"].split()[0] for hook in hooks] == [".venv/bin/ruff", ".venv/bin/nbdev_clean"]
    assert {hook["language"] for hook in hooks} == {"system"}


def test_exact_versions():
    pins = pinned((ROOT / "constraints.txt").read_text())
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in pins)
    assert all(re.fullmatch(r"[\w.!]+", version) for version in pins.values())
    assert len(pins) > 50
    assert {"ruff", "pytest-xdist", "execnet", "pre_commit"} <= set(pins)


def test_renewed_pins_leave_out_what_is_not_pinned_and_say_what_changed():
    found = {"b_c": "2", "A": "1", "setuptools": "80", "calib-nb": "0.1.0", "nvidia-nccl-cu13": "2"}
    text = as_file(found)
    assert text.splitlines()[1:] == ["A==1", "b_c==2"]
    assert changes({"B-c": "1", "gone": "3"}, pinned(text)) == ["a: new -> 1", "b-c: 1 -> 2", "gone: 3 -> gone"]
