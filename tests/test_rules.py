"""What the rules accept and refuse."""
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb.rules import content_words, judge_by_rules, normalise, parse_date

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
    ("It lasted from 1962 to 1965.", "1962-1965", "How long did it last?", "correct"),
    ("It lies in Southeast Asia.", "South-east Asia", "Where does it lie?", "correct"),
    ("the 11th edition", "Eleventh", "Which edition is it?", "correct"),
    ("two hundred and five", "205", "", "correct"),
    ("twenty - four", "24", "", "correct"),
    ("5 thousand", "5,000", "", "correct"),
    ("between 70 and 85", "70–85", "How many?", "correct"),
    ("between 70 and 85", "70", "How many?", "incorrect"),
    ("the season of 1979-80", "1979/1980", "Which season was it?", "correct"),
    ("It is 5 litres (or 1.3 gallons).", "5 litres", "How much is it?", "correct"),
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
    initial, full = "Roger L. Jackson", "Roger Labon Jackson"
    assert grade(initial, full, "Who does the voice?") == grade(full, initial, "Who does the voice?") == "correct"


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
    ("Millbrook Primary School", "Ashford Primary School"),
    ("Southern Ohio University", "Ohio State University"),
])
def test_things_that_share_a_word_are_not_the_same(answer, reference):
    assert grade(answer, reference, "Which one is it?") == "incorrect"
    assert grade(f"It is {answer}.", reference, "Which one is it?") == "incorrect"


def test_a_name_is_no_common_noun():
    assert grade("Poland is a sovereign state.", ["US", "the States"], "In which country is it?") == "incorrect"
    assert grade("He came back to the States.", ["US", "the States"], "In which country is it?") == "correct"


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
    ("4", ["4Â\xa0GB"], "How much memory has it?", "correct"),
    ("4 MB", ["4 GB"], "How much memory has it?", "incorrect"),
])
def test_items_of_a_list_and_units(answer, references, question, verdict):
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
    ("It was a great honour for Turkey. Ali Nesin received it.", "correct"),
])
def test_a_sentence_that_holds_the_reference_is_right_unless_it_is_about_another(answer, verdict):
    assert grade(answer, "Ali Nesin", "Which mathematician received the Leelavati Award in 2018?") == verdict


LAYERS, CARDINALS = ["the crust", "the mantle", "the outer core", "the inner core"], "north, south, east and west"


@pytest.mark.parametrize("answer, references, verdict", [
    ("the mantle", LAYERS, "incorrect"),
    ("The four layers are crust, mantle, outer core and inner core.", LAYERS, "correct"),
    ("north", [CARDINALS], "incorrect"),
    ("East, west, north and south", [CARDINALS], "correct"),
])
def test_one_of_several_things_is_too_little_where_several_are_asked_for(answer, references, verdict):
    assert grade(answer, references, "What are the four things that there are?") == verdict


def test_content_words_are_stems_without_function_words():
    assert content_words("for all of the penalties") == {"all", "penalty"}
    assert content_words("It is the") == set()


NUMBER_WORDS = set(normalise("zero one two three four five six seven eight nine ten hundred thousand million"))
NUMBER_WORDS |= set(normalise("0 1 2 3 4 5 6 7 8 9 10")) | {"hundred", "thousand", "million", "s"}


@pytest.mark.parametrize("answer", [
    "It lies on the Seine, and there are many museums. Its name is Paris.",
    "The city that you mean has 2 million inhabitants and is called Paris.",
    "I am not sure about the year, but the capital has long been Paris.",
    "The capital is not Lyon but Paris.",
    "There is no doubt that it is Paris.",
    "The capital was moved several times and is now Paris or, in Latin, Lutetia.",
    "France has 18 regions and 101 departments; their capital is Paris and has been since 987.",
])
def test_a_long_answer_may_hold_the_reference_anywhere(answer):
    assert grade(answer, PARIS, CAPITAL) == "correct"


@pytest.mark.parametrize("answer", [
    "The capital is Lyon and not Paris.",
    "Paris is not the capital; Lyon is.",
    "It is either Paris or Lyon.",
    "It is Paris or Lyon.",
    "The capital is Lyon rather than Paris.",
    "Could it be Paris?",
])
def test_a_long_answer_that_denies_asks_or_guesses_does_not_pass(answer):
    assert grade(answer, PARIS, CAPITAL) == "incorrect"


