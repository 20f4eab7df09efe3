"""The parser: what it reads, what it repairs, and what it leaves missing."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb.prompts import PROMPTS, Confidence, level_grid, parse_confidence, parse_response, training_output

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


TURNED = [
    "70% chance that I am wrong", "30% likely to be incorrect", "90% uncertain", "0.9 unsure", "80% doubtful",
    "70% chance it is not Paris", "less than 10%", ">90%", "High (> 90%)", "over 90%", "at most 0.3", "&lt; 10%",
    "under 5%",
]
STILL_READ = {
    "<0.9>": 0.9, "<b>0.9": 0.9, "70% chance that I am right": 0.7, "0.4 (unsure)": 0.4, "0.6, I may be wrong": 0.6,
    "at least 0.8": 0.8, "90% certain": 0.9, "0.5 - not sure": 0.5,
}


def test_a_bound_and_how_probable_an_error_is_are_no_confidence():
    for text in TURNED:
        read = parse_confidence(text)
        assert read == Confidence(None, "missing")
        assert read.how in ("a bound and not a number", "how probable an error is")
        assert PROMPTS["percent"].unit.parse(text) == read
    assert {text: parse_confidence(text).value for text in STILL_READ} == STILL_READ


WORDS = {
    "certain": 1.0, "Certain.": 1.0, "**Certain**": 1.0, "I am certain that Paris is the capital.": 1.0,
    "it is almost certain": 0.93, "Almost certainly not": 0.07, "My confidence level is: about even": 0.5,
    "probable (it is a well known fact)": 0.75, "I'd say it is probable, as it is large": 0.75, "quite impossible": 0.0,
}
NO_WORDS = [
    "far from certain", "hard to be certain", "it is anything but certain", "hardly certain", "almost impossible",
    "impossible to say", "certain that I am wrong", "probable error", "fairly certain", "certain, but I may be wrong",
    "not certain", "probable or certain", "high", "almost-certain", "",
]


def test_a_word_counts_only_among_words_that_leave_its_meaning_as_it_is():
    parse = PROMPTS["words"].unit.parse
    assert {text: parse(text).value for text in WORDS} == WORDS
    for text in NO_WORDS:
        assert parse(text) == Confidence(None, "missing") and parse(text).how, text


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
