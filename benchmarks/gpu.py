"""What a GPU takes for the original's model: google/gemma-2-2b-it's architecture with random weights, in NF4 and bf16;
and how far the embedded models' readings on it are from those of the CPU. A JSON line for each row.

    python benchmarks/gpu.py                               # 1,000 questions
    python benchmarks/gpu.py --form smallest --device cpu  # the same code with a tiny model, which shows nothing

Random weights never end a text, so every text has its full length: an upper limit for a model that does."""
import argparse
import gc
import logging
import tempfile
from functools import partial
from pathlib import Path

import torch
from measure import amount, clock, say
from transformers import Gemma2Config, Gemma2ForCausalLM

from calib_nb.core import Judged
from calib_nb.labels import labelled_rows, preference_pairs
from calib_nb.models import TextFormat, choose_device, load_model, sample_responses
from calib_nb.questions import load_questions
from calib_nb.readout import read_confidences
from calib_nb.training import Preset, remove_adapter, train

TINY = {
    "vocab_size": 49_280,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
FORMS = {"whole": (1000, 48, {}), "smallest": (4, 2, TINY)}  # questions, of the embedded models, configuration
EMBEDDED = "smollm2-135m", "gemma-3-270m"


def judged_answers(n):
    "Reference answers of `n` questions, every third called right."
    facts = load_questions("facts")[:n]
    return [Judged(q.question, q.answers[0], i % 3 == 0, q.id) for i, q in enumerate(facts)]


def save_random(folder, sizes):
    "A model with the original's architecture and random weights, beside the embedded tokenizer."
    config = Gemma2Config(**sizes)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        Gemma2ForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    load_model(EMBEDDED[0], device="cpu").tokenizer.save_pretrained(folder)


def expected(lm, judged):
    "The readings of all answers."
    fmt = TextFormat(lm.tokenizer, chat_template=True)
    return read_confidences(lm, fmt, judged, ["test"] * len(judged), "m", 0, ["expected"])


def joint(lm, judged):
    "Responses of at most 100 tokens."
    fmt = TextFormat(lm.tokenizer, chat_template=True)
    return sample_responses(lm, [fmt.encode(fmt.prompt(j.question)) for j in judged], 0, max_new_tokens=100)


def trained(lm, judged, objective):
    "Three epochs."
    rows = preference_pairs(judged) if objective == "dpo" else labelled_rows(judged)
    preset = Preset(epochs=3, evaluations=1, quantization=lm.quantization)
    with tempfile.TemporaryDirectory() as folder:
        remove_adapter(train(lm, rows, objective, preset, 0, Path(folder))[0])


STAGES = {
    "expected confidence": expected,
    "joint evaluation": joint,
    "SFT, 3 epochs": partial(trained, objective="text"),
    "DPO, 3 epochs": partial(trained, objective="dpo"),
}


def measured(work, device):
    "`(value, seconds, GiB at most)` of a call; the memory is None without a GPU."
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    value, _, seconds = clock(lambda: (work(), gpu and torch.cuda.synchronize(device))[0])
    return value, seconds, torch.cuda.max_memory_allocated(device) / 2**30 if gpu else None


def times(folder, judged, quantization, device):
    "The rows of one precision."
    lm = load_model(folder, quantization=quantization, device=device)
    precision = quantization or str(lm.model.dtype).removeprefix("torch.")
    for stage, work in STAGES.items():
        work(lm, judged[:2])
        _, seconds, peak = measured(lambda work=work: work(lm, judged), device)
        yield amount(f"GPU: {stage}", len(judged), seconds, "s") | {"precision": precision, "peak_gib": peak}


def agreement(name, judged, device):
    "The largest difference of a model's expected confidences from those on the CPU."
    read = []
    for where in ("cpu", device):
        lm = load_model(name, device=where)
        raw = TextFormat(lm.tokenizer, chat_template=False)
        found = read_confidences(lm, raw, judged, ["test"] * len(judged), "m", 0, ["expected"])
        read.append(torch.tensor([r.confidence for r in found]))
    largest = float((read[0] - read[1]).abs().max())
    return amount(f"GPU: {name}, largest difference from the CPU", len(judged), largest, "of expected confidence")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=[*FORMS], default="whole")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    device = choose_device(args.device)
    n, few, sizes = FORMS[args.form]
    with tempfile.TemporaryDirectory() as folder:
        save_random(folder, sizes)
        for quantization in ("nf4", None):
            for row in times(folder, judged_answers(n), quantization, device):
                say(row)
            gc.collect()
            if device != "cpu":
                torch.cuda.empty_cache()
    for name in EMBEDDED:
        say(agreement(name, judged_answers(few), device))


if __name__ == "__main__":
    main()
