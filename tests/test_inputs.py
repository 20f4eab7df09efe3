"""What is damaged, ambiguous or hostile is refused in a line with place and remedy, or read for what it is."""
import json
import random
from functools import cache

import pytest
from hostile_inputs import ACCEPTED, EITHER, READERS, REFUSED, attempt, corpus, fault, summary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calib_nb.core import RecordError, project_root, read_json, read_jsonl, write_jsonl
from calib_nb.experiment import Parameters
from calib_nb.files import read_rows
from calib_nb.methods import METHODS, check_options
from calib_nb.questions import load_questions, read_judged


def is_quick(one):
    "Whether it takes milliseconds; a value is tried in a line, in an array as well where rows are read."
    big = "10 MB" in one.name or "long" in one.name
    return not big and (one.reader == "rows" or not one.name.endswith(".json"))


@cache
def quick():
    return [one for one in corpus(4) if is_quick(one)]


@pytest.mark.parametrize("reader", sorted(set(READERS) - {"adapter", "parameters"}))
def test_each_input_is_refused_with_place_and_remedy_or_read(reader):
    tried = [(one, *attempt(one)) for one in quick() if one.reader == reader]
    assert [(one.name, outcome, said) for one, outcome, said in tried if fault(one, outcome)] == []
    assert len(tried) > 5


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["adapter", "parameters"])
def test_each_adapter_and_parameter_is_refused_before_long_work(reader):
    tried = [(one, *attempt(one)) for one in corpus(20) if one.reader == reader]
    assert [(one.name, outcome, said) for one, outcome, said in tried if fault(one, outcome)] == []


def test_the_harness_counts_what_is_wrong():
    good, bad = quick()[0], next(one for one in quick() if one.must == REFUSED)
    found = summary([(good, REFUSED, ""), (bad, ACCEPTED, ""), (bad, "poorly refused", "?"), (bad, "crash", "Ouch")])
    assert (found["inputs"], found["crashes"]) == (4, 1)
    assert found["faults"] == 3 + (good.must == ACCEPTED)
    assert EITHER in {one.must for one in quick()}


# Files


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow"]), st.binary(max_size=300))
def test_any_bytes_are_rows_or_one_line_with_the_file(tmp_path, suffix, data):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    try:
        rows = read_rows(path)
    except RecordError as e:
        assert path.name in str(e) and "\n" not in str(e)
    else:
        assert all(isinstance(row, dict) for _, row in rows)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=4))
def test_what_json_can_hold_is_read_back_or_named(tmp_path, row):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert read_jsonl(tmp_path / "a.jsonl") == [(1, row)]
    try:
        assert read_rows(tmp_path / "a.jsonl") == [(1, row)]
    except RecordError as e:
        assert "a null character" in str(e) or "half a character" in str(e)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON, JSON, JSON, JSON)
def test_whatever_a_record_holds_it_is_a_record_or_an_error_with_its_line(tmp_path, question, answers, right, verdict):
    row = {"question": question, "answers": answers, "model_answer": "Ann", "is_correct": right, "verdict": verdict}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    for read in (load_questions, read_judged):
        try:
            assert len(read(tmp_path / "a.jsonl")) == 1
        except RecordError as e:
            assert "a.jsonl" in str(e) and "\n" not in str(e)


def test_a_list_of_accepted_answers_in_a_judged_file_is_a_list(tmp_path):
    row = {"question": "Who?", "model_answer": "Ann", "is_correct": True, "answers": ["Ann", "Anna"]}
    assert read_judged(write_jsonl(tmp_path / "a.jsonl", [row]))[0].answers == ["Ann", "Anna"]


def test_an_error_is_of_bounded_length_and_keeps_its_remedy():
    said = str(RecordError(f"a.csv:1: {'x' * 10**7}. Write it shorter\x1b"))
    assert len(said) < 4100 and said.startswith("a.csv:1:") and said.endswith("Write it shorter\\x1b")


def test_a_file_of_another_program_called_as_ours_is_no_root(tmp_path):
    (tmp_path / "settings.ini").touch()
    inner = tmp_path / "work"
    inner.mkdir()
    assert project_root(inner) == inner
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = calib_nb\n")
    assert project_root(inner) == tmp_path


def test_a_torn_file_of_json_is_named(tmp_path):
    for data in (b"", b"{", b"\xff", b"[" * 10**5, b"1" * 5000):
        (tmp_path / "a.json").write_bytes(data)
        with pytest.raises(RecordError, match=r"a\.json.*[Mm]ake"):
            read_json(tmp_path / "a.json")


# Options


NUMBERS = st.integers() | st.floats()
ANY = st.none() | st.booleans() | NUMBERS | st.text(max_size=9) | st.lists(NUMBERS, max_size=2)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(METHODS)), st.data())
def test_an_option_has_the_type_of_its_default_or_is_refused_by_name(method, data):
    options = METHODS[method].options
    if not options:
        return
    name = data.draw(st.sampled_from(sorted(options)))
    value = data.draw(ANY)
    try:
        taken = check_options(method, {name: value})[name]
    except ValueError as e:
        assert name in str(e) or "unknown" in str(e)
        assert "\n" not in str(e)
        return
    default = options[name]
    kinds = {bool: bool, int: int, float: (int, float), str: str}
    assert default is None or isinstance(taken, kinds[type(default)]) or (taken is None and name.endswith("epochs"))
    assert isinstance(taken, bool) == (isinstance(default, bool))


def test_an_unknown_name_of_two_lines_is_an_error_of_one():
    with pytest.raises(ValueError, match=r"unknown targets 'a\\nb'"):
        check_options("sft", {"targets": "a\nb"})


@pytest.mark.parametrize("method", METHODS)
def test_the_defaults_of_a_method_are_in_their_ranges(method):
    options = METHODS[method].options
    assert check_options(method, options) == options


def test_options_from_a_command_line_are_numbers_and_name_the_same_run():
    said = Parameters(options="right=0.8, epochs=2").options
    assert said == {"right": 0.8, "epochs": 2} == Parameters(options={"right": 0.8, "epochs": 2.0}).options


def test_a_random_seed_is_what_generators_take():
    draw = random.Random(0)
    for seed in (0, 2**32 - 1, draw.randrange(2**32)):
        assert Parameters(seed=seed).seed == seed
    for seed in (-1, 2**32, 10**30, 10**5000):
        with pytest.raises(ValueError, match="parameter 'seed' must be at least 0 and at most 4294967295"):
            Parameters(seed=seed)
