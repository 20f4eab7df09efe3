"""Interactive use, in a real JupyterLab with a real browser."""
import base64
import io
import json
import os
import re
import time

import nbformat
import pytest
from conftest import ROOT
from lab import Lab, browser_path, notebook, server
from PIL import Image

from calib_nb.core import read_jsonl

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'></td></tr></table><b>bold</b> "
    "\x1b[31mred\x1b[0m \u202egnp.exe **strong** [link](javascript:hacked) $x^2$ and $\\frac{1}{2}$ \x07"
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    "The one page of the one browser."
    path = browser_path()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no browser: CI=true requires one (.ci/run installs Debian's chromium)")
        pytest.skip("no browser on this machine")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("lab")
    with server(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)  # several test processes share a machine
        yield Lab(page, address, folder)
        browser.close()


STRANGE = """import pandas as pd
from calib_nb.compare import Row, styled
from calib_nb.core import Reading
from calib_nb.plots import reliability_figure
from calib_nb.report import _Table
HOSTILE = {hostile!r}"""
FRAME = "_Table([{'question': HOSTILE, HOSTILE: 'answer', 'a number': 0.5}], index=[HOSTILE])"
STYLED = """index = pd.MultiIndex.from_tuples([Row(HOSTILE, "verbalized")], names=Row._fields)
styled(pd.DataFrame({"diagnosis": ["ok"], HOSTILE: [HOSTILE]}, index=index))"""
FIGURE = """readings = []
for i in range(6):
    how = dict(readout="expected", protocol="two_step", method="sft", seed=0, split="test")
    readings.append(Reading(f"q{i}", HOSTILE, HOSTILE, i % 2 == 0, i / 10, "parsed", **how))
reliability_figure({HOSTILE: readings}, title=HOSTILE)"""
PLAIN = "str(_Table([{'question': HOSTILE}]))\nprint(_Table([{'question': HOSTILE}]))"


def test_text_of_strangers_is_text_in_tables_styled_frames_and_figures(lab):
    lab.open("hostile.ipynb", notebook(STRANGE.format(hostile=HOSTILE), FRAME, STYLED, FIGURE, PLAIN))
    lab.run_all()
    for place in (1, 2, 3, 4):
        errors = [output for output in lab.outputs(place) if output["output_type"] == "error"]
        assert not errors, (place, errors)
    page = lab.page
    assert page.evaluate("window.hacked") is None, "no code of a stranger's is run"
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    for place, rows in ((1, 1), (2, 1)):
        table = cells.nth(place).locator(".jp-OutputArea-output table")
        assert table.count() == 1, "</table> in a text ends no table"
        assert table.locator("tbody tr").count() == rows
        assert table.locator("img, b, strong, a, script, mjx-container, .ansi-red-fg").count() == 0
        shown = table.inner_text()
        assert "<script>window.hacked = 1</script>" in shown and "$x^2$" in shown and "**strong**" in shown
        assert "\\x1b[31m" in shown and "\\u202e" in shown and "\x1b" not in shown and "\u202e" not in shown
    assert cells.nth(3).locator("img").count() == 1, "the figure is drawn"
    printed = lab.text(4)
    assert "\\x1b[31mred" in printed and "\u202e" not in printed
    assert cells.nth(4).locator(".ansi-red-fg").count() == 0


FAILS = """import matplotlib.pyplot as plt
from calib_nb.plots import theme
with theme():
    plt.subplots()
    raise ValueError("the first figure fails")"""


def test_after_a_first_figure_that_fails_others_are_drawn(lab):
    lab.open("figures.ipynb", notebook(FAILS, "plt.plot([1, 2]);", "assert plt.rcParams['savefig.dpi'] == 'figure'"))
    for place in (0, 1, 2):
        lab.execute(place)
    assert [output["ename"] for output in lab.outputs(0) if "ename" in output] == ["ValueError"]
    assert [output["output_type"] for output in lab.outputs(1)] == ["display_data"], "plain matplotlib draws"
    assert lab.outputs(2) == [], "and with its own settings"


COUNTS = """import time
from calib_nb.progress import Bar
with Bar("answers", 4) as bar:
    for _ in range(4):
        time.sleep(0.8)
        bar.update()"""
WAITS = """with Bar("loading"):
    time.sleep(5)"""


def test_a_bar_moves_and_its_saved_form_says_what_was_done(lab):
    lab.open("bars.ipynb", notebook(COUNTS, WAITS, "raise SystemExit"))
    lab.start("notebook:run-all-cells")
    lab.wait_for(0, "2/4")
    lab.wait_for(1, "00:02")
    lab.wait_for(1, "loading: 0:05")
    lab.save()
    page = nbformat.read(lab.folder / "bars.ipynb", 4)
    said = [cell.outputs[0].data["text/plain"] for cell in page.cells[:2]]
    assert said == ["answers: 4 in 0:03", "loading: 0:05"]
    assert "widget" not in str(page)
    lab.open("bars.ipynb")
    assert lab.text(0) == "answers: 4 in 0:03", "opened again, by another kernel"


PARAMETERS = """method = "sft"
model = {model!r}
preset = "raw"
judged = {judged!r}
n_train, n_calibration, n_test = 8, 4, 8
seed = 0
out = "runs"
"""
IMPORTS = """import time
import calib_nb.experiment as e
from calib_nb.experiment import Run, notebook_parameters"""
BEGIN = "run = Run(**notebook_parameters(globals()))\nrun.parameters.seed"
SLOW = "fast = e.load_model\ne.load_model = lambda *args: time.sleep(100)"
ASK = "run.baseline_readings\nlen(run.baseline_readings)"


def judged_file(folder):
    "A file of judged answers, so that nothing has to be answered."
    rows = [{"question": f"How much is {i}?", "model_answer": str(i), "is_correct": i % 3 == 0} for i in range(30)]
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "The folder of a model with random weights."
    from conftest import small_model, small_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    lm = small_model(small_tokenizer(False))
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return str(folder)


def test_own_variables_near_misses_other_kinds_and_an_interrupt(lab, tiny):
    parameters = PARAMETERS.format(model=tiny, judged=judged_file(lab.folder))
    cells = (IMPORTS, "i = 3\nseed = __import__('numpy').int64(3)", BEGIN, "seeds = 1", BEGIN, "del seeds", SLOW, ASK)
    lab.open("run.ipynb", notebook(*cells, "e.load_model = fast", ASK, parameters=parameters))
    lab.execute(8)
    assert lab.text(8).startswith("NameError: 'run' is not there yet: run the cell `run = Run(**notebook_parameters")
    assert len(lab.text(8).splitlines()) == 1, "a fresh kernel, in which nothing has been run"
    lab.execute(3)
    lab.execute(1)
    lab.execute(3)
    assert "run the cell that is tagged 'parameters' first" in lab.text(3), "out of order, and told so"
    for place in (0, 2, 3):
        lab.execute(place)
    assert lab.text(3).strip() == "3", "i is nobody's business, and NumPy's 3 is 3"
    for place in (4, 5):
        lab.execute(place)
    assert "is 'seeds' meant to be the parameter 'seed'?" in lab.text(5)
    for place in (6, 7):
        lab.execute(place)
    lab.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 8 }")
    lab.start("notebook:run-cell")
    lab.wait_for(8, "00:02")
    lab.interrupt()
    lab.wait_for(8, "interrupted at step 2 of 4; run the cells again to go on")
    assert len(lab.text(8).splitlines()) < 5, "not the calls that led there"
    before = lab.text(8)
    time.sleep(3)
    assert lab.text(8) == before, "no bar of what was interrupted moves on"
    for place in (9, 10):
        lab.execute(place)
    assert lab.text(10).splitlines()[-1] == "24", "and it goes on"


