"""The numbered notebooks show what they say: their outputs are current, enough, small, and free of paths and times."""
import ast
import base64
import io
import re

import nbformat
import numpy as np
import pytest
from conftest import NUMBERED, ROOT
from outputs import (
    CHECKED,
    PICTURE_BYTES,
    PICTURES,
    check,
    differences,
    execute,
    loads_a_model,
    main,
    same,
    small_enough,
    unwanted,
)
from PIL import Image
from test_style import public_names, worst

SHOWN = 0.2  # of the code cells of all numbered notebooks have an output; of fastcore's, 24 %
USED = 0.7  # of the public names are used in one of the cells that follow
CELLS_AFTER = 3  # a definition, in which its name is used
NOTEBOOK_BYTES = 600_000

each_notebook = pytest.mark.parametrize("notebook", NUMBERED, ids=lambda path: path.stem)


def page_of(notebook):
    return nbformat.read(notebook, as_version=4)


def code_cells_of(notebook):
    return [cell for cell in page_of(notebook).cells if cell.cell_type == "code"]


# The committed outputs are those of the code


@pytest.mark.slow
@pytest.mark.parametrize("notebook", CHECKED, ids=lambda path: path.stem)
def test_a_notebook_without_a_model_shows_what_it_computes(notebook):
    changed = check(notebook)
    assert changed == [], f"`make outputs` writes them anew; or {notebook.name} does not show the same each time"


def test_the_notebooks_that_load_a_model_are_found_from_their_code():
    loading = {path.stem for path in NUMBERED if loads_a_model(path)}
    assert {"07_models", "08_answers", "11_training", "15_experiment"} <= loading
    assert not loading & {"00_core", "01_metrics", "06_prompts", "09_rules"}


def test_every_notebook_is_executed_either_here_or_by_nbdev(capsys):
    assert main("checked") == 0
    left_out = re.compile(capsys.readouterr().out.strip())
    assert [path for path in NUMBERED if left_out.search(path.name)] == CHECKED
    makefile = (ROOT / "Makefile").read_text()
    assert "checked=$$($(BIN)/python tests/outputs.py checked) &&" in makefile, "an empty pattern would leave all out"
    assert '--skip_file_re "$$checked"' in makefile


# Enough of them


def share(counts):
    "Of `name -> (some, all)`, the share over all, and the names with the least, a line each."
    missing = [(name, of - some) for name, (some, of) in counts.items()]
    least = worst(missing)
    return sum(some for some, _ in counts.values()) / sum(of for _, of in counts.values()), least


def test_a_fifth_of_the_code_cells_show_something():
    cells = {path.stem: code_cells_of(path) for path in NUMBERED}
    counts = {name: (sum(bool(cell.outputs) for cell in found), len(found)) for name, found in cells.items()}
    shown, least = share(counts)
    assert shown >= SHOWN, f"{shown:.0%} of the code cells have an output; cells without one:\n{least}"


def names_read(source):
    "Names that a cell reads, but for those that it only asserts to be true."
    tree = ast.parse(re.sub(r"^[%!].*", "", source, flags=re.M))
    asserted = {node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in asserted]
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}


def names_of(notebook):
    "The public names of a notebook, each with whether one of the next examples uses it."
    sources = [cell.source for cell in code_cells_of(notebook)]
    used = {}
    for place, source in enumerate(sources):
        if re.match(r"#\|\s*export\b", source):
            examples = [later for later in sources[place:] if not later.startswith("#|")]
            read = set().union(*map(names_read, examples[:CELLS_AFTER]))
            used |= {name: name in read for name in public_names(ast.parse(source).body)}
    return used


def test_most_public_names_are_used_where_they_are_defined():
    used = {path.stem: names_of(path) for path in NUMBERED}
    counts = {name: (sum(found.values()), len(found)) for name, found in used.items()}
    found, _ = share(counts)
    unused = {page: [name for name, is_used in names.items() if not is_used] for page, names in used.items()}
    lines = [f"{page}: {', '.join(names)}" for page, names in unused.items() if names]
    said = "\n".join([f"{found:.0%} of the public names are used in the next {CELLS_AFTER} examples; not:", *lines])
    assert found >= USED, said


# Not too much of them


