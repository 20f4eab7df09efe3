"""How the code is written: short and light lines, short functions and cells, and a comment for each parameter.

ruff (`make check`) sees to the lines of notebooks, tests and benchmarks.
"""
import ast
import importlib
import inspect
import re
import textwrap
from dataclasses import is_dataclass
from statistics import median

import nbformat
import pytest
from conftest import MODULES, NUMBERED, ROOT, code_cells
from fastcore.docments import docments

COLUMNS = 120
NODES_A_LINE = 11  # syntax nodes a line of a function, the median over all functions; fastcore has 10.8
FUNCTION_LINES = {"median": 8, "nine in ten": 20, "all": 40}
CELL_LINES, CELL_NAMES = 40, 3  # of an exported cell, its directive included; public names
PUBLIC_NAMES = 522  # of the whole library
WORST = 20  # offenders that a message lists

each_module = pytest.mark.parametrize("module", MODULES)
each_notebook = pytest.mark.parametrize("notebook", NUMBERED, ids=lambda path: path.stem)


def source(module):
    "The text of an exported module."
    return (ROOT / f"calib_nb/{module}.py").read_text(encoding="utf-8")


def names_assigned(node):
    "The names that an assignment binds at the top of a module."
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    parts = [part for target in targets for part in ast.walk(target)]
    return [part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]


def exported_names(module):
    "The node of `__all__`, and the names in it."
    body = ast.parse(source(module)).body
    node = next(node for node in body if names_assigned(node) == ["__all__"])
    return node, ast.literal_eval(node.value)


def assert_none(offenders, rule):
    "Fails with the rule and a line for each offender."
    if offenders:
        pytest.fail("\n".join([rule, *offenders]), pytrace=False)


# Lines and functions


def test_lines_of_prose_are_short_but_for_tables_pictures_and_commands():
    long, free = [], ("|", "![", ".venv/bin/")
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
            found = [line for line in lines if len(line) > COLUMNS and not line.lstrip().startswith(free)]
            long += [f"{path.name}, cell {cell.id}: {line[:60]}" for line in found]
    assert_none(long, f"at most {COLUMNS} columns:")


@each_module
def test_lines_of_an_exported_module_are_short_but_for_the_list_of_its_names(module):
    node, _ = exported_names(module)
    of_nbdev = range(node.lineno, node.end_lineno + 1)
    lines = [(number, line) for number, line in enumerate(source(module).splitlines(), 1) if number not in of_nbdev]
    long = [f"calib_nb/{module}.py:{number}: {len(line)}" for number, line in lines if len(line) > COLUMNS]
    assert_none(long, f"at most {COLUMNS} columns:")


def functions():
    "`(where, nodes a line, lines)` of each function of the library, methods and inner functions too."
    found = []
    for module in MODULES:
        text = source(module)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
                written = sum(1 for line in lines if line.strip())
                nodes = sum(1 for _ in ast.walk(node))
                found.append((f"{module}.{node.name}", nodes / written, len(lines)))
    return found


def worst(values, digits=0):
    "The largest of `(where, value)`, a line each."
    largest = sorted(values, key=lambda pair: -pair[1])[:WORST]
    return "\n".join(f"{where}: {value:.{digits}f}" for where, value in largest)


def test_lines_are_light():
    nodes = [(where, value) for where, value, _ in functions()]
    middle = median(value for _, value in nodes)
    assert middle <= NODES_A_LINE, f"{middle:.1f} syntax nodes a line; the heaviest:\n{worst(nodes, 1)}"


def test_functions_are_short():
    lines = [(where, value) for where, _, value in functions()]
    counts = sorted(value for _, value in lines)
    short = sum(count <= FUNCTION_LINES["nine in ten"] for count in counts)
    said = f"median {median(counts)}, {short / len(counts):.1%} at most 20 lines; the longest:\n{worst(lines)}"
    assert counts[-1] <= FUNCTION_LINES["all"], said
    assert short >= 0.9 * len(counts), said
    assert median(counts) <= FUNCTION_LINES["median"], said


# Cells


def export_cells(notebook):
    "The sources of the cells that become the module."
    return [cell for cell in code_cells(notebook) if re.search(r"^#\|\s*export\b", cell, re.M)]


def is_import(node):
    return isinstance(node, ast.Import | ast.ImportFrom)


def public_names(body):
    "The public names that statements at the top of a cell bind."
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assigned = [name for node in body for name in names_assigned(node)]
    return [name for name in defined + assigned if not name.startswith("_")]


