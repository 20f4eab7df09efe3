"""How long stages take, side by side with others, in CPU seconds of one process: one JSON line for each comparison.

    git worktree add /tmp/old 09c68a6
    OMP_NUM_THREADS=1 python benchmarks/stages.py --old /tmp/old                     # all of them
    OMP_NUM_THREADS=1 python benchmarks/stages.py --old /tmp/old --n 16 levels sft   # some, on 16 answers

`ratio` is their time over ours. Both take turns until the seconds given are over, one round at least; medians count.
That both give the same is asserted before."""
import argparse
import inspect
import logging
import tempfile
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import torch
from datasets import Dataset
from measure import Checkout, compared, say
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from calib_nb import core, labels, models, questions, readout, training

BETA, EPOCH = 0.1, {"epochs": 1, "evaluations": 1}


class Library(SimpleNamespace):
    "The modules of a checkout."
    __hash__ = object.__hash__


OURS = Library(core=core, labels=labels, models=models, questions=questions, readout=readout, training=training)


@cache
def checkout(folder):
    "The same modules of another checkout, in this process."
    known = Checkout(folder)
    return Library(**{name: known.module(name) for name in vars(OURS)})


@cache
def setting(library, n):
    "`(lm, fmt, judged)`: the embedded model, and the reference answers of `n` questions, every third called right."
    lm = library.models.load_model("smollm2-135m")
    assert lm.stop_tokens  # looked up once
    facts = library.questions.load_questions("facts")
    some = facts[:: len(facts) // n][:n]
    judged = [
        library.core.Judged(q.question, q.answers[0], i % 3 == 0, q.id, group=q.group, relation=q.relation)
        for i, q in enumerate(some)
    ]
    return lm, library.models.TextFormat(lm.tokenizer, chat_template=True), judged


def read(library, n, *readouts):
    "Confidence, and text where there is one, by each readout of each answer."
    lm, fmt, judged = setting(library, n)
    known = library.readout.READOUTS
    names = [name if name in known else "level" for name in readouts]  # as 'expected' was called before
    found = library.readout.read_confidences(lm, fmt, judged, ["test"] * n, "m", 0, names)
    return [(r.confidence, r.extra.get("text")) for r in found]


def largest_change(ours, theirs):
    "Of the confidences. AssertionError where one moves by more than 1e-5, or a text is another."
    assert [text for _, text in ours] == [text for _, text in theirs]
    values = np.array([[a, b] for (a, _), (b, _) in zip(ours, theirs)], float)
    apart = np.abs(values[:, 0] - values[:, 1])
    assert (np.isnan(values[:, 0]) == np.isnan(values[:, 1])).all() and np.nanmax(apart) < 1e-5
    return float(np.nanmax(apart))


@torch.no_grad()
def expected_by_strings(n):
    "The expected confidence from each level's string in a forward pass of its own."
    lm, fmt, judged = setting(OURS, n)
    grid, values = np.linspace(0, 1, 11), []
    for j in judged:
        prefix, spellings = models.spell_levels(fmt, j.question, j.model_answer, fmt.wording.unit.texts(1))
        logp = []
        for ids in spellings:
            out = lm.model(input_ids=torch.tensor([prefix + ids]), use_cache=False, logits_to_keep=len(ids) + 1)
            scores = out.logits[0, :-1].log_softmax(-1)
            logp.append(scores[range(len(ids)), ids].sum().item())
        weights = np.exp(np.array(logp) - max(logp))
        values.append((weights @ grid / weights.sum(), None))
    return values


def levels(n, seconds, old):
    "Expected confidence, against another checkout."
    mine, other = partial(read, OURS, n, "expected"), partial(read, checkout(old), n, "expected")
    change = largest_change(mine(), other())
    return {**compared("expected confidence", Path(old).name, n, mine, other, seconds), "largest_change": change}


def levels_by_strings(n, seconds):
    "Expected confidence, against each string in its own forward pass."
    mine, other = partial(read, OURS, n, "expected"), partial(expected_by_strings, n)
    change = largest_change(mine(), [(value, None) for value, _ in other()])
    against = "each string in its own forward"
    return {**compared("expected confidence", against, n, mine, other, seconds), "largest_change": change}


def levels_and_texts(n, seconds, old):
    "Expected and verbalized confidence together, which is what a run reads, against another checkout."
    both = "verbalized", "expected"
    mine, other = partial(read, OURS, n, *both), partial(read, checkout(old), n, *both)
    change = largest_change(mine(), other())
    return {**compared("expected and verbalized", Path(old).name, n, mine, other, seconds), "largest_change": change}


def train(library, n, objective, **options):
    "The losses of one epoch without dropout; the model is left as it was."
    lm, _, judged = setting(library, n)
    if objective == "dpo":
        rows, options = library.labels.preference_pairs(judged), {**options, "beta": BETA}
    else:
        rows = library.labels.labelled_rows(judged)
    preset = library.training.Preset(**EPOCH)
    with tempfile.TemporaryDirectory() as folder:
        trained, history = library.training.train(lm, rows, objective, preset, 0, Path(folder), **options)
    library.training.remove_adapter(trained)
    return [entry["loss"] for entry in history if "loss" in entry]


def trl_texts(n, objective):
    "The same tokens as trl reads them."
    lm, fmt, judged = setting(OURS, n)
    if objective == "dpo":
        texts = labels.trl_preferences(labels.preference_pairs(judged))
    else:
        texts = [{"completion": row["output"]} for row in labels.labelled_rows(judged)]
    whole = []
    for text, j in zip(texts, judged):
        ends = {name: said + fmt.terminator for name, said in text.items() if name != "prompt"}
        whole.append({"prompt": fmt.prompt(j.question), **ends})
    return whole


def trl_arguments(lm, config, folder, **options):
    "Ours, as trl's own trainers take them."
    ours = training.training_arguments(lm, training.Preset(**EPOCH), 0, folder, None)
    names = ["output_dir", "seed", "data_seed", "optim", "learning_rate", "lr_scheduler_type", "warmup_steps"]
    names += ["per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"]
    names += ["bf16", "use_cpu", "dataloader_pin_memory", "logging_steps", "report_to", "disable_tqdm"]
    same = {name: getattr(ours, name) for name in names}
    return config(**same, max_length=None, gradient_checkpointing=False, save_strategy="no", **options)


def trl_train(n, objective):
    "The losses of trl's own trainer, at its best setting, from the same first weights."
    lm, _, _ = setting(OURS, n)
    adapted = training.add_adapter(lm, training.Preset(**EPOCH), 0, dropout=0.0)
    first, lora = training.lora_weights(adapted), adapted.model.peft_config["default"]
    base = training.remove_adapter(adapted).model
    kinds, options = (SFTTrainer, SFTConfig), {}
    if objective == "dpo":
        kinds, options = (DPOTrainer, DPOConfig), {"beta": BETA, "precompute_ref_log_probs": True}
    with tempfile.TemporaryDirectory() as folder:
        trainer = kinds[0](
            model=base,
            args=trl_arguments(lm, kinds[1], folder, **options),
            train_dataset=Dataset.from_list(trl_texts(n, objective)),
            processing_class=lm.tokenizer,
            peft_config=lora,
        )
        trainer.remove_callback(PrinterCallback)
        assert not trainer.model.load_state_dict(first, strict=False).unexpected_keys
        trainer.train()
    trainer.model.unload()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_same_losses(ours, theirs, atol):
    "As logged."
    assert len(ours) == len(theirs) and np.allclose(ours, theirs, atol=atol, rtol=0), (ours, theirs)


def training_against(objective, against, theirs, n, seconds):
    "The row of a training: ours, and another that gives the same losses."
    mine = partial(train, OURS, n, objective)
    assert_same_losses(mine(), theirs(), 1e-5 if objective == "dpo" else 1e-4)
    return compared("DPO" if objective == "dpo" else "SFT", against, n, mine, theirs, seconds)


def sft(n, seconds, old):
    "Supervised fine-tuning, against another checkout."
    return training_against("text", Path(old).name, partial(train, checkout(old), n, "text"), n, seconds)


def sft_of_trl(n, seconds):
    "Supervised fine-tuning, against trl."
    return training_against("text", "trl SFTTrainer", partial(trl_train, n, "text"), n, seconds)


def dpo(n, seconds, old):
    "DPO with its reference, against another checkout."
    return training_against("dpo", Path(old).name, partial(train, checkout(old), n, "dpo"), n, seconds)


def dpo_of_trl(n, seconds):
    "DPO with its reference, against trl."
    return training_against("dpo", "trl DPOTrainer, reference before", partial(trl_train, n, "dpo"), n, seconds)


def dpo_of_sft(n, seconds):
    "DPO whose reference is in the cache, against supervised fine-tuning."
    with tempfile.TemporaryDirectory() as folder:
        mine, other = partial(train, OURS, n, "dpo", cache=Path(folder)), partial(train, OURS, n, "text")
        assert mine() == mine()  # the first has put it there
        return compared("DPO, reference kept", "our SFT", n, mine, other, seconds)


STAGES = [levels, levels_by_strings, levels_and_texts, sft, sft_of_trl, dpo, dpo_of_trl, dpo_of_sft]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=[stage.__name__ for stage in STAGES], help="default: all")
    parser.add_argument("--old", help="another checkout of this repository")
    parser.add_argument("--n", type=int, default=48, help="answers")
    parser.add_argument("--seconds", type=float, default=40, help="of wall-clock for each comparison, at least")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    for stage in STAGES:
        needs_old = "old" in inspect.signature(stage).parameters
        if stage.__name__ in args.stages and (args.old or not needs_old):
            say(stage(args.n, args.seconds, **({"old": args.old} if needs_old else {})))
