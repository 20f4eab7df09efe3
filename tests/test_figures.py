"""What is published: in folders that say who made them, explained column by column, and read by something."""
import importlib.util
import re

import pytest
from conftest import ROOT, code_cells

from calib_nb.core import read_json


def script(path):
    "A script of the repository as a module."
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


describe, reproduce = script(ROOT / "figures/describe.py"), script(ROOT / "benchmarks/reproduce.py")
PUBLICATIONS = describe.publications()


def test_each_file_is_in_the_folder_of_a_publication_that_says_who_made_it():
    folders = [path for path in (ROOT / "figures").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert sorted(folders) == PUBLICATIONS
    loose = {path.name for path in (ROOT / "figures").iterdir() if path.is_file() and path.suffix != ".py"}
    assert loose == {"README.md"}


def test_the_readme_of_the_figures_is_current():
    assert (ROOT / "figures/README.md").read_text(encoding="utf-8") == describe.readme(), "run `make figures`"


def test_every_published_file_is_read_by_something():
    assert describe.unread() == [], "nothing reads these: delete them, or read them"


def test_a_file_is_read_where_its_name_or_an_f_string_of_it_stands(tmp_path):
    code = 'name = "a"\npaths = [f"{name}/runs.csv", "figures/b/table.csv", f"{name}.png"]\n'
    patterns = {p for p in describe.strings_of(code) if describe.names_a_file(p)}
    assert any(re.fullmatch(p, "anything/runs.csv") for p in patterns)
    assert any(re.fullmatch(p, "figures/b/table.csv") for p in patterns)
    assert not any(re.fullmatch(p, "b/other.png") for p in patterns)


@pytest.mark.parametrize("folder", PUBLICATIONS, ids=lambda path: path.name)
def test_who_made_it_names_a_command_of_this_repository(folder):
    made = reproduce.made_by(folder.name)
    assert {"command", "code"} <= set(made)
    path = re.search(r"(?:nbs|benchmarks|figures)/\S+\.(?:ipynb|py)", made["command"])[0]
    assert (ROOT / path).exists()
    if path.startswith("nbs"):
        tagged = [cell for cell in read_json(ROOT / path)["cells"] if cell["metadata"].get("tags") == ["parameters"]]
        known = {name for cell in tagged for name in re.findall(r"^(\w+) = ", "".join(cell["source"]), re.M)}
        assert set(re.findall(r" -p (\w+) ", made["command"])) <= known | {"publish"}


def test_seeds_are_those_of_the_runs():
    for folder in PUBLICATIONS:
        if (folder / "runs.json").exists():
            parts = read_json(folder / "runs.json").values()
            runs = [run for part in parts for run in ([part] if "parameters" in part else part.values())]
            seeds = ", ".join(map(str, sorted({run["parameters"]["seed"] for run in runs})))
            assert reproduce.made_by(folder.name)["seeds"].startswith(f"{seeds}; split_seed 0")


def test_results_names_the_same_commands():
    text = " ".join("".join(cell["source"]) for cell in read_json(ROOT / "nbs/results.ipynb")["cells"])
    commands = re.findall(r"papermill nbs[^`]+", re.sub(r"\s+", " ", text))
    published = [command.strip() for command in commands if "-p publish" in command]
    made = {folder.name: reproduce.made_by(folder.name)["command"] for folder in PUBLICATIONS}
    for command in published:
        name = re.search(r"-p publish (\w+)", command)[1]
        assert made[name].endswith(command)
    assert len(published) >= 7


# What was made again


def published(name):
    return reproduce.headlines(ROOT / f"figures/{name}/readings.csv.gz")


def test_headline_numbers_are_those_of_the_table():
    numbers = published("compare").loc[("", "test", "sft", "expected", "")]
    assert numbers.round(3).to_dict() == {"right": 0.363, "Brier skill": 0.064, "AUROC": 0.658}


def test_headline_numbers_know_places_and_withhold_what_few_confidences_say():
    assert set(published("transfer").index.get_level_values("place")) >= {"facts", "PopQA"}
    silent = published("compare").loc[("", "test", "baseline", "verbalized", "")]
    assert silent["right"] > 0 and silent[["Brier skill", "AUROC"]].isna().all()


def test_numbers_within_their_tolerance_agree_and_others_are_named():
    table, tolerances = published("run_method"), reproduce.tolerances_of("run_method")
    assert reproduce.differences(table, table, tolerances).empty
    near, far = table.copy(), table.copy()
    row = ("", "test", "sft", "expected", "")
    near.loc[row, "AUROC"] += 0.9 * tolerances["AUROC"]
    far.loc[row, "AUROC"] += 1.1 * tolerances["AUROC"]
    assert reproduce.differences(table, near, tolerances).empty
    assert list(reproduce.differences(table, far, tolerances).index) == [(*row, "AUROC")]


def test_a_row_that_only_one_side_has_differs():
    table, tolerances = published("run_method"), reproduce.tolerances_of("run_method")
    fewer = table.drop(index=[("", "test", "sft", "expected", "")])
    for sides in ((table, fewer), (fewer, table)):
        assert len(reproduce.differences(*sides, tolerances)) == 3


def test_the_exit_code_says_whether_all_agrees(tmp_path, capsys):
    text, compare = ROOT / "figures/text", ROOT / "figures/compare"
    assert reproduce.main("text", text) == 0
    assert "rows agree" in capsys.readouterr().out
    assert reproduce.main("text", compare) == 1
    assert "numbers differ" in capsys.readouterr().out
    assert reproduce.main("facts") == 2


def test_a_command_is_turned_to_another_folder(tmp_path):
    words = reproduce.command_into(reproduce.made_by("gemma")["command"], tmp_path)
    assert "publish" not in words and words[-3:] == ["-p", "out", str(tmp_path)]
    assert str(tmp_path / "executed.ipynb") in words and words[0] == "OMP_NUM_THREADS=1"


def test_publications_are_made_by_notebooks_that_note_their_command():
    for name in ("compare", "matrix", "transfer"):
        source = code_cells(ROOT / f"nbs/{name}.ipynb")[-1]
        assert source == f'note_command(publish, "{name}", given)'
