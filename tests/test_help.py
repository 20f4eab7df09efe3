"""`?` and Shift-Tab say what each parameter means; importing the library reads no sources for it."""
import importlib
import inspect
import subprocess
import sys

import pytest
from conftest import MODULES, ROOT
from IPython.core.interactiveshell import InteractiveShell

from calib_nb.help import _answer_in, _parameter_comments, _with_comments
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
    ("metric_card", "reference: the constant forecast for Brier skill"),
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
