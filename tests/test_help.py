"""`?` and Shift-Tab say what each parameter means; importing the library reads no sources for it."""
import importlib
import inspect
import re
import subprocess
import sys

import pytest
from conftest import MODULES, ROOT
from IPython.core.interactiveshell import InteractiveShell

from calib_nb.help import _answer_in, _parameter_comments, _run_first, _say_what_comes_first, _with_comments
from calib_nb.inference import Difference, metric_card
from calib_nb.readings import Readings
from calib_nb.resampling import Sample

TORCH_FREE = ("core", "files", "metrics", "resampling", "inference", "plots", "readings", "scoring")


@pytest.fixture(scope="module")
def shell():
    "An IPython shell that knows some names of the library."
    import IPython.core.oinspect

    plain = IPython.core.oinspect.getdoc
    _answer_in(IPython.core.oinspect)
    shell = InteractiveShell()
    known = {"metric_card": metric_card, "Readings": Readings, "Sample": Sample, "Difference": Difference, "len": len}
    shell.push(known)
    yield shell
    IPython.core.oinspect.getdoc = plain


@pytest.mark.parametrize("name, said", [
    ("metric_card", "reference: the constant forecast, the accuracy on the training questions"),
    ("Readings.from_file", "scale: 'percent' where confidences are in [0, 100]"),
    ("Sample", "groups: sorted labels of all groups"),
    ("Sample.times", "counts: (b, G) how often each group was drawn"),
    ("Difference", "p_value: two-sided, of no difference"),
])
def test_the_question_mark_says_what_parameters_mean(shell, name, said):
    text = shell.object_inspect_mime(name)["text/plain"]
    assert text.count(said) == 1 and text.index("Docstring:") < text.index(said)


def test_what_is_not_ours_is_as_it_was(shell):
    assert "Parameters" not in shell.object_inspect_mime("len")["text/plain"]
    assert _with_comments(len, None) is None and _with_comments(np_like, "as it was") == "as it was"


def np_like(
    x,  # of a module that is not of the library
):
    return x


@pytest.mark.parametrize("module", TORCH_FREE)
def test_each_comment_of_a_parameter_is_found(module):
    room = importlib.import_module(f"calib_nb.{module}")
    functions = [thing for name, thing in vars(room).items() if inspect.isfunction(thing) and name in room.__all__]
    assert module in MODULES and functions
    for function in functions:
        parameters = list(inspect.signature(function).parameters)
        comments, _ = _parameter_comments(inspect.getsource(function))
        named = {name for names in comments for name in names.split(", ")}
        assert named <= set(parameters) and (len(parameters) < 3 or named == set(parameters)), function.__name__


def test_importing_the_library_reads_no_comments():
    code = "import sys, calib_nb, calib_nb.metrics; assert 'calib_nb.help' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    code = "import IPython.core.oinspect as o, calib_nb; assert o.getdoc.plain"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# Cells that are run too early

MAKERS = [
    ("run = 1", True),
    ("import run", True),
    ("from x import y as run", True),
    ("def run():\n    pass", True),
    ("with open(x) as run:\n    pass", True),
    ("if x:\n    run: int = 1", True),
    ("(run := 3)", True),
    ("def f():\n    run = 1", False),
    ("[run for run in x]", False),
    ("run.metrics", False),
    ("x.run = 1", False),
    ("%matplotlib inline\nrun = 1", False),  # no Python: nothing is known
    ("run = ", False),
]


@pytest.mark.parametrize("cell, made", MAKERS)
def test_a_cell_makes_what_it_assigns_imports_or_defines(cell, made):
    said = _run_first("run", ["x = 1", cell], "run.metrics")
    assert (cell.splitlines()[0] in said) is made and "\n" not in said


def too_early(shell, capsys, code):
    "What is shown where a cell runs; its colours are taken out."
    capsys.readouterr()
    assert not shell.run_cell(code, store_history=True).success
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)


def test_a_cell_that_is_run_too_early_says_in_one_line_what_to_run_first(tmp_path, monkeypatch, capsys):
    from nbformat import v4, write

    page = tmp_path / "page.ipynb"
    cells = ["# METHOD\nmethod = 'sft'", "from calib_nb.experiment import Run", "run = Run(method=method)", "n = n + 1"]
    write(v4.new_notebook(cells=[v4.new_markdown_cell("run = 1"), *map(v4.new_code_cell, cells)]), page)
    shell = InteractiveShell()
    _say_what_comes_first(shell)
    assert "Traceback" in too_early(shell, capsys, "run.metrics"), "no notebook is known"
    monkeypatch.setenv("JPY_SESSION_NAME", str(page))
    said = too_early(shell, capsys, "run.metrics")
    assert said.strip() == (
        "NameError: 'run' is not there yet: run the cell `run = Run(method=method)` first, "
        "or all above ('Run All Above Selected Cell')"
    )
    assert "`# METHOD`" in too_early(shell, capsys, "print(method)")
    assert "Traceback" in too_early(shell, capsys, "rum"), "a slip, which no cell explains"
    assert "Traceback" in too_early(shell, capsys, "n = n + 1"), "the cell that runs is the one that makes it"
    assert "Traceback" in too_early(shell, capsys, "def f():\n    return run\nf()"), "inside a function all is shown"
    page.write_text("{")
    assert "Traceback" in too_early(shell, capsys, "run")
    assert shell.run_cell("run = 2; run").success
