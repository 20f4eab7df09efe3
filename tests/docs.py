"""The site in `_docs/html` from notebooks, modules and settings.ini: `python tests/docs.py` (`make docs`).

Pages are copied to `_docs/source` where they lie in the repository, so that their links stay as they are; there sphinx
(settings: tests/docs_conf) reads them. Neither building nor reading the site needs a network. Exit code 1 for anything
that sphinx warns of, for a link that leads nowhere, and for a page that loads something from another host.
"""
import ast
import inspect
import json
import os
import re
import shutil
import sys
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from constraints import normal, pinned
from fastcore.docments import docments
from readme import ELSEWHERE, LINK, ROOT, heading_on_github, rendered
from sphinx.cmd.build import build_main

from calib_nb.compare import _DIAGNOSES
from calib_nb.help import _comments
from calib_nb.inference import diagnose

MOVED = {"nbs/index.ipynb": "index.md", "README.md": "index.md"}  # the first page
TEXTS = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LOG.md",
    "SECURITY.md",
    "figures/README.md",
    "calib_nb/data/ATTRIBUTION.md",
)


# Pages


def settings(root):
    "The values of settings.ini."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


def write(page, *parts):
    "Write a page of paragraphs, tables and blocks."
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def toctree(*pages, caption=""):
    "What the sidebar lists; a page, or `words <page>`."
    options = [f":caption: {caption}"] if caption else []
    return "\n".join(["```{toctree}", *options, ":hidden:", ":titlesonly:", "", *pages, "```"])


def rewritten(link, page, root, source, place=""):  # page: where it stands in the repository; place: in the site
    "A link as it has to be in the site; a file that is no page is copied into it."
    if ELSEWHERE.match(link):
        return link
    path, sign, heading = link.partition("#")
    anchor = sign + heading_on_github(heading)
    if not path:
        return anchor
    target = os.path.normpath(PurePosixPath(page).parent / path)
    if target.startswith(".."):
        return link  # out of the repository: sphinx says that it leads nowhere
    if (root / target / "README.md").is_file() and target != ".":
        target = f"{target}/README.md"
    elif (root / target).is_dir():
        return f"{settings(root)['git_url']}/tree/main/{target}"
    elif (root / target).is_file() and target not in TEXTS and not target.endswith(".ipynb"):
        (source / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / target, source / target)
    return os.path.relpath(MOVED.get(target, target), PurePosixPath(place or page).parent) + anchor


def with_links(text, page, root, source, place=""):
    "A page's text with the site's links."
    return LINK.sub(lambda link: rewritten(link[0], page, root, source, place), text)


# Notebooks

DIRECTIVE = re.compile(r"^\s*#\s?\|.*\n?", re.M)
HIDDEN = re.compile(r"^\s*#\s?\|\s*(hide|default_exp|include: *false)\b", re.M)
BLOCK_OR_HEADING = re.compile(r"^```.*?^```|^#{1,5} ", re.M | re.S)
TAGS = {  # a directive -> what myst-nb does with the cell
    re.compile(r"^\s*#\s?\|\s*(hide_input|echo: *false)\b", re.M): "remove-input",
    re.compile(r"^\s*#\s?\|\s*(hide_output|output: *false)\b", re.M): "remove-output",
}


def shown_cell(cell, change):  # change: of a Markdown text
    "A cell as the site shows it; None where it does not."
    source = "".join(cell["source"])
    if cell["cell_type"] == "raw" or cell["cell_type"] == "code" and HIDDEN.search(source):
        return None
    if cell["cell_type"] == "markdown":
        return {**cell, "source": change(source)}
    tags = [tag for directive, tag in TAGS.items() if directive.search(source)]
    metadata = {**cell["metadata"], "tags": cell["metadata"].get("tags", []) + tags}
    return {**cell, "source": DIRECTIVE.sub("", source).strip("\n"), "metadata": metadata}


