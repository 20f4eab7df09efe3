"""What chat templates and tokenizers may be: thoughts, ends of turns, beginnings of texts, control tokens; and what is
refused, before a question is answered."""
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import small_model, small_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_nb import models
from calib_nb.answers import answer_questions, need_room
from calib_nb.core import Judged, Question
from calib_nb.models import (
    DEVICE_SETTINGS,
    LanguageModel,
    TextFormat,
    continue_greedily,
    load_model,
    spell_answer,
    spell_levels,
)
from calib_nb.readout import tree_passes

CONTROL = ["<start>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|channel|>", "<|message|>"]
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\nTHOUGHT{% endif %}"
PLAIN = TURNS + ASKED.replace("THOUGHT", "")
OPENED = TURNS + ASKED.replace("THOUGHT", "<think>\n")
EMPTY = "<think>\n\n</think>\n\n"
BY_SWITCH = TURNS + ASKED.replace("THOUGHT", "{% if enable_thinking is false %}" + EMPTY + "{% endif %}")
BY_OTHER_SWITCH = TURNS + ASKED.replace("THOUGHT", "{% if thinking %}<think>\n{% else %}</think>{% endif %}")
OF_ITSELF = "{% set c = m.content.split('</think>')[-1] %}"
OF_ITSELF = PLAIN.replace("%}<|im_start|>{{ m.role }}", "%}" + OF_ITSELF + "<|im_start|>{{ m.role }}", 1)
CHANNELS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
    "<|message|>{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    "{# <|channel|>analysis<|message|> <|channel|>final<|message|> #}"
)


def tokenizer(template=None, **attributes):
    "One that knows the control tokens."
    made = small_tokenizer(False)
    made.add_special_tokens({"additional_special_tokens": CONTROL})
    made.chat_template = template
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def asking(text, confidence=None):
    return TextFormat(tokenizer(text)).response("Q?", "Paris", confidence)


def ids_of(known, text):
    return known(text, add_special_tokens=False).input_ids


class Scripted(torch.nn.Module):
    "A model that writes the same to everybody."

    def __init__(self, known, text):
        super().__init__()
        self.new = torch.tensor([ids_of(known, text)])
        self.config = SimpleNamespace(model_type="scripted", _attn_implementation="eager")
        self.config.get_text_config = lambda: SimpleNamespace(max_position_embeddings=4096)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.options = {}

    def generate(self, input_ids, **options):
        self.options = options
        return torch.cat([input_ids, self.new.expand(len(input_ids), -1)], 1)


def scripted(template, text):
    known = tokenizer(template)
    return LanguageModel("scripted", Scripted(known, text), known, "scripted", None, {"answer_batch": 4})


def question(text="Which city?"):
    return Question("q", text, ["Paris"])


# thoughts


@pytest.mark.parametrize("template", [PLAIN, BY_SWITCH, BY_OTHER_SWITCH])
def test_thoughts_are_switched_off_where_the_template_can(template):
    lm = scripted(template, "Paris<|im_end|>")
    assert not lm.thinks
    prompt = TextFormat(lm.tokenizer).answer_prompt("Q?")
    assert prompt.count("<think>") <= prompt.count("</think>")


def test_the_switch_is_a_variable_of_the_template_and_no_word_in_it():
    for code in ("{{ m.thinking }}", "{{ 'thinking' }}", "no thinking, enable_thinking"):
        known = tokenizer(PLAIN.replace("{% endfor %}", code + "{% endfor %}"))
        assert models._switched_off(known) == {}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (OPENED, "The capital is\n</think>\n\nParis<|im_end|>"),
        (OF_ITSELF, "<think>\nThe capital is\n</think>\n\nParis<|im_end|>"),
        (CHANNELS, "<|channel|>analysis<|message|>Easy.<|im_end|><|channel|>final<|message|>Paris<|im_end|>"),
    ],
    ids=["opened by the template", "of itself", "in channels"],
)
def test_a_thought_gets_room_and_is_taken_off(template, text, tmp_path):
    lm = scripted(template, text)
    assert lm.thinks and "thought" in lm.reading
    [row] = answer_questions(lm, [question()], tmp_path)
    assert row["model_answer"] == "Paris"
    assert lm.model.options["max_new_tokens"] > 1000
    ends = lm.tokenizer.convert_ids_to_tokens(lm.model.options["eos_token_id"])
    assert "<|im_end|>" in ends and not any("\n" in lm.tokenizer.convert_tokens_to_string([end]) for end in ends)


