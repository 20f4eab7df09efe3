"""What goes to the hub is a finished run's adapter, whole, private and honest; what comes back is what went."""
import contextlib
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import FEW, ROOT, small_model, small_tokenizer
from hub_server import TOKEN, Hub
from kill_harness import SIZES, make_model, make_questions

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("datasets")

from transformers.utils import hub as transformers_hub

from calib_nb import hub as hub_room
from calib_nb.compare import made_up_run
from calib_nb.core import RunFolder, read_json, select, write_json
from calib_nb.experiment import Run, run_method
from calib_nb.hub import _check_public, push_run
from calib_nb.models import load_model
from calib_nb.publish import published_readings
from calib_nb.questions import QUESTION_SETS, read_hub
from calib_nb.training import PRESETS, add_adapter, load_adapter, save_adapter


def point_to(monkeypatch, url, home, offline=False):
    "Make an address the hub of this process, and a new folder its cache."
    import datasets.config
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", url)  # of what peft asks
    monkeypatch.setattr(transformers_hub, "_hf_api", None)  # else an earlier test's server is waited for
    for name, value in {
        "HF_ENDPOINT": url,
        "HF_HUB_OFFLINE": offline,
        "HF_DATASETS_CACHE": home / "datasets",
    }.items():
        monkeypatch.setattr(datasets.config, name, value)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    "A stand-in for the hub, with a token in the environment."
    server = Hub()
    point_to(monkeypatch, server.url, tmp_path / "home")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.close()


@pytest.fixture
def offline(hub, monkeypatch, tmp_path):
    "`offline()` takes the network away; the cache stays."
    return lambda: point_to(monkeypatch, hub.url, tmp_path / "home", offline=True)


# An adapter that was never trained, for what is checked before anything is uploaded


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "The folder of a run that never ran, with an adapter on a local model."
    place = tmp_path_factory.mktemp("made")
    folder = made_up_run(place / "runs", "sft", n=60)
    model, small = place / "home-of-ada/model", small_model(small_tokenizer(False))
    small.model.save_pretrained(model)
    small.tokenizer.save_pretrained(model)
    lm = load_model(str(model))
    save_adapter(add_adapter(lm, PRESETS["raw"], 0), folder / "adapter")
    run = RunFolder(folder)
    run.add(
        model={"name": str(model), "key": lm.key, "quantization": None},
        preset={"chat_template": False},
        questions={"dataset": {"path": str(place / "mine.jsonl"), "sha256": "c0ffee"}},
    )
    return folder


@pytest.fixture(scope="module")
def files(made):
    "What is pushed of it."
    return hub_room._files_of(hub_room._prepared(made, "ada/sure"), "ada/sure")


@pytest.fixture
def ready(made, files, tmp_path, monkeypatch):
    "A copy of the folder that a test may spoil; what is pushed has been made."
    monkeypatch.setattr(hub_room, "_files_of", lambda run, name: files)
    shutil.copytree(made, tmp_path / "runs" / made.name)
    return tmp_path / "runs" / made.name


def uploads(hub):
    return [(method, path) for method, path in hub.asked if method in ("POST", "PUT") and "validate" not in path]


def test_nothing_of_this_machine_goes_out_and_the_card_says_what_the_run_says(hub, ready, made):
    commit = push_run(ready, "ada/sure")
    there = hub.files("models/ada/sure", commit)
    assert set(there) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
        "metrics.json",
        "readings.csv.gz",
        "reliability.png",
    }
    everything = b"".join([*there.values(), gzip.decompress(there["readings.csv.gz"])])
    for secret in (str(made.parent), "/home/", "home-of-ada", str(Path.home()) + "/", TOKEN):
        assert secret.encode() not in everything, secret
    assert json.loads(there["adapter_config.json"])["base_model_name_or_path"] is None
    card = there["README.md"].decode()
    assert "base_model:" not in card and 'library_name: "peft"' in card and "mine.jsonl" in card
    [line] = [line for line in card.splitlines() if line.startswith("| sft | expected |")]
    assert len(re.findall(r"\d \[-?\d\.\d+, -?\d\.\d+\]", line.replace("\N{NO-BREAK SPACE}", " "))) >= 3, "intervals"
    assert "sft, expected: " in card and "![Reliability" in card
    assert there["adapter_model.safetensors"] == (ready / "adapter/adapter_model.safetensors").read_bytes()


def test_the_card_of_a_joint_run_says_that_answer_and_confidence_come_together(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "runs" / made.name)
    RunFolder(folder).add(parameters={**RunFolder(folder).parameters, "protocol": "joint"})
    card = hub_room._files_of(hub_room._prepared(folder, "ada/sure"), "ada/sure")["README.md"].decode()
    assert "in one response" in card and "an answer that is given" not in card and "greedily" in card