def one_title(texts):
    "The Markdown texts of a page; from the second heading of the highest level on, headings are one level lower."
    titles = 0

    def lowered(found):
        nonlocal titles
        titles += found[0] == "# "
        return "#" + found[0] if titles > 1 and found[0][0] == "#" else found[0]

    return [BLOCK_OR_HEADING.sub(lowered, text) for text in texts]


def notebook_page(path, root, source):  # path: in the repository
    "Write a notebook without its directives and hidden cells."
    content = json.loads((root / path).read_text(encoding="utf-8"))
    cells = [shown_cell(cell, lambda text: with_links(text, path, root, source)) for cell in content["cells"]]
    cells = [cell for cell in cells if cell]
    texts = [cell for cell in cells if cell["cell_type"] == "markdown"]
    for cell, text in zip(texts, one_title([cell["source"] for cell in texts])):
        cell["source"] = text
    write(source / path, json.dumps({**content, "cells": cells}, ensure_ascii=False))


# The reference


def prose(text):
    "A docstring or comment as Markdown: what stands outside of backticks is text alone."
    parts = re.split(r"(`[^`\n]+`)", text or "")
    plain = [re.sub(r"([\\\[\]<>*_$#|])", r"\\\1", part) for part in parts[::2]]
    code = [part.replace("|", "\\|") for part in parts[1::2]] + [""]
    return "".join(a + b for a, b in zip(plain, code))


def code(node):
    "An annotation or a default as it is written; '' where there is none."
    return f"`{ast.unparse(node)}`".replace("|", "\\|") if node else ""


def table(head, rows):
    "A Markdown table; '' without rows."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else ""


def arguments(args, bound=()):  # bound: names that no call gives, such as `self`
    "`(name, argument, default)` of each, in the order of the call."
    several = [*args.posonlyargs, *args.args]
    found = list(zip(several, [None] * (len(several) - len(args.defaults)) + args.defaults))
    found += [(args.vararg, None)] if args.vararg else []
    found += zip(args.kwonlyargs, args.kw_defaults)
    found += [(args.kwarg, None)] if args.kwarg else []
    return [(part.arg, part, default) for part, default in found if part.arg not in bound]


def parameter_table(given, comments, returns=None):  # given: `(name, node, default)`; comments: line -> comment
    "Name, type, default and comment of each parameter or field, and what is returned; '' without any comment."
    rows = []
    for name, part, default in given:
        rows.append([f"`{name}`", code(part.annotation), code(default), prose(comments.get(part.lineno))])
    said = comments.get(returns.end_lineno) if returns else ""
    if said and returns.end_lineno not in [part.lineno for _, part, _ in given]:
        rows.append(["*returns*", code(returns), "", prose(said)])
    explained = any(row[-1] for row in rows)  # else the signature says as much
    return table(["name", "type", "default", "meaning"], rows if explained else [])


def signature(node, bound=()):
    "The parameters of a function as it is written."
    shown = [part for part in node.args.args if part.arg not in bound]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(ast.arguments(**{**vars(node.args), 'args': shown}))}){result}"


def described(kind, name, *parts):
    "An entry of the reference, which the search knows by its name."
    body = [part for part in parts if part]
    return "\n".join([f"`````{{py:{kind}}} {name}", "", "\n\n".join(body), "`````"])


def function_entry(node, comments, of=""):  # of: the class
    "A function or method."
    names = [ast.unparse(decorator) for decorator in node.decorator_list]
    bound = ["self"] * bool(of) + ["cls"] * ("classmethod" in names)
    parameters = parameter_table(arguments(node.args, bound), comments, node.returns)
    docstring = prose(ast.get_docstring(node))
    if any(name.endswith("property") for name in names):
        return described("property", f"{of}.{node.name}", docstring, parameters)
    kind = "method" if of else "function"
    called = f"{of}.{node.name}" if of else node.name
    return described(kind, called + signature(node, bound), docstring, parameters)


def bindings(part):  # a statement
    "`(target, value)` of an assignment; of `a, b = c, d` two."
    if not isinstance(part, ast.Assign):
        return []
    target, value = part.targets[0], part.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts))
    return [(target, value)]


