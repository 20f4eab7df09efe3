"""A local model is known by all that changes what it does."""
import pytest
import torch
from conftest import small_model

from calib_nb.models import DEVICE_SETTINGS, _evaluating, _settings, _with_full_logits, folder_key, load_model

FILES = [
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_templates/tool_use.jinja",
]


@pytest.fixture
def model_folder(tmp_path):
    for file in FILES:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(file)
    (tmp_path / "README.md").write_text("A model.")
    return tmp_path


@pytest.mark.parametrize("file", FILES)
def test_a_model_with_another_file_is_another_model(model_folder, file):
    before = folder_key(model_folder)
    path = model_folder / file
    path.write_text("other")
    assert folder_key(model_folder) != before
    path.unlink()
    assert folder_key(model_folder) != before
    path.write_text(file)
    assert folder_key(model_folder) == before


def test_a_file_under_another_name_is_another_model(model_folder):
    before = folder_key(model_folder)
    (model_folder / "chat_template.jinja").rename(model_folder / "template.jinja")
    assert folder_key(model_folder) != before


def test_what_is_written_about_a_model_does_not_change_it(model_folder):
    before = folder_key(str(model_folder))
    (model_folder / "README.md").write_text("Another text about it.")
    assert folder_key(model_folder) == before


def test_logits_of_half_precision_weights_are_in_single_precision(small):
    model = small_model(small.tokenizer).model.bfloat16()
    ids = torch.tensor([[5, 6, 7]])
    states = model.model(ids).last_hidden_state
    plain = model(ids).logits
    full = _with_full_logits(model)(ids).logits
    assert (plain.dtype, full.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(full, torch.nn.functional.linear(states.float(), model.lm_head.weight.float()))
    assert torch.allclose(full, plain.float(), atol=0.05) and not torch.equal(full.bfloat16().float(), full)


def test_batches_on_a_gpu_shrink_with_the_model_and_the_cpu_has_one_size():
    sizes = [_settings("cuda", n)["read_batch"] for n in (135e6, 2.6e9, 27e9)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    assert _settings("cpu", 27e9) == DEVICE_SETTINGS["cpu"]


def test_no_quantization_is_one_model_however_it_is_said(small, tmp_path):
    "Its key is that of the dense model: a cache knows it, and an adapter trained on it fits."
    small.model.save_pretrained(tmp_path)
    small.tokenizer.save_pretrained(tmp_path)
    plain, said = (load_model(str(tmp_path), quantization=q, device="cpu") for q in (None, "none"))
    assert (said.key, said.quantization) == (plain.key, plain.quantization) and plain.quantization is None


def test_a_model_that_is_checked_trains_on_afterwards_also_where_the_check_fails(small):
    model = small_model(small.tokenizer).model.train()
    with pytest.raises(MemoryError), _evaluating(model):
        assert not model.training
        raise MemoryError
    assert model.training
