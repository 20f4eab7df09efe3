"""What is said before a run starts: device, time and disk; and one GPU where several are visible."""
from types import SimpleNamespace

import pytest
import torch
from conftest import small_model, small_tokenizer

from calib_nb import outlook, training
from calib_nb.core import UnknownName
from calib_nb.experiment import Parameters
from calib_nb.models import choose_device, load_model
from calib_nb.outlook import expected_minutes, first_line
from calib_nb.training import PRESETS, on_one_gpu

DEFAULT = PRESETS["default"]


@pytest.fixture
def two_gpus(monkeypatch):
    "A machine that seems to have two."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA Example")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (80e9, 80e9))


def test_the_first_line_says_model_method_device_time_and_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = first_line(Parameters(method="dpo"), DEFAULT, tmp_path / "not" / "there")
    assert line.startswith("smollm2-135m, dpo, on the CPU (")
    assert "minutes on two cores" in line and "MB of disk" in line and "GB are free" in line


def test_what_is_not_known_is_said_to_be_unknown(tmp_path):
    line = first_line(Parameters(model="owner/model"), DEFAULT, tmp_path)
    assert "how long is not known beforehand" in line and "the adapter's size is not known beforehand" in line
    assert expected_minutes(Parameters(method="grpo"), DEFAULT, "cpu") is None
    assert expected_minutes(Parameters(), DEFAULT, "cuda") is None
    assert expected_minutes(Parameters(quantization="nf4"), PRESETS["paper"], "cpu") is None


def test_more_takes_longer():
    def most(**parameters):
        return expected_minutes(Parameters(**parameters), DEFAULT, "cpu")[1]

    assert most(method="baseline") < most(method="sft") < most(method="self_distill")
    assert most(n_test=100) < most() < most(n_train=600) and most() < most(original="repository")
    assert most() < most(model="gemma-3-270m") * 2
    assert most() < most(options={"epochs": 20}) and most(judged="mine.jsonl") < most()


def test_too_little_disk_is_an_error_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(outlook.shutil, "disk_usage", lambda path: SimpleNamespace(free=20e6))
    with pytest.raises(OSError, match="up to 50 MB will be written, 20 MB are free. Free some, or choose another"):
        first_line(Parameters(), DEFAULT, tmp_path)
    (tmp_path / "adapter").write_bytes(bytes(35_000_000))
    assert "up to 50 MB" in first_line(Parameters(), DEFAULT, tmp_path), "what is there is not written again"
    assert "not known" in first_line(Parameters(model="owner/model"), DEFAULT, tmp_path)


@pytest.fixture
def folder(tmp_path):
    "Of a small model."
    lm = small_model(small_tokenizer(False))
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_too_little_memory_is_an_error_before_anything_is_loaded(tmp_path, monkeypatch, folder, two_gpus):
    free = [0.3]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(outlook, "_free_gigabytes", lambda device: {"cpu": free[0], "cuda": 80}[device])
    with pytest.raises(MemoryError, match="the weights alone take 0.5 GB, 0.3 GB of memory are free on .cpu.. Close"):
        first_line(Parameters(), DEFAULT, tmp_path)
    assert first_line(Parameters(model=folder), DEFAULT, tmp_path)
    weights = sum(p.numel() for p in load_model(folder).model.parameters())
    free[0] = (4 * weights - 1) / 1e9
    with pytest.raises(MemoryError, match="Close what else needs memory, or choose a smaller model"):
        first_line(Parameters(model=folder), DEFAULT, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert first_line(Parameters(model=folder), DEFAULT, tmp_path), "there the GPU's counts"


def test_what_this_process_holds_counts_as_free(two_gpus, monkeypatch):
    monkeypatch.setattr(outlook, "_free_memory", lambda: 1e9)
    assert 1.1 < outlook._free_gigabytes("cpu") < 30 and outlook._free_gigabytes("cuda") == 80


def test_the_adapter_of_a_local_model_is_as_large_as_its_shapes_say(tmp_path, folder):
    from calib_nb.training import add_adapter, save_adapter

    save_adapter(add_adapter(load_model(folder, device="cpu"), DEFAULT, 0), tmp_path / "adapter")
    size = (tmp_path / "adapter/adapter_model.safetensors").stat().st_size / 1e6
    assert outlook._adapter_megabytes(folder) == pytest.approx(size, rel=0.2)
    assert outlook._adapter_megabytes("owner/model") is None


def test_several_gpus_are_said_and_which_is_used(two_gpus, tmp_path):
    line = first_line(Parameters(), DEFAULT, tmp_path)
    assert "NVIDIA Example, one of 2 visible GPUs (CUDA_VISIBLE_DEVICES chooses another)" in line
    assert choose_device() == "cuda" and choose_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("device", ["cdua", "mps", "cuda:x"])
def test_an_unknown_device_is_an_error_that_names_the_known(device):
    with pytest.raises(UnknownName, match=f"unknown device '{device}'.*Known: cpu, cuda"):
        load_model(device=device)


def test_a_gpu_that_is_not_there_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device 'cuda' is not there: 0 GPUs are visible. Use 'cpu'"):
        load_model(device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="device 'cuda:2' is not there: 2 GPUs"):
        choose_device("cuda:2")


def arguments_that_see(folder, monkeypatch, gpus):
    "As transformers makes them on a machine with so many; nothing is put on them."
    from trl import SFTConfig

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    return SFTConfig(output_dir=str(folder), per_device_train_batch_size=8, bf16=False, use_cpu=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="sees the real GPUs")
def test_transformers_multiplies_the_batch_by_the_gpus_and_we_do_not(tmp_path, monkeypatch):
    arguments = arguments_that_see(tmp_path, monkeypatch, 2)
    assert arguments.train_batch_size == 16, "if this fails, transformers has changed and `on_one_gpu` may go"
    assert on_one_gpu(arguments).train_batch_size == 8 and arguments.n_gpu == 1
    assert on_one_gpu(arguments_that_see(tmp_path, monkeypatch, 0)).n_gpu == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="sees the real GPUs")
def test_a_training_sees_one_gpu(tmp_path, monkeypatch):
    arguments, seen = arguments_that_see(tmp_path, monkeypatch, 2), []

    class Stop(Exception):
        pass

    def stopped(*args, **kwargs):
        seen.append(kwargs["args"].n_gpu)
        raise Stop

    monkeypatch.setattr(training, "training_arguments", lambda *args: arguments)
    monkeypatch.setattr(training, "_prepared", lambda lm, *args: (lm, []))
    monkeypatch.setattr(training, "_ConfidenceTrainer", stopped)
    with pytest.raises(Stop):
        training.train(None, [], "text", DEFAULT, 0, tmp_path)
    assert seen == [1]