def attach(tree, things):  # things: what the module defines, by name
    "Put a function that becomes a method by `Display.plot = _plot` into its class."
    for target, value in [pair for part in tree.body for pair in bindings(part)]:
        function = things.get(ast.unparse(value)) if isinstance(target, ast.Attribute) else None
        if function:
            method = ast.FunctionDef(**{**vars(function), "name": target.attr})
            things[target.value.id].body.append(method)


def members(node, things):  # things: what the module defines, by name
    "What stands in a class, behind what it inherits from private classes of its module."
    names = [getattr(base, "id", "") for base in node.bases]
    private = [things[name] for name in names if name.startswith("_") and name in things]
    return [part for base in private for part in members(base, things)] + node.body


def class_entries(node, comments, things):
    "A class with its fields or with the parameters of its `__init__`, and its methods."
    parts = members(node, things)
    functions = {part.name: part for part in parts if isinstance(part, ast.FunctionDef)}
    fields = [part for part in parts if isinstance(part, ast.AnnAssign) and part.target.id[0] != "_"]
    made = functions.get("__init__")
    given = arguments(made.args, ["self"]) if made else [(part.target.id, part, part.value) for part in fields]
    name = node.name + (signature(made, ["self"]) if made else "")
    methods = [function_entry(functions[name], comments, node.name) for name in functions if name[0] != "_"]
    return [described("class", name, prose(ast.get_docstring(node)), parameter_table(given, comments)), *methods]


def constant_entry(name, body, lines):
    "A constant as it is written."
    bound = [part for part in body if isinstance(part, ast.Assign | ast.AnnAssign)]
    part = next(part for part in bound if re.match(rf"(.*[ ,(])?{name}\b.*? = ", ast.unparse(part)))
    written = "\n".join(lines[part.lineno - 1 : part.end_lineno])
    return described("data", name, f"```python\n{written}\n```")


def module_page(path, source):  # path: of a module
    "Write the reference of a module; its docstring."
    text = path.read_text(encoding="utf-8")
    tree, comments = ast.parse(text), _comments(text)
    things = {part.name: part for part in tree.body if isinstance(part, ast.FunctionDef | ast.ClassDef)}
    attach(tree, things)
    exported = next(part for part in tree.body if ast.unparse(part).startswith("__all__ = "))
    entries = []
    for name in ast.literal_eval(exported.value):
        thing = things.get(name)
        if isinstance(thing, ast.ClassDef):
            entries += class_entries(thing, comments, things)
        elif thing:
            entries.append(function_entry(thing, comments))
        else:
            entries.append(constant_entry(name, tree.body, text.splitlines()))
    notebook = re.search(r"File to edit: \.\./(nbs/\w+\.ipynb)", text)[1]
    about = f"{prose(ast.get_docstring(tree))} Grown step by step in [{Path(notebook).stem}](../{notebook})."
    module = f"```{{py:module}} calib_nb.{path.stem}\n```"
    write(source / f"api/{path.stem}.md", f"# calib_nb.{path.stem}", about, module, *entries)
    return Path(notebook).stem, prose(ast.get_docstring(tree))


def reference_pages(root, source):
    "Write a page for each module and one that lists them in the order of their notebooks."
    modules = [path for path in root.glob("calib_nb/*.py") if path.stem[0] != "_"]
    found = {path.stem: module_page(path, source) for path in modules}
    names = sorted(found, key=found.get)
    rows = [[f"[{name}]({name}.md)", found[name][1]] for name in names]
    about = "What each public function, class and constant of the library is given, and what it gives."
    write(source / "api/index.md", "# Reference", about, table(["module", "about"], rows), toctree(*names))


# A page for each diagnosis, and one for each extra

EXPLAINED = "nbs/score_your_own.ipynb"


