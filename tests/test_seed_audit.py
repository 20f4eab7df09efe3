"""The audit of the original: each derivation has its value, and the page keeps apart how each thing is known."""
import ast
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, code_cells
from outputs import check
from test_outputs import PICTURE_BYTES, picture_sizes

from calib_nb.metrics import hle_calibration_error, rms_calibration_error
from calib_nb.original import repository_error
from calib_nb.publish import published_readings, readings_frame

NOTEBOOK = ROOT / "nbs/seed_audit.ipynb"
EXACTLY = {"rtol": 0, "atol": 1e-9}


def names_of(node):
    "The names that a statement defines."
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def defined(*wanted):
    "What the page defines by these names, as a dict; the statements are executed in the order of the page."
    found = {"np": np, "pd": pd, "repository_error": repository_error}
    for source in code_cells(NOTEBOOK):
        for node in ast.parse(re.sub(r"^%.*", "", source, flags=re.M)).body:
            if names_of(node) & set(wanted):
                exec(compile(ast.Module([node], []), NOTEBOOK.name, "exec"), found)
    return found


NAMES = "ACCURACY", "judged", "published", "with_readings", "committed_verdict", "recorded"
PAGE = defined(*NAMES)
N, judged = PAGE["N"], PAGE["judged"]


# The repository's error


def error_bin_by_bin(confidence, correct):
    "The same as the page's, a bin at a time."
    edges = np.arange(0, 1.01, 0.01)
    squares = []
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            squares.append((confidence[inside].mean() - correct[inside].mean()) ** 2)
    return np.sqrt(np.mean(squares))


@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_the_repository_error_is_the_root_of_the_mean_over_bins_that_hold_an_answer(decimals):
    rng = np.random.default_rng(decimals)
    confidence, correct = rng.random(500).round(decimals), rng.random(500) < 0.3
    expected = error_bin_by_bin(confidence, correct)
    np.testing.assert_allclose(repository_error(confidence, correct), expected, **EXACTLY)


def test_the_repository_error_does_not_ask_how_many_answers_a_bin_holds():
    confidence, correct = np.array([0.2, 0.7, 0.7]), np.array([0, 1, 0])
    often = np.array([1, 50, 50])
    repeated = repository_error(confidence.repeat(often), correct.repeat(often))
    np.testing.assert_allclose(repeated, repository_error(confidence, correct), **EXACTLY)


def test_a_confidence_of_one_is_in_no_bin():
    assert np.isnan(repository_error(np.ones(N), judged))
    one_of_them = np.where(np.arange(N) == N - 1, 1.0, 0.5)
    np.testing.assert_allclose(repository_error(one_of_them, judged), 0.5 - 194 / 999, **EXACTLY)


# .3060


@pytest.mark.parametrize("value, printed", [(0.0, 0.194), (0.194, 0.0), (0.5, 0.306), (0.9, 0.706)])
def test_a_constant_prints_its_distance_from_the_accuracy(value, printed):
    np.testing.assert_allclose(repository_error(np.full(N, value), judged), printed, **EXACTLY)


def test_three_published_values_are_those_of_a_constant_half():
    values = PAGE["published"]["RMS calibration error"]
    assert judged.sum() == 194
    assert list(values[values == 0.306].index) == ["dpo", "sft", "performance_sft"]


@pytest.mark.parametrize("row, printed", [(0, 0.22817801899283516), (-1, 0.6721298947616221)], ids=["right", "wrong"])
def test_one_readable_text_would_have_changed_the_printed_value(row, printed):
    np.testing.assert_allclose(PAGE["with_readings"](0.9, [row]), printed, **EXACTLY)


def test_no_number_with_two_decimals_but_a_half_leaves_the_printed_value():
    same = [
        (level, row)
        for level in np.arange(101) / 100
        for row in (0, -1)
        if round(PAGE["with_readings"](level, [row]), 4) == 0.306
    ]
    assert same == [(0.5, 0), (0.5, -1)]


# .5225


def test_only_an_error_weighted_by_counts_is_bounded_by_the_distance_of_the_means():
    rng = np.random.default_rng(0)
    for _ in range(100):
        confidence, correct = rng.beta(*rng.uniform(0.2, 5, 2), 300), rng.random(300) < rng.random()
        distance = abs(confidence.mean() - correct.mean())
        assert rms_calibration_error(confidence, correct) >= distance - 1e-12
    distance = 0.6827 - 0.194
    one_wrong_zero = np.append(np.full(N - 1, 0.6827 * N / (N - 1)), 0.0)
    np.testing.assert_allclose(one_wrong_zero.mean(), 0.6827, **EXACTLY)
    printed = repository_error(one_wrong_zero, judged)
    np.testing.assert_allclose(printed, distance * N / (N - 1) / np.sqrt(2), **EXACTLY)
    assert printed < 0.346 < distance


def test_the_published_mean_lies_between_those_of_the_embedded_model_untrained_and_trained():
    matrix = published_readings(ROOT / "figures/matrix/readings.csv.gz", split="calibration")
    frame = readings_frame(matrix).query("readout == 'normalized_probability'").set_index("method")
    means = frame.groupby("method")["confidence"].mean()
    assert means["baseline"] < 0.6827 < means["implicit"]
    untrained = frame.loc["baseline"]
    p, right = untrained["confidence"].to_numpy(), untrained["is_correct"].to_numpy()
    found = [p.mean(), p.std(), right.mean(), repository_error(p, right), hle_calibration_error(p, right, beta=10)]
    golden = [0.6306823124100215, 0.13289869857140083, 0.49, 0.37291758676286496, 0.22273921045174364]
    np.testing.assert_allclose(found, golden, **EXACTLY)


# 19.4 %


@pytest.mark.parametrize("reply, right", [("Correct", True), ("Incorrect", True), ("incorrect.", True), ("", False)])
def test_the_committed_judge_takes_incorrect_for_right(reply, right):
    assert PAGE["committed_verdict"](reply) is right


@pytest.mark.parametrize("truth", [0, 0.03, 0.3, 1])
def test_its_accuracy_is_the_share_of_calls_that_did_not_fail(truth):
    np.testing.assert_allclose(PAGE["recorded"](truth, 0.806), 0.194, **EXACTLY)
    assert PAGE["recorded"](truth, 0) == 1


# The page


def page():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_each_row_of_what_was_done_says_how_it_is_known():
    text = next(cell.source for cell in page().cells if "| how known |" in cell.source)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) >= 10 and {len(row) for row in rows} == {len(header)}
    assert all(cell for row in rows for cell in row)
    known = {row[0]: re.match(r"read(; (derived|(the last )?\*inferred\*).*)?$", row[-1]) for row in rows}
    assert [stage for stage, match in known.items() if not match] == []


def test_each_section_ends_in_a_small_figure_and_a_sentence():
    shown = [output.data for cell in page().cells for output in cell.get("outputs", []) if "data" in output]
    sections = [cell for cell in page().cells if re.match(r"(# .*\n)?## \d\.", cell.source)]
    assert sum("image/png" in data for data in shown) == len(sections) == 9
    assert sum("text/markdown" in data for data in shown) == 9
    assert max(picture_sizes(NOTEBOOK)) <= PICTURE_BYTES


@pytest.mark.slow
def test_the_page_shows_what_it_computes():
    assert check(NOTEBOOK) == []