def test_a_model_without_thoughts_stops_at_the_end_of_its_line(tmp_path):
    lm = scripted(PLAIN, "Paris<|im_end|>")
    assert not lm.thinks and answer_questions(lm, [question()], tmp_path)[0]["model_answer"] == "Paris"
    assert lm.model.options["max_new_tokens"] == 24
    assert ids_of(lm.tokenizer, "\n")[0] in lm.model.options["eos_token_id"]


@pytest.mark.parametrize(
    ("template", "text", "message"),
    [
        (OPENED, "The capital is", "thoughts do not end within 1024 tokens"),
        (OF_ITSELF, "<think>\nThe capital", "thoughts do not end within 1024 tokens"),
        (PLAIN, "<|im_end|>", "all 2 answers are empty"),
    ],
)
def test_a_model_that_answers_nothing_is_refused(template, text, message, tmp_path):
    asked = [question(), question("Which river?")]
    with pytest.raises(ValueError, match=message):
        answer_questions(scripted(template, text), asked, tmp_path)


@pytest.mark.parametrize("template", [OPENED, BY_SWITCH])
def test_a_confidence_is_read_behind_an_empty_thought(template):
    assert asking(template).endswith(f"<|im_start|>assistant\n{EMPTY}Answer: Paris\nConfidence:")


def test_a_confidence_is_read_in_the_channel_of_replies():
    assert asking(CHANNELS).endswith("<|im_start|>assistant<|channel|>final<|message|>Answer: Paris\nConfidence:")


@pytest.mark.parametrize(("template", "before"), [(OPENED, EMPTY), (BY_SWITCH, EMPTY), (PLAIN, "")])
def test_answers_are_scored_and_sampled_behind_an_empty_thought(template, before):
    fmt = TextFormat(tokenizer(template))
    prefix, ids = spell_answer(fmt, "Q?", "Paris")
    assert fmt.tokenizer.decode(prefix) == fmt.answer_prompt("Q?", at_once=True)
    assert fmt.tokenizer.decode(prefix).endswith(f"<|im_start|>assistant\n{before}")
    assert fmt.tokenizer.decode(ids) == "Paris"


# ends and beginnings


def test_an_end_that_only_the_generation_config_names_stops_too(small):
    end = small.tokenizer.convert_tokens_to_ids("z")
    assert end not in small.stop_tokens
    for named in (end, [end, small.tokenizer.eos_token_id]):
        model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named))
        assert set(replace(small, model=model).stop_tokens) == {*small.stop_tokens, end}


def test_the_end_of_a_turn_is_the_first_token_behind_it():
    twice = PLAIN + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
    known = tokenizer(twice)
    assert TextFormat(known).terminator == "<|im_end|>"
    lm = LanguageModel("m", SimpleNamespace(), known, "m", None, {})
    assert {"<|im_end|>", "<end>"} <= set(known.convert_ids_to_tokens(lm.turn_ends))


@pytest.mark.parametrize(("single", "start"), [("<start> $A", "<start>"), ("<start> $A <end>", "<start>"), ("$A", "")])
def test_a_text_begins_as_its_tokenizer_begins_it(single, start):
    from tokenizers.processors import TemplateProcessing

    known = tokenizer(bos_token="<start>")
    ends = [(name, known.convert_tokens_to_ids(name)) for name in ("<start>", "<end>")]
    known.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=ends)
    prompt = TextFormat(known, chat_template=False).prompt("Q?")
    assert prompt.startswith(start + "Question") and prompt.count("<start>") == bool(start)
    with_template = TextFormat(tokenizer("{{ bos_token }}" + PLAIN, bos_token="<start>"))
    ids = with_template.encode(with_template.prompt("Q?"))
    assert ids.count(known.bos_token_id) == 1