def picture_sizes(notebook):
    "Bytes of each picture in a notebook's outputs."
    data = [output.get("data", {}) for cell in code_cells_of(notebook) for output in cell.outputs]
    pictures = [found[kind] for found in data for kind in PICTURES if kind in found]
    return [len(picture) if picture.startswith("<") else len(picture) * 3 // 4 for picture in pictures]


@each_notebook
def test_pictures_are_small(notebook):
    assert max(picture_sizes(notebook), default=0) <= PICTURE_BYTES


def test_a_picture_that_is_too_large_gets_fewer_colours():
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype("uint8")
    picture = io.BytesIO()
    Image.fromarray(noise).save(picture, "PNG")
    large = base64.b64encode(picture.getvalue()).decode()
    small = small_enough(large)
    assert len(base64.b64decode(small)) <= PICTURE_BYTES < len(picture.getvalue())
    assert small_enough(small) == small


@pytest.mark.parametrize("notebook", sorted(ROOT.glob("nbs/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_small_enough_to_be_read_on_the_web(notebook):
    assert notebook.stat().st_size <= NOTEBOOK_BYTES


@each_notebook
def test_outputs_hold_no_path_time_or_warning(notebook):
    page = page_of(notebook)
    outputs = [output for cell in code_cells_of(notebook) for output in cell.outputs]
    assert unwanted(page) == []
    assert {output.get("name", "stdout") for output in outputs} <= {"stdout"}


# The script


def page_with(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def test_an_executed_notebook_has_clean_outputs(tmp_path):
    noisy = "import sys, warnings\nprint('a')\nprint('b', file=sys.stderr)\nwarnings.warn('c')\nprint('d')"
    drawn = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
    bar = "from tqdm.auto import tqdm\nfor i in tqdm(range(3)): pass\ni"
    nbformat.write(page_with(noisy, drawn, bar), tmp_path / "some.ipynb")
    page = execute(tmp_path / "some.ipynb")
    printed, picture, last = (cell.outputs for cell in page.cells)
    assert [output.text for output in printed] == ["a\nd\n"]
    assert [set(output.data) for output in picture] == [{"image/png", "text/plain"}]
    assert [output.data for output in last] == [{"text/plain": "2"}]
    assert {cell.execution_count for cell in page.cells} == {None}
    assert unwanted(page) == []
    assert differences(page, page) == []


@pytest.mark.parametrize(
    "text, other, agree",
    [
        ("AUROC 0.81234", "AUROC 0.81236", True),
        ("AUROC 0.812", "AUROC 0.813", False),
        ("[1e-17, 3]", "[-2e-16, 3]", True),
        ("n  300\np  0.1", "n 300 p 0.10", True),
        ("300 questions", "301 questions", False),
        ("sft 0.1", "dpo 0.1", False),
    ],
)
def test_numbers_are_compared_to_four_significant_digits_and_words_exactly(text, other, agree):
    assert same(text, other) is agree


def with_outputs(*outputs):
    page = page_with("something")
    page.cells[0].outputs = list(outputs)
    return page


def test_of_a_picture_there_must_be_one_and_of_a_table_its_text():
    def data(**kinds):
        named = {kind.replace("_", "/"): text for kind, text in kinds.items()}
        return nbformat.v4.new_output("display_data", named)

    table = data(text_html="<style>b {top: 1px}</style><table><td>0.51</td><td>sft</td></table>", text_plain="wide")
    picture, other = data(image_png="iVBOR", text_plain="<Figure>"), data(image_png="w0KGgo", text_plain="<Figure>")
    assert differences(with_outputs(picture), with_outputs(other)) == []
    assert len(differences(with_outputs(picture), with_outputs())) == 1
    assert differences(with_outputs(table), with_outputs(data(text_html="<b>0.51</b> sft"))) == []
    assert len(differences(with_outputs(table), with_outputs(data(text_html="<b>0.52</b> sft")))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "/tmp/x",
        "in tmpab12_9zz",
        "took 1.3 s",
        "2026-01-02T10:11:12",
        "270 MiB",
        "<X at 0x7f12ab34>",
        "UserWarning: x",
    ],
)
def test_what_differs_from_machine_to_machine_is_found(text):
    page = with_outputs(nbformat.v4.new_output("stream", name="stdout", text=text))
    assert len(unwanted(page)) == 1


def test_what_is_alike_on_every_machine_is_not_found():
    fine = "facts/judged.jsonl:2 and https://x.org/tmp/a, 7/10, 1999-12-31, in the 1980s, 0.5 of 3"
    assert unwanted(with_outputs(nbformat.v4.new_output("stream", name="stdout", text=fine))) == []