def explained_diagnoses(cells):
    "code -> what that page says of it, and its cells that show it."
    texts, shown, code = {}, {}, ""
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            _, *sections = re.split(r"^### (.+)$", source, flags=re.M)
            names = [name.replace(" ", "_") for name in sections[::2]]
            texts |= zip(names, sections[1::2])
            texts |= [("ok", said) for said in re.findall(r"^`ok` [^.]+\.", source, re.M)]
            code = names[-1] if names else ""
        elif code and cell["outputs"]:
            shown.setdefault(code, []).append(cell)
    return {code: (text, shown.get(code, [])) for code, text in texts.items()}


def thresholds(code):
    "The parameters of `diagnose` that decide it, as a table."
    defaults = inspect.signature(diagnose).parameters
    comments = {name: text for name, text in docments(diagnose).items() if f"'{code}'" in (text or "")}
    rows = [[f"`{name}`", f"`{defaults[name].default}`", prose(text)] for name, text in comments.items()]
    return table(["parameter of `diagnose`", "default", "meaning"], rows)


def markdown_cell(name, *parts):
    "A cell of a generated notebook."
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": "\n\n".join(filter(None, parts))}


def diagnosis_pages(root, source):
    "Write a page for each diagnosis of the library's table, and one that lists them."
    content = json.loads((root / EXPLAINED).read_text(encoding="utf-8"))
    explained = explained_diagnoses(content["cells"])
    if set(explained) != set(_DIAGNOSES):
        differ = sorted(set(explained) ^ set(_DIAGNOSES))
        sys.exit(f"{EXPLAINED}: {differ} must be a section there and an entry of `_DIAGNOSES` in nbs/16_compare.ipynb")
    for code, (text, cells) in explained.items():
        place = f"diagnoses/{code}.ipynb"
        said = with_links(text, EXPLAINED, root, source, place).strip()
        again = f"Beside the others in [{Path(EXPLAINED).stem}](../{EXPLAINED})."
        shown = [markdown_cell("first", f"# {code}", said), *cells, markdown_cell("last", thresholds(code), again)]
        write(source / place, json.dumps({**content, "cells": shown}, ensure_ascii=False))
    rows = [[f"[{code}]({code}.ipynb)", words.partition(": ")[2]] for code, words in _DIAGNOSES.items()]
    about = "What `diagnose` and `calib_nb score` say of a set of confidences, what it means, and what to do about it."
    write(source / "diagnoses/index.md", "# Diagnoses", about, table(["code", "in a word"], rows), toctree(*_DIAGNOSES))


def extra_page(name, values, pins, source):  # pins: name -> version
    "Write the page of an extra."
    wanted = values[f"{name}_requirements"].split()
    rows = []
    for package in wanted:
        plain = re.match(r"[\w.-]+", package)[0]
        rows.append([f"`{plain}`", package.removeprefix(plain) or "any", pins.get(normal(plain), "not pinned")])
    install = f"```bash\n.venv/bin/pip install -c constraints.txt -e '.[{name}]'\n```"
    versions = table(["package", "version", "tested with"], rows)
    write(source / f"extras/{name}.md", f"# {name}", values[f"{name}_about"], "From a clone:", install, versions)


def extra_pages(root, source):
    "Write a page for each extra of settings.ini, and one that lists them."
    values = settings(root)
    names = [key.removesuffix("_requirements") for key in values if key.endswith("_requirements")]
    unsaid = [name for name in names if not values.get(f"{name}_about")]
    if unsaid:
        sys.exit(f"settings.ini: say in a sentence what the extra is for: {unsaid[0]}_about = ...")
    pins = pinned((root / "constraints.txt").read_text(encoding="utf-8"))
    pins = {normal(name): version for name, version in pins.items()}
    for name in names:
        extra_page(name, values, pins, source)
    rows = [[f"[{name}]({name}.md)", values[f"{name}_about"]] for name in names]
    write(source / "extras/index.md", "# Extras", "What can be installed beside the metrics, and what needs it.",
          table(["extra", "for"], rows), toctree(*names))


# The whole