@pytest.mark.parametrize("answer, reference, question, verdict", [
    ("No Time to Lose (1990)", "No Time to Lose", "Which film is it?", "correct"),
    ("The villain is Dr. No.", "Dr. No", "Who is the villain?", "correct"),
    ("He wrote Symphony No. 7", "Symphony No. 7", "Which work is it?", "correct"),
    ("A", "A", "Which vitamin is it?", "correct"),
    ("It is vitamin A.", "A", "Which vitamin is it?", "correct"),
    ("The The", "The The", "Which band is it?", "correct"),
    ("The band is called The The", "The The", "Which band is it?", "correct"),
    ("Vitamin", "Vitamin A", "Which vitamin is it?", "incorrect"),
    ("Influenza", "Influenza A", "Which disease is it?", "incorrect"),
    ("It is written in C++.", "C++", "Which language is it?", "correct"),
    ("C", "C++", "Which language is it?", "incorrect"),
    ("F#", "F", "Which key is it?", "incorrect"),
    ("B+", "B-", "Which blood type is it?", "incorrect"),
    ("It is AB-.", "AB-", "Which blood type is it?", "correct"),
    ("Pu-24", "Pu", "Which symbol is it?", "incorrect"),
    ("Ro\u200bme", "Rome", "Which city is it?", "correct"),
    ("\ufeffRo\u00adme\u200e", "Rome", "Which city is it?", "correct"),
    ("Ｒｏｍｅ", "Rome", "Which city is it?", "correct"),
    ("Saint Petersburg", "St. Petersburg", "Which city is it?", "correct"),
    ("Mount Fuji", "Mt. Fuji", "Which mountain is it?", "correct"),
    ("Fort Lauderdale", "Ft. Lauderdale", "Which city is it?", "correct"),
    ("Doctor Dolittle", "Dr. Dolittle", "Who is it?", "correct"),
])
def test_signs_articles_and_abbreviations_are_part_of_a_name(answer, reference, question, verdict):
    assert grade(answer, reference, question) == verdict


@pytest.mark.parametrize("answer, reference, question, verdict", [
    ("200 miles", "200", "How long is the canal in kilometres?", "incorrect"),
    ("200 km", "200", "How long is the canal in kilometres?", "correct"),
    ("45 seconds", "45", "How many minutes did it take?", "incorrect"),
    ("$30", "30", "How many euros did it cost?", "incorrect"),
    ("€30", "30", "How many euros did it cost?", "correct"),
    ("It gave $30,000 to the poor.", "$30,000", "How much did it give?", "correct"),
    ("0.7%", "0.7", "What is the ratio?", "incorrect"),
    ("1980", "1980s", "When was it?", "incorrect"),
    ("1980s", "1980", "When was it?", "incorrect"),
    ("minus 7", "-7", "What is the temperature?", "correct"),
    ("negative 7", "-7", "What is the temperature?", "correct"),
    ("–7", "-7", "What is the temperature?", "correct"),
    ("- 7", "-7", "What is the temperature?", "correct"),
    ("World War One", "World War I", "Which war was it?", "correct"),
    ("World War 2", "World War II", "Which war was it?", "correct"),
    ("World War I", "World War II", "Which war was it?", "incorrect"),
    ("Charles the Fifth", "Charles V", "Which emperor was it?", "correct"),
    ("Henry the Fifth", "Charles V", "Which emperor was it?", "incorrect"),
    ("Henry V", "Charles V", "Which emperor was it?", "incorrect"),
    ("nineteen eighty-four", "1984", "Which year was it?", "correct"),
    ("1.5 × 10⁸ km", "150,000,000 km", "How far is it?", "correct"),
    ("741 weeks", "a week", "How long was it?", "incorrect"),
    ("one week", "a week", "How long was it?", "correct"),
    ("It was released on 8 November 2013.", ["27 November 2013", "2013"], "When did it come out?", "incorrect"),
])
def test_a_number_is_one_with_its_sign_its_unit_and_its_date(answer, reference, question, verdict):
    assert grade(answer, reference, question) == verdict


