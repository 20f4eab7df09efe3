"""A model behind an address: what a server does wrong is missing with its reason, paid for once, and never a number."""
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from email.utils import formatdate

import numpy as np
import pytest
from conftest import ROOT, AtOnce
from servers import Endpoint, Reply

pytest.importorskip("openai")

from calib_nb import endpoint
from calib_nb.compare import Row, load_runs, table_rows
from calib_nb.core import Judged, select, sound_rows
from calib_nb.endpoint import Retry, UnansweredError, _KeptByKey, _pause, _Request, _seconds, load_endpoint
from calib_nb.endpoint_readout import _NEEDS, _Turns, _Walk, _weighed, answer_by_endpoint, read_by_endpoint
from calib_nb.experiment import Parameters, Run, read_more, run_method, run_readouts
from calib_nb.posthoc import CALIBRATORS, fit_abstention, recalibrate
from calib_nb.prompts import PROMPTS
from calib_nb.questions import load_questions
from calib_nb.readout import READOUTS

KEY = "sk-of-the-test-0123456789"
SECOND = _Turns(PROMPTS["second_question"])
NUMBERS = itertools.count()


def token(text, p, others=(), **more):
    "An entry of `logprobs.content`."
    entry = {"token": text, "logprob": float(np.log(p)), "bytes": list(text.encode()), **more}
    return {**entry, "top_logprobs": [entry, *(token(*other) for other in others)]}


SURE = [token("0", 0.9, [("1", 0.08)]), token(".", 0.99), token("8", 0.7, [("9", 0.2), ("7", 0.08)])]


def choice(content, finish="stop", logprobs=None, **message):
    return {"index": 0, "finish_reason": finish, "message": {"content": content, **message}, "logprobs": logprobs}


def body_of(*choices):
    usage = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
    return {"id": "x", "object": "chat.completion", "choices": list(choices), "usage": usage}


def said(body):
    "What a sound model says: it samples, is 80 % sure, and gives log-probabilities."
    asked = body["messages"][-1]["content"]
    if "sentence" in asked:
        return f"Sentence {next(NUMBERS)}"
    if "How likely" in asked:
        return "0.8"
    if "Is the proposed" in asked:
        return "Yes"
    if "How sure" in asked:
        return "very likely"
    return "Paris"


def sound(body):
    "The reply of a server without faults."
    text = said(body)
    steps = SURE if text == "0.8" else [token(text, 0.95)]
    return body_of(choice(text, logprobs={"content": steps} if body.get("logprobs") else None))


def as_reply(act):
    "A status, or a status and a body, or a body; bytes are cut short."
    if isinstance(act, int):
        act = act, {"error": {"message": "no"}}
    status, body = act if isinstance(act, tuple) else (200, act)
    return Reply(body, status, torn=isinstance(body, bytes))


@pytest.fixture
def serve(monkeypatch):
    "`serve(act)` starts a server whose replies are `act(body)`; the environment points at it."
    servers = []
    monkeypatch.setattr(endpoint._Asking, "backoff", 0.001)

    def start(act=sound):
        servers.append(Endpoint(act, as_reply=as_reply))
        servers[-1].point_to(monkeypatch, KEY)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def judged_of(*lands):
    return [Judged(f"What is the capital of {land}?", "Paris", i % 2 == 0) for i, land in enumerate(lands)]


FOUR = judged_of("France", "Italy", "Spain", "Texas")


def read(lm, *readouts, fmt=SECOND, judged=FOUR, counts=None):
    "readout -> the readings."
    splits = ["calibration"] * len(judged)
    rows = read_by_endpoint(lm, fmt, judged, splits, "baseline", 0, readouts, counts=counts)
    return {name: [r for r in rows if r.readout == name] for name in readouts}


def only(lm, readout, **how):
    "The reading of one answer by one readout."
    return read(lm, readout, judged=how.pop("judged", FOUR[:1]), **how)[readout][0]


# A sound server


