"""The parser: what it reads, what it repairs, and what it leaves missing."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb.prompts import Confidence, level_grid, parse_confidence, parse_response, training_output

PARSED = [
    ("0.7", 0.7),
    (" 0.70\nnext", 0.7),
    ("1", 1.0),
    ("0", 0.0),
    (".5", 0.5),
    ("1.0", 1.0),
]
REPAIRED = [
    ("90%", 0.9),
    ("90 percent", 0.9),
    ("0,7", 0.7),
    ("8/10", 0.8),
    ("8 out of 10", 0.8),
    ("0.9.", 0.9),
    ("about 0.6", 0.6),
    ("**0.8**", 0.8),
    ("0.8 (high)", 0.8),
]
MISSING = [
    "", "high", "1.5", "-0.3", "0.7-0.9", "0.7 or 0.9", "110%", "\n0.9", "0.0-1.0", "90", "v2.0",
]


@pytest.mark.parametrize("text, value", PARSED)
def test_a_number_and_nothing_else_is_parsed(text, value):
    assert parse_confidence(text) == Confidence(value, "parsed")


@pytest.mark.parametrize("text, value", REPAIRED)
def test_a_number_that_takes_interpretation_is_repaired(text, value):
    assert parse_confidence(text) == Confidence(value, "repaired")


@pytest.mark.parametrize("text", MISSING)
def test_everything_else_is_missing(text):
    assert parse_confidence(text) == Confidence(None, "missing")


@given(st.text(max_size=40))
def test_never_crashes_and_never_fills_in(text):
    c = parse_confidence(text)
    assert (c.value is None) == (c.provenance == "missing")
    assert c.value is None or 0 <= c.value <= 1
    if not any(character.isnumeric() for character in text):
        assert c.value is None


@pytest.mark.parametrize("decimals", [1, 2])
def test_what_is_written_is_read(decimals):
    for level in map(float, level_grid(decimals)):
        response = parse_response(training_output("Paris", level, decimals))
        assert (response.answer, response.confidence, response.provenance) == ("Paris", level, "parsed")