def test_without_an_end_of_text_the_line_ends_and_anything_pads():
    known = tokenizer(eos_token=None, pad_token=None)
    model = small_model(tokenizer()).model
    lm = LanguageModel("m", model, known, "m", None, DEVICE_SETTINGS["cpu"])
    fmt = TextFormat(known, chat_template=False)
    assert fmt.response("Q?", "Paris", 0.9).endswith("Confidence: 0.9\n")
    prompts = [fmt.encode(fmt.prompt(q)) for q in ("Q?", "And which is the longest?")]
    assert continue_greedily(lm, prompts, 6) == [continue_greedily(lm, [p], 6)[0] for p in prompts]
    judged = [Judged("Q?", "Paris", True), Judged("And the longest?", "The Nile", False)]
    for j, together in zip(judged, tree_passes(lm, fmt, judged)):
        [alone] = tree_passes(lm, fmt, [j])
        assert together.levels == pytest.approx(alone.levels, abs=1e-4)


def test_no_system_role_is_needed():
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    assert asking(refuses + PLAIN) == asking(PLAIN)


OF_PARTS = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"


@pytest.mark.parametrize("template", ["{{ raise_exception('tools only') }}", OF_PARTS])
def test_a_template_that_does_not_write_a_message_is_refused(template, tmp_path):
    with pytest.raises(ValueError, match="does not write a user's message.*use a preset without one"):
        TextFormat(tokenizer(template))
    with pytest.raises(ValueError, match="does not write a user's message"):
        answer_questions(scripted(template, "Paris"), [question()], tmp_path)


# control tokens in what is asked


PIECES = st.sampled_from([*CONTROL, "<end>", "<|im_", "end|>", "<", "|>", "think>", models._CUT, "Who?", " ", "\n"])
HOSTILE = st.lists(PIECES, max_size=8).map("".join)


@settings(max_examples=30, deadline=None)
@given(HOSTILE, HOSTILE, st.sampled_from([None, PLAIN, OPENED, CHANNELS]))
def test_no_text_of_a_question_or_an_answer_acts_as_a_control_token(asked, said, template):
    fmt = TextFormat(tokenizer(template), chat_template=template is not None)
    control = {i for i, token in fmt.tokenizer.added_tokens_decoder.items()}

    def steering(question, answer):
        texts = fmt.response(question, answer, 0.9), fmt.answer_prompt(question), fmt.turns(question, answer, question)
        spelt = [*map(fmt.encode, texts), sum(spell_levels(fmt, question, answer, ["0.9"])[1], [])]
        return [Counter(i for i in ids if i in control) for ids in spelt]

    assert steering(asked, said) == steering("Q", "A")
    assert fmt.tokenizer.decode(fmt.encode(fmt.as_text(asked))) == asked.replace(models._CUT, "")


def test_ordinary_text_is_tokenized_as_before():
    fmt = TextFormat(tokenizer(PLAIN))
    text = fmt.response("Is 1 < 2 | <b>?", "Yes <i>", 0.9)
    assert fmt.encode(text) == ids_of(fmt.tokenizer, text)


# room


def test_a_question_without_room_is_found_before_anything_is_answered(tmp_path):
    lm = scripted(PLAIN, "Paris<|im_end|>")
    lm.model.generate = None
    with pytest.raises(ValueError, match="question 'q' .* tokens with its answer, scripted has positions for 4096"):
        answer_questions(lm, [question(), question("why? " * 1000)], tmp_path)


def test_a_question_that_the_preset_has_no_room_for_is_found_too(small):
    fmt = TextFormat(small.tokenizer, chat_template=False)
    need_room(small, fmt, [question()], max_length=200)
    for asked in (question(), Judged("Which city?", "Paris", True)):
        with pytest.raises(ValueError, match="the preset allows 60"):
            need_room(small, fmt, [asked], max_length=60)
    need_room(small, fmt, [Judged("Which city?", "Paris", True)], max_length=120)


# folders that hold no model


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("adapter_config.json", '{"base_model_name_or_path": "org/base"}', "no adapter_model.safetensors"),
        ("model.Q4_K_M.gguf", "", "holds a GGUF file, not safetensors"),
        ("notes.txt", "", "there is no config.json in it"),
    ],
)
def test_a_folder_without_a_model_is_refused_with_what_it_holds(tmp_path, file, text, message):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_model(str(tmp_path))