def test_every_readout_of_a_local_model_is_read_or_said_to_be_impossible(serve):
    serve()
    counts = {}
    found = read(load_endpoint("endpoint:m"), *READOUTS, counts=counts)
    values = {name: rows[0].confidence for name, rows in found.items()}
    assert set(_NEEDS) == set(READOUTS)
    assert values["verbalized"] == 0.8 and values["verbalized_sampled"] == 0.8
    assert values["normalized_probability"] == pytest.approx(0.95)
    assert values["p_true"] == 1 and values["self_consistency"] == 1
    assert values["linguistic"] is not None
    assert values["probe"] is None and "hidden states" in found["probe"][0].extra["reason"]
    assert counts["by_readout"]["probe"]["missing"] == {found["probe"][0].extra["reason"]: 4}


def test_a_request_is_paid_for_once_and_its_tokens_are_counted(serve):
    server = serve()
    lm = load_endpoint("endpoint:m")
    probes, counts = len(server.bodies), {}
    read(lm, "verbalized", "expected", "verbalized_sampled", counts=counts)
    assert len(server.bodies) - probes == 4 + 40 == lm.chat.counts["requests"] - probes
    costs = counts["by_readout"]
    assert (costs["verbalized"]["requests"], costs["expected"]["requests"]) == (4, 4), "each alone"
    assert costs["verbalized_sampled"]["tokens_in"] == 40 * 30 and costs["verbalized"]["tokens_out"] == 16
    assert counts["tokens"] == 44 * 34


def test_the_expected_confidence_is_the_mean_over_the_levels_that_were_seen(serve):
    serve()
    r = only(load_endpoint("endpoint:m"), "expected")
    path = 0.9 * 0.99
    weights = {1.0: 0.08, 0.8: path * 0.7, 0.9: path * 0.2, 0.7: path * 0.08}
    mass = sum(weights.values())
    assert r.confidence == pytest.approx(sum(level * p for level, p in weights.items()) / mass)
    assert r.extra["mass"] == pytest.approx(mass)
    unseen = 0.02 + 0.9 * 0.01 + path * 0.02
    assert r.extra["seen"] == pytest.approx(mass / (mass + unseen))


def test_what_was_not_seen_is_not_probability_zero():
    entries = [[["0", np.log(0.5), 1], [["0", np.log(0.5), 1]]], [[".", 0.0, 2], []], [["8", 0.0, 3], []]]
    reply = endpoint._Reply("0.8", steps=entries)
    found = _weighed(SECOND, reply, 1)
    assert found.value is None and found.extra["seen"] == 0.5 and "below 0.9" in found.extra["reason"]


def test_a_longer_number_is_not_the_level_that_it_begins_with():
    steps = [[["0.8", 0.0, None], []], [["5", np.log(0.6), None], [["5", np.log(0.6), None]]]]
    assert _Walk(steps, ["0.8", "0.9"]).mass["0.8"] == pytest.approx(0.4)


@pytest.mark.parametrize("end", ["", "<|im_end|>", "</s>"])
def test_a_word_that_begins_another_is_itself_where_the_reply_ends(end):
    steps = [[["almost certain", -0.1, None], []], [[end, 0.0, None], []]]
    walk = _Walk(steps, ["almost certain", "almost certainly not"])
    assert walk.mass == {"almost certain": pytest.approx(np.exp(-0.1)), "almost certainly not": 0.0}


# 1, 2: log-probabilities in another shape, fewer than asked for, or none


def with_logprobs(value):
    def act(body):
        reply = sound(body)
        reply["choices"][0]["logprobs"] = value if body.get("logprobs") else None
        return reply

    return act


@pytest.mark.parametrize("value", [
    None,
    {},
    {"content": None},
    {"content": []},
    {"tokens": ["0", ".", "8"], "token_logprobs": [-0.1, 0, -0.3], "top_logprobs": [{"0": -0.1}]},
    {"content": [{"token": "0.8"}]},
    {"content": ["0.8"]},
    "none",
])
def test_log_probabilities_that_do_not_come_are_said_once_and_never_a_number(serve, value):
    server = serve(with_logprobs(value))
    lm = load_endpoint("endpoint:m")
    asked = len(server.bodies)
    for readout in ("expected", "normalized_probability", "sequence_probability"):
        r = only(lm, readout)
        assert r.confidence is None and r.extra["reason"] == "the server gives no log-probabilities"
    assert len(server.bodies) == asked, "nothing is asked for what cannot come"
    assert only(lm, "p_true").confidence == 1, "by samples"
    assert only(lm, "verbalized").confidence == 0.8