# The page of the main job, from beginning to end


@pytest.fixture(scope="module")
def page_of_the_main_job(lab, tiny):
    "The page with small parameters, as a user would set them."
    content = nbformat.read(ROOT / "nbs/run_method.ipynb", 4)
    content.cells = [cell for cell in content.cells if cell.cell_type == "code"]
    for cell in content.cells:
        cell.outputs, cell.execution_count = [], None
    content.cells[0].source += "\n" + PARAMETERS.format(model=tiny, judged=judged_file(lab.folder))
    return content


def seconds_between_signs(lab, places, limit=600):
    "Runs all cells; the longest time in which the outputs of the page did not change, and the time to the first."
    start = last = time.monotonic()
    lab.page.evaluate("""() => {
        window.done = false
        window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.done = true })
    }""")
    before, silences = "", []
    while not lab.page.evaluate("window.done"):
        said = "".join(str(lab.outputs(place)) for place in range(places))
        if said != before:
            silences.append(time.monotonic() - last)
            before, last = said, time.monotonic()
        assert time.monotonic() - start < limit
        time.sleep(0.3)
    return silences


def errors(lab, places):
    "The errors that the page shows, by cell."
    found = {}
    for place in range(places):
        said = [output["evalue"] for output in lab.outputs(place) if output["output_type"] == "error"]
        if said:
            found[place] = said
    return found