def first_page(root, source, notebooks, texts):
    "Write index.md: the index, and what the sidebar lists."
    index = rendered(root / "nbs/index.ipynb")
    stems = [Path(path).stem for path in notebooks]
    stems.sort(key=lambda stem: (index.find(f"\n  {stem} "), stem))  # as in its tree of the repository
    numbered = [f"{stem} <nbs/{stem}>" for stem in stems if stem[0].isdigit()]
    analyses = [f"nbs/{stem}" for stem in stems if not stem[0].isdigit()]
    trees = (
        toctree(*analyses, caption="Pages"),
        toctree("diagnoses/index", "extras/index", "api/index", caption="Look up"),
        toctree(*numbered, caption="The library, step by step"),
        toctree(*[text.removesuffix(".md") for text in texts], caption="The repository"),
    )
    write(source / "index.md", with_links(index, "index.md", root, source), *trees)


def prepare(root, source):
    "Write all that sphinx reads; the pages, without suffix."
    notebooks = sorted(path.relative_to(root).as_posix() for path in root.glob("nbs/*.ipynb"))
    notebooks.remove("nbs/index.ipynb")
    texts = [text for text in TEXTS if (root / text).is_file()]
    for path in notebooks:
        notebook_page(path, root, source)
    for path in texts:
        write(source / path, with_links((root / path).read_text(encoding="utf-8"), path, root, source))
    for make in (reference_pages, diagnosis_pages, extra_pages):
        make(root, source)
    first_page(root, source, notebooks, texts)
    written = [*source.rglob("*.md"), *source.rglob("*.ipynb")]
    return [path.relative_to(source).with_suffix("") for path in written]


class Page(HTMLParser):
    "What a page of the site names, links to and loads."

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], re.findall(r"url\([\'\"]?([^)\'\"]+)", text)
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        self.loads += [given[name] for name in ("src", "data", "poster") if given.get(name)]
        if given.get("href"):
            (self.loads if tag in ("link", "image", "use") else self.links).append(given["href"])


def faults(html, pages):  # the folder of the site; its pages, without suffix
    "A line for each page that is not there, each link that leads nowhere, and each thing from another host."
    found = [f"{page}: no page" for page in pages if not (html / page).with_suffix(".html").is_file()]
    read = {path: Page(path.read_text(encoding="utf-8")) for path in html.rglob("*.html")}
    for path, page in read.items():
        where = path.relative_to(html)
        remote = [load for load in page.loads if re.match(r"(\w+:)?//", load)]
        found += [f"{where}: loads {load}" for load in remote]
        local = [link for link in page.links + page.loads if not re.match(r"(\w+:|//)", link)]
        found += [f"{where}: {link} leads nowhere" for link in local if not leads_somewhere(link, path, read)]
    for path in html.rglob("*.css"):
        remote = re.findall(r"(?:url\(|@import)\s*[\'\"]?((?:https?:)?//[^)\'\"]+)", path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(html)}: loads {load}" for load in remote]
    return found


def leads_somewhere(link, path, read):  # read: path -> `Page`
    "Whether a link of a page leads to a file, and to a place in it."
    parts = urlsplit(link)
    target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
    if target.is_dir() or not target.exists():
        return False
    return not parts.fragment or target not in read or unquote(parts.fragment) in read[target].ids


def build(root, folder):  # folder: for sources and site
    "Make the site anew; 0, or 1 after saying what is wrong."
    shutil.rmtree(folder, ignore_errors=True)
    source, html = folder / "source", folder / "html"
    pages = prepare(root, source)
    options = ["--fail-on-warning", "--quiet", "--conf-dir", str(Path(__file__).parent / "docs_conf")]
    if build_main([*options, "--doctree-dir", str(folder / "read"), str(source), str(html)]):
        return 1
    found = faults(html, pages)
    sys.stderr.write("".join(f"{fault}\n" for fault in found))
    return 1 if found else 0


if __name__ == "__main__":
    site = ROOT / "_docs"
    failed = build(ROOT, site)
    sys.stdout.write("" if failed else f"{site / 'html/index.html'}\n")
    sys.exit(failed)