def test_log_probabilities_of_the_chosen_tokens_alone_give_no_expected_confidence(serve):
    bare = [{**step, "top_logprobs": None} for step in SURE]
    serve(with_logprobs({"content": bare}))
    lm = load_endpoint("endpoint:m")
    assert only(lm, "expected").confidence is None


@pytest.mark.parametrize("limit, top", [(20, 20), (19, 10), (5, 5), (4, 1), (0, 0)])
def test_no_more_likeliest_tokens_are_asked_for_than_the_server_gives(serve, limit, top):
    def act(body):
        if body.get("top_logprobs", 0) > limit or body.get("logprobs") and not limit:
            return 400, {"error": {"message": f"top_logprobs must be at most {limit}"}}
        return sound(body)

    server = serve(act)
    lm = load_endpoint("endpoint:m")
    assert lm.can["top"] == top
    server.bodies.clear()
    assert only(lm, "verbalized").confidence == 0.8
    assert server.bodies[0].get("top_logprobs", 0) == top


def test_a_server_that_stays_greedy_gives_no_samples(serve):
    serve(lambda body: body_of(choice("Paris")))
    lm = load_endpoint("endpoint:m")
    for readout in ("self_consistency", "verbalized_sampled", "p_true"):
        assert "does not sample" in only(lm, readout).extra["reason"]


# 3, 13: thoughts, filters, nothing


def thinks(needed, **message):
    def act(body):
        if body["max_tokens"] < needed:
            return body_of(choice(None, "length", **message))
        return sound(body)

    return act


@pytest.mark.parametrize("message", [{"reasoning_content": "Hm"}, {"reasoning": "Hm"}, {}])
def test_a_model_that_thinks_gets_room_once_and_from_then_on(serve, message):
    server = serve(thinks(1000, **message))
    lm = load_endpoint("endpoint:m")
    assert lm.thinks and only(lm, "verbalized").confidence == 0.8
    assert server.bodies[-1]["max_tokens"] > 4096 and sum(body["max_tokens"] < 1000 for body in server.bodies) == 1


def test_a_thought_without_end_is_missing_with_advice_and_counted(serve):
    server = serve()
    lm = load_endpoint("endpoint:m")
    server.act = thinks(10**6, reasoning_content="Hm")
    counts = {}
    rows = read(lm, "verbalized", counts=counts)["verbalized"]
    reason = rows[0].extra["reason"]
    assert rows[0].confidence is None and "raise CALIB_NB_ENDPOINT_TOKENS" in reason
    assert counts["by_readout"]["verbalized"]["missing"] == {reason: 4}


@pytest.mark.parametrize("reply, reason", [
    (body_of(choice("Pa", "content_filter")), "filtered by the server"),
    (body_of(), "filtered by the server"),
    ((400, {"error": {"message": "flagged", "code": "content_filter"}}), "filtered by the server"),
    (body_of(choice("")), "an empty reply"),
    (body_of(choice(None)), "an empty reply"),
    (body_of(choice("", reasoning_content="It is 0.8")), "a thought and no text"),
    (body_of(choice("<think>0.8</think>")), "a thought and no text"),
    ((400, {"error": {"message": "the prompt is too long"}}), "refused by the server"),
])
def test_what_has_no_text_is_missing_with_its_own_reason_and_asked_once(serve, reply, reason):
    server = serve()
    lm = load_endpoint("endpoint:m")
    server.script[:] = [reply]
    asked = len(server.bodies)
    r = only(lm, "verbalized")
    assert r.confidence is None and reason in r.extra["reason"]
    assert only(lm, "verbalized").extra == r.extra and len(server.bodies) == asked + 1


def test_a_refusal_that_the_model_wrote_is_an_answer(serve):
    server = serve()
    lm = load_endpoint("endpoint:m")
    refused = body_of(choice(None, refusal="I can't help with that."))
    server.script[:] = [refused, body_of(choice("Pa", "content_filter"))]
    lm.workers = 1
    rows = answer_by_endpoint(lm, load_questions("facts")[:2], counts := {})
    assert rows[0]["model_answer"] == "I can't help with that." and "missing" not in rows[0]
    assert rows[1]["missing"].startswith("filtered") and counts["missing"] == {rows[1]["missing"]: 1}


