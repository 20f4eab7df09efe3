"""Multiple choice: asked with letters, judged by the one choice that an answer names."""
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb.choices import chance_level, choices_of, read_choice, with_choices
from calib_nb.core import Question, RecordError, write_jsonl
from calib_nb.judge import group_by_meaning, judge_answers, judge_choice
from calib_nb.prompts import PROMPTS, answer_request, few_shot_request
from calib_nb.questions import group_alike, load_questions

CAPITALS = ["London", "Paris", "New York", "New York City"]
ASKED, ACCEPTED = with_choices("What is the capital of France?", ["Paris"], CAPITALS)
PLAIN_TEXT = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=12)


@pytest.mark.parametrize("answer", [
    "B", "b", "B.", "(B)", "[b]", "(B) Paris", "B) Paris", "B: Paris", "B - Paris", "**B.** Paris", "**B**",
    "\\boxed{B}", "The answer is B", "The answer is: (B).", "Answer: B", "option b", "Option B: Paris",
    "I would choose B", "Definitely B!", "Paris", "PARIS.", "It is Paris.", "B, because Paris is the capital",
    "It is not London but Paris.", "Not A, not C: B",
    "A is wrong, so the answer is B", "The capital is Paris, not London.", "B. Paris, since London is in England",
])
def test_a_choice_is_read_as_people_write_it(answer):
    assert read_choice(answer, CAPITALS) == (1, "")


@pytest.mark.parametrize("answer, why", [
    ("A or B", "does not decide"),
    ("London or Paris", "does not decide"),
    ("The answer is London or Paris", "does not decide"),
    ("Both A and B", "does not decide"),
    ("A. Paris", "does not decide"),
    ("The answer is A. The answer is B.", "does not decide"),
    ("Rome", "names no choice"),
    ("E", "names no choice"),
    ("The answer is not A", "names no choice"),
    ("I don't know", "names no choice"),
    ("", "names no choice"),
])
def test_an_answer_that_does_not_decide_is_never_guessed_for(answer, why):
    chosen, reason = read_choice(answer, CAPITALS)
    assert chosen is None and why in reason


@pytest.mark.parametrize("answer, choice", [
    ("The answer is a city called Paris", 1), ("The answer is a bit unclear, Paris", 1),
    ("The answer is b because ...", 1),
    ("the answer is a", 0), ("The answer is a.", 0), ("The answer is a, I think", 0), ("The answer is (a)", 0),
    ("I choose answer (a) here", 0), ("option a", 0), ("The answer is **a**\nIt lies in England.", 0),
    ("The answer is A because ...", 0), ("answer: a - London", 0),
    ("I cannot answer a question without more context.", None), ("I gave no answer i think", None),
    ("The answer is a.k.a. the city of light", None), ("the answer is a or b", None), ("", None),
])
def test_an_article_is_no_letter(answer, choice):
    assert read_choice(answer, CAPITALS)[0] == choice
    assert read_choice("To answer i would say Paris", [*CAPITALS, "Rome", "Oslo", "Bern", "Kiev", "Riga"])[0] == 1


def test_a_text_within_another_is_not_named_by_it():
    assert read_choice("It is New York City", CAPITALS)[0] == 3
    assert read_choice("It is 3.5", ["3", "3.5", "35", "-3"])[0] == 1
    assert read_choice("-3", ["3", "3.5", "35", "-3"])[0] == 3


def test_a_letter_that_is_another_choices_text_decides_nothing():
    assert read_choice("C", ["C", "D", "A", "B"])[0] is None
    assert read_choice("A. C", ["C", "D", "A", "B"])[0] == 0
    assert read_choice("AB", ["A", "B", "AB", "O"])[0] == 2


@given(st.text(max_size=60), st.lists(PLAIN_TEXT, min_size=2, max_size=5))
def test_whatever_is_said_a_choice_or_a_reason_is_read(answer, choices):
    chosen, reason = read_choice(answer, choices)
    assert (chosen is None) == bool(reason)
    assert chosen is None or 0 <= chosen < len(choices)


@given(st.lists(PLAIN_TEXT, min_size=2, max_size=6, unique=True))
def test_what_is_asked_can_be_read_from_the_question(choices):
    asked, _ = with_choices("Which?", [], choices)
    assert choices_of(asked) == choices


def test_the_request_shows_the_letters_and_asks_for_one():
    assert answer_request(ASKED).endswith("A. London\nB. Paris\nC. New York\nD. New York City\n"
                                          "Reply with only the letter of the right choice.")
    assert few_shot_request(ASKED).count("\nA. ") == 3
    for prompt in PROMPTS.values():
        if not prompt.n_shots:
            assert ASKED in prompt.opening(ASKED)[-1]


def test_a_verdict_says_what_was_chosen_or_why_nothing_was():
    verdicts = {answer: judge_choice(answer, ACCEPTED, ASKED) for answer in ("B", "A", "A or B", "I don't know")}
    assert [v.grade for v in verdicts.values()] == ["correct", "incorrect", "incorrect", "not_attempted"]
    assert verdicts["A"].reason == "chooses A"
    assert verdicts["A or B"].reason == "names A and B and does not decide"