def title(cell):
    "What a message calls a cell: its first line of code."
    code = [line for line in cell.splitlines() if not line.startswith("#")]
    return next(filter(None, code), "")[:70]


@each_notebook
def test_an_exported_cell_is_short_and_defines_few_public_names(notebook):
    offenders = []
    for cell in export_cells(notebook):
        body, lines = ast.parse(cell).body, len(cell.splitlines())
        names = public_names(body)
        if not all(map(is_import, body)) and (lines > CELL_LINES or len(names) > CELL_NAMES):
            offenders.append(f"{title(cell)} ... {lines} lines, public: {', '.join(names)}")
    assert_none(offenders, f"at most {CELL_LINES} lines and {CELL_NAMES} public names:")


@each_notebook
def test_imports_have_a_cell_of_their_own(notebook):
    kinds = {title(cell): set(map(is_import, ast.parse(cell).body)) for cell in export_cells(notebook)}
    assert_none([cell for cell, kind in kinds.items() if len(kind) > 1], "imports and other code in one cell:")


# Signatures


def is_public(name):
    return name == "__init__" or not name.startswith("_")


def public_functions(module):
    "`(name, function)` of the public functions of a module, and of the public methods of its public classes."
    room = importlib.import_module(f"calib_nb.{module}")
    found = {name: getattr(room, name) for name in room.__all__}
    for name, cls in public_classes(room).items():
        own = {method: value for method, value in vars(cls).items() if is_public(method)}
        found |= {f"{name}.{method}": value for method, value in own.items() if not is_inherited(cls, method)}
    plain = {name: inspect.unwrap(thing) for name, thing in found.items() if inspect.isroutine(thing)}
    return [(name, function) for name, function in plain.items() if is_written_in(room, function)]


def is_inherited(cls, method):
    "Whether a class of another library has this method, and documents it."
    others = [base for base in cls.__mro__[1:-1] if not base.__module__.startswith("calib_nb")]
    return method != "__init__" and any(hasattr(base, method) for base in others)


def public_classes(room):
    "The public classes of a module, by name."
    things = {name: getattr(room, name) for name in room.__all__}
    return {name: thing for name, thing in things.items() if inspect.isclass(thing)}


def is_written_in(room, function):
    "Whether its source is in the module: not what a dataclass makes, nor what comes from elsewhere."
    return inspect.isfunction(function) and function.__code__.co_filename == room.__file__


def parameters(function):
    "The names of a function's parameters, but for `self`."
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


@each_module
def test_from_three_parameters_on_each_has_a_comment(module):
    missing = []
    for name, function in public_functions(module):
        comments = docments(function, args_kwargs=True)
        bare = [parameter for parameter in parameters(function) if not comments[parameter]]
        if bare and len(parameters(function)) > 2:
            missing.append(f"{module}.{name}: {', '.join(bare)}")
    assert_none(missing, "no comment of its own:")


def shared_lines(function):
    "The comments of lines that hold more than one parameter."
    text = textwrap.dedent(inspect.getsource(function))
    lines, arguments = text.splitlines(), ast.parse(text).body[0].args
    named = [*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    places = [argument.lineno for argument in named if argument is not None]
    shared = {place for place in places if places.count(place) > 1}
    return [lines[place - 1].partition("#")[2] for place in sorted(shared)]


@each_module
def test_no_comment_documents_several_parameters_at_once(module):
    joined = []
    for name, function in public_functions(module):
        joined += [f"{module}.{name}: {comment.strip()}" for comment in shared_lines(function) if "; " in comment]
    assert_none(joined, "one parameter a line, each with its comment:")


@each_module
def test_each_field_of_a_public_dataclass_has_a_comment(module):
    room = importlib.import_module(f"calib_nb.{module}")
    missing = []
    for cls in filter(is_dataclass, public_classes(room).values()):
        comments = docments(cls)
        own = [name for name in inspect.get_annotations(cls) if not name.startswith("_")]
        missing += [f"{module}.{cls.__name__}.{name}" for name in own if not comments.get(name)]
    assert_none(missing, "no comment:")


def test_the_library_has_few_public_names():
    counts = {module: len(exported_names(module)[1]) for module in MODULES}
    total = sum(counts.values())
    assert total <= PUBLIC_NAMES, f"{total} public names; make private what no user needs: {counts}"