def test_answers_that_are_all_missing_end_the_run_in_one_line(serve):
    server = serve()
    lm = load_endpoint("endpoint:m")
    server.act = lambda body: body_of(choice("", "content_filter"))
    with pytest.raises(ValueError, match="all 3 answers are missing: filtered by the server"):
        answer_by_endpoint(lm, load_questions("facts")[:3])


# 4, 9, 11: what a request is


def test_a_request_is_known_by_all_that_its_reply_depends_on(serve, tmp_path):
    server = serve()
    lm = load_endpoint("endpoint:m", tmp_path)
    first = _Request(("Hello",), 8)
    others = [
        replace(first, most=9),
        replace(first, temperature=0.5),
        replace(first, seed=1),
        replace(first, top=5),
        replace(first, begun="Hi"),
        replace(first, turns=("Hello", "Hi", "Hello")),
        replace(first, only="a"),
    ]
    asked = len(server.bodies)
    lm.ask([first, *others, first])
    assert len(server.bodies) - asked == len({first.key, *(r.key for r in others)}) == 8
    load_endpoint("endpoint:m", tmp_path).ask([first, *others])
    assert len(server.bodies) - asked == 8, "nothing again"
    load_endpoint("endpoint:other", tmp_path).ask([first])
    assert server.bodies[-1]["model"] == "other"


def test_another_port_is_another_model(serve, tmp_path):
    first, second = serve(), serve(lambda body: body_of(choice("Rome")))
    lm = load_endpoint("endpoint:m", tmp_path)
    assert lm.ask([_Request(("Hello",), 8)])[0].text == "Rome" and not first.bodies and second.bodies


def test_ten_samples_are_ten_requests_without_n_and_without_stop_strings(serve):
    server = serve()
    lm = load_endpoint("endpoint:m")
    server.bodies.clear()
    only(lm, "self_consistency")
    assert len(server.bodies) == len({body["seed"] for body in server.bodies}) == 10
    assert not any({"n", "stop"} & set(body) for body in server.bodies)
    whole = {"temperature": 0.7, "top_p": 1, "top_k": 0, "min_p": 0}
    assert all(body == {**body, **whole} for body in server.bodies)


@pytest.mark.parametrize("status, form", [
    (400, lambda said: {"error": {"message": said}}),
    (422, lambda said: {"detail": said}),
])
def test_what_a_server_refuses_to_be_told_is_left_out_from_then_on(serve, status, form):
    def act(body):
        for name in ("max_tokens", "seed", "top_k", "min_p"):
            if name in body:
                return status, form(f"Unsupported parameter: '{name}'")
        return sound(body)

    server = serve(act)
    lm = load_endpoint("endpoint:m")
    server.bodies.clear()
    assert only(lm, "verbalized_sampled").confidence == 0.8
    assert len(server.bodies) == 10 and "max_completion_tokens" in server.bodies[0]
    assert lm.settings["refused"] == ["max_tokens", "min_p", "seed", "top_k"]


# A reply that is begun, and one that is forced


def going_on(body):
    "A server that goes on with what was begun, says it again as llama.cpp does, and can be forced to a text."
    turn = body["messages"][-1]
    begun = turn["content"] if turn["role"] == "assistant" else ""
    if not begun:
        logprobs = {"content": [token("Paris", 0.9, id=7), token("", 0.5, id=2)]} if body.get("logprobs") else None
        return body_of(choice(said(body), logprobs=logprobs))
    if body.get("grammar"):
        text = json.loads(body["grammar"].removeprefix("root ::= "))
        end = 2 if "0" in body["logit_bias"] else 0
        p = {" 0.9": 0.6, " 0.5": 0.2}.get(text, 0.01)
        steps = [token(text, p, id=5), token("", 0.5 + end / 10, id=end)]
        return body_of(choice(begun + text, logprobs={"content": steps}))
    return body_of(choice(begun + (" six" if "two" in begun else " 0.9")))


