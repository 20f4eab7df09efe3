"""Text, files, names and servers of strangers; and the key, which is nowhere to be found."""
import ast
import json
import os
import pickle
import re
import time
from email.utils import formatdate
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from audit import report
from conftest import MODULES, ROOT
from hypothesis import given
from hypothesis import strategies as st
from servers import Reply, Server

from calib_nb.compare import as_markdown, styled
from calib_nb.core import UnknownName, unknown_name, visible
from calib_nb.endpoint import _seconds
from calib_nb.experiment import Parameters, comparison_plan, run_name
from calib_nb.judge import endpoint_grader
from calib_nb.plots import save_figure, theme
from calib_nb.publish import keep_files

KEY = "sk-known-only-to-this-test-4711"
HOSTILE = "</td><script>alert(1)</script>\x1b[31m\u202eabc $x$ and $\\frac{1}$ **b** |"


# Text


@given(st.text())
def test_what_is_shown_holds_no_control_and_reorders_nothing(text):
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert text != text.encode(errors="ignore").decode() or visible(shown) == shown
    shown.encode()


@pytest.mark.parametrize("text", ["Zürich", "東京", "القاهرة", "👩‍👩‍👧", "two\nlines", "a\tb"])
def test_what_people_write_is_shown_as_they_wrote_it(text):
    assert visible(text) == text


def test_a_name_in_an_error_is_text_and_has_an_end():
    said = str(unknown_name("method", HOSTILE + "a" * 10**6, ["sft"]))
    assert "\x1b" not in said and "\u202e" not in said and len(said) < 500


def test_two_dollar_signs_and_controls_in_the_name_of_a_question_set_spoil_no_figure(tmp_path):
    with theme():
        figure, ax = plt.subplots()
        ax.set_title("price_$USD_and_$EUR.jsonl \x1b[31m \u202eabc \x00")
    svg, png = (Path(path) for path in save_figure(figure, tmp_path / "figure"))
    assert "price_$USD_and_$EUR.jsonl \\x1b[31m \\u202eabc \\x00" in svg.read_text()
    assert png.stat().st_size > 1000


def test_a_styled_frame_shows_tags_as_text():
    index = pd.MultiIndex.from_tuples([(HOSTILE, "verbalized", "")], names=["method", "readout", "calibrator"])
    html = styled(pd.DataFrame({"diagnosis": ["ok"], HOSTILE: [HOSTILE]}, index=index)).to_html()
    assert "<script>" not in html and html.count("&lt;script&gt;") == 3
    assert "\x1b" not in html and "\u202e" not in html and "tex2jax_ignore" in html


def test_a_bar_in_a_text_ends_no_cell_of_a_markdown_table():
    lines = as_markdown(pd.DataFrame({"a": [HOSTILE]})).splitlines()
    assert lines[-1].replace("\\|", "").count("|") == 3


# Names


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "a" * 5000, "a\x00b", "a b$c;rm -rf", "é" * 300, "/", ""])
def test_the_name_of_a_run_is_one_part_of_a_path_that_every_file_system_takes(name):
    for parameters in ({"dataset": f"{name}.jsonl"}, {"model": f"owner/{name}"}):
        folder = run_name(Parameters(**parameters))
        assert len(os.fsencode(f".{folder}.123456.part")) < 255 and "/" not in folder and "\x00" not in folder
        assert not folder.startswith(".") and re.fullmatch(r"[\w.,@+-]+", folder)


def test_the_name_of_a_usual_run_is_what_it_was():
    assert run_name(Parameters()).startswith("facts-smollm2-135m-sft-default-seed0-")
    assert run_name(Parameters(model="google/gemma-2-2b-it")).startswith("facts-gemma-2-2b-it-sft-")


