"""The site: what of a notebook it shows, what it is made of, where its links lead, and that it needs no host."""
import ast
import base64
import json
import os
import re
import shutil
import socket
from html import unescape

import nbformat
import pytest
from conftest import MODULES, ROOT
from docs import (
    TEXTS,
    arguments,
    build,
    explained_diagnoses,
    faults,
    one_title,
    parameter_table,
    prose,
    reference_pages,
    shown_cell,
    signature,
)
from fastcore.docments import docments
from lab import browser_path
from test_style import public_functions

from calib_nb.compare import _DIAGNOSES
from calib_nb.help import _comments

PIXEL = base64.b64decode(  # one grey pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


# One cell


def shown(source, kind="code"):
    "The source of a cell as the site shows it, and its tags; None where the cell is hidden."
    cell = shown_cell({"cell_type": kind, "metadata": {}, "source": source}, str.upper)
    return cell and (cell["source"], cell["metadata"].get("tags", []))


@pytest.mark.parametrize("directive", ["#| hide", "#|hide", "# | hide", "#| default_exp core", "#| include: false"])
def test_a_cell_that_nbdev_hides_is_not_shown(directive):
    assert shown(f"{directive}\nx = 1") is None


def test_the_line_of_a_directive_is_not_shown_but_what_follows_is():
    assert shown("#| export\n#|eval: false\nx = 1  #| no directive") == ("x = 1  #| no directive", [])
    assert shown("#| echo: false\nx") == ("x", ["remove-input"])
    assert shown("#|hide_output\nx") == ("x", ["remove-output"])
    assert shown("---\nskip_exec: true\n---", "raw") is None
    assert shown("#| in prose stays", "markdown") == ("#| IN PROSE STAYS", [])


def test_a_page_has_one_title():
    assert one_title(["# A\n> a\n## C", "# B\n## C"]) == ["# A\n> a\n## C", "## B\n### C"]
    alone = ["# A", "## B\n```bash\n# no heading\n```"]
    assert one_title(alone) == alone
    assert one_title(["# A\n```\n# 1\n```\n# B"]) == ["# A\n```\n# 1\n```\n## B"]


# The reference

CODE = '''"""About *this* room."""

# File to edit: ../nbs/00_core.ipynb.

__all__ = ["LEVELS", "share", "Answer"]

LEVELS = (
    0.1,
    0.9,
)


def share(
    right: list[bool],  # one for each answer, [0 | 1]
    *,
    least: float | None = None,  # of `right`
    **others: object,  # of the method
) -> float:  # in [0, 1]
    """How many of them are right."""
    return sum(right) / len(right)


@dataclass
class _Kept:
    kept: bool = False  # whether it was kept before

    def keep(self):
        "Keep it."


@dataclass
class Answer(_Kept):
    "One answer."
    text: str  # as it was written
    tokens: int = 0  # how many it took
    _own: int = 0

    @property
    def short(self):
        "Whether it is short."

    def cut(
        self,
        tokens: int,  # how many stay
    ):
        "Cut it."
'''


def test_each_parameter_is_in_the_table_with_type_default_and_comment():
    function = ast.parse(CODE).body[3]
    rows = parameter_table(arguments(function.args), _comments(CODE), function.returns).splitlines()
    assert rows[2:] == [
        "| `right` | `list[bool]` |  | one for each answer, \\[0 \\| 1\\] |",
        "| `least` | `float \\| None` | `None` | of `right` |",
        "| `others` | `object` |  | of the method |",
        "| *returns* | `float` |  | in \\[0, 1\\] |",
    ]
    assert signature(function) == "(right: list[bool], *, least: float | None=None, **others: object) -> float"


def test_text_of_a_comment_is_text_alone_but_for_what_stands_in_backticks():
    assert prose("[1](x) <b> _x_ `a_b`") == "\\[1\\](x) \\<b\\> \\_x\\_ `a_b`"


def squeezed(text):
    "Letters and digits alone."
    return re.sub(r"\W", "", text)


@pytest.mark.slow
def test_each_public_function_has_its_parameters_with_their_comments_in_the_reference(tmp_path):
    reference_pages(ROOT, tmp_path)
    for module in MODULES:
        told = squeezed((tmp_path / f"api/{module}.md").read_text())
        for name, function in public_functions(module):
            comments = docments(function, args_kwargs=True)
            assert squeezed(name.removesuffix(".__init__").rpartition(".")[2]) in told, name
            lost = [comment for comment in comments.values() if comment and squeezed(comment) not in told]
            assert lost == [], name


# A site of a few pages, and the same with faults


def markdown(*lines):
    return nbformat.v4.new_markdown_cell("\n".join(lines))


def code(source, **data):  # mime type -> output
    outputs = [nbformat.v4.new_output("display_data", {kind.replace("_", "/"): text}) for kind, text in data.items()]
    return nbformat.v4.new_code_cell(source, outputs=outputs)


def write_notebook(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def diagnosis_cells():
    "A section for each diagnosis of the library."
    sections = [markdown(f"### {name.replace('_', ' ')}", f"What {name} means.") for name in _DIAGNOSES if name != "ok"]
    return [markdown("# Score", "> Yours.", "## Diagnoses", "`ok` is well. The others:"), *sections]


LINKS = "[top](index.ipynb#Two-words), [room](00_core.ipynb#What-it-is), [rules](../CONTRIBUTING.md), [a](../figures)"


@pytest.fixture
def few(tmp_path):
    "A repository of a few pages."
    root = tmp_path / "repository"
    index = markdown("# Index", "> First.", "", "[r](results.ipynb) ![a](../figures/a.png)", "", "## Two words")
    write_notebook(root / "nbs/index.ipynb", index)
    pixel = base64.b64encode(PIXEL).decode()
    picture = code("raise ValueError('executed')", text_plain="as committed", image_png=pixel)
    results = markdown("# Results", "> All.", "", LINKS, "[licence](../LICENSE)", "", "$\\sum_k p_k$")
    write_notebook(root / "nbs/results.ipynb", results, picture, code("#| hide\nhidden_name = 1"))
    room = (code("#| default_exp core"), code("#| export\nLEVELS = 0.1, 0.9"))
    write_notebook(root / "nbs/00_core.ipynb", markdown("# Room", "> It."), *room, markdown("## What it is"))
    write_notebook(root / "nbs/score_your_own.ipynb", *diagnosis_cells())
    files = {"calib_nb/core.py": CODE, "CONTRIBUTING.md": "# Rules\n", "figures/README.md": "# All\n"}
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)
    (root / "figures/a.png").write_bytes(PIXEL)
    for name in ("settings.ini", "constraints.txt", "LICENSE"):
        shutil.copy(ROOT / name, root)
    return root


def no_network(*_):
    raise AssertionError("the build asks a host")


@pytest.mark.slow
def test_a_site_of_a_few_pages(few, tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", no_network)
    assert build(few, tmp_path / "site") == 0
    html = tmp_path / "site/html"
    names = ("nbs/results", "nbs/00_core", "api/core")
    results, room, core = ((html / f"{name}.html").read_text() for name in names)
    assert "as committed" in results and "ValueError" in results, "not executed, and rendered"
    assert "hidden_name" not in results and "default_exp" not in room and "#|" not in text_of(room)
    assert "LEVELS = 0.1, 0.9" in text_of(room)
    pictures = [html / "nbs" / link for link in re.findall(r'<img [^>]*src="([^"]+)"', results)]
    assert [picture.read_bytes() for picture in pictures] == [PIXEL], "the committed figure"
    assert "<math" in results, "and no script that draws formulas"
    assert 'href="../index.html#two-words"' in results and 'href="../figures/README.html"' in results
    assert 'href="nbs/results.html"' in (html / "index.html").read_text()
    told = text_of(core)
    for said in ("one for each answer, [0 | 1]", "as it was written", "how many stay", "Whether it is short."):
        assert said in told, said
    assert "whether it was kept before" in told and "Keep it." in told, "of the private class that it is made from"
    assert "_own" not in told
    for name in _DIAGNOSES:
        assert (html / f"diagnoses/{name}.html").is_file()
    files = text_of((html / "extras/files.html").read_text())
    assert "Parquet" in files and re.search(r"pyarrow\s+any\s+\d", files)


def text_of(html):
    "What a reader sees."
    return unescape(re.sub(r"<[^>]+>", "", html.partition("<article")[2].partition("</article>")[0]))


DEAD = (
    "nowhere.ipynb",
    "index.ipynb#No-heading",
    "#none-here",
    "../figures/gone.png",
    "../gone.md",
    "../gone",
    "../../outside.txt",
)


@pytest.mark.slow
def test_each_link_that_leads_nowhere_is_named_and_the_build_fails(few, tmp_path, capsys):
    (few.parent / "outside.txt").touch()
    picture = "![a picture](../figures/lost.png)"
    write_notebook(few / "nbs/results.ipynb", markdown("# Results", *[f"[x]({link})" for link in DEAD], picture))
    assert build(few, tmp_path / "site") == 1
    said = capsys.readouterr().err
    for link in ("nowhere.ipynb", "no-heading", "none-here", "gone.png", "gone.md", "../gone'", "lost.png", "outside"):
        assert link in said, said
    assert "results.ipynb" in said


def page(folder, name, text):
    (folder / name).write_text(text)


def test_what_sphinx_does_not_see_is_seen_in_the_pages_that_were_made(tmp_path):
    page(tmp_path, "a.html", "<p id=here></p><a href='#here'></a><a href='b.html#there'></a><a href='c.html'></a>")
    page(tmp_path, "b.html", "<img src='//host/x.png'><script src='https://host/x.js'></script><a href='https://x'></a>")
    page(tmp_path, "s.css", "@import 'https://fonts.host/css'; p { background: url(data:image/png;base64,AA) }")
    found = faults(tmp_path, ["a", "d"])
    assert sorted(found) == [
        "a.html: b.html#there leads nowhere",
        "a.html: c.html leads nowhere",
        "b.html: loads //host/x.png",
        "b.html: loads https://host/x.js",
        "d: no page",
        "s.css: loads https://fonts.host/css",
    ]


def test_an_extra_without_a_sentence_and_a_diagnosis_without_a_section_are_named(few, tmp_path):
    text = (few / "settings.ini").read_text()
    (few / "settings.ini").write_text(re.sub(r"^judge_about.*\n", "", text, flags=re.M))
    with pytest.raises(SystemExit, match="judge_about"):
        build(few, tmp_path / "site")
    write_notebook(few / "nbs/score_your_own.ipynb", *diagnosis_cells()[:-1])
    with pytest.raises(SystemExit, match=f"'{list(_DIAGNOSES)[-1]}'.*must be a section"):
        build(few, tmp_path / "site")


def test_the_table_of_diagnoses_has_each_that_the_library_gives_and_each_is_explained_with_an_example():
    given = re.findall(r'Finding\("(\w+)"', (ROOT / "calib_nb/inference.py").read_text())
    assert set(_DIAGNOSES) == set(given)
    cells = json.loads((ROOT / "nbs/score_your_own.ipynb").read_text())["cells"]
    explained = explained_diagnoses(cells)
    assert set(explained) == set(_DIAGNOSES)
    assert all(len(text) > 60 for text, _ in explained.values())
    for name, (_, examples) in explained.items():
        shown = ["".join(cell["outputs"][0]["data"]["text/plain"]) for cell in examples]
        assert name == "ok" or [f"code='{name}'" in text for text in shown] == [True], name


# The whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The site of this repository."
    folder = tmp_path_factory.mktemp("docs")
    assert build(ROOT, folder) == 0
    return folder / "html"


@pytest.mark.long
def test_the_whole_site_has_a_page_for_each_notebook_module_diagnosis_and_extra(whole):
    notebooks = {f"nbs/{path.stem}" for path in ROOT.glob("nbs/*.ipynb")} - {"nbs/index"}
    modules = {f"api/{path.stem}" for path in ROOT.glob("calib_nb/*.py") if path.stem[0] != "_"}
    texts = {text.removesuffix(".md") for text in TEXTS}
    pages = {path.relative_to(whole).with_suffix("").as_posix() for path in whole.rglob("*.html")}
    assert notebooks | modules | texts | {"index", "extras/train", "diagnoses/ok"} <= pages
    for path in whole.glob("nbs/*.html"):
        blocks = re.findall(r'<div class="highlight">(.*?)</div>', path.read_text(), re.S)
        assert not [block for block in blocks if re.match(r"<pre>(<[^>]+>)*#\|", block)], path


@pytest.fixture
def tab():
    "A tab of a browser."
    path = browser_path()
    if path is None and os.environ.get("CI") != "true":
        pytest.skip("no browser on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 1000})
        browser.close()


@pytest.mark.long
@pytest.mark.browser
def test_pages_are_read_and_searched_without_a_request_to_any_host(whole, tab):
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    for name in ("index", "nbs/results", "nbs/12_readout", "api/training", "diagnoses/missing"):
        tab.goto((whole / f"{name}.html").as_uri())
        tab.wait_for_load_state("networkidle")
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} is wider than it"
    tab.goto(f"{(whole / 'search.html').as_uri()}?q=diagnose")
    tab.wait_for_selector("#search-results li")
    assert "calib_nb.inference.diagnose" in tab.inner_text("#search-results")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