@pytest.mark.long
def test_the_main_job_in_jupyterlab_run_twice_changed_restarted_and_kept(lab, page_of_the_main_job):
    n = len(page_of_the_main_job.cells)
    lab.open("run_method.ipynb", page_of_the_main_job)
    silences = seconds_between_signs(lab, n)
    assert errors(lab, n) == {}
    assert silences[0] < 10, "the first sign of life"
    assert max(silences) < 70
    assert "as saved, run_method.ipynb does not show this run yet. Save and run this cell again." in lab.text(n - 1)
    (folder,) = (path.parent for path in (lab.folder / "runs").glob("*-sft-*/manifest.json"))
    assert not (folder / "run_method.ipynb").exists()
    lab.save()
    lab.execute(n - 1)
    kept = nbformat.read(folder / "run_method.ipynb", 4)
    assert "Save" not in lab.text(n - 1) and "Brier skill" in str(kept) and "image/png" in str(kept)
    assert "widget" not in str(kept) and "training: " in str(kept)
    metrics = (folder / "metrics.json").read_bytes()
    seconds_between_signs(lab, n)
    assert errors(lab, n) == {}, "all cells twice in one kernel"
    lab.write(0, page_of_the_main_job.cells[0].source + "\nmethod = 'baseline'")
    lab.save()
    lab.execute(n - 1)
    assert "as saved, run_method.ipynb has another method. Save and run" in lab.text(n - 1), "the parameters alone"
    lab.restart()
    lab.write(0, page_of_the_main_job.cells[0].source)
    seconds_between_signs(lab, n)
    assert errors(lab, n) == {} and "is finished: nothing is made again" in "".join(map(lab.text, range(n)))
    assert (folder / "metrics.json").read_bytes() == metrics, "after a restart the same"
    assert "Brier skill" in str(nbformat.read(folder / "run_method.ipynb", 4)), "what was kept stays"


# The explorer


EXPLORER = """from calib_nb.explorer import explore
shown = explore("predictions.jsonl")
shown"""
TWENTY = """for i in range(20):
    shown.controls.cost.value = i / 20
len(shown.picture.outputs)"""


def predictions(path):
    "Forty answers of strangers: confidences from 0.05 to 0.95, the higher half mostly right."
    lines = []
    for i in range(40):
        said = {"question": f"{i}: {HOSTILE}", "answer": HOSTILE, "target": f"accepted {i}", "reason": HOSTILE}
        lines.append({"id": f"q{i}", **said, "confidence": 0.05 + 0.1 * (i % 10), "is_correct": i % 10 > 4 or i < 4})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def pictures(lab, place):
    "The bytes of the pictures in an explorer, as the page shows them."
    found = lab.page.locator(".jp-Notebook .jp-CodeCell").nth(place).locator(".jupyter-widgets img")
    return [base64.b64decode(source.partition(",")[2]) for source in found.evaluate_all("all => all.map(i => i.src)")]


def controls(lab, place):
    "An explorer in the page."
    return lab.page.locator(".jp-Notebook .jp-CodeCell").nth(place).locator(".jupyter-widgets").first


def drag(lab, handle, steps=10):
    "Drag a slider's handle over so many values, and let it go."
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    lab.page.mouse.move(x, y)
    lab.page.mouse.down()
    for step in range(1, steps + 1):
        lab.page.mouse.move(x + 6 * step, y)
    lab.page.mouse.up()


@pytest.fixture(scope="module")
def explorer(lab):
    "A page with an explorer, shown in two cells; opened once, for the tests below."
    predictions(lab.folder / "predictions.jsonl")
    (lab.folder / "predictions.by_hand.jsonl").unlink(missing_ok=True)
    lab.open("explorer.ipynb", notebook(EXPLORER, "shown", "shown.steps", TWENTY))
    lab.run_all()
    for place in (0, 1):
        controls(lab, place).locator("img").wait_for()
    return controls(lab, 0)


def test_dragging_a_slider_computes_once_and_both_views_follow(lab, explorer):
    lab.execute(2)
    before, first = int(lab.text(2)), pictures(lab, 0)
    drag(lab, explorer.locator(".noUi-handle").first)
    for place in (0, 1):
        controls(lab, place).get_by_text(re.compile(r"From 0\.[6-9]\d on: ")).wait_for()
    lab.execute(2)
    assert int(lab.text(2)) == before + 1, "not once for each value"
    assert len(pictures(lab, 0)) == len(pictures(lab, 1)) == 1
    assert pictures(lab, 0) == pictures(lab, 1) != first
    picture = Image.open(io.BytesIO(pictures(lab, 0)[0]))
    picture.load()
    assert picture.info["Title"] == "predictions, 40 answers: Brier score 0.14, AUROC 0.90"