def test_a_server_that_goes_on_and_can_be_forced_gives_each_level_with_its_end(serve):
    server = serve(going_on)
    lm = load_endpoint("endpoint:m")
    assert lm.can["continues"] and lm.can["forces"] and lm.can["other_ends"] == [0]
    server.bodies.clear()
    r = only(lm, "expected", fmt=_Turns())
    levels = {0.9: 0.6, 0.5: 0.2} | {i / 10: 0.01 for i in (0, 1, 2, 3, 4, 6, 7, 8, 10)}
    assert r.confidence == pytest.approx(sum(v * p for v, p in levels.items()) / sum(levels.values()))
    assert r.extra["mass"] == pytest.approx(0.7 * sum(levels.values())), "with the end of the turn, not another"
    assert len(server.bodies) == 11
    assert only(lm, "verbalized", fmt=_Turns()).extra["text"] == "0.9"


def test_a_prompt_that_begins_the_reply_is_not_asked_where_the_server_begins_anew(serve):
    def anew(body):
        counts = "Count" in body["messages"][0]["content"]
        return body_of(choice("1, two, 3" if counts else said(body)))

    server = serve(anew)
    lm = load_endpoint("endpoint:m")
    asked = len(server.bodies)
    r = only(lm, "verbalized", fmt=_Turns())
    assert r.confidence is None and "take prompt 'second_question'" in r.extra["reason"] and len(server.bodies) == asked


@pytest.mark.parametrize("text, value", [
    ("Confidence: 0.7", 0.7),
    ("Confidence - 0.7", 0.7),
    ("Confidence: .7", 0.7),
    ("**Confidence:** .75", 0.75),
    ("Confidence: -0.2", None),
    ("<think>0.1</think>0.7", 0.7),
    ("about", None),
])
def test_a_number_is_read_behind_the_word_and_behind_a_thought(serve, text, value):
    server = serve()
    lm = load_endpoint("endpoint:m")
    server.act = lambda body: body_of(choice(text))
    assert only(lm, "verbalized").confidence == value


# 10: tokens that are parts of a character


def test_bytes_that_are_lost_equal_no_level(serve):
    lost = [{**token("\ufffd", 0.9), "bytes": None}, token("0.8", 0.9)]
    serve(with_logprobs({"content": lost}))
    lm = load_endpoint("endpoint:m")
    assert only(lm, "expected").confidence is None and only(lm, "sequence_probability").confidence is None


def test_an_answer_of_parts_of_characters_is_put_together_by_bytes(serve):
    parts = [{**token("\ufffd", 0.5), "bytes": [part]} for part in "Łódź".encode()]
    serve(lambda body: body_of(choice(said(body).replace("Paris", "Łódź"), logprobs={"content": parts})))
    judged = [Judged("What is the second city?", "Łódź", True)]
    assert only(load_endpoint("endpoint:m"), "sequence_probability", judged=judged).confidence == pytest.approx(0.5**7)


# 6, 7, 8: what may pass


@pytest.mark.parametrize("header, seconds", [
    ("7", 7),
    ("2.5", 2.5),
    ("-3", 2),
    ("soon", 2),
    ("", 2),
    (None, 2),
    ("999999", 300),
    pytest.param(formatdate(time.time() + 10**8, usegmt=True), 300, id="in three years"),
    ("Wed, 21 Oct 2015 07:28:00 GMT", 2),
])
def test_a_wish_to_wait_is_kept_to_within_five_minutes(header, seconds):
    assert _pause(Retry("HTTP 429", _seconds(header)), attempt=1, backoff=1.0) == seconds


@pytest.mark.parametrize("fault", [
    429,
    500,
    503,
    b'{"choices": [{"message": {"content": "0.',
    body_of(choice("0.3", None)),
    {"error": {"message": "stream broke"}},
    {"choices": None},
    "text",
])
def test_what_may_pass_is_asked_again_and_never_kept(serve, fault, tmp_path):
    server = serve()
    lm = load_endpoint("endpoint:m", tmp_path)
    server.script[:] = [fault, fault]
    asked = len(server.bodies)
    assert only(lm, "verbalized").confidence == 0.8
    assert len(server.bodies) - asked == 3 and lm.chat.counts["tried again"] == 2


