"""How confidence is asked for: each wording to the letter, what is read from it, and which one is chosen."""
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import FEW, ROOT

from calib_nb import judge
from calib_nb import readout as readout_room
from calib_nb.asking import choose_prompt, skill_of_all
from calib_nb.compare import ORIGINAL_WORDING, Row, load_runs, made_up_run
from calib_nb.core import Judged, Reading, finished_run, make_record, read_records, write_json, write_jsonl
from calib_nb.experiment import Parameters, Reader, Run, _stage_of, run_method
from calib_nb.methods import METHODS
from calib_nb.models import TextFormat, spell_levels
from calib_nb.prompts import PROMPTS, Confidence, parse_guesses, with_examples
from calib_nb.publish import keep_comparison, published_readings
from calib_nb.readout import READOUTS, read_confidences, read_expected, tree_passes
from calib_nb.resampling import made_up_readings

QUESTION, ANSWER = "What is the capital of France?", "Paris"
JUDGED = [Judged(QUESTION, ANSWER, True), Judged("What is the capital of Chad?", "Abuja", False)]
TRAIN = [Judged("What is the capital of Spain?", "Madrid", True), Judged("Symbol for tungsten?", "Tu", False)]
ASKED = f"Question: {QUESTION}\n\n"
ORIGINAL = ASKED + "Provide your answer and confidence (0.0-1.0):"
ANSWERED = "Answer: Paris\nConfidence:"
GUESSES = (
    "Give your four best guesses, each with the probability (0.0-1.0) that it is correct, and nothing else. "
    "Use a line for each: G1: <guess>, P1: <probability>, G2: <guess>, P2: <probability>, and so on up to P4."
)
KENT = "certain, almost certain, probable, about even, probably not, almost certainly not, impossible"
EXAMPLES = [
    "Question: What is the capital of Spain?\n\nProvide your answer and confidence (0.0-1.0):",
    "Answer: Madrid\nConfidence: 0.9",
    "Question: Symbol for tungsten?\n\nProvide your answer and confidence (0.0-1.0):",
    "Answer: Tu\nConfidence: 0.1",
]
SURE = "How likely is it that your answer is correct? Reply with only a number (0.0-1.0)."
TURNS = {  # prompt: the turns, and the reply up to where the confidence stands
    "original": ([ORIGINAL], ANSWERED),
    "percent": (
        [ASKED + "Provide your answer and your confidence that it is correct, in percent (0% to 100%):"], ANSWERED
    ),
    "words": ([ASKED + f"Provide your answer and your confidence that it is correct, as one of: {KENT}."], ANSWERED),
    "few_shot": ([*EXAMPLES, ORIGINAL], ANSWERED),
    "top_k": ([ASKED + GUESSES], "G1:"),
    "second_question": ([f"{QUESTION}\nReply with only the short answer.", "Paris", SURE], "Confidence:"),
    "hidden_answer": ([ORIGINAL], "Answer: [hidden]\nConfidence:"),
}


def formats(lm, name):
    "With the chat template, and as raw text."
    wording = with_examples(PROMPTS[name], TRAIN)
    return TextFormat(lm.tokenizer, wording=wording), TextFormat(lm.tokenizer, False, wording)


# What is asked


def test_each_prompt_has_its_text_written_down():
    assert set(TURNS) == set(PROMPTS)


SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


@pytest.mark.parametrize("name", TURNS)
def test_the_text_of_a_prompt_in_the_chat_template(embedded, name):
    turns, reply = TURNS[name]
    roles = ["user", "assistant"] * len(turns)
    said = [f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in zip(roles, turns)]
    chat, _ = formats(embedded, name)
    assert chat.response(QUESTION, ANSWER) == SYSTEM + "".join(said) + "<|im_start|>assistant\n" + reply


