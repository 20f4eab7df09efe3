"""What a comparison leaves: tables, figures and readings that can be read again, and published only when asked."""
from pathlib import Path

import pandas as pd
import pytest
from made_up_runs import made_up_folders

from calib_nb import compare, publish
from calib_nb.compare import Row, load_runs, method_table, table_rows
from calib_nb.core import read_json

SFT = Row("sft", "expected")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs(made_up_folders(tmp_path_factory.mktemp("runs")))


def what_is_published(reading):
    names = ("id", "seed", "confidence", "is_correct", "relation", "provenance", "calibrator")
    return [getattr(reading, name) for name in names]


@pytest.mark.slow
def test_what_is_kept_can_be_read_again(runs, tmp_path):
    folder = Path(publish.keep_comparison(runs, tmp_path).split(":")[0])
    written = method_table(runs)
    table = pd.read_csv(folder / "methods.csv", index_col=[0, 1, 2], dtype=str, keep_default_na=False)
    assert table.equals(written.astype(str)) and list(table.index.names) == list(Row._fields)
    assert list(read_json(folder / "runs.json")) == [run.name for run in runs]
    assert (folder / "expected.png").stat().st_size > 10_000
    lines = (folder / "methods.md").read_text().splitlines()
    assert len(lines) == 2 + len(table)
    assert all(line.count(" | ") == table.shape[1] + 2 for line in lines)
    readings = pd.read_csv(folder / "readings.csv.gz", keep_default_na=False)
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


@pytest.mark.slow
def test_a_comparison_is_published_only_when_asked(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "project_root", lambda: tmp_path)
    publish.keep_comparison(runs, "runs")
    assert not (tmp_path / "figures").exists()
    publish.keep_comparison(runs, "runs", "mine")
    kept, figures = next((tmp_path / "runs").iterdir()), tmp_path / "figures"
    for place, name in ((figures, "expected.png"), (figures, "expected.svg"), (figures / "data", "methods.csv")):
        assert (place / f"mine_{name}").read_bytes() == (kept / name).read_bytes()
    packed = (figures / "data/mine_readings.csv.gz").read_bytes()
    assert packed == (kept / "readings.csv.gz").read_bytes()


def test_a_stage_from_the_cache_is_counted_once():
    fresh, cached = {"seconds": 10.0, "from_cache": False}, {"seconds": 10.0, "from_cache": True}
    partly = {"seconds": 3.0, "from_cache": 700}  # answers, as version 0.1 counted them
    more = [{"by_readout": {"probe": {"seconds": 2.0}, "expected": {"seconds": 1.0}}}]
    made = {
        "a": {"stages": {"training": fresh, "readings": {"seconds": 5.0}}, "more": more},
        "b": {"stages": {"training": cached, "answers": partly}, "more": []},
    }
    assert publish.seconds_spent(made) == 10 + 5 + 2 + 1 + 3


def test_what_a_run_was_made_with_names_the_code_of_each_stage(runs):
    made = publish.made_with(runs)
    assert list(made) == [run.name for run in runs]
    assert made[runs[0].name]["stages"]["training"]["code"] == "made-up"
    assert made[runs[0].name]["parameters"]["seed"] == 0 and made[runs[0].name]["more"] == []