@pytest.mark.parametrize("judge", ["rules", "precedence", "lm"])
def test_no_judge_asks_a_model_about_a_choice(judge):
    def grader(items):
        assert not items
        return []

    questions = [Question("1", ASKED, ACCEPTED), Question("2", ASKED + " ", ACCEPTED)]
    rows = [{"id": "1", "model_answer": "It is B"}, {"id": "2", "model_answer": "London"}]
    assert [j.is_correct for j in judge_answers(questions, rows, judge, grader)] == [True, False]


def test_samples_that_name_one_choice_mean_the_same():
    groups = group_by_meaning(ASKED, "B", ["B. Paris", "Paris", "A", "A or B"])
    assert groups == [["B. Paris", "Paris"], ["A"], ["A or B"]]


def test_chance_is_the_mean_of_one_over_the_number_of_choices():
    two = with_choices("Is it?", ["Yes"], ["Yes", "No"])[0]
    assert chance_level([ASKED, two]) == 0.375
    assert chance_level(["Who?"]) is None


ROWS = [
    {"question": "What is the capital of France?", "choices": CAPITALS, "answers": "Paris"},
    {"question": "Is water wet?", "choices": ["Yes", "No"], "answers": ["A"]},
]


def loaded(path, rows, **options):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_questions(path, **options)


@pytest.mark.parametrize("name", ["saved.jsonl", "saved.csv"])
def test_questions_that_were_saved_still_offer_their_choices(tmp_path, name):
    first = loaded(tmp_path / "q.jsonl", ROWS)
    if name.endswith("csv"):
        rows = [{"id": q.id, "question": q.question, "answers": json.dumps(q.answers)} for q in first]
        pd.DataFrame(rows).to_csv(tmp_path / name, index=False, lineterminator="\r\n")
    else:
        write_jsonl(tmp_path / name, first)
    again = load_questions(tmp_path / name)
    assert [choices_of(q.question) for q in again] == [row["choices"] for row in ROWS]
    assert [(q.id, q.question, q.answers) for q in again] == [(q.id, q.question, q.answers) for q in first]


def test_choices_of_a_file_stand_in_the_question(tmp_path):
    questions = loaded(tmp_path / "quiz.jsonl", ROWS)
    assert questions[0].question == ASKED
    assert [q.answers for q in questions] == [["B. Paris"], ["A. Yes"]]


def test_choices_of_a_csv_are_json_or_several_columns(tmp_path):
    path = tmp_path / "quiz.csv"
    path.write_text('question,answers,choices\nWhich?,B,"[""x"", ""y""]"\n', encoding="utf-8")
    assert load_questions(path)[0].question == "Which?\nA. x\nB. y"
    path.write_text("question,key,a,b,c\nWhich?,B,x,y,\n", encoding="utf-8")
    columns = {"question": "question", "answers": "key", "choices": ["a", "b", "c"]}
    assert load_questions(path, columns=columns)[0].question == "Which?\nA. x\nB. y"


@pytest.mark.parametrize("row, said", [
    ({"choices": ["x", "y"], "answers": "z"}, "field 'answers': 'z' is not one of the choices A. x, B. y"),
    ({"choices": ["x"], "answers": "x"}, "field 'choices' must be 2 to 26 different texts"),
    ({"choices": ["x", "x"], "answers": "x"}, "different texts"),
    ({"choices": "x or y", "answers": "x"}, "field 'choices' is no list: 'x or y'"),
    ({"choices": ["B", "A"], "answers": "A"}, "is not one of the choices"),
])
def test_a_row_without_choices_that_can_be_meant_is_refused_with_its_line(tmp_path, row, said):
    with pytest.raises(RecordError, match="quiz.jsonl:1: ") as raised:
        loaded(tmp_path / "quiz.jsonl", [{"question": "Which?", **row}])
    assert said in str(raised.value)


def test_the_same_choices_in_another_order_are_the_same_question():
    orders = [CAPITALS, CAPITALS[::-1]]
    questions = [Question(str(i), with_choices("Capital?", ["Paris"], c)[0], ["Paris"]) for i, c in enumerate(orders)]
    together, _ = group_alike(questions, threshold=None)
    assert len({q.group for q in together}) == 1


@pytest.mark.slow
def test_a_run_on_multiple_choice_shows_what_guessing_gets(tmp_path):
    from calib_nb.experiment import Run
    from calib_nb.report import comparison_table

    lands = "France Italy Spain Japan Peru Egypt Norway Cuba Kenya Austria Greece Iran".split()
    cities = "Paris Rome Madrid Tokyo Lima Cairo Oslo Havana Nairobi Vienna Athens Tehran".split()
    rows = []
    for i, (land, city) in enumerate(zip(lands, cities)):
        choices = [city, cities[i - 1], cities[i - 2], cities[i - 3]]
        choices = choices[i % 4 :] + choices[: i % 4]
        rows.append({"question": f"What is the capital of {land}?", "choices": choices, "answers": city, "group": land})
    path = tmp_path / "quiz.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sizes = {"n_train": 4, "n_calibration": 3, "n_test": 4}
    run = Run(method="baseline", dataset=str(path), out=str(tmp_path), **sizes)
    table = comparison_table(run)
    assert set(table.loc["accuracy by chance"]) == {"25.0%"}
    assert set(run.accuracy_table()["chance"]) == {"25.0%"}
    assert all(j.reason.startswith(("chooses", "names", "'")) for j in run.judged), [j.reason for j in run.judged]
    assert all("\nD. " in r.question for r in run.readings)
