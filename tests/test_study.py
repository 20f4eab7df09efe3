"""The study of self-knowledge: its questions keep what the plan promises."""
from collections import Counter
from importlib.resources import files

import nbformat
import pytest
from conftest import ROOT

from calib_nb.questions import _wording, load_questions, split_questions

NEVER_TAUGHT = {"country_currency", "country_border", "symbol_element", "state_largest_city"}
SIZES = {"train": 300, "calibration": 300, "test": 636, "unlabelled": 947}


@pytest.fixture(scope="module")
def splits():
    return split_questions(load_questions("study"), 300, 300, 636, n_unlabelled=947)


# The questions


def test_the_splits_have_the_sizes_of_the_plan(splits):
    assert {name: len(part) for name, part in splits.items()} == SIZES
    assert len(load_questions("study")) == sum(SIZES.values())


def test_no_subject_and_no_wording_is_in_two_splits(splits):
    for mark in (lambda q: q.group, _wording, lambda q: q.id):
        seen = [value for part in splits.values() for value in {mark(q) for q in part}]
        assert len(seen) == len(set(seen))


def test_the_test_holds_no_fact_that_was_read_before(splits):
    read = load_questions("facts")
    tested = splits["test"]
    assert not {q.id for q in read} & {q.id for q in tested}
    assert not {_wording(q) for q in read} & {_wording(q) for q in tested}


def test_a_quarter_of_the_test_is_of_four_relations_that_no_other_split_has(splits):
    never = [q for q in splits["test"] if q.relation in NEVER_TAUGHT]
    assert len(never) == 636 / 4 and {q.relation for q in never} == NEVER_TAUGHT
    taught = {q.relation for name, part in splits.items() if name != "test" for q in part}
    assert not taught & NEVER_TAUGHT
    assert {q.relation for q in splits["test"]} == taught | NEVER_TAUGHT


def test_no_relation_is_more_than_a_quarter_of_the_test(splits):
    counts = Counter(q.relation for q in splits["test"])
    assert max(counts.values()) <= 636 / 4


def test_making_the_questions_again_gives_the_same_bytes():
    for package in ("airportsdata", "ephem", "periodictable", "phonenumbers", "us", "babel", "countryinfo"):
        pytest.importorskip(package)
    names = {}
    for cell in nbformat.read(ROOT / "nbs/make_facts.ipynb", 4).cells:
        if "generator" in cell.metadata.get("tags", []):
            exec(compile(cell.source, cell.id, "exec"), names)
    shipped = (files("calib_nb") / "data/study.jsonl").read_text(encoding="utf-8")
    assert names["facts_text"](names["study_questions"]()) == shipped