@pytest.mark.parametrize("name", TURNS)
def test_the_text_of_a_prompt_as_raw_text(embedded, name):
    turns, reply = TURNS[name]
    breaks = ["\n", "\n\n"] * len(turns)
    _, raw = formats(embedded, name)
    assert raw.response(QUESTION, ANSWER) == "".join(text + end for text, end in zip(turns, breaks)) + reply


@pytest.mark.parametrize("name, written", [("original", " 0.9"), ("percent", " 90%"), ("words", " almost certain")])
def test_a_confidence_is_written_in_the_prompts_own_way(embedded, name, written):
    for fmt in formats(embedded, name):
        whole = fmt.response(QUESTION, ANSWER, 0.9)
        assert whole == fmt.response(QUESTION, ANSWER) + written + fmt.terminator


def test_the_hidden_answer_is_nowhere_in_the_text(embedded):
    for fmt in formats(embedded, "hidden_answer"):
        assert ANSWER not in fmt.response(QUESTION, ANSWER, 0.9)
        assert spell_levels(fmt, QUESTION, "Paris", ["0.9"]) == spell_levels(fmt, QUESTION, "Lyon", ["0.9"])


def test_examples_are_a_right_and_a_wrong_answer_whatever_the_order():
    more = [*TRAIN, Judged("Where is Oslo?", "Norway", True), Judged("Where is Lima?", "", False)]
    shots = with_examples(PROMPTS["few_shot"], more).shots
    assert shots == with_examples(PROMPTS["few_shot"], more[::-1]).shots
    known = {(j.question, j.model_answer): j.is_correct for j in more if j.model_answer}
    assert [(known[q, a], c) for q, a, c in shots] == [(True, 0.9), (False, 0.1)]
    with pytest.raises(ValueError, match="'few_shot' shows a wrong training answer and there is none"):
        with_examples(PROMPTS["few_shot"], TRAIN[:1])
    with pytest.raises(ValueError, match="'few_shot' needs examples"):
        PROMPTS["few_shot"].opening(QUESTION)


# What is read


READ = {
    "percent": [
        ("90%", 0.9, "parsed"), ("0%", 0.0, "parsed"), ("100%\nnext", 1.0, "parsed"), ("90 %", 0.9, "repaired"),
        ("85", 0.85, "repaired"), ("90 percent.", 0.9, "repaired"), ("0", 0.0, "repaired"), ("0.9", None, "missing"),
        ("1", None, "missing"), ("120%", None, "missing"), ("80% or 90%", None, "missing"), ("high", None, "missing"),
        ("", None, "missing"),
    ],
    "words": [
        ("probable", 0.75, "parsed"), ("Almost Certain", 0.93, "parsed"), ("ALMOST CERTAINLY NOT", 0.07, "parsed"),
        ("It is probable.", 0.75, "repaired"), ("**certain**", 1.0, "repaired"), ("not certain", None, "missing"),
        ("improbable", None, "missing"), ("probable or certain", None, "missing"), ("0.9", None, "missing"),
        ("uncertain", None, "missing"), ("isn't certain", None, "missing"), ("", None, "missing"),
    ],
    "second_question": [("0.7", 0.7, "parsed"), ("70%", 0.7, "repaired"), ("sure", None, "missing")],
}


@pytest.mark.parametrize("name, text, value, provenance", [(name, *row) for name in READ for row in READ[name]])
def test_what_a_written_text_states(name, text, value, provenance):
    assert PROMPTS[name].unit.parse(text) == Confidence(value and pytest.approx(value), provenance)


@pytest.mark.parametrize("name", [name for name, prompt in PROMPTS.items() if prompt.has_levels])
def test_what_a_prompt_writes_it_reads(name):
    for decimals in (1, 2):
        texts = PROMPTS[name].unit.texts(decimals)
        found = [PROMPTS[name].unit.parse(text) for text in texts]
        assert {c.provenance for c in found} == {"parsed"}
        assert np.allclose([c.value for c in found], PROMPTS[name].unit.values(len(texts)))