def test_attempts_are_counted_once_and_what_was_answered_is_kept(serve, tmp_path):
    server = serve()
    lm = load_endpoint("endpoint:m", tmp_path)
    asked, lm.workers = len(server.bodies), 1
    server.script[:] = [sound, *[503] * 15]
    with pytest.raises(UnansweredError, match=r"3 of 4 requests have no reply .* after 5 attempts .*HTTP 503"):
        read(lm, "verbalized")
    assert len(server.bodies) - asked == 1 + 3 * 5
    server.script.clear()
    asked = len(server.bodies)
    assert [r.confidence for r in read(load_endpoint("endpoint:m", tmp_path), "verbalized")["verbalized"]] == [0.8] * 4
    assert len(server.bodies) - asked == 3


@pytest.mark.parametrize("status, remedy", [
    (401, "Check OPENAI_API_KEY"),
    (403, "Check OPENAI_API_KEY"),
    (404, "Check the name"),
])
def test_what_cannot_pass_ends_at_once_in_one_line(serve, status, remedy):
    server = serve(lambda body: (status, {"error": {"message": "no"}}))
    with pytest.raises(ValueError, match=remedy):
        load_endpoint("endpoint:m")
    assert len(server.bodies) == 1


def test_a_server_that_is_not_there_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(endpoint._Asking, "backoff", 0.001)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UnansweredError, match="does not answer: .* See that it runs, and OPENAI_BASE_URL"):
        load_endpoint("endpoint:m")


def test_no_more_requests_at_once_than_allowed(serve, monkeypatch):
    at_once = AtOnce(3)
    monkeypatch.setenv("CALIB_NB_ENDPOINT_WORKERS", "3")
    server = serve()
    lm = load_endpoint("endpoint:m")
    server.act = lambda body: at_once() or sound(body)
    lm.ask([_Request(("Hello",), 8, seed=seed) for seed in range(12)])
    assert at_once.most == 3


# 5: the key


@pytest.mark.parametrize("fault", [401, 422, 429, "hang"])
def test_the_key_is_in_no_error_and_in_no_file(serve, fault, tmp_path, monkeypatch):
    server = serve()
    address = f"http://user:password-of-the-test@127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    lm = load_endpoint("endpoint:m", tmp_path, timeout=0.3)

    def act(body):
        time.sleep(1 if fault == "hang" else 0)
        status = 200 if fault == "hang" else fault
        return status, {"error": {"message": f"the key {KEY} with password-of-the-test is wrong"}}

    server.act, lm.attempts = act, 2
    found = []
    try:
        found = read(lm, "verbalized")["verbalized"]
    except (ValueError, UnansweredError) as e:
        found = [str(e), repr(e)]
    kept = "".join(path.name + path.read_text() for path in tmp_path.rglob("*"))
    everything = str(found) + kept + lm.key + str(lm.settings) + repr(lm.reading)
    assert KEY not in everything and "password-of-the-test" not in everything


def test_a_key_that_a_reply_repeats_is_not_kept_and_a_short_one_is_no_secret(serve, tmp_path, monkeypatch):
    server = serve()
    lm = load_endpoint("endpoint:m", tmp_path)
    server.act = lambda body: body_of(choice(f"0.1, by {KEY}"))
    assert KEY not in str(only(lm, "verbalized"))
    assert KEY not in "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    monkeypatch.setenv("OPENAI_API_KEY", "1")
    assert endpoint._without_key("0.1") == "0.1"


# 12: a torn line


