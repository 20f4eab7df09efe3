"""Whether the original's pattern appears, on made-up runs that have loaded no model."""
import numpy as np
import pandas as pd
import pytest

from calib_nb.compare import made_up_run
from calib_nb.core import finished_run, write_jsonl
from calib_nb.publish import published_readings
from calib_nb.replication import _pattern_message, keep_replication, original_figure, original_pattern, replication_plan
from calib_nb.resampling import made_up_readings

N = 200


def made_up(out, method, model="one", readable=0, probability=None, **options):
    "A run of whose texts some state 0.9 where the original does not ask; probabilities where it has that readout."
    parameters = {"original": "repository", "model": model}
    folder = made_up_run(out, method, parameters=parameters, n=N, **options)
    common = dict(method=method, split="train", seed=0)
    texts = made_up_readings(N, says=lambda chance: np.full(N, 0.5), readout="verbalized", **common)
    for i, r in enumerate(texts):
        r.confidence, r.provenance = (0.9, "parsed") if i < readable else (0.5, "filled")
    more = made_up_readings(N, says=lambda c: np.full(N, probability or 0), readout="normalized_probability", **common)
    write_jsonl(folder / "original_repository.jsonl", texts + (more if probability else []))
    return folder


def test_what_cannot_be_read_gets_one_error_however_well_the_model_knows(tmp_path):
    folders = [made_up(tmp_path, "baseline", says=lambda c: np.full(len(c), 0.3)), made_up(tmp_path, "sft")]
    frame = original_pattern(folders)
    expected = abs(0.5 - frame.right)
    assert frame.RMS.to_list() == pytest.approx(expected.to_list()) == frame["predicted RMS"].to_list()
    assert frame.AUROC[0] == 0.5 and frame["AUROC low"][1] > 0.6, "an honest evaluation tells them apart"
    assert _pattern_message(frame).startswith("As the original evaluated, all models print |0.5 - accuracy|. ")


def test_a_tenth_of_readable_texts_breaks_the_pattern_and_the_message_says_so(tmp_path):
    frame = original_pattern([made_up(tmp_path, "baseline"), made_up(tmp_path, "sft", readable=20)])
    assert list(frame.unreadable) == [1, 0.9]
    assert abs(frame.RMS[1] - frame.RMS[0]) > 0.005
    assert _pattern_message(frame).startswith("As the original evaluated, 1 of 2 models print |0.5 - accuracy|. ")


def test_the_evaluation_by_probability_has_columns_of_its_own(tmp_path):
    frame = original_pattern([made_up(tmp_path, "implicit", probability=0.68), made_up(tmp_path, "sft")])
    assert frame["mean probability"][0] == pytest.approx(0.68) and np.isnan(frame["mean probability"][1])
    assert frame["RMS by probability"][0] == pytest.approx(0.68 - frame.right[0])


def test_several_models_are_planned_before_anything_runs():
    names = {"models": "one/a, two/b", "methods": "baseline,sft", "seeds": "0,1", "original": "document", "pd": pd}
    plan = replication_plan(names)
    runs = [("baseline", 0), ("sft", 0), ("sft", 1)]
    expected = [(model, *run) for model in ("one/a", "two/b") for run in runs]
    assert [(p["model"], p["method"], p["seed"]) for p in plan] == expected
    assert {p["original"] for p in plan} == {"document"}
    with pytest.raises(ValueError, match="unknown evaluation of the original ''"):
        replication_plan({**names, "original": ""})
    with pytest.raises(ValueError, match="parameter 'models' names none"):
        replication_plan({**names, "models": ""})
    with pytest.raises(ValueError, match="unknown parameter 'model'. Did you mean 'models'"):
        replication_plan({**names, "model": "one/a"})
    with pytest.raises(ValueError, match="unknown parameter 'n_trian'. Did you mean 'n_train'"):
        replication_plan({**names, "n_trian": 3})


def test_a_publication_holds_table_figure_and_the_readings_that_they_are_from(tmp_path):
    folders = [made_up(tmp_path, "baseline", "one"), made_up(tmp_path, "sft", "two", probability=0.6)]
    frame = original_pattern(folders)
    keep_replication(folders, frame, tmp_path / "kept", str(tmp_path / "published"))
    files = {file.name for file in (tmp_path / "published").iterdir()}
    assert files == {"pattern.csv", "pattern.png", "pattern.svg", "readings.csv.gz", "runs.json"}
    own = published_readings(tmp_path / "published/readings.csv.gz", "train", place="two")
    assert {row.readout: len(rows) for row, rows in own.items()} == {"verbalized": N, "normalized_probability": N}
    test = published_readings(tmp_path / "published/readings.csv.gz", place="one")
    assert sum(map(len, test.values())) == len([r for r in finished_run(folders[0]).readings if r.split == "test"])


def test_the_figure_has_a_line_for_each_run_and_its_message_as_title(tmp_path):
    frame = original_pattern([made_up(tmp_path, "baseline"), made_up(tmp_path, "sft")])
    figure = original_figure(frame)
    assert figure.get_suptitle() == _pattern_message(frame)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["one, baseline", "one, sft"]
    seeds = original_figure(pd.concat([frame, frame.iloc[1:].assign(seed=1)], ignore_index=True))
    names = ["one, baseline, seed 0", "one, sft, seed 0", "one, sft, seed 1"]
    assert [t.get_text() for t in seeds.axes[0].get_yticklabels()] == names