@pytest.mark.parametrize("text, found", [
    ("G1: Paris\nP1: 0.8\nG2: Lyon\nP2: 10%", [("Paris", 0.8), ("Lyon", 0.1)]),
    ("g1: Paris, P1: 0.8, G2: Lyon, P2: 0.1", [("Paris", 0.8), ("Lyon", 0.1)]),
    ("G1: Paris\nG2: Lyon\nP2: high", [("Paris", None), ("Lyon", None)]),
    ("G1:\nP1: 0.8", []),
    ("I do not know.", []),
])
def test_guesses_are_read_with_what_was_said_of_them(text, found):
    assert [(guess, c.value) for guess, c in parse_guesses(text)] == found


def test_the_confidence_is_that_of_the_guess_that_means_the_answer(embedded, monkeypatch):
    texts = [" Lyon\nP1: 0.2\nG2: the city of Paris\nP2: 0.7", " Moundou\nP1: 0.9"]
    monkeypatch.setattr(readout_room, "continue_greedily", lambda *args, **kwargs: texts)
    fmt, _ = formats(embedded, "top_k")
    right, none = readout_room._read_guesses(embedded, fmt, JUDGED)
    assert (right.value, right.provenance, right.extra["guesses"]) == (0.7, "parsed", ["Lyon", "the city of Paris"])
    assert (none.value, none.provenance, none.extra["matched"]) == (None, "missing", False)
    readings = read_confidences(embedded, fmt, JUDGED, ["test"] * 2, "baseline", 0, ("verbalized", "expected"))
    assert [r.confidence for r in readings] == [0.7, None, None, None] and {r.prompt for r in readings} == {"top_k"}
    assert "can only be read by 'verbalized'" in readings[2].extra["reason"]
    with pytest.raises(ValueError, match="not by 'probe'"):
        read_confidences(embedded, fmt, JUDGED, ["calibration"] * 2, "baseline", 0, ("probe",))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["percent", "words", "second_question", "few_shot"])
def test_the_expected_confidence_is_the_sum_over_whole_texts(embedded, name):
    fmt, _ = formats(embedded, name)
    passes = tree_passes(embedded, fmt, JUDGED)
    together = zip(JUDGED, passes, read_expected(embedded, fmt, JUDGED, passes))
    for j, passed, found in list(together)[:1]:
        head = fmt.response(j.question, j.model_answer)
        logs = [log_probability(embedded, fmt, head, f" {text}{fmt.terminator}") for text in fmt.wording.unit.texts(1)]
        p, values = np.exp(logs), fmt.wording.unit.values(len(logs))
        assert np.allclose(passed.levels, logs, atol=1e-3)
        assert found.value == pytest.approx((p * values).sum() / p.sum(), abs=1e-4)


def log_probability(lm, fmt, head, ending):
    "log P(ending behind head), by one plain pass over the whole text."
    start, ids = len(fmt.encode(head)), fmt.encode(head + ending)
    with torch.no_grad():
        logp = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(logp[i - 1, ids[i]].item() for i in range(start, len(ids)))


# Readings, keys and runs


def test_readings_of_earlier_files_were_asked_in_the_originals_wording():
    reading = made_up_readings(1)[0]
    row = {name: value for name, value in vars(reading).items() if name != "prompt"}
    assert make_record(Reading, row).prompt == "original"


def test_two_prompts_may_stand_in_one_file_and_one_may_not_stand_twice(tmp_path):
    reading = made_up_readings(1)[0]
    both = write_jsonl(tmp_path / "both.jsonl", [reading, replace(reading, prompt="words")])
    assert [r.prompt for r in read_records(both, Reading)] == ["original", "words"]
    with pytest.raises(ValueError, match="stands already in line 1"):
        read_records(write_jsonl(tmp_path / "twice.jsonl", [reading, reading]), Reading)


