"""What is read from a model's text: one block, one number that stands there, and nothing else."""
import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calib_nb.prompts import PROMPTS, parse_guesses
from calib_nb.responses import parse_confidence, parse_response, short_answer, without_thoughts

CORPUS = [json.loads(line) for line in (Path(__file__).parent / "corpus_responses.jsonl").read_text().splitlines()]
WHOLE = [row for row in CORPUS if "response" in row]
NUMBERS = [row for row in CORPUS if "confidence_text" in row]


@pytest.mark.parametrize("row", WHOLE, ids=lambda row: ascii(row["response"])[:50])
def test_a_response_of_the_corpus_says_what_a_person_reads(row):
    read = parse_response(row["response"])
    assert (read.answer, read.confidence, read.provenance) == (row["answer"], row["confidence"], row["provenance"])


def test_a_confidence_of_the_corpus_is_what_a_person_reads():
    read = {row["confidence_text"]: parse_confidence(row["confidence_text"]) for row in NUMBERS}
    expected = {row["confidence_text"]: (row["confidence"], row["provenance"]) for row in NUMBERS}
    assert {text: (c.value, c.provenance) for text, c in read.items()} == expected


def test_what_was_done_or_what_is_lacking_is_said():
    for row in NUMBERS:
        read = parse_confidence(row["confidence_text"])
        assert bool(read.how) == (read.provenance != "parsed"), row
    assert parse_response("<think>\nAnswer: Lyon\nConfidence: 0.3").how == "unfinished thought"
    assert parse_response("Answer: A\nConfidence: 0.9\nAnswer: B\nConfidence: 0.1").how == "the last of 2 answers"
    assert "90%" in parse_response("Answer: A\nConfidence: 90%").how


@pytest.mark.parametrize("begins, ends", [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
])
def test_what_was_thought_is_no_answer_and_a_thought_without_end_is_missing(begins, ends):
    thought, said = "Answer: Lyon\nConfidence: 0.3\n", "Answer: Paris\nConfidence: 0.9"
    read = parse_response(begins + thought + ends + said)
    assert (read.answer, read.confidence, read.provenance) == ("Paris", 0.9, "parsed")
    assert short_answer(f"{begins}\nLyon\n{ends}\n\nParis") == "Paris"
    cut = parse_response(begins + thought)
    assert (cut.answer, cut.confidence, cut.how) == ("", None, "unfinished thought")
    assert short_answer(begins + "\nLyon") == ""


def test_a_text_without_thoughts_is_left_as_it_is():
    assert without_thoughts("a < b, <b>bold</b> and I think so") == ("a < b, <b>bold</b> and I think so", "")


def test_the_first_line_that_says_something_is_the_short_answer():
    assert short_answer("Answer:\nParis") == "Paris"
    assert short_answer("\\boxed{Paris}") == "Paris"


# Whatever a model writes


PIECES = (
    "Answer: ¦Confidence: ¦confidence¦answer¦**¦\n¦: ¦0.¦9¦0.9¦85¦%¦\\%¦/¦10¦ out of ¦ten¦ninety percent¦ in ¦half¦-¦–¦"
    ",¦.¦{\"answer\": \"¦\", \"confidence\": ¦}¦{¦[¦<think>¦</think>¦<|channel|>final¦&#37;¦&#99999999;¦\\u0025¦½¦²¦"
    "not ¦Question: ¦G1: ¦P1: ¦1e¦e-¦000¦٣¦０¦\ud83d¦\u200b¦\x00¦\r¦\t¦ ¦(¦)¦\"¦'¦`¦_¦50/50¦scale of 0 to 1¦NaN¦\\frac{"
    "¦|¦ | ¦| Answer |¦| Confidence |¦\n|--|--|\n"
).split("¦")
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
READERS = [parse_confidence, PROMPTS["percent"].unit.parse, PROMPTS["words"].unit.parse]
WORDS = "zero one two three four five six seven eight nine ten twenty thirty forty fifty hundred half third point"
WORDS = (*WORDS.split(), "quarter", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "&#", "\\u")


def check(text):
    "No exception, and no number where the text holds none."
    response = parse_response(text)
    for value, provenance in [(c.value, c.provenance) for c in (reader(text) for reader in READERS[:2])]:
        assert (value is None) == (provenance == "missing")
        assert value is None or 0 <= value <= 1
        says_number = any(c.isnumeric() for c in text) or any(word in text.lower() for word in WORDS)
        assert value is None or says_number
    assert READERS[2](text).provenance in ("parsed", "repaired", "missing")
    assert (response.confidence is None) == (response.provenance == "missing")
    assert response.confidence is None or 0 <= response.confidence <= 1
    assert not response.answer or response.answer == response.answer.strip()
    assert "\n" not in short_answer(text) and "\n" not in response.answer
    parse_guesses(text)


MANY = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=1000, **MANY)
@given(TEXTS)
def test_a_thousand_texts_are_read_without_exception_or_invention(text):
    check(text)


def drawn(rng):
    "A text of pieces and of any characters; quicker than a strategy, for many."
    pieces = rng.choices(PIECES, k=rng.randrange(16))
    pieces += [chr(rng.randrange(0x300)) for _ in range(rng.randrange(6))]
    rng.shuffle(pieces)
    return "".join(pieces)


@pytest.mark.long
@settings(max_examples=1000, **MANY)
@given(st.integers(0, 2**64))
def test_a_hundred_thousand_texts_are_read_without_exception_or_invention(seed):
    rng = random.Random(seed)
    for _ in range(100):
        check(drawn(rng))


@given(st.integers(0, 100))
def test_every_way_to_write_a_share_gives_that_share(n):
    share = n / 100
    forms = f"{n}%", f"{n} \\%", f"{n} percent", f"{n}/100", f"{n} out of 100", f"\\frac{{{n}}}{{100}}", f"{n}&#37;"
    decimals = f"{share:.2f}.", f"{share:.2f}".replace(".", ","), f"**{share:.2f}**", f"about {share:.2f}"
    for text in (*forms, *decimals, f"${n}\\%$"):
        assert parse_confidence(text).value == pytest.approx(share), text


@given(st.integers(1, 98), st.integers(1, 99))
def test_a_range_or_two_numbers_are_never_one(low, high):
    low, high = sorted((low, high))
    if low < high:
        for text in (f"{low}-{high}%", f"{low}% to {high}%", f"0.{low:02}–0.{high:02}", f"0.{low:02} or 0.{high:02}"):
            assert parse_confidence(text).value is None, text
