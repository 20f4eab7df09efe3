"""What the rules accept and refuse."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb import rules
from calib_nb.rules import content_words, judge_by_rules, normalise, parse_date, ways_to_take

CAPITAL, PARIS = "What is the capital of France?", ["Paris"]
MONTHS = "January February March April May June July August September October November December".split()


def grade(answer, references, question=""):
    "The grade of an answer where one reference, or a list of them, is accepted."
    accepted = [references] if isinstance(references, str) else references
    return judge_by_rules(answer, accepted, question).grade


@pytest.mark.parametrize("answer", [
    "Paris",
    " paris ",
    "PARIS!",
    '"Paris"',
    "The capital of France is Paris.",
    "Paris, France",
    "It's Paris",
    "France's capital is Paris",
    "Paris (the City of Light)",
    "Paris, which lies on the Seine",
    "Paris, not Lyon",
    "The answer is: Paris",
    "I believe it is Paris.",
    "Paris. Population: 2 million.",
    "**Paris**",
])
def test_ways_to_say_paris(answer):
    assert grade(answer, PARIS, CAPITAL) == "correct"


@pytest.mark.parametrize("answer", [
    "not Paris",
    "It is not Paris",
    "Paris or Lyon",
    "either Paris or Lyon",
    "Paris, Lyon",
    "Paris, Lyon, Nice",
    "Lyon, Paris and Nice",
    "Lyon",
    "Parisian",
    "Comparis",
    "Paris and Lyon",
    "Paris/Lyon",
    "Never Paris",
    "Lyon (not Paris)",
    "The capital of France is Lyon, not Paris",
    "Paris, Texas or Rome",
    "Is it Paris? No, Lyon",
    "anything except Paris",
])
def test_guesses_lists_and_denials_do_not_pass(answer):
    assert grade(answer, PARIS, CAPITAL) == "incorrect"


@pytest.mark.parametrize("answer", [
    "",
    "  ",
    "?",
    "I don't know",
    "I do not know.",
    "I'm not sure",
    "I cannot answer that",
    "No idea",
    "Unknown",
    "I'm sorry, but I am unable to answer",
])
def test_refusals_and_empty_answers_are_not_attempted(answer):
    assert grade(answer, PARIS, CAPITAL) == "not_attempted"


@pytest.mark.parametrize("answer, reference, question, verdict", [
    ("7", "79", "What is the atomic number of gold?", "incorrect"),
    ("79", "79", "", "correct"),
    ("seventy-nine", "79", "", "correct"),
    ("1,000,000", "one million", "", "correct"),
    ("3.5 million", "3500000", "", "correct"),
    ("-2", "2", "", "incorrect"),
    ("0.50", ".5", "", "correct"),
    ("10 km", "10 kilometres", "", "correct"),
    ("10 miles", "10 km", "", "incorrect"),
    ("10", "10 km", "", "correct"),
    ("5%", "5 percent", "", "correct"),
    ("1998", "1999", "When was it?", "incorrect"),
    ("20 or 30", "20", "How many?", "incorrect"),
    ("20-30", "20", "How many?", "incorrect"),
    ("70 - 85 million", "70-85 million people", "How many people died?", "correct"),
    ("the 11th edition", "Eleventh", "Which edition is it?", "correct"),
    ("two hundred and five", "205", "", "correct"),
])
def test_numbers_units_and_number_words(answer, reference, question, verdict):
    assert grade(answer, reference, question) == verdict


DAY_MONTH_YEAR = "On what day, month, and year did it happen?"


@pytest.mark.parametrize("text", [
    "July 20, 1969",
    "20 July 1969",
    "20th of July, 1969",
    "1969-07-20",
    "Jul 20 1969",
    "Sunday, July 20, 1969",
    "July 20th 1969",
])
def test_dates_in_any_usual_form(text):
    assert grade(text, "20 July 1969", DAY_MONTH_YEAR) == "correct"
    assert grade(text, "21 July 1969", DAY_MONTH_YEAR) == "incorrect"


@pytest.mark.parametrize("answer, question, verdict", [
    ("1969", "When did it happen?", "correct"),
    ("July 1969", "When did it happen?", "correct"),
    ("1969", DAY_MONTH_YEAR, "incorrect"),
    ("June 1969", "When did it happen?", "incorrect"),
    ("July 20", "When did it happen?", "correct"),
    ("July", "When did it happen?", "incorrect"),
])
def test_a_date_must_be_as_precise_as_the_question(answer, question, verdict):
    assert grade(answer, "20 July 1969", question) == verdict


@given(st.integers(1000, 2029), st.integers(1, 12), st.integers(1, 28))
def test_every_full_date_agrees_with_itself_only(year, month, day):
    name, another = MONTHS[month - 1], day % 28 + 1
    same = parse_date(f"{name} {day}, {year}")
    assert same == parse_date(f"{day} {name} {year}") != parse_date(f"{another} {name} {year}")


@pytest.mark.parametrize("answer, reference, verdict", [
    ("Curie", "Marie Curie", "correct"),
    ("M. Curie", "Marie Curie", "correct"),
    ("Marie Sklodowska Curie", "Marie Curie", "correct"),
    ("Pierre Curie", "Marie Curie", "incorrect"),
    ("Marie", "Marie Curie", "incorrect"),
    ("Sir Isaac Newton", "Isaac Newton", "correct"),
    ("Bill Clinton", "William Clinton", "correct"),
    ("Marie Curie or Pierre Curie", "Marie Curie", "incorrect"),
    ("Louis XIV", "Louis XVI", "incorrect"),
    ("George W. Bush", "George H. W. Bush", "incorrect"),
    ("George Bush", "George H. W. Bush", "correct"),
    ("George H. Bush", "George Herbert Walker Bush", "correct"),
    ("J. D. van Dyk", "John van Dyk", "correct"),
    ("Shri H. D. Deve Gowda", "H. D. Deve Gowda", "correct"),
])
def test_names_of_persons(answer, reference, verdict):
    assert grade(answer, reference, "Who was it?") == verdict


def test_a_surname_alone_is_enough_only_where_a_person_is_asked_for():
    assert grade("Hamilton", "Alexander Hamilton", "Who founded the bank?") == "correct"
    assert grade("York", "New York", "In which city was it?") == "incorrect"


def test_an_initial_and_a_middle_name_are_the_same_in_either_order():
    initial, full = ["roger", "l", "jackson"], ["roger", "labon", "jackson"]
    assert rules._same_name(initial, full)
    assert rules._same_name(full, initial)


@pytest.mark.parametrize("answer, reference", [
    ("South Sudan", "Sudan"),
    ("Sudan", "South Sudan"),
    ("West Virginia", "Virginia"),
    ("New Mexico", "Mexico"),
    ("Guinea", "Equatorial Guinea"),
    ("Dominican Republic", "Dominica"),
    ("Niger", "Nigeria"),
    ("North Korea", "South Korea"),
    ("Republic of the Congo", "Democratic Republic of the Congo"),
    ("US dollar", "Surinamese dollar"),
    ("carbon dioxide", "carbon monoxide"),
])
def test_things_that_share_a_word_are_not_the_same(answer, reference):
    assert grade(answer, reference, "Which one is it?") == "incorrect"
    assert grade(f"It is {answer}.", reference, "Which one is it?") == "incorrect"


@pytest.mark.parametrize("answer, verdict", [
    ("Spain and Italy", "correct"),
    ("Spain or Italy", "correct"),
    ("Spain and Portugal", "incorrect"),
])
def test_a_list_of_answers_may_name_several_right_ones_and_no_wrong_one(answer, verdict):
    assert grade(answer, ["Spain", "Italy", "Germany"], "Name a country that borders France.") == verdict


NICKNAME = "What is the nickname of Nick Freeman?"
WAUPACA = "What is the capital of Waupaca County?"


@pytest.mark.parametrize("answer, references, question, verdict", [
    ("The nickname of Nick Freeman is the Red Sleigh", ["Nick Freeman", "Mr Loophole"], NICKNAME, "incorrect"),
    (
        "The nickname of Nick Freeman, a solicitor, is the Red Sleigh",
        ["Nick Freeman", "Mr Loophole"],
        NICKNAME,
        "incorrect",
    ),
    ("The capital of Waupaca County is Waupaca.", ["Waupaca"], WAUPACA, "correct"),
    ("Mexico City lies in Mexico", ["Mexico"], "In which country is Mexico City?", "correct"),
    ("Waupaca", ["Waupaca"], WAUPACA, "correct"),
    (
        "The 17th state to join the union",
        ["Ohio", "17th State"],
        "What was the 17th state to join the union in 1803?",
        "incorrect",
    ),
    (
        "It was Sparta in the Peloponnesian War.",
        ["Sparta"],
        "Did Athens or Sparta win the Peloponnesian War?",
        "correct",
    ),
    ("The contestants quit in season 2", ["2"], "How many contestants quit in season 2?", "incorrect"),
    ("It is celebrated in the month of June.", ["May", "May (month)"], "In which month is it celebrated?", "incorrect"),
    ("The UK uses units", ["imperial units"], "What system does the UK use?", "incorrect"),
])
def test_an_answer_that_only_repeats_the_question_is_none(answer, references, question, verdict):
    assert grade(answer, references, question) == verdict


AUTHORS = ["Roy Halee", "Art Garfunkel", "Paul Simon"]
CHILDREN = "Who are the children?"


@pytest.mark.parametrize("answer, references, question, verdict", [
    ("Simon & Garfunkel", AUTHORS, "Who wrote it?", "correct"),
    ("Simon and Halley", AUTHORS, "Who wrote it?", "incorrect"),
    ("Nelson Tibideaux and Winnie Tibideaux", ["Nelson and Winnie"], CHILDREN, "correct"),
    ("Nelson Tibideaux and Sondra Tibideaux", ["Nelson and Winnie"], CHILDREN, "incorrect"),
    ("Simon, Simon", ["Art Garfunkel", "Paul Simon"], "Who wrote it?", "incorrect"),
    ("Spartan", ["Sparta"], "Did Athens or Sparta win?", "correct"),
    ("4", ["4Â\xa0GB"], "How much memory has it?", "correct"),
    ("4 MB", ["4 GB"], "How much memory has it?", "incorrect"),
])
def test_items_of_a_list_peoples_and_units(answer, references, question, verdict):
    assert grade(answer, references, question) == verdict


@pytest.mark.parametrize("answer, verdict", [
    ("118", "correct"),
    ("122", "correct"),
    ("117.9", "incorrect"),
    ("between 100 and 200", "incorrect"),
    ("about 120 rooms", "correct"),
])
def test_acceptable_ranges(answer, verdict):
    reference = "120 (acceptable range: anything between 118 and 122)"
    assert grade(answer, reference, "How many rooms are there?") == verdict


@pytest.mark.parametrize("answer, verdict", [
    ("The Leelavati Award in 2018 was given to Ali Nesin, a Turkish mathematician, for his work.", "correct"),
    ("Ali Nesin received the Leelavati Award in 2018.", "correct"),
    ("The Leelavati Award in 2018 was given to Adrian Paenza, after Ali Nesin declined it.", "incorrect"),
    ("The Leelavati Award in 2018 was given to Ali Nesin, after Adrian Paenza declined it.", "correct"),
    ("The mathematician Adrian Paenza received the Leelavati Award in 2018, defeating Ali Nesin.", "incorrect"),
    ("The Leelavati Award in 2018 was given to Adrian Paenza, who succeeded Ali Nesin.", "incorrect"),
    ("Ali Nesin was born in Turkey.", "incorrect"),
])
def test_full_sentences_must_take_up_the_question(answer, verdict):
    assert grade(answer, "Ali Nesin", "Which mathematician received the Leelavati Award in 2018?") == verdict


def test_a_verbose_answer_is_taken_whole_and_without_what_trails_behind():
    answer = "Paris (Lutetia), which is old. It lies on the Seine."
    assert ways_to_take(answer) == [answer, "Paris (Lutetia), which is old", "Paris, which is old", "Paris"]


def test_content_words_are_stems_without_function_words():
    assert content_words("for all of the penalties") == {"all", "penalty"}
    assert content_words("It is the") == set()


NUMBER_WORDS = set(normalise("zero one two three four five six seven eight nine ten hundred thousand million"))
NUMBER_WORDS |= set(normalise("0 1 2 3 4 5 6 7 8 9 10")) | {"hundred", "thousand", "million", "s"}


@given(
    st.text(max_size=80),
    st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4),
    st.text(max_size=60),
)
def test_any_text_gets_a_verdict(answer, references, question):
    assert judge_by_rules(answer, references, question).grade in ("correct", "incorrect", "not_attempted")


@given(st.text(max_size=80))
def test_normalising_twice_changes_nothing(text):
    words = normalise(text)
    excepted = not text.isascii() or any(c.isdigit() or c in ".'’" for c in text) or set(words) & NUMBER_WORDS
    assert normalise(" ".join(words)) == words or excepted


@pytest.mark.parametrize("references", [["Paris", "City of Light"], ["City of Light", "Paris"]])
def test_the_same_reference_is_accepted_in_any_case_and_order_of_aliases(references):
    assert grade("city of light", references, CAPITAL) == "correct"
    assert grade("PARIS", references, CAPITAL) == "correct"
