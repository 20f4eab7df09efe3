"""How sphinx makes the site of what `tests/docs.py` prepares: notebooks as committed, and no request to any host."""
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

_SETTINGS = ConfigParser(delimiters=["="])
_SETTINGS.read(Path(__file__).parents[2] / "settings.ini", encoding="utf-8")

project = _SETTINGS["DEFAULT"]["title"]
release = _SETTINGS["DEFAULT"]["version"]
copyright = _SETTINGS["DEFAULT"]["copyright"]

extensions = ["myst_nb"]
nb_execution_mode = "off"  # the outputs are the committed ones
nb_ipywidgets_js = {}  # else scripts of two other hosts
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_labels = False
myst_heading_anchors = 6  # named as GitHub names them
smartquotes = False  # 'missing' is a value
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_show_search_summary = False  # they are fetched, which a page that is opened as a file may not do
html_show_sourcelink = False
html_copy_source = False


def _formula(writer, node):
    "A formula as MathML, which browsers draw by themselves; sphinx's own renderer loads a script from another host."
    writer.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
