"""The page about the original's own model, and the script that rents a GPU for it."""
import ast
import contextlib
import importlib.util
import json
import re
import time

import pytest
from conftest import FEW, ROOT, cells, run_here

SCRIPT = ROOT / "benchmarks/modal_run.py"
PAGE = "\n".join("".join(cell["source"]) for cell in cells(ROOT / "nbs/paper_recipe.ipynb"))


def constants():
    "name -> value of the constants of the script, which is not imported: that takes Modal's package."
    found = {}
    for node in ast.parse(SCRIPT.read_text()).body:
        if isinstance(node, ast.Assign):
            with contextlib.suppress(ValueError):
                found[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    return found


def parameters_of(command):
    "name -> value of a papermill command."
    return dict(re.findall(r"-p (\w+) (\S+)", command.replace("\\\n", " ")))


def test_script_page_and_readme_have_one_command():
    script = constants()
    given = {name: str(value) for name, value in {**script["PAPER"], **script["SIZES"]}.items()}
    on_page = re.search(r"papermill nbs/run_method.ipynb .*?n_test \d+", PAGE, re.S)[0]
    in_readme = re.search(r"papermill nbs/run_method.ipynb runs/paper.ipynb .*", (ROOT / "README.md").read_text())[0]
    assert parameters_of(on_page) == parameters_of(in_readme) == given


def test_the_prices_of_script_and_page_are_the_same():
    names = run_here("paper_recipe")
    script = constants()
    assert names["usd_an_hour"][script["GPU"].partition("-")[0]] == script["USD_AN_HOUR"]
    assert set(names["gpus"].index) == set(names["usd_an_hour"])


def test_what_takes_longer_costs_more_and_a_start_costs_nothing_but_itself():
    names = run_here("paper_recipe", usd_an_hour={"L4": 1.0, "A100": 2.0, "H100": 4.0}, seconds_to_start=3600)
    hours, usd = names["cost"](names["one_run"], "gemma-2-2b-it", "A100")
    assert 1 < hours < 1.1 and usd == 2 * hours
    nothing = names["work"](0, 0)
    assert names["cost"](nothing, "gemma-2-2b-it", "L4") == (1.0, 1.0)
    assert (names["expected"]["all: USD"] > names["expected"]["sft: USD"]).all()


def test_the_original_takes_what_its_document_says_by_the_two_numbers_that_come_from_it():
    names = run_here("paper_recipe")
    layers = names["models"].layers["gemma-2-2b-it"]
    assert names["seconds_a_layer"] * layers * 1000 * 100 == pytest.approx(2000)
    assert names["training_seconds_a_layer"] * layers * 750 == pytest.approx(225.96)


def test_the_tokens_are_those_that_were_counted():
    tokens = run_here("paper_recipe")["tokens"]
    runs = json.loads((ROOT / "figures/paper/runs.json").read_text()).values()
    trained = next(run for run in runs if run["parameters"]["method"] == "sft")
    p, stages = trained["parameters"], trained["stages"]
    rows = p["n_train"] * trained["preset"]["epochs"]
    read = stages["readings"]["by_readout"]["verbalized"]["tokens"]
    assert tokens["training"] == pytest.approx(stages["training"]["tokens"] / rows, rel=0.1)
    assert tokens["reading"] == pytest.approx(read / (p["n_calibration"] + p["n_test"]), rel=0.1)


# The script


@pytest.fixture
def script():
    "The script as a module, without an account."
    pytest.importorskip("modal")
    spec = importlib.util.spec_from_file_location("modal_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Played:
    "Modal's part: what was uploaded, called and fetched, in order, with what was printed before."

    def __init__(self, script, capsys, monkeypatch):
        self.log, self.said = [], ""
        self.capsys = capsys
        for name in ("volume", "run_there"):
            monkeypatch.setattr(script, name, self)
        monkeypatch.setattr(script.subprocess, "run", lambda command, check: self.log.append(("fetch", *command[3:])))

    @contextlib.contextmanager
    def batch_upload(self, force):
        yield self

    def put_file(self, path, place):
        self.log.append(("put", path.name, place))

    def remote(self, parameters, until):
        self.said = self.capsys.readouterr().out
        self.log.append(("run", parameters, until))
        return "a-run"


@pytest.fixture
def played(script, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return Played(script, capsys, monkeypatch)


def test_limit_and_price_are_printed_before_it_starts_and_the_folder_is_fetched(script, played, tmp_path):
    script.main(out="mine")
    (_, parameters, until), fetched = played.log
    assert parameters == {**script.PAPER, **script.SIZES, "out": "/runs"}
    assert until == pytest.approx(time.time() + 3600 * script.HOURS, abs=60)
    assert f"at most {script.HOURS} h" in played.said
    assert f"at most USD {2 * script.HOURS * script.USD_AN_HOUR:.2f}" in played.said
    assert fetched == ("fetch", "volume", "get", "--force", "calib_nb", "a-run", "mine")
    assert (tmp_path / "mine").is_dir()


def test_files_that_parameters_name_are_uploaded_first(script, played, tmp_path):
    (tmp_path / "mine.jsonl").touch()
    script.main(json.dumps({"judged": "mine.jsonl", "method": "dpo"}))
    put, (_, parameters, _), _ = played.log
    assert put == ("put", "mine.jsonl", "/data/mine.jsonl")
    assert parameters["judged"] == "/runs/data/mine.jsonl" and parameters["method"] == "dpo"
    assert parameters["dataset"] == "simpleqa", "a name of a set is no file"


def test_parameters_that_are_none_cost_nothing(script, played):
    for wrong, said in (("method=dpo", "no JSON"), ('["dpo"]', "no JSON object")):
        with pytest.raises(SystemExit, match=said):
            script.main(wrong)
    assert played.log == []


def test_after_its_time_no_attempt_begins(script, monkeypatch):
    with pytest.raises(TimeoutError, match="goes on where it was"):
        script.run_there.local({}, time.time() - 1)


def test_the_image_has_what_is_pinned(script):
    from constraints import normal, pinned
    from packaging.requirements import Requirement

    pins = {normal(name) for name in pinned((ROOT / "constraints.txt").read_text())}
    assert {normal(Requirement(text).name) for text in script.needed} <= pins
    assert {"torch", "bitsandbytes", "numpy"} <= set(script.needed)


def tiny_gemma(folder):
    "A random model of Gemma 2's architecture, saved as a local folder; tied, it would repeat the last word for ever."
    import torch
    from conftest import byte_level_tokenizer
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from calib_nb.prompts import few_shot_request, training_input

    texts = [few_shot_request("What is it?"), training_input("What is it?")] * 5
    tokenizer = byte_level_tokenizer(texts, vocab_size=600, use_regex=True)
    ids = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id")}
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "tie_word_embeddings": False}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "initializer_range": 0.1}
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(vocab_size=len(tokenizer), bos_token_id=None, **ids, **sizes, **heads))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on_in_its_folder_by_the_same_call(script, tmp_path, monkeypatch):
    tiny_gemma(tmp_path / "gemma")
    rows = [{"question": f"What is {i}?", "model_answer": f"word {i}", "is_correct": i % 2 == 0} for i in range(30)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    places = {"model": "gemma", "judged": "mine.jsonl", "out": "runs"}
    own = {name: str(tmp_path / place) for name, place in places.items()}
    call = {**script.PAPER, **FEW, **own}, time.time() + 3600
    with monkeypatch.context() as taken_away:
        taken_away.setattr("calib_nb.experiment.follow_recipe", interrupt)
        with pytest.raises(KeyboardInterrupt):
            script.run_there.local(*call)
    [folder] = (path.parent for path in tmp_path.glob("runs/*/manifest.json"))
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.jsonl")}
    assert {"judged.jsonl", "baseline_readings.jsonl"} <= set(before)
    assert script.run_there.local(*call) == folder.name
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in folder.glob("*.jsonl")}.items()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"] and manifest["model"]["quantization"] == "nf4"
    monkeypatch.setattr("calib_nb.experiment.load_model", lambda *args: pytest.fail("loaded again"))
    assert script.run_there.local(*call) == folder.name


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_parameters_are_counted_as_the_model_has_them(tmp_path):
    pd = pytest.importorskip("pandas")
    model = tiny_gemma(tmp_path)
    shape = pd.Series({"vocabulary": len(model.get_input_embeddings().weight), "width": 64, "inner": 64, "layers": 2})
    shape = pd.concat([shape, pd.Series({"heads": 2, "kv_heads": 1, "head": 32, "tied": False})])
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert sum(run_here("paper_recipe")["count_parameters"](shape)) == matrices
