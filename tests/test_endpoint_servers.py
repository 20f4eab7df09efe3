"""Two real servers of the embedded model: llama.cpp gives what the local model gives, `transformers serve` says what it
cannot.

Skipped where they are not installed. `CALIB_NB_LLAMA_PYTHON` names a Python that has `xllamacpp`,
`CALIB_NB_SERVE_PATH` a folder with `fastapi`, `uvicorn` and `python-multipart`; both default to this environment.
"""
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openai")

from calib_nb.answers import answer_questions
from calib_nb.core import Judged
from calib_nb.endpoint import load_endpoint
from calib_nb.endpoint_readout import _Turns, answer_by_endpoint, read_by_endpoint
from calib_nb.models import EMBEDDED_MODELS, TextFormat, _locate, load_model, packaged_gguf
from calib_nb.prompts import PROMPTS
from calib_nb.questions import load_questions
from calib_nb.readout import read_confidences

pytestmark = pytest.mark.long
LLAMA_PYTHON = os.environ.get("CALIB_NB_LLAMA_PYTHON", sys.executable)
SERVE_PATH = os.environ.get("CALIB_NB_SERVE_PATH", "")
QUESTIONS = load_questions("facts")[:400:200]

LLAMA = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path, p.hostnames, p.port, p.n_parallel, p.n_ctx = sys.argv[1], ["127.0.0.1"], int(sys.argv[2]), 1, 2048
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = x.Server(p)
time.sleep(1e6)
"""


def has(python, *modules, path=""):
    "Whether a Python can import all of these."
    code = ";".join(f"import {module}" for module in modules)
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([python, "-c", code], capture_output=True, env=environment).returncode == 0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers_at(port):
    with suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
    return False


@contextmanager
def running(command, port, log, **environment):
    "A server, until the block ends."
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
    try:
        for _ in range(240):
            assert server.poll() is None, log.read_text()[-2000:]
            if answers_at(port):
                break
            time.sleep(1)
        yield
    finally:
        server.kill()
        server.wait()


def in_full(gguf, path):
    "The model of a GGUF file with weights in F32."
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize

    reader = GGUFReader(gguf)
    writer = GGUFWriter(path, "llama")
    kept = {"general.architecture", "general.file_type", "general.quantization_version"}
    for name, part in reader.fields.items():
        if not name.startswith("GGUF.") and name not in kept:
            inner = part.types[-1] if part.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, part.contents(), part.types[0], inner)
    writer.add_file_type(0)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def endpoint_at(port, monkeypatch, folder):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "any text")
    monkeypatch.setenv("CALIB_NB_ENDPOINT_WORKERS", "1")
    return folder


@pytest.fixture
def llama(tmp_path, monkeypatch):
    "The embedded model behind llama.cpp."
    pytest.importorskip("gguf")
    if not has(LLAMA_PYTHON, "xllamacpp"):
        pytest.skip("xllamacpp is not installed")
    path = in_full(packaged_gguf(EMBEDDED_MODELS["smollm2-135m"], tmp_path), tmp_path / "model.gguf")
    port = free_port()
    command = [LLAMA_PYTHON, "-c", LLAMA, str(path), str(port)]
    with running(command, port, tmp_path / "log"):
        endpoint_at(port, monkeypatch, tmp_path)
        yield load_endpoint("endpoint:smollm2-135m", tmp_path / "cache")


def first_lines(rows):
    return [row["text"].split("\n")[0].strip() for row in rows]


def test_llama_cpp_gives_the_local_answers_and_confidences(llama, tmp_path):
    assert {name: llama.can[name] for name in ("samples", "top", "continues", "forces")} == {
        "samples": True,
        "top": 20,
        "continues": True,
        "forces": True,
    }
    local, readouts = load_model("smollm2-135m"), ("verbalized", "expected", "normalized_probability")
    known = answer_questions(local, QUESTIONS, tmp_path)
    found = answer_by_endpoint(llama, QUESTIONS)
    assert first_lines(found) == first_lines(known)
    judged = [Judged(q.question, row["model_answer"], True, id=q.id) for q, row in zip(QUESTIONS, known)]
    how = judged, ["test"] * len(judged), "baseline", 0, readouts
    theirs = read_by_endpoint(llama, _Turns(), *how)
    ours = read_confidences(local, TextFormat(local.tokenizer, True), *how)
    for a, b in zip(theirs, ours):
        assert a.readout == b.readout and a.confidence == pytest.approx(b.confidence, abs=1e-3), (a, b)
        if a.readout == "expected":  # five tokens a level
            assert np.log(a.extra["mass"]) / 5 == pytest.approx(np.log(b.extra["mass"]) / 5, abs=1e-3)
        if a.readout == "normalized_probability":  # the mean log-probability of a token
            assert np.log(a.confidence) == pytest.approx(np.log(b.confidence), abs=1e-3)
        if a.readout == "verbalized":
            assert first_lines([a.extra]) == first_lines([b.extra])


@pytest.fixture
def transformers_server(tmp_path, monkeypatch):
    "The embedded model behind `transformers serve`."
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), SERVE_PATH]))
    if not has(sys.executable, "fastapi", "uvicorn", "multipart", path=path):
        pytest.skip("fastapi, uvicorn, python-multipart are not installed")
    port, (folder, _) = free_port(), _locate("smollm2-135m")
    program = Path(sys.executable).with_name("transformers")
    command = [sys.executable, str(program), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with running(command, port, tmp_path / "log", PYTHONPATH=path, HF_HUB_OFFLINE="1"):
        endpoint_at(port, monkeypatch, tmp_path)
        yield load_endpoint(f"endpoint:{folder}", tmp_path / "cache")


def test_of_transformers_serve_is_said_what_it_cannot(transformers_server):
    lm = transformers_server
    assert (lm.can["top"], lm.can["samples"], lm.can["forces"]) == (0, False, False)
    judged = [Judged(QUESTIONS[0].question, "Paris", True)]
    readouts = ("verbalized", "expected", "self_consistency", "normalized_probability")
    fmt = _Turns(PROMPTS["second_question"])
    found = {r.readout: r for r in read_by_endpoint(lm, fmt, judged, ["test"], "baseline", 0, readouts)}
    assert found["verbalized"].extra.get("text") is not None
    assert "no log-probabilities" in found["expected"].extra["reason"]
    assert "does not sample" in found["self_consistency"].extra["reason"]