@pytest.mark.parametrize("name", ["../elsewhere", "a/../../b", "a\x00b", "a" * 300])
def test_a_publication_stays_in_figures_and_is_refused_before_anything_runs(name, tmp_path):
    with pytest.raises(ValueError, match="parameter 'publish'"):
        Parameters(publish=name)
    with pytest.raises(ValueError, match="parameter 'publish'"):
        comparison_plan({"methods": "sft", "seeds": "0", "publish": name})
    if ".." in name:
        with pytest.raises(ValueError, match="would be written outside of"):
            keep_files(tmp_path, {}, {}, pd.DataFrame(), publish=name)


# Files


READS_PICKLES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")


@pytest.mark.parametrize("module", MODULES)
def test_no_room_reads_a_pickle_or_runs_code_from_data(module):
    source = (ROOT / f"calib_nb/{module}.py").read_text()
    tree = ast.parse(source)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not imported & {*READS_PICKLES}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"eval", "exec", "torch.load", "pd.read_pickle", "yaml.load", "torch.hub.load"}
    assert "trust_remote_code=True" not in source and "allow_pickle=True" not in source


class Trap:
    "Read as a pickle, it writes a file."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_malicious_weights_code_and_vectors_are_not_run(tmp_path, small):
    from calib_nb.embeddings import embed
    from calib_nb.models import load_model
    from calib_nb.training import load_adapter

    sprung = tmp_path / "sprung"
    small.model.save_pretrained(tmp_path / "model")
    small.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    (tmp_path / "model/pytorch_model.bin").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(OSError, match="safetensors"):
        load_model(str(tmp_path / "model"))
    code = tmp_path / "code"
    code.mkdir()
    (code / "evil.py").write_text(f"import os\nos.mkdir({str(sprung)!r})\nclass M: pass\n")
    auto = {"AutoConfig": "evil.M", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.M", "evil.M"]}
    (code / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    with pytest.raises((ValueError, OSError)):
        load_model(str(code))
    (code / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.M"}]))
    with pytest.raises(Exception):  # noqa: B017  whatever the library says, as long as nothing is run
        embed(["a text"], None, model=str(code))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "base.json").write_text(json.dumps({"name": "small", "key": small.key}))
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(ValueError, match="no adapter_model.safetensors"):
        load_adapter(small, adapter)
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError):
        np.load(vectors, allow_pickle=False)
    assert not sprung.exists()


# An endpoint


class Spy(Server):
    "A server that keeps what it is sent, quotes the key that it was given, and answers as it is told."

    def __init__(self, says, statuses):
        self.seen, self.statuses, self.says = [], list(statuses), says
        super().__init__(self._reply)

    def _reply(self, asked):
        self.seen.append((asked.path, asked.body))
        status = self.statuses.pop(0) if self.statuses else 200
        quoted = f"There is no such key: {asked.headers['Authorization']}"
        if status != 200:
            return Reply({"error": {"message": quoted}}, status)
        message = {"role": "assistant", "content": self.says or quoted}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return Reply({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})


@pytest.fixture
def spy(monkeypatch):
    "Starts servers; the address of the latest is the endpoint's."
    pytest.importorskip("openai")
    servers = []

    def start(says="CORRECT", statuses=(), path="/v1"):
        servers.append(Spy(says, statuses))
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].url + path)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


ITEM = ("Paris", ["Paris", "Lutetia"], "What is the capital of France?")


def test_an_endpoint_is_told_question_answers_response_and_settings_alone(spy):
    server = spy()
    endpoint_grader("m")([ITEM])
    (path, asked), = server.seen
    assert path == "/v1/chat/completions" and set(asked) == {"model", "messages", "temperature", "max_tokens"}
    (message,) = asked["messages"]
    said = message["content"]
    assert all(part in said for part in (ITEM[0], *ITEM[1], ITEM[2])) and str(ROOT) not in said


