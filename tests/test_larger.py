"""Published predictions of larger models: fetched whole or not at all, read as their authors meant."""
from hashlib import sha256
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SHARED, cells
from servers import Reply, Server

from calib_nb import larger
from calib_nb.core import RecordError, UnknownName, write_json
from calib_nb.larger import LargerModels, fetch_predictions

DATA = SHARED / "predictions"
on_real_files = pytest.mark.skipif(not (DATA / "atlas").is_dir(), reason="published predictions are not here")


# ---- Fetching


@pytest.fixture
def web(tmp_path, monkeypatch):
    "A server with three files of a table of its own: `(address, what it was asked for, its folder)`."
    contents = {"first": b"one\n", "a second (2)": b"two\n", "third": b"three\n"}
    table = []
    for name, content in contents.items():
        table.append(larger._File("them/theirs", "c0ffee", f"data/{name}.csv", sha256(content).hexdigest(), name, ""))
        file = tmp_path / "web/them/theirs/c0ffee/data" / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    monkeypatch.setattr(larger, "_published_files", lambda: table)
    asked = []

    def reply(request):
        asked.append(request.path)
        file = tmp_path / "web" / unquote(request.path).lstrip("/")
        return Reply(file.read_bytes()) if file.is_file() else Reply(status=404)

    server = Server(reply)
    yield server.url, asked, tmp_path / "web/them/theirs/c0ffee/data"
    server.close()


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_all_files_are_fetched_under_their_names_and_none_is_fetched_twice(web, tmp_path):
    address, asked, _ = web
    place = fetch_predictions(tmp_path / "here", address)
    assert place == tmp_path / "here" and names_in(place) == ["a second (2)", "first", "third"]
    assert (place / "a second (2)").read_bytes() == b"two\n"
    before = list(asked)
    fetch_predictions(tmp_path / "here", address)
    assert asked == before


def test_another_file_under_the_name_is_refused_and_leaves_nothing(web, tmp_path):
    address, _, served = web
    (served / "first.csv").write_bytes(b"one, changed\n")
    with pytest.raises(RecordError, match="first.csv: SHA-256 is .* Nothing was kept") as error:
        fetch_predictions(tmp_path / "here", address)
    assert "\n" not in str(error.value) and not (tmp_path / "here").exists()


def test_after_a_file_that_was_absent_the_same_command_goes_on(web, tmp_path):
    address, asked, served = web
    content = (served / "third.csv").read_bytes()
    (served / "third.csv").unlink()
    with pytest.raises(RecordError, match="third.csv: cannot be read"):
        fetch_predictions(tmp_path / "here", address)
    assert names_in(tmp_path / "here") == ["a second (2)", "first"]
    (served / "third.csv").write_bytes(content)
    asked.clear()
    fetch_predictions(tmp_path / "here", address)
    assert names_in(tmp_path / "here")[-1] == "third" and {"first" in path for path in asked} == {False}