def test_twenty_changes_leave_one_figure_and_a_cell_that_is_run_again_computes_once(lab, explorer):
    lab.execute(3)
    assert lab.text(3).strip() == "1" and len(pictures(lab, 0)) == 1
    lab.execute(0)
    lab.execute(2)
    before = int(lab.text(2))
    controls(lab, 0).locator("img").wait_for()
    controls(lab, 0).locator("select").nth(2).select_option("5")
    controls(lab, 0).get_by_text("0.80 to 1.00: 8 answers").first.wait_for(state="attached")
    lab.execute(2)
    assert int(lab.text(2)) == before + 1
    controls(lab, 0).locator("select").nth(2).select_option("10")
    controls(lab, 0).get_by_text("0.90 to 1.00: 4 answers").first.wait_for(state="attached")


def test_a_click_on_a_bin_shows_what_strangers_wrote_as_text(lab, explorer):
    explorer.locator("select[size]").select_option(label="0.30 to 0.40: 4 answers, 1 right; says 35%")
    explorer.get_by_text("accepted 3", exact=True).wait_for()
    table = explorer.locator("table").last
    assert table.locator("tbody tr").count() == 5, "a heading and four answers"
    assert table.locator("script, img, b, strong, a, mjx-container").count() == 0
    assert "<script>window.hacked = 1</script>" in table.inner_text() and "\\x1b[31m" in table.inner_text()
    assert lab.page.evaluate("window.hacked") is None, "no code of a stranger's is run"


def test_a_verdict_is_corrected_by_hand_and_an_error_is_seen(lab, explorer):
    explorer.get_by_text("accuracy").first.wait_for()
    button = explorer.get_by_role("button", name="write the verdict")
    explorer.locator("select[size]").select_option(label="0.40 to 0.50: 4 answers, 0 right; says 45%")
    explorer.get_by_text("accepted 4", exact=True).wait_for()
    button.click()
    explorer.get_by_text("ValueError: nobody says so: write your name").wait_for()
    explorer.locator("input[type=text]").first.fill("Ann")
    explorer.locator("input[type=text]").first.press("Enter")
    button.click()
    explorer.get_by_text("Written to ").wait_for()
    row = explorer.locator("table").first.locator("tr", has_text="accuracy")
    assert row.inner_text().split() == ["accuracy", "0.625"]
    bins = explorer.locator("select[size]").inner_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "0.40 to 0.50: 4 answers, 1 right; says 45%" in bins
    (line,) = [line for _, line in read_jsonl(lab.folder / "predictions.by_hand.jsonl") if "by_hand" in line]
    assert line["is_correct"] and line["by_hand"]["by"] == "Ann"


def test_opened_without_its_kernel_the_table_and_a_picture_are_there(lab, explorer):
    lab.save()
    lab.restart()
    lab.open("explorer.ipynb")
    cell = lab.page.locator(".jp-Notebook .jp-CodeCell").first
    cell.locator(".jp-OutputArea-output td", has_text="AUROC").first.wait_for()
    sizes = cell.locator(".jp-RenderedImage img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert len(sizes) == 1 and sizes[0] > 500


def test_picture_of_the_explorer(lab):
    "The page that a user opens; where CALIB_NB_PICTURES names a folder, its picture is kept there."
    content = nbformat.read(ROOT / "nbs/explore.ipynb", 4)
    content.cells = [cell for cell in content.cells if cell.cell_type == "code"]
    path = str(ROOT / "figures/explorer/predictions.csv.gz")
    content.cells[0].source += f"\nsource, verdicts = {path!r}, 'verdicts'"
    lab.open("explore.ipynb", content)
    lab.run_all()
    shown = controls(lab, 2)
    shown.locator("img").wait_for()
    shown.locator("select[size]").select_option(index=1)
    shown.get_by_text("Which language is official in Venezuela?", exact=True).wait_for()
    shown.get_by_text("computing ...").wait_for(state="detached")
    lab.page.set_viewport_size({"width": 1400, "height": 1500})
    lab.page.add_style_tag(content=".Toastify { display: none }")  # JupyterLab asks whether it may bring news
    shown.scroll_into_view_if_needed()
    data = shown.screenshot()
    lab.page.set_viewport_size({"width": 1400, "height": 1000})
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    assert picture.width > 700 and picture.height > 700
    folder = os.environ.get("CALIB_NB_PICTURES")
    if folder:
        picture.quantize(128).save(ROOT / folder / "explorer/explorer.png", optimize=True)
