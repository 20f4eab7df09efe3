"""The repository's notebooks, small models and tokenizers that are made here, and the embedded model."""
import json
import os
import threading

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared/data"  # real question sets and published predictions; tests skip where they are absent
NUMBERED = sorted(ROOT.glob("nbs/[0-9][0-9]*_*.ipynb"))  # they author the library; 02_ comes before 02a_
MODULES = [notebook.stem.partition("_")[2] for notebook in NUMBERED]  # in the order of their numbers


def cells(notebook):
    "The cells of a notebook, as dicts."
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def code_cells(notebook):
    "The sources of its code cells."
    return ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]


class AtOnce:
    "Called in several threads: each waits until `n` have called, and `most` is how many were in it together."

    def __init__(self, n):
        self.now = self.most = 0
        self.lock, self.all_there = threading.Lock(), threading.Barrier(n)

    def __call__(self):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.all_there.wait(timeout=30)  # passes only where so many call at the same time
        with self.lock:
            self.now -= 1


FEW = {"n_train": 8, "n_calibration": 4, "n_test": 8}  # questions of a whole run


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory):
    "Where whole runs lie: with the same few questions, they are answered and the untrained model is read once."
    return tmp_path_factory.mktemp("runs")


def run_here(name, **parameters):
    "Execute a notebook's cells in this process, the cell of parameters followed by these; the names that it leaves."
    import matplotlib.pyplot as plt

    names = {}
    for cell in cells(ROOT / f"nbs/{name}.ipynb"):
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names.update(parameters)
    plt.close("all")
    return names


@pytest.fixture(scope="session")
def embedded():
    "The embedded model; loaded once."
    from calib_nb.models import load_model

    return load_model("smollm2-135m")


def byte_level_tokenizer(texts, vocab_size=400, use_regex=False):
    "A byte-level BPE tokenizer with the merges that the texts suggest."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")


def small_tokenizer(merging):
    "Every character a token, or trained so that numbers, and even `: 0.7`, are merged."
    return byte_level_tokenizer([f"Confidence: {i / 10:.1f}" for i in range(11)] * 20 if merging else [])


def small_model(tokenizer, seed=0, **overrides):
    "A `LanguageModel` with random weights, deep enough that a wrong mask or position would show."
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from calib_nb.models import DEVICE_SETTINGS, LanguageModel

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    config = LlamaConfig(**{**sizes, **overrides})
    model = LlamaForCausalLM(config).eval()
    return LanguageModel("small", model, tokenizer, f"small-{seed}", None, DEVICE_SETTINGS["cpu"])


@pytest.fixture(scope="session", params=[False, True], ids=["splits digits", "merges digits"])
def small(request):
    "A random model, once with each tokenizer."
    return small_model(small_tokenizer(request.param))