def test_the_key_of_readings_knows_the_prompt_where_it_matters(embedded):
    from calib_nb.experiment import _kept_by

    judged = [replace(j, extra={"split": "test"}) for j in JUDGED]
    keys = {}
    for name in PROMPTS:
        reader = Reader(embedded, formats(embedded, name)[0], "baseline", 0)
        for how in READOUTS:
            keys.setdefault(how, set()).add(_kept_by(reader, "", judged, how).path)
    assert {how: len(paths) for how, paths in keys.items()} == {
        how: len(PROMPTS) if readout.wants else 1 for how, readout in READOUTS.items()
    }


def test_a_prompt_that_is_none_or_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="unknown prompt 'precent'. Did you mean 'percent'?"):
        Parameters(prompt="precent")
    with pytest.raises(ValueError, match="leave 'prompt' empty"):
        Parameters(prompt="words", protocol="joint")


def test_only_the_control_is_trained_in_another_wording():
    assert {name for name, m in METHODS.items() if m.prompt != "original"} == {"question_only"}
    recipes = [[(step.name, step.options) for step in METHODS[name].steps] for name in ("question_only", "sft")]
    assert recipes[0] == recipes[1] and METHODS["question_only"].decimals == METHODS["sft"].decimals


def asked_in_words(folder):
    "A made-up run whose untrained model was asked in words; the original's wording beside it."
    run = finished_run(folder)
    before = read_records(folder / "baseline_readings.jsonl", Reading)
    write_jsonl(folder / "original_wording.jsonl", before)
    words = [replace(r, confidence=0.6, prompt="words") for r in before]
    write_jsonl(folder / "baseline_readings.jsonl", words)
    write_json(folder / "manifest.json", {**run.manifest, "prompt": "words"})
    return folder


def test_the_untrained_row_is_the_fairly_asked_one_and_the_originals_wording_stays(tmp_path):
    folder = asked_in_words(made_up_run(tmp_path, "sft", n=40))
    with pytest.raises(ValueError, match="ask the untrained model differently"):
        load_runs([folder, made_up_run(tmp_path, "dpo", n=40)])
    kept = tmp_path / Path(keep_comparison(load_runs([folder]), str(tmp_path)).split(": ")[0]).name
    table = pd.read_csv(kept / "methods.csv", index_col=[0, 1, 2], keep_default_na=False)["mean confidence"]
    means = {name: table.loc[Row(name, "expected")].split()[0] for name in ("baseline", ORIGINAL_WORDING)}
    assert means == {"baseline": "0.600", ORIGINAL_WORDING: "0.900"}
    assert Row(ORIGINAL_WORDING, "expected").words == "untrained, original wording, expected"
    rows = published_readings(kept / "readings.csv.gz")
    prompts = {row.method: {r.prompt for r in readings} for row, readings in rows.items() if row.readout == "expected"}
    assert prompts == {"baseline": {"words"}, ORIGINAL_WORDING: {"original"}, "sft": {"original"}}


@pytest.mark.slow
def test_a_run_that_asks_in_words_has_both_wordings(runs_folder):
    run = finished_run(run_method(method="question_only", prompt="words", **FEW, out=str(runs_folder)))
    assert {r.prompt for r in run.baseline_readings} == {"words"}
    assert {r.prompt for r in run.original_wording} == {"original"}
    assert {r.prompt for r in run.readings} == {"hidden_answer"}
    assert run.prompt == "words" and run.manifest["history"][0]["calibration_brier"] > 0


@pytest.mark.slow
def test_examples_come_from_training_questions_alone(runs_folder):
    run = Run(method="baseline", prompt="few_shot", **FEW, out=str(runs_folder))
    shown = {question for question, _, _ in with_examples(PROMPTS["few_shot"], run.of("train")).shots}
    assert shown <= {j.question for j in run.of("train")} and not shown & {j.question for j in run.held_out}
    turned = [replace(j, is_correct=not j.is_correct) for j in run.held_out]
    known = [(r.id, r.readout, r.confidence) for r in run.baseline_readings]
    run.__dict__["judged"] = [*run.of("train"), *turned]
    assert known == [(r.id, r.readout, r.confidence) for r in run.asked_in("few_shot")]