def test_a_file_in_its_place_with_another_hash_is_never_overwritten(web, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/first").write_text("my notes")
    with pytest.raises(RecordError, match="not the file that was published .* Delete it"):
        fetch_predictions(tmp_path / "here", web[0])
    assert (tmp_path / "here/first").read_text() == "my notes"


def test_a_server_that_is_not_there_is_named(web, tmp_path):
    with pytest.raises(RecordError, match="127.0.0.1:9/them/theirs.*cannot be read"):
        fetch_predictions(tmp_path / "here", "http://127.0.0.1:9")


# ---- The table of files


def test_each_file_has_a_repository_a_commit_a_hash_and_a_name_of_its_own():
    files = larger._published_files()
    assert len({file.name for file in files}) == len({file.sha256 for file in files}) == len(files) == 49
    assert {len(file.sha256) for file in files} == {64} and {len(file.commit) for file in files} == {40}
    assert len({(file.repository, file.commit) for file in files}) == 4
    first = next(file for file in files if file.path.endswith("(1).csv"))
    assert first.address("https://x").endswith("/data/raw/metacognitive_profile_results%20%281%29.csv")


def test_names_of_the_atlas_are_all_different_and_known_sizes_are_of_known_models():
    names = {*larger._ATLAS_NAMES.values(), *larger._LIFEEVAL_NAMES.values(), "Qwen2.5-7B"}
    assert len(larger._ATLAS_NAMES) == len(set(larger._ATLAS_NAMES.values())) == 33
    assert len(larger._LIFEEVAL_NAMES) == 11 and set(larger._BILLIONS) <= names


# ---- A small folder


@pytest.fixture
def little(tmp_path):
    "A folder with PT-CSFT alone: 40 questions in each condition, one of them twice."
    rng = np.random.default_rng(0)
    (tmp_path / "ptcsft").mkdir()
    for size, training, confidence, table, *_ in larger._CONDITIONS:
        said = rng.choice([5.0, 50.0, 95.0], 40)
        right = rng.random(40) < said / 100
        ids = [f"q{i % 39}" for i in range(40)]
        rows = [dict(zip(("question_id", confidence, "correct"), row)) for row in zip(ids, said, right.tolist())]
        name = f"gemma-3-{size.lower()}_{training.replace(' ', '_')}"
        write_json(tmp_path / f"ptcsft/{name}.json", rows)
        write_json(tmp_path / f"ptcsft/gemma-3-{table}.json", printed_values())
    return tmp_path


def printed_values():
    "All that is looked up in files of values, .5 each."
    values = {}
    for *_, accuracy, auroc in larger._CONDITIONS:
        for place in filter(None, (accuracy, auroc)):
            *outer, last = place.split(".")
            inside = values.setdefault(outer[0], {}) if outer else values
            inside[last] = 0.5
    return values


def test_a_folder_with_one_project_has_its_rows_and_says_what_is_absent(little):
    found = LargerModels(little, n_resamples=20)
    assert set(found.values["source"]) == {"PT-CSFT"} and len(found.values) == 7
    assert set(found.values["n"]) == {40}, "a question that stands twice counts twice"
    states = found.files()
    assert states.loc["ptcsft", "another version"] == 11 and states.loc["atlas", "absent"] == 34


def test_a_printed_value_that_is_not_ours_shows_its_difference(little):
    beside = LargerModels(little, n_resamples=20).published()
    assert len(beside) == 13 and set(beside["published"]) == {0.5}
    assert np.allclose(beside["difference"], (beside["here"] - 0.5).abs()) and beside["difference"].max() > 0.1


def test_what_is_published_lies_in_one_folder_and_nothing_is_written_unasked(little, tmp_path):
    found = LargerModels(little, n_resamples=20)
    assert found.keep(found.figure(), "") == []
    names = found.keep(found.figure("A title."), tmp_path / "kept")
    assert names == ["larger_models.png", "larger_models.svg", "made_by.txt", "models.csv", "published.csv"]
    assert "seeds: 0; 20 resamples" in (tmp_path / "kept/made_by.txt").read_text()
    assert str(little) not in (tmp_path / "kept/made_by.txt").read_text()


def test_a_folder_without_any_of_it_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(RecordError, match="none of the folders atlas, .* Give no folder"):
        LargerModels(tmp_path).values  # noqa: B018
    (tmp_path / "rlcr_7b").mkdir()
    with pytest.raises(RecordError, match="no file 'rlcr_7b/commonsenseqa.arrow'. Leave the folder empty"):
        LargerModels(tmp_path).values  # noqa: B018


# ---- The real files


@pytest.fixture(scope="module")
def real():
    return LargerModels(DATA, n_resamples=20)


@on_real_files
@pytest.mark.slow
def test_each_value_that_the_four_projects_printed_is_reproduced(real):
    beside = real.published()
    assert beside.groupby("source").size().to_dict() == {"LifeEval": 33, "PT-CSFT": 13, "RLCR": 25, "atlas": 38}
    worst = beside.groupby("source")["difference"].max()
    assert worst.drop("PT-CSFT").max() < 1e-12 and worst["PT-CSFT"] < 5.1e-5, "it prints some to four decimals"


@on_real_files
@pytest.mark.slow
def test_the_published_table_is_what_the_files_give(real):
    kept = pd.read_csv(ROOT / "figures/larger_models/models.csv")
    for column in ("n", "accuracy", "distinct values", "modal share", "Brier skill", "AUROC"):
        assert np.allclose(kept[column], real.values[column], atol=1e-5), column


def test_a_model_or_a_project_that_is_not_known_is_said(tmp_path):
    with pytest.raises(RecordError, match="raw: model 'them/theirs-2' is not known here. Leave the folder empty"):
        larger._known_name(larger._ATLAS_NAMES, "them/theirs-2", "raw")
    models = LargerModels(tmp_path)
    models.values = pd.DataFrame({"source": ["atlas"]})
    with pytest.raises(UnknownName, match="unknown project 'Atlas'. Did you mean 'atlas'"):
        models.table("Atlas")


# ---- What the page says, against what is committed


@pytest.fixture(scope="module")
def kept():
    values = pd.read_csv(ROOT / "figures/larger_models/models.csv")
    return values[values["readout"] == "stated"].set_index(["source", "model", "training"])


def test_the_counts_of_the_page_are_those_of_the_table(kept):
    released = kept[kept.index.get_level_values("training").isin(["as released", "before"])]
    collapsed = released[released["modal share"] >= 0.8].index.get_level_values("model")
    expected = ["Gemini 2.5 Pro", "Gemini 3.1 FLite", "Gemini-2.5-Flash", "Gemma 3 1B", "Gemma 3 4B"]
    assert len(released) == 33 and sorted(collapsed) == expected
    assert released["modal share"].max() < 1
    low = released.index[released["most frequent"] < 0.9]
    assert list(low.get_level_values("model")) == ["GPT-oss-120B"]
    assert (released["distinct values"].min(), released["distinct values"].max()) == (5, 45)
    assert (released["Brier skill high"] < 0).sum() == 20 and (released["Brier skill low"] > 0).sum() == 5
    assert kept.index.get_level_values("source").value_counts()["atlas"] == 19


def test_the_numbers_of_training_and_task_in_the_page_are_those_of_the_table(kept):
    auroc, skill, accuracy = (kept[column].round(2) for column in ("AUROC", "Brier skill", "accuracy"))
    large, small = ("PT-CSFT", "Gemma 3 12B"), ("PT-CSFT", "Gemma 3 4B")
    assert kept.loc[(*large, "shuffled targets"), "modal share"] == 0.999
    assert kept.loc[(*small, "shuffled targets"), "distinct values"] == 1
    assert (auroc[(*large, "before")], auroc[(*large, "sampled targets")]) == (0.68, 0.54)
    assert (skill[(*large, "before")], skill[(*large, "probe targets")]) == (-0.24, 0.04)
    assert (skill[(*small, "before")], skill[(*small, "sampled targets")]) == (-0.69, 0.18)
    lost = accuracy[(*large, "before")] - accuracy[(*large, "probe targets")]
    also = accuracy[(*small, "before")] - accuracy[(*small, "sampled targets")]
    assert 0.065 < lost < 0.085 and 0.065 < also < 0.085
    assert round(kept.loc[("RLCR", "Qwen2.5-7B", "RLCR"), "mean confidence"], 2) == 0.61
    gemmas = [auroc["atlas", f"Gemma 3 {size}", "as released"] for size in ("1B", "4B", "12B", "27B")]
    assert gemmas == [0.5, 0.53, 0.5, 0.57] and auroc["atlas", "Gemma 4 31B", "as released"] == 0.77
    assert auroc["atlas", "GPT-oss-120B", "as released"] == 0.53
    assert auroc["atlas", "DeepSeek-R1", "as released"] == 0.77
    assert auroc["LifeEval", "DeepSeek-R1", "as released"] == 0.61


def test_the_rank_correlations_of_the_page_are_those_of_the_table(kept):
    sized = kept.loc[["atlas"]].dropna(subset="billions")
    by_size = sized[["billions", "accuracy", "AUROC"]].corr("spearman")["billions"].round(2)
    assert len(sized) == 11 and by_size.to_dict() == {"billions": 1.0, "accuracy": 0.85, "AUROC": 0.72}


def test_the_values_that_the_authors_printed_lie_beside_ours():
    beside = pd.read_csv(ROOT / "figures/larger_models/published.csv")
    assert len(beside) == 109 and beside["difference"].max() < 5.1e-5
    assert (beside["difference"] < 1e-12).sum() > 95


def test_the_page_says_nothing_of_where_the_files_lay():
    text = str(cells(ROOT / "nbs/larger_models.ipynb"))
    assert str(SHARED) not in text and "shared/data" not in text
