"""The parser: what it reads, what it repairs, and what it leaves missing."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb.prompts import (
    level_grid,
    parse_confidence,
    parse_response,
    training_output,
)


@pytest.mark.parametrize("text, value, provenance", [
    ("0.7", 0.7, "parsed"), (" 0.70\nnext", 0.7, "parsed"), ("1", 1.0, "parsed"), ("0", 0.0, "parsed"), (".5", 0.5, "parsed"), ("1.0", 1.0, "parsed"),
    ("90%", 0.9, "repaired"), ("90 percent", 0.9, "repaired"), ("0,7", 0.7, "repaired"), ("8/10", 0.8, "repaired"), ("8 out of 10", 0.8, "repaired"), ("0.9.", 0.9, "repaired"),
    ("about 0.6", 0.6, "repaired"), ("**0.8**", 0.8, "repaired"), ("0.8 (high)", 0.8, "repaired"),
    ("", None, "missing"), ("high", None, "missing"), ("1.5", None, "missing"), ("-0.3", None, "missing"), ("0.7-0.9", None, "missing"), ("0.7 or 0.9", None, "missing"),
    ("110%", None, "missing"), ("\n0.9", None, "missing"), ("0.0-1.0", None, "missing"), ("90", None, "missing"), ("v2.0", None, "missing")])
def test_shapes_of_text(text, value, provenance):
    c = parse_confidence(text)
    assert (c.value, c.provenance) == (value, provenance)


@given(st.text(max_size=40))
def test_never_crashes_and_never_fills_in(text):
    c = parse_confidence(text)
    assert (c.value is None) == (c.provenance == "missing") and (c.value is None or 0 <= c.value <= 1)
    if not any(ch.isnumeric() for ch in text):
        assert c.value is None


@pytest.mark.parametrize("decimals", [1, 2])
def test_what_is_written_is_read(decimals):
    for level in level_grid(decimals):
        r = parse_response(training_output("Paris", float(level), decimals))
        assert (r.answer, r.confidence, r.provenance) == ("Paris", float(level), "parsed")