# The choice


def of(prompt, **options):
    return made_up_readings(split="calibration", method="baseline", **options)


def test_a_missing_confidence_earns_nothing():
    readings = of("original")
    none = [replace(r, confidence=None, provenance="missing") for r in readings]
    assert skill_of_all(none, 0.3) == 0
    constant = [replace(r, confidence=0.3, provenance="scored") for r in readings]
    half = [*readings[:150], *none[150:]]
    assert skill_of_all(half, 0.3) == pytest.approx(skill_of_all([*readings[:150], *constant[150:]], 0.3))


def test_the_choice_looks_at_calibration_alone_and_takes_the_first_of_equals():
    honest, sure = of("a"), of("b", says=lambda c: np.full(len(c), 0.9))
    tempting = [replace(r, confidence=float(r.is_correct)) for r in made_up_readings(method="baseline")]
    assert choose_prompt({"sure": [*sure, *tempting], "honest": honest}, 0.3) == "honest"
    assert choose_prompt({"one": honest, "two": honest}, 0.3) == "one"
    silent = made_up_readings(missing=0.9, split="calibration", method="baseline")
    assert skill_of_all(sure, 0.3) < skill_of_all(silent, 0.3)
    assert choose_prompt({"silent": silent, "sure": sure}, 0.3) == "sure"
    assert choose_prompt({"silent": silent}, 0.3) == "silent"
    all_wrong = [replace(r, is_correct=False) for r in silent]
    assert np.isnan(skill_of_all(all_wrong, 0.0)) and choose_prompt({"silent": all_wrong}, 0.0) == "silent"
    with pytest.raises(ValueError, match="chosen on calibration readings, and there are none by prompt one"):
        choose_prompt({"one": tempting, "honest": honest}, 0.3)
    with pytest.raises(ValueError, match="chosen on calibration readings, and no prompt is given"):
        choose_prompt({}, 0.3)


@pytest.mark.long
def test_the_notebook_asks_chooses_and_keeps_its_files(tmp_path):
    sizes = {"n_train": 12, "n_calibration": 8, "n_test": 10, "out": str(tmp_path)}
    words = [word for name, value in sizes.items() for word in ("-p", name, str(value))]
    program = Path(sys.executable).parent / "papermill"
    command = [program, "nbs/fair_asking.ipynb", tmp_path / "out.ipynb", *words, "--no-progress-bar"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    folder, = tmp_path.glob("asking-*")
    table = pd.read_csv(folder / "prompts.csv", keep_default_na=False)
    fair = [name for name, prompt in PROMPTS.items() if not prompt.control]
    assert list(dict.fromkeys(table.prompt)) == fair and set(table.split) == {"calibration", "test"}
    assert table.chosen.value_counts()["chosen"] == 4, "by two readouts, on two splits"
    rows = published_readings(folder / "readings.csv.gz")
    assert {r.prompt for readings in rows.values() for r in readings} == set(fair)


@pytest.mark.parametrize("prompt, readout, depends", [
    ("original", "expected", False),
    ("original", "verbalized", False),
    ("top_k", "verbalized", True),
    ("original", "self_consistency", True),
])
def test_a_reading_depends_on_the_rules_only_where_they_compare_answers(monkeypatch, prompt, readout, depends):
    fmt = SimpleNamespace(wording=PROMPTS[prompt])
    reader = SimpleNamespace(lm=None, for_readout=lambda name: SimpleNamespace(fmt=fmt))
    before = _stage_of(reader, readout).key("x")
    rules = judge.judge_by_rules
    monkeypatch.setattr(judge, "judge_by_rules", lambda *words: rules(*words))
    assert (_stage_of(reader, readout).key("x") != before) == depends