@pytest.mark.parametrize("answer, verdict", [
    ("It was said that equality is wanted, economic as well as social.", "correct"),
    ("They want social equality.", "incorrect"),
    ("It is not social and economic equality.", "incorrect"),
])
def test_all_words_of_a_long_reference_may_stand_in_any_order(answer, verdict):
    assert grade(answer, "social and economic equality", "What is wanted?") == verdict


@pytest.mark.parametrize("answer, verdict", [("300 feet", "incorrect"), ("300 km", "incorrect"), ("301 m", "correct")])
def test_an_acceptable_range_has_a_unit(answer, verdict):
    reference = "300 metres (acceptable range: anything between 295 and 305 metres)"
    assert grade(answer, reference, "How long is the bridge?") == verdict


@pytest.mark.parametrize("answer, reference, verdict", [
    ("John Adams", "John Quincy Adams", "incorrect"),
    ("George Bush Sr.", "George W. Bush", "incorrect"),
    ("It was Pierre Curie who found it.", "Marie Curie", "incorrect"),
    ("It was Curie who found it.", "Marie Curie", "correct"),
    ("Julie Kavner", "Julie Deborah Kavner", "correct"),
    ("John J. Pershing", "Gen. John Joseph Pershing", "correct"),
    ("Peter Pershing", "Gen. John Joseph Pershing", "incorrect"),
    ("Dennis Wilson sang it.", "Wilson, Carl", "incorrect"),
    ("Carl Wilson sang it.", "Wilson, Carl", "correct"),
    ("It is Kenny Anderson.", "basketball player Kenny Anderson", "correct"),
])
def test_another_person_of_that_name_is_another(answer, reference, verdict):
    assert grade(answer, reference, "Who was it?") == verdict


LONG = 20_000
LONG_TEXTS = [
    " " * LONG + "Paris",
    *(sign * LONG for sign in ("paris ", "a ", "(", ".", "A. ", "not ", "x, ", "1 - ", "and ", "1 or ")),
    "two " + "hundred " * LONG,
    "one million " * LONG,
    "9" * LONG,
]


@pytest.mark.parametrize("text", LONG_TEXTS, ids=lambda text: repr(text[:8]))
def test_the_time_is_linear_in_the_length_of_answer_reference_and_question(text):
    start = time.process_time()
    for items in ((text, PARIS, CAPITAL), ("Paris", [text], CAPITAL), ("Paris x", PARIS, text)):
        assert judge_by_rules(*items).grade in GRADES
    assert time.process_time() - start < 5


def test_a_number_in_words_that_is_none_stops_nothing():
    assert grade("two " + "hundred " * 155, "200", "How many?") in GRADES


GRADES = ("correct", "incorrect", "not_attempted")
PIECES = """Paris Lyon two hundred million minus -5 7% $3 km 1990s 1979-80 20 July 1969 May Louis XIV C++ O- No. 9 St.
    the A not or either and , . ? ( ) " / acceptable range: between ½ ⁸ \u200b n't who 9e9 ٣ ½½ \ud83d""".split()


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.lists(st.sampled_from(PIECES), max_size=8))
def test_any_pieces_in_any_order_get_a_verdict(answer, reference):
    for joint in (" ", ""):
        assert judge_by_rules(joint.join(answer), [joint.join(reference)], joint.join(answer)).grade in GRADES


@given(
    st.text(max_size=80),
    st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4),
    st.text(max_size=60),
)
def test_any_text_gets_a_verdict(answer, references, question):
    assert judge_by_rules(answer, references, question).grade in GRADES


@given(st.text(max_size=80))
def test_normalising_twice_changes_nothing(text):
    words = normalise(text)
    excepted = not text.isascii() or any(c.isdigit() or c in ".'’" for c in text) or set(words) & NUMBER_WORDS
    assert normalise(" ".join(words)) == words or excepted


@pytest.mark.parametrize("references", [["Paris", "City of Light"], ["City of Light", "Paris"]])
def test_the_same_reference_is_accepted_in_any_case_and_order_of_aliases(references):
    assert grade("city of light", references, CAPITAL) == "correct"
    assert grade("PARIS", references, CAPITAL) == "correct"