def test_the_readings_come_back_as_they_were(files, made, tmp_path):
    file = tmp_path / "readings.csv.gz"
    file.write_bytes(files["readings.csv.gz"])
    back = published_readings(file)
    ours = select(RunFolder(made).readings, split="test")
    theirs = [r for rows in back.values() for r in rows if r.method == "sft"]
    facts = "readout", "seed", "id", "group", "relation", "is_correct", "confidence", "provenance"
    assert len(ours) == len(theirs) > 0
    assert {tuple(getattr(r, f) for f in facts) for r in theirs} == {tuple(getattr(r, f) for f in facts) for r in ours}


def test_it_is_private_unless_strangers_may_read_it(hub, ready):
    push_run(ready, "ada/sure")
    push_run(ready, "ada/shown", public=True)
    assert hub.repositories["models/ada/sure"].private and not hub.repositories["models/ada/shown"].private
    hub.asked.clear()
    with pytest.raises(ValueError, match="ada/shown is public, and this was to stay private"):
        push_run(ready, "ada/shown")
    assert not uploads(hub)


def test_the_home_of_a_whole_model_is_not_pushed_over(hub, ready):
    hub.put("models/ada/model", {"config.json": b"{}"}, private=True)
    with pytest.raises(ValueError, match="ada/model holds a whole model"):
        push_run(ready, "ada/model")
    assert not uploads(hub)


def test_the_token_is_that_of_the_environment_alone(hub, ready, monkeypatch, tmp_path):
    from huggingface_hub import constants

    kept = tmp_path / "token"
    kept.write_text(TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(kept))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match="no token: set HF_TOKEN"):
        push_run(ready, "ada/sure")
    assert not hub.asked


