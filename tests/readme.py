"""README.md from nbs/index.ipynb, with links as they are from the root: `python tests/readme.py` (`make readme`).

A link of the index is relative to nbs/, and names a heading as JupyterLab does (`#Use-your-own-answers`), so that it
works there. In README.md the same link is relative to the root, and the heading is named as GitHub does.
"""
import os
import re
import sys
from pathlib import Path

from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
INDEX = ROOT / "nbs/index.ipynb"
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
ELSEWHERE = re.compile(r"\w+:")  # https: and the like


def heading_in_lab(text):
    "How JupyterLab names a heading in a link."
    return text.replace("`", "").replace(" ", "-")


def heading_on_github(text):
    "How GitHub names a heading in a link."
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def from_the_root(link):
    "A link of the index as README.md has to write it."
    if ELSEWHERE.match(link):
        return link
    if link.startswith("#"):
        return "#" + heading_on_github(link[1:])
    return Path(os.path.normpath(INDEX.parent.relative_to(ROOT) / link)).as_posix()


def rendered(notebook=INDEX):
    "The text of README.md."
    text, _ = MarkdownExporter().from_filename(str(notebook))
    return LINK.sub(lambda link: from_the_root(link[0]), text)


if __name__ == "__main__":
    (ROOT / "README.md").write_text(rendered(), encoding="utf-8")
    sys.stdout.write("README.md\n")
