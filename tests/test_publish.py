"""What a comparison leaves: tables, figures and readings that can be read again, and published only when asked."""

from dataclasses import replace

import pandas as pd
import pytest
from made_up_runs import made_up_folders

from calib_nb import compare, publish
from calib_nb.compare import Row, load_runs, method_table, table_rows
from calib_nb.core import read_json, write_json
from calib_nb.inference import as_text, metric_card
from calib_nb.resampling import made_up_readings

SFT = Row("sft", "expected")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs(made_up_folders(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def kept(runs, tmp_path_factory):
    "The folder of a comparison that nobody asked to publish, in a project of its own."
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "project_root", lambda: root)
        publish.keep_comparison(runs, "runs")
    [folder] = (root / "runs").iterdir()
    return folder


def what_is_published(reading):
    names = ("id", "seed", "confidence", "is_correct", "relation", "provenance", "calibrator")
    return [getattr(reading, name) for name in names]


@pytest.mark.slow
def test_what_is_kept_can_be_read_again(runs, kept):
    written = method_table(runs)
    table = pd.read_csv(kept / "methods.csv", index_col=[0, 1, 2], dtype=str, keep_default_na=False)
    assert table.equals(written.astype(str)) and list(table.index.names) == list(Row._fields)
    assert list(read_json(kept / "runs.json")) == [run.name for run in runs]
    assert (kept / "expected.png").stat().st_size > 10_000
    lines = (kept / "methods.md").read_text().splitlines()
    assert len(lines) == 2 + len(table)
    assert all(line.count(" | ") == table.shape[1] + 2 for line in lines)
    readings = pd.read_csv(kept / "readings.csv.gz", keep_default_na=False)
    assert set(map(tuple, readings[[*Row._fields]].to_numpy())) == set(table_rows(runs))


@pytest.mark.slow
def test_readings_of_both_splits_are_kept(runs, tmp_path):
    publish.keep_files(tmp_path, {}, {}, publish.readings_frame(publish._all_readings(runs)))
    for split in ("calibration", "test"):
        back = publish.published_readings(tmp_path / "readings.csv.gz", split)[SFT]
        ours = [r for run in runs[:3] for r in run.readings if (r.readout, r.split) == ("expected", split)]
        assert [what_is_published(r) for r in back] == [what_is_published(r) for r in ours]
        assert {r.split for r in back} == {split}


@pytest.mark.slow
def test_ids_groups_and_relations_that_look_like_numbers_stay_text(tmp_path):
    readings = [replace(r, id=f"0{i}", group=str(i % 2), relation="0") for i, r in enumerate(made_up_readings(6))]
    publish.readings_frame({SFT: readings}).to_csv(tmp_path / "readings.csv", index=False)
    [told] = publish.published_readings(tmp_path / "readings.csv", readings[0].split).values()
    assert [(r.id, r.group, r.relation) for r in told] == [(r.id, r.group, r.relation) for r in readings]


def test_published_readings_come_back_as_they_were(runs, tmp_path):
    publish.keep_files(tmp_path, {}, {}, publish.readings_frame(publish._all_readings(runs)))
    back, sets = publish.published_readings(tmp_path / "readings.csv.gz"), table_rows(runs)
    assert back.keys() == sets.keys()
    for row, readings in sets.items():
        assert [what_is_published(r) for r in back[row]] == [what_is_published(r) for r in readings]


def test_the_untrained_model_is_kept_without_a_run_of_its_own(runs):
    rows = publish._all_readings(runs[:1])
    assert rows[Row("baseline", "expected")] == [r for r in runs[0].baseline_readings if r.readout == "expected"]


def test_readings_of_one_place_can_be_asked_for(runs, tmp_path):
    rows = {SFT: compare.test_readings(runs, "expected")[SFT]}
    here, there = (publish.readings_frame(rows, place=place) for place in ("here", "there"))
    publish.keep_files(tmp_path, {}, {}, pd.concat([here, there]))
    back = publish.published_readings(tmp_path / "readings.csv.gz", place="there")
    assert list(back) == [SFT] and len(back[SFT]) == len(rows[SFT])
    assert not any(r.extra for r in back[SFT])
    with pytest.raises(ValueError, match=r"readings.csv.gz has no column 'town'. It has place, method"):
        publish.published_readings(tmp_path / "readings.csv.gz", town="there")


@pytest.mark.slow
def test_a_comparison_is_published_only_when_asked(runs, kept, tmp_path, monkeypatch):
    assert not (kept.parent.parent / "figures").exists()
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    publish.keep_comparison(runs, "runs", "mine")
    mine = tmp_path / "figures/mine"
    assert {file.name for file in mine.iterdir()} == {file.name for file in kept.iterdir()}
    for name in ("expected.png", "expected.svg", "methods.csv", "readings.csv.gz"):
        assert (mine / name).read_bytes() == (kept / name).read_bytes()


def test_a_publication_that_is_made_again_gets_no_file_back_that_was_taken_out(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    frame, texts = pd.DataFrame({"id": ["q"]}), {"a.txt": "a", "b.txt": "b", "runs.json": {}}
    publish.keep_files(tmp_path / "kept", {}, texts, frame, "mine")
    mine = tmp_path / "figures/mine"
    for name in ("b.txt", "runs.json"):
        (mine / name).unlink()
    publish.keep_files(tmp_path / "kept", {}, {**texts, "a.txt": "new"}, frame, "mine")
    assert {file.name for file in mine.iterdir()} == {"a.txt", "runs.json", "readings.csv.gz"}
    assert (mine / "a.txt").read_text() == "new"


def test_one_run_is_published_with_its_figure_and_what_asks_no_model(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    (runs[0].path / "reliability.svg").write_text("drawn")
    names = publish.publish_run(runs[0].path, "one")
    assert set(names) == {"sft.svg", "readings.csv.gz", "runs.json"}
    assert (tmp_path / "figures/one/sft.svg").read_text() == "drawn"
    rows = publish.published_readings(tmp_path / "figures/one/readings.csv.gz")
    assert {SFT, Row("baseline", "expected"), Row("knn", "question_only")} <= set(rows)
    assert publish.publish_run(runs[0].path, "") == []


def test_who_made_a_publication_is_noted(runs, tmp_path, monkeypatch):
    given = {**publish._defaults("compare"), "publish": "mine", "seeds": 0, "options": {"dpo": {"beta": 0.2}}}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(publish, "_publication_folder", lambda name: tmp_path / name)
    made = {name: {**about, "versions": {"calib_nb": "0.2"}} for name, about in publish.made_with(runs).items()}
    made = {name: {**about, "parameters": {**about["parameters"], "split_seed": 0}} for name, about in made.items()}
    write_json(tmp_path / "mine/runs.json", made)
    written = publish.note_command("mine", "compare", given).read_text()
    lines = dict(line.split(": ", 1) for line in written.splitlines())
    ran = "OMP_NUM_THREADS=1 papermill nbs/compare.ipynb runs/mine.ipynb -p seeds 0 -p publish mine"
    assert lines["command"] == ran + """ -y '{"options": {"dpo": {"beta": 0.2}}}'"""
    assert lines["seeds"] == "0, 1, 2; split_seed 0" and lines["code"].startswith("calib_nb 0.2")
    assert lines["runs"].startswith("5; ")
    assert publish.note_command("", "compare", given) is None


def test_a_stage_from_the_cache_is_counted_once():
    fresh, cached = {"seconds": 10.0, "from_cache": False}, {"seconds": 10.0, "from_cache": True}
    partly = {"seconds": 3.0, "from_cache": 700}  # answers, as version 0.1 counted them
    more = [{"by_readout": {"probe": {"seconds": 2.0}, "expected": {"seconds": 1.0}}}]
    made = {
        "a": {"stages": {"training": fresh, "readings": {"seconds": 5.0}}, "more": more},
        "b": {"stages": {"training": cached, "answers": partly}, "more": []},
    }
    assert publish.seconds_spent(made) == 10 + 5 + 2 + 1 + 3


def test_what_a_run_was_made_with_names_no_folder_of_the_machine(runs, monkeypatch):
    root = publish.project_root()
    given = {**runs[0].parameters, "out": f"{root}/runs/x", "judged": f"{root}/a.jsonl"}
    monkeypatch.setitem(runs[0].manifest, "parameters", given)
    parameters = publish.made_with(runs[:1])[runs[0].name]["parameters"]
    assert (parameters["out"], parameters["judged"]) == ("runs/x", "a.jsonl")


def test_what_a_run_was_made_with_names_the_code_of_each_stage(runs):
    made = publish.made_with(runs)
    assert list(made) == [run.name for run in runs]
    assert made[runs[0].name]["stages"]["training"]["code"] == "made-up"
    assert made[runs[0].name]["parameters"]["seed"] == 0 and made[runs[0].name]["more"] == []


# The leaderboard


def board_of(folder, runs, **options):
    publish.readings_frame(publish._all_readings(runs), model="m").to_csv(folder / "readings.csv.gz", index=False)
    (folder / "made_by.txt").write_text("code: calib_nb 0.2.0, commit 1a2b3c4\ndate: 2026-01-31\n")
    return publish.leaderboard(folder, n_resamples=50, **options)


def test_a_leaderboard_has_the_scores_of_its_readings_the_best_first(runs, tmp_path):
    board = board_of(tmp_path, runs, least_seeds=1)
    skills = [float(text.split(" ")[0]) for text in board["Brier skill"] if text]
    assert skills == sorted(skills, reverse=True) and len(board) == len(publish._all_readings(runs))
    told = publish.published_readings(tmp_path / "readings.csv.gz", model="m")
    constant = told[Row("training_accuracy", "constant")][0].confidence
    card = metric_card(told[SFT], constant, 50, names=["brier_skill_score"])
    [shown] = board[(board.method == "sft") & (board.readout == "expected")].to_dict("records")
    assert shown["Brier skill"] == as_text(card["brier_skill_score"], 2)
    assert (shown["date"], shown["commit"]) == ("2026-01-31", "1a2b3c4")


@pytest.mark.parametrize("code, commit", [
    ("calib_nb 0.2.0", ""),
    ("calib_nb 0.2.0, commit 1a2b, with changes since", "1a2b"),
])
def test_a_leaderboard_names_a_commit_or_none(tmp_path, code, commit):
    (tmp_path / "made_by.txt").write_text(f"code: {code}\n")
    assert publish._made_by(tmp_path) == {"date": "", "commit": commit}


def test_a_training_needs_seeds_to_be_on_a_leaderboard_and_what_is_not_trained_needs_none(runs, tmp_path):
    board = board_of(tmp_path, runs, least_seeds=9)
    assert "sft" not in set(board.method) and {"baseline", "knn", "training_accuracy"} <= set(board.method)


def test_a_leaderboard_without_a_constant_forecast_is_refused(runs, tmp_path):
    board_of(tmp_path, runs)
    rows = pd.read_csv(tmp_path / "readings.csv.gz", keep_default_na=False)
    rows[rows.readout != "constant"].to_csv(tmp_path / "readings.csv.gz", index=False)
    with pytest.raises(KeyError, match="training_accuracy"):
        publish.leaderboard(tmp_path, n_resamples=50)