def test_a_token_that_may_not_write_is_said_in_one_line_without_it(hub, ready, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another-token-0123456789")
    with pytest.raises(OSError, match="ada/sure was not pushed .*HF_TOKEN may write") as error:
        push_run(ready, "ada/sure")
    assert "\n" not in str(error.value) and "another-token" not in str(error.value)
    assert not hub.repositories


def one_down(adapter):
    inner = adapter / "default"
    inner.mkdir()
    for file in [file for file in adapter.iterdir() if file.is_file()]:
        file.rename(inner / file.name)


def without(name):
    return lambda adapter: (adapter / name).unlink()


def changed(adapter):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize("damage, said", [
    (one_down, "no adapter_config.json: it lies one level down, in 'default'; move its files up"),
    (without("adapter_config.json"), "no adapter_config.json. Run it again"),
    (without("adapter_model.safetensors"), "no adapter_model.safetensors: other files may hold code"),
    (without("seal.json"), "seal.json was changed"),
    (changed, "adapter_model.safetensors was changed after it was written"),
    (shutil.rmtree, "holds no adapter: method 'sft' trains none, or its folder was taken away"),
])
def test_an_adapter_that_is_not_whole_is_said_before_the_hub_is_asked(hub, ready, damage, said):
    damage(ready / "adapter")
    with pytest.raises(ValueError, match=said):
        push_run(ready, "ada/sure")
    assert not hub.asked


def test_an_address_that_is_set_too_late_is_refused_wherever_the_hub_is_asked(hub, ready, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    asks = (lambda: push_run(ready, "ada/sure"), lambda: load_model("ada/base"), lambda: read_hub(VERIFIED))
    for ask in asks:
        with pytest.raises((ValueError, OSError), match="HF_ENDPOINT was set too late"):
            ask()
    assert hub.asked == []


@pytest.mark.parametrize("name", ["sure", "ada/sure/it", "ada/su re", "ada/-sure", "/ada", "", "ada/" + "a" * 100])
def test_a_name_that_is_none_is_said_before_the_hub_is_asked(hub, ready, name):
    with pytest.raises(ValueError, match="no name on the hub|whose it is"):
        push_run(ready, name)
    assert not hub.asked


def test_a_file_that_would_show_a_folder_or_the_token_stops_everything():
    for text in ("in /home/ada/runs", "in C:\\Users\\ada", "in /Users/ada", f"with {TOKEN}"):
        with pytest.raises(ValueError, match="README.md would show .*Nothing was pushed"):
            _check_public({"README.md": text.encode()}, TOKEN)


def test_the_hub_refuses_with_the_network_away_in_one_line(ready, offline):
    offline()
    with pytest.raises(OSError, match="was not pushed .*HF_HUB_OFFLINE is not set") as error:
        push_run(ready, "ada/sure")
    assert "\n" not in str(error.value)


def test_a_local_adapter_on_a_local_model_asks_the_hub_for_nothing(hub, ready):
    lm = load_model(str(ready / "adapter"))
    base = load_model(read_json(ready / "adapter/base.json")["name"])
    load_adapter(base, ready / "adapter")
    assert hub.asked == [] and lm.key.startswith(base.key + "+")


def test_to_keep_an_adapter_the_hub_is_not_asked_about_its_base_model(hub, tmp_path):
    lm = small_model(small_tokenizer(False))
    lm.model.config._name_or_path = "ada/base"
    with warnings.catch_warnings(action="error", category=UserWarning):
        save_adapter(add_adapter(lm, PRESETS["raw"], 0), tmp_path / "adapter")
    assert hub.asked == []


def test_an_adapter_whose_base_model_is_not_here_says_so(hub, ready, tmp_path):
    push_run(ready, "ada/sure")
    with pytest.raises(ValueError, match="adapter of 'model', which is not here. Load the base model and give both"):
        load_model("ada/sure")


@pytest.mark.parametrize("change, said", [
    ({"key": "another"}, "this adapter was trained on .*another., not on"),
    ({"name": "itself"}, "is an adapter of another"),
])
def test_an_adapter_is_refused_on_anything_but_its_base_model(ready, change, said):
    about = read_json(ready / "adapter/base.json") | change
    if about["name"] == "itself":
        about["name"] = str(ready / "adapter")
    write_json(ready / "adapter/base.json", about)
    with pytest.raises(ValueError, match=said):
        load_model(str(ready / "adapter"))


# A tiny run whose base model is on the hub


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "A tiny model as a folder, questions that it half knows, and two trained runs of it as a hub model."
    folder = tmp_path_factory.mktemp("tiny")
    make_model(folder / "model")
    make_questions(folder / "questions.jsonl", folder / "model")
    return folder


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def trained(hub, tiny, out, seed=0, **more):
    "A finished run on the hub's model."
    if "models/ada/base" not in hub.repositories:
        hub.put("models/ada/base", files_of(tiny / "model"))
    given = {"method": "sft", "model": "ada/base", "dataset": str(tiny / "questions.jsonl"), "seed": seed}
    return run_method(**{**SIZES, **given, "out": str(out), **more})


def read_again(run, **model):
    "The expected confidence of the run's first test answer, under a model; and what the run and its base read."
    from calib_nb.experiment import _reader_of, _split_of
    from calib_nb.readout import read_confidences

    known, done = RunFolder(run), _reader_of(RunFolder(run))
    judged = [j for j in known.judged if j.extra["split"] == "test"][:1]
    lm = load_model(**model)
    [now] = read_confidences(lm, done.fmt, judged, _split_of(judged), "sft", 0, ("expected",), 1, "")
    wanted = {"readout": "expected", "split": "test", "id": judged[0].id}
    untrained = known.original_wording or known.baseline_readings
    [then], [base] = select(known.readings, **wanted), select(untrained, **wanted)
    return now.confidence, then.confidence, base.confidence


@pytest.mark.slow
def test_pulled_by_its_name_it_reads_as_the_run_did_with_a_network_and_without(hub, tiny, tmp_path, offline):
    run = trained(hub, tiny, tmp_path / "runs")
    base = hub.repositories["models/ada/base"].refs["main"]
    assert read_json(run / "manifest.json")["model"]["key"] == f"ada/base@{base}"
    commit = push_run(run, "ada/sure")
    files = hub.files("models/ada/sure")
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "ada/base"
    assert 'base_model: "ada/base"' in files["README.md"].decode()
    now, then, before = read_again(run, name="ada/sure")
    assert now == then != before
    assert load_model("ada/sure").key == f"ada/base@{base}+ada/sure@{commit}"
    offline()
    asked = len(hub.asked)
    assert read_again(run, name="ada/sure")[0] == now and load_model("ada/sure").key.endswith(commit)
    assert len(hub.asked) == asked


@pytest.mark.slow
def test_a_branch_that_moves_is_another_model(hub, tiny, tmp_path):
    runs = [trained(hub, tiny, tmp_path / "runs", seed) for seed in (0, 1)]
    commits = [push_run(run, "ada/sure") for run in runs]
    now = [read_again(runs[1], name="ada/sure"), read_again(runs[0], name="ada/sure", revision=commits[0])]
    assert commits[0] != commits[1] and [a == b for a, b, _ in now] == [True, True]
    how = {**SIZES, "method": "baseline", "model": "ada/sure", "dataset": str(tiny / "questions.jsonl")}
    done = run_method(**how, out=str(tmp_path / "again"))
    assert read_json(done / "manifest.json")["model"]["key"].endswith(f"+ada/sure@{commits[1]}")
    (done / "metrics.json").unlink()
    push_run(runs[0], "ada/sure")
    with pytest.raises(ValueError, match="was begun with model .*name the revision"):
        Run(**how, out=str(tmp_path / "again")).lm  # noqa: B018
    with pytest.raises(ValueError, match="ada/sure is an adapter on its base model, and no second one is trained"):
        run_method(**{**how, "method": "sft"}, out=str(tmp_path / "again"))


REACHED = """
import sys
from click.testing import CliRunner
from calib_nb.command_line import main

done = CliRunner().invoke(main, ["push", sys.argv[1], "ada/sure"], catch_exceptions=False)
print(done.output)
sys.exit(done.exit_code)
"""
PULL = """
import sys
from calib_nb.models import load_model

lm = load_model("ada/sure")
print(lm.key, sum(p.double().sum().item() for p in lm.model.parameters()))
"""


@pytest.mark.long
def test_every_request_goes_to_the_address_in_the_environment_and_without_a_network_none(hub, tiny, tmp_path):
    run = trained(hub, tiny, tmp_path / "runs")
    hub.asked.clear()
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    place = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "fresh")}
    online = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **nowhere, **place, **online, "PYTHONPATH": str(ROOT)}

    def python(code, *words, **more):
        command = [sys.executable, "-c", code, *map(str, words)]
        done = subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout
        return done.stdout

    said = python(REACHED, run)
    commit = hub.repositories["models/ada/sure"].refs["main"]
    assert f"pushed: ada/sure at {commit}" in said and f"-p model ada/sure -p revision {commit}" in said
    assert [path for method, path in hub.asked if method == "PUT"], "large files, too"
    pulled = python(PULL)
    assert f"+ada/sure@{commit}" in pulled
    asked = len(hub.asked)
    assert python(PULL, HF_HUB_OFFLINE="1") == pulled and len(hub.asked) == asked