def test_servers_on_two_ports_or_paths_share_no_grades(spy, tmp_path, monkeypatch):
    spy("CORRECT")
    assert endpoint_grader("default", tmp_path)([ITEM])[0].grade == "correct"
    second = spy("INCORRECT")
    assert endpoint_grader("default", tmp_path)([ITEM])[0].grade == "incorrect"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{second.url}/other")
    endpoint_grader("default", tmp_path)([ITEM])
    assert [path for path, _ in second.seen] == ["/v1/chat/completions", "/other/chat/completions"]
    monkeypatch.setattr("calib_nb.judge._FEW_TOKENS", 16)
    endpoint_grader("default", tmp_path)([ITEM])
    assert len(second.seen) == 3, "with another setting it is another grade"


@pytest.mark.parametrize("statuses", [[], [401], [422], [500] * 9, [200] * 9])
def test_the_key_is_in_no_error_and_no_file_though_the_server_quotes_it(spy, tmp_path, statuses):
    import traceback

    spy("", statuses)
    try:
        endpoint_grader("m", tmp_path, backoff=0.001, attempts=2)([ITEM])
        said = ""
    except Exception as error:  # noqa: BLE001  each kind of refusal
        said = "".join(traceback.format_exception(error))
    assert said and KEY not in said
    assert KEY not in "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.slow
def test_a_whole_run_with_an_endpoint_leaves_the_key_nowhere(spy, tmp_path, small, capfd):
    from calib_nb.core import write_jsonl
    from calib_nb.experiment import run_method

    spy()
    model = tmp_path / "model"
    small.model.save_pretrained(model)
    small.tokenizer.save_pretrained(model)
    rows = [{"question": f"Who wrote book {i}?", "answers": [f"author {i}"], "group": f"book {i}"} for i in range(16)]
    data = write_jsonl(tmp_path / "mine.jsonl", rows)
    how = dict(method="baseline", preset="raw", judge="lm", grader="endpoint:m", out=str(tmp_path / "runs"))
    run_method(model=str(model), dataset=str(data), n_train=6, n_calibration=4, n_test=6, **how)
    printed = "".join(capfd.readouterr())
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any("grades-" in file.name for file in files)
    found = [str(file) for file in files if KEY.encode() in file.read_bytes() or KEY in file.name]
    assert found == [] and KEY not in printed


@pytest.mark.parametrize("text", [None, "", "soon", "-3", "nan", "1e9999", "32 Feb", "Wed, 99 Nov 2026 99:99:99 GMT"])
def test_a_retry_after_that_says_nothing_is_none(text):
    assert _seconds(text) is None


def test_a_retry_after_may_be_seconds_or_a_date():
    assert _seconds("40") == 40
    assert _seconds(formatdate(time.time() + 40, usegmt=True)) == pytest.approx(40, abs=2)
    assert _seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_a_server_that_asks_for_a_year_is_asked_again_after_five_minutes(monkeypatch):
    from calib_nb.judge import Grader, Retry, UngradedError

    waits = []
    monkeypatch.setattr("calib_nb.judge.time.sleep", waits.append)

    def ask(prompt):
        raise Retry("busy", 365 * 86400)

    with pytest.raises(UngradedError):
        Grader(ask, "a server", attempts=3)([ITEM])
    assert waits == [300, 300]


# The pins


def test_an_audit_names_what_is_vulnerable_and_says_what_was_not_checked():
    safe, unknown = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    assert report(None, "no route") == (["not checked: the list of vulnerabilities cannot be read (no route)"], 0)
    assert report({"dependencies": [unknown]}, "") == (["not checked: 1 of 1 pins, which the list does not know"], 0)
    lines, code = report({"dependencies": [safe, unknown, bad]}, "")
    assert lines[0] == "c 2: PYSEC-1 (mended in 3)" and code == 1
    assert lines[-1] == "2 pins checked, 1 with known vulnerabilities"
    assert report({"dependencies": [safe]}, "") == (["1 pins checked, 0 with known vulnerabilities"], 0)


def test_an_unknown_name_is_its_own_kind_of_error():
    assert isinstance(unknown_name("a", "b", []), UnknownName)