def test_a_torn_line_costs_one_request(serve, tmp_path):
    server = serve()
    read(load_endpoint("endpoint:m", tmp_path), "verbalized")
    [path] = tmp_path.glob("replies-*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    asked = len(server.bodies)
    read(load_endpoint("endpoint:m", tmp_path), "verbalized")
    assert len(server.bodies) == asked + 1
    assert len(sound_rows(path)) == 5 and len(_KeptByKey(path, "reply").known) == 5


# As the model of a run


SMALL = {"model": "endpoint:m", "method": "baseline", "n_train": 12, "n_calibration": 12, "n_test": 12}


def knowing(body):
    "A server that knows every second question of the facts."
    reply, asked = sound(body), body["messages"][0]["content"]
    q = FACTS.get(asked.split("\n")[0])
    if said(body) == "Paris" and q and len(body["messages"]) == 1:
        text = q.answers[0] if len(q.question) % 2 else "Nobody"
        reply = body_of(choice(text, logprobs={"content": [token(text, 0.9)]} if body.get("logprobs") else None))
    return reply


FACTS = {q.question: q for q in load_questions("facts")}


@pytest.mark.slow
def test_a_run_of_the_untrained_model_is_a_run_like_any_other(serve, tmp_path, monkeypatch):
    server = serve(knowing)
    monkeypatch.setenv("CALIB_NB_ENDPOINT_PRICES", "1,2")
    run = Run(**SMALL, out=str(tmp_path))
    said = r"endpoint:m: up to 324 requests, about \d+ tokens in, .* about 0.0\d at your prices"
    assert re.match(said, run.outlook())
    metrics = run.metrics
    assert set(metrics) == {"verbalized", "expected"} and metrics["verbalized"]["brier_score"]["value"] is not None
    manifest = run.folder.manifest
    assert manifest["stages"]["answers"]["requests"] == 36 and manifest["stages"]["answers"]["tokens_in"] == 36 * 30
    assert manifest["stages"]["readings"]["by_readout"]["verbalized"]["requests"] == 24
    assert manifest["prompt"] == "second_question" and manifest["model"]["endpoint"]["top"] == 20
    asked = len(server.bodies)
    more = read_more(run.folder.path, ("calibration", "test"), ("self_consistency", "linguistic"))
    assert len(more) == 48 and all(r.confidence is not None for r in more)
    assert len(server.bodies) - asked == 24 * 11
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def less_sure_of_what_it_does_not_know(body):
    "The same server, and surer of its answer where that is right; one time in six it is wrong about that."
    reply = knowing(body)
    if "How likely" not in body["messages"][-1]["content"]:
        return reply
    question = FACTS[body["messages"][0]["content"].split("\n")[0]].question
    sure = (len(question) % 2 == 1) != (sum(question.encode()) % 6 == 0)
    digit, other = ("9", "8") if sure else ("3", "2")
    steps = [token("0", 0.95), token(".", 0.99), token(digit, 0.7, [(other, 0.28)])]
    return body_of(choice(f"0.{digit}", logprobs={"content": steps} if body.get("logprobs") else None))


@pytest.mark.slow
def test_what_is_made_of_readings_afterwards_is_made_of_a_server_s(serve, tmp_path):
    serve(less_sure_of_what_it_does_not_know)
    folder = run_method(**{**SMALL, "n_calibration": 24}, out=str(tmp_path))
    [run] = load_runs([folder])
    for readout in run_readouts(Parameters(**SMALL)):
        test, calibration = (select(run.readings, readout=readout, split=s) for s in ("test", "calibration"))
        for name in CALIBRATORS:
            mapped = recalibrate(test, name, calibration)
            sides = [[m.confidence for m, r in zip(mapped, test) if (r.confidence > 0.5) == side] for side in (0, 1)]
            assert 0 <= max(sides[0]) < min(sides[1]) <= 1, f"{name} keeps the order"
        threshold = fit_abstention(*zip(*[(r.confidence, r.is_correct) for r in calibration]), target=0.6).threshold
        assert 0 < threshold <= 0.9, "an answer is given where the server is sure"
    rows = table_rows([run])
    assert {"knn", "logistic", "training_accuracy"} <= {row.method for row in rows}
    assert all(r.confidence is not None for r in rows[Row("baseline", "expected", "platt")])


@pytest.mark.slow
def test_a_run_that_is_stopped_asks_again_at_most_for_what_was_on_its_way(serve, tmp_path, monkeypatch):
    server = serve(knowing)
    monkeypatch.setenv("CALIB_NB_ENDPOINT_WORKERS", "2")

    plain = endpoint._Chat._create

    def stopped(self, messages, sent):
        if len(server.bodies) >= 30:
            raise KeyboardInterrupt
        return plain(self, messages, sent)

    monkeypatch.setattr(endpoint._Chat, "_create", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_method(**SMALL, out=str(tmp_path))
    monkeypatch.setattr(endpoint._Chat, "_create", plain)
    run_method(**SMALL, out=str(tmp_path))
    probes = 10
    assert 36 + 24 <= len(server.bodies) <= 36 + 24 + probes + 2


A_RUN = "import json, sys; from calib_nb.experiment import run_method; run_method(**json.loads(sys.argv[1]))"


@pytest.mark.long
def test_a_process_that_is_killed_has_at_most_the_requests_on_their_way_asked_again(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("CALIB_NB_ENDPOINT_WORKERS", "3")
    command = [sys.executable, "-c", A_RUN, json.dumps({**SMALL, "out": str(tmp_path)})]
    there = threading.Event()

    def slowly(body):
        if len(server.bodies) >= 40:
            there.set()
            time.sleep(0.2)
        return knowing(body)

    server = serve(slowly)
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert there.wait(timeout=300)
    process.kill()
    process.wait()
    server.act = knowing
    run_method(**SMALL, out=str(tmp_path))
    asked = [body["messages"] for body in server.bodies]
    about_facts = [json.dumps(turns) for turns in asked if turns[0]["content"].split("\n")[0] in FACTS]
    assert len(set(about_facts)) == 36 + 24 and len(about_facts) <= 36 + 24 + 3


@pytest.mark.slow
def test_answers_that_are_missing_are_left_out_and_counted_not_wrong(serve, tmp_path):
    def act(body):
        q = FACTS.get(body["messages"][0]["content"].split("\n")[0])
        filtered = len(body["messages"]) == 1 and q and len(q.question) % 5 == 0
        return body_of(choice("", "content_filter")) if filtered else knowing(body)

    serve(act)
    run = Run(**SMALL, out=str(tmp_path))
    counted = sum(run.folder.manifest["stages"]["answers"]["missing"].values()) if run.judged else 0
    assert 0 < counted < 36 and len(run.judged) == 36 - counted


@pytest.mark.slow
def test_two_servers_have_two_folders(serve, tmp_path):
    names = set()
    for _ in range(2):
        serve()
        names.add(Run(**SMALL, out=str(tmp_path)).folder.name)
    assert len(names) == 2


@pytest.mark.parametrize("given, match", [
    ({"method": "sft"}, "'sft' trains, and the weights of 'endpoint:m' are at its server. Take method 'baseline'"),
    ({"method": "implicit"}, "method 'implicit' trains"),
    ({"protocol": "joint", "method": "baseline"}, "protocol 'joint' is for a local model"),
    ({"original": "document", "method": "baseline"}, "parameter 'original' is for a local model"),
    ({"quantization": "nf4", "method": "baseline"}, "parameter 'quantization' is for a local model"),
    ({"model": "endpoint:", "method": "baseline"}, "names no model behind 'endpoint:'"),
])
def test_what_needs_the_weights_is_refused_in_one_line_before_anything_is_asked(given, match):
    with pytest.raises(ValueError, match=match):
        Parameters(**{"model": "endpoint:m", **given})


@pytest.mark.parametrize("name, value, match", [
    ("CALIB_NB_ENDPOINT_WORKERS", "many", "must be a whole number above 0, found 'many'"),
    ("CALIB_NB_ENDPOINT_TOKENS", "0", "must be a whole number above 0"),
    ("OPENAI_API_KEY", "", "set OPENAI_API_KEY"),
])
def test_a_setting_that_cannot_be_is_said_before_anything_is_asked(serve, monkeypatch, name, value, match):
    server = serve()
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=match):
        load_endpoint("endpoint:m")
    assert not server.bodies


@pytest.mark.slow
def test_prices_are_two_numbers(serve, tmp_path, monkeypatch):
    serve()
    monkeypatch.setenv("CALIB_NB_ENDPOINT_PRICES", "cheap")
    with pytest.raises(ValueError, match="two numbers such as 0.15,0.60, found 'cheap'"):
        Run(**SMALL, out=str(tmp_path)).outlook()