# The lines that ask it, on the embedded model


def lines_of(card):
    "The program in a card."
    return re.search(r"```python\n(.*?)```", card, re.S)[1]


@pytest.mark.long
def test_the_lines_of_the_card_say_what_the_run_read(hub, runs_folder):
    run = run_method(method="sft", **FEW, out=str(runs_folder))
    push_run(run, "ada/sure")
    lines = lines_of(hub.files("models/ada/sure")["README.md"].decode())
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(lines, {})
    question = re.search(r'"\{question\}", (.*?)\)\.replace', lines)[1]
    verbalized = select(RunFolder(run).readings, split="test", readout="verbalized")
    [example] = [r for r in verbalized if repr(r.question) == question]
    assert said.getvalue().strip().startswith(example.extra["text"].strip().split("\n")[0][:3])
    assert len([line for line in lines.splitlines() if not line.startswith("    ")]) <= 14


# Question sets


CARD = b"""---
configs:
- config_name: default
  data_files:
  - split: eval
    path: data/eval.jsonl
---
"""
ROWS = [
    {"problem": f"Q{i}?", "answer": f"A{i}", "topic": "t", "urls": [f"https://x/{i}"], "about": {"n": None if i else 1}}
    for i in range(5)
]
VERIFIED = replace(QUESTION_SETS["simpleqa_verified"], hub="ada/questions")


def put_rows(hub, rows):
    "A commit with these rows."
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return hub.put("datasets/ada/questions", {"README.md": CARD, "data/eval.jsonl": data})


def test_rows_of_the_hub_are_the_same_rows_with_their_types(hub):
    commit = put_rows(hub, ROWS)
    rows, source = read_hub(VERIFIED)
    assert [row for _, row in rows] == ROWS
    assert isinstance(rows[0][1]["about"]["n"], int) and source["revision"] == commit


def test_rows_that_were_pulled_are_there_without_a_network_at_each_commit(hub, offline):
    first = put_rows(hub, ROWS)
    online = {first: read_hub(VERIFIED)}
    second = put_rows(hub, ROWS[:3])
    online[second] = read_hub(VERIFIED)
    assert [len(rows) for rows, _ in online.values()] == [5, 3]
    third = put_rows(hub, ROWS[:1])
    offline()
    asked = len(hub.asked)
    for commit in (first, second):
        assert read_hub(VERIFIED, commit) == online[commit]
    assert read_hub(VERIFIED) == read_hub(VERIFIED, "main") == online[second], "the branch as it was last seen"
    with pytest.raises(OSError, match="not pulled at commit .*give its path"):
        read_hub(VERIFIED, third)
    with pytest.raises(OSError, match="revision 'v9' is not to be had"):
        read_hub(VERIFIED, "v9")
    assert len(hub.asked) == asked


def test_a_revision_that_the_hub_does_not_know_is_not_replaced_by_another(hub):
    put_rows(hub, ROWS)
    with pytest.raises(OSError, match="revision 'v9' is not to be had"):
        read_hub(VERIFIED, "v9")
