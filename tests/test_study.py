"""The study of self-knowledge: its questions keep what the plan promises."""
import hashlib
import shutil
from collections import Counter
from dataclasses import asdict
from importlib.resources import files

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calib_nb.compare import Row
from calib_nb.core import RecordError
from calib_nb.inference import Difference
from calib_nb.publish import published_readings
from calib_nb.questions import _wording, load_questions, split_questions
from calib_nb.resampling import made_up_readings
from calib_nb.study import (
    MODELS,
    Cell,
    contrasts,
    crossed,
    in_order,
    outcome_shares,
    permuted,
    planned_runs,
    read_cells,
    simulated,
    verdict,
)

NEVER_TAUGHT = {"country_currency", "country_border", "symbol_element", "state_largest_city"}
SIZES = {"train": 300, "calibration": 300, "test": 636, "unlabelled": 947}


@pytest.fixture(scope="module")
def splits():
    return split_questions(load_questions("study"), 300, 300, 636, n_unlabelled=947)


def test_the_plan_is_as_it_was_committed_before_any_training():
    data = (ROOT / "nbs/study_plan.ipynb").read_bytes()
    assert hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == "a12a0eedaac8ef893f359ae06ab3e42c37fc0e32"


# The questions


def test_the_splits_have_the_sizes_of_the_plan(splits):
    assert {name: len(part) for name, part in splits.items()} == SIZES
    assert len(load_questions("study")) == sum(SIZES.values())


def test_no_subject_and_no_wording_is_in_two_splits(splits):
    for mark in (lambda q: q.group, _wording, lambda q: q.id):
        seen = [value for part in splits.values() for value in {mark(q) for q in part}]
        assert len(seen) == len(set(seen))


def test_the_test_holds_no_fact_that_was_read_before(splits):
    read = load_questions("facts")
    tested = splits["test"]
    assert not {q.id for q in read} & {q.id for q in tested}
    assert not {_wording(q) for q in read} & {_wording(q) for q in tested}


def test_a_quarter_of_the_test_is_of_four_relations_that_no_other_split_has(splits):
    never = [q for q in splits["test"] if q.relation in NEVER_TAUGHT]
    assert len(never) == 636 / 4 and {q.relation for q in never} == NEVER_TAUGHT
    taught = {q.relation for name, part in splits.items() if name != "test" for q in part}
    assert not taught & NEVER_TAUGHT
    assert {q.relation for q in splits["test"]} == taught | NEVER_TAUGHT


def test_no_relation_is_more_than_a_quarter_of_the_test(splits):
    counts = Counter(q.relation for q in splits["test"])
    assert max(counts.values()) <= 636 / 4


def test_the_first_questions_of_each_split_are_a_mixture(splits):
    for part in splits.values():
        counts = Counter(q.relation for q in part[:100])
        assert max(counts.values()) <= 100 / min(len({q.relation for q in part}), 5)


def test_making_the_questions_again_gives_the_same_bytes():
    for package in ("airportsdata", "ephem", "periodictable", "phonenumbers", "us", "babel", "countryinfo"):
        pytest.importorskip(package)
    names = {}
    for cell in nbformat.read(ROOT / "nbs/make_facts.ipynb", 4).cells:
        if "generator" in cell.metadata.get("tags", []):
            exec(compile(cell.source, cell.id, "exec"), names)
    shipped = (files("calib_nb") / "data/study.jsonl").read_text(encoding="utf-8")
    assert names["facts_text"](names["study_questions"]()) == shipped


# The analysis


def some_cells(**how):
    "Simulated readings of two models, on questions of the study."
    tested = [q for q in load_questions("study") if q.extra["split"] == "test"][::3]
    relations = {q.relation for q in tested}
    rates = {"first": dict.fromkeys(relations, 0.5), "second": dict.fromkeys(relations, 0.4)}
    return simulated(tested, rates, **{"seeds": 2, "gap": 0.1, **how})


def area_by_relation(readings):
    "AUROC of one seed stratified by relation, by counting pairs."
    better = pairs = 0.0
    for relation in {r.relation for r in readings}:
        rows = [r for r in readings if r.relation == relation]
        right = np.array([r.confidence for r in rows if r.is_correct])
        wrong = np.array([r.confidence for r in rows if not r.is_correct])
        better += (right[:, None] > wrong).sum() + 0.5 * (right[:, None] == wrong).sum()
        pairs += len(right) * len(wrong)
    return better / pairs


def counted(cells, keep=lambda r: True):
    "Self minus peer, mean over answers and seeds."
    gaps = []
    for cell, readings in cells.items():
        sign = 1 if cell.reader == cell.answers else -1
        for seed in (0, 1):
            gaps.append(2 * sign * area_by_relation([r for r in readings if r.seed == seed and keep(r)]))
    return np.mean(gaps)


def test_the_contrasts_are_what_counting_pairs_gives():
    cells = some_cells()
    found = contrasts(cells, NEVER_TAUGHT, n_resamples=10)
    one, other = ({r.id: r.is_correct for r in cells[Cell(m, m)]} for m in ("first", "second"))
    assert found["H1"].value == pytest.approx(counted(cells))
    assert found["H2"].value == pytest.approx(counted(cells, lambda r: one[r.id] != other[r.id]))
    assert found["H4"].value == pytest.approx(counted(cells, lambda r: r.relation in NEVER_TAUGHT))
    assert found["H1"].claim == "the method"


def test_hidden_answers_and_distillation_are_compared_where_they_were_run():
    cells = some_cells(seeds=3)
    itself = {cell: readings for cell, readings in cells.items() if cell.reader == cell.answers}
    assert list(contrasts(cells, n_resamples=10)) == ["H1", "H2"]
    for cell, readings in itself.items():
        fewer = [r for r in readings if r.seed < 2]
        cells[cell._replace(method="question_only")] = fewer
        for size in (100, 300, 947):
            cells[cell._replace(method="self_consistency_distill", size=size)] = readings
    found = contrasts(cells, n_resamples=10)
    one = next(cell for cell in cells if cell.method == "question_only")
    assert "H3" not in contrasts({cell: r for cell, r in cells.items() if cell != one}, n_resamples=10)
    assert list(found) == ["H1", "H2", "H3", "H5"]
    assert found["H3"].value == found["H5"].value == 0 and found["H3"].seeds == 2


def test_cells_that_are_missing_or_of_other_questions_are_said():
    readings = {name: made_up_readings(n) for name, n in (("first", 20), ("second", 21))}
    with pytest.raises(ValueError, match="1 questions have no reading of 'first', 'q00020' for one"):
        crossed(readings)
    with pytest.raises(ValueError, match="read by itself: none; by the other: none"):
        contrasts({})


def test_a_method_is_read_whole_or_not_at_all(tmp_path):
    lines = [(cell, seed) for cell, seed in planned_runs() if cell.method in ("question_only", "shuffled")][:-1]
    about = {"readout": "expected", "split": "test", "group": "g", "relation": "r"}
    about |= {"is_correct": True, "confidence": 0.5}
    rows = [{**cell._asdict(), "answers_of": cell.answers, "seed": seed, "id": "q", **about} for cell, seed in lines]
    pd.DataFrame(rows).to_csv(tmp_path / "readings.csv.gz", index=False)
    whole = read_cells(tmp_path / "readings.csv.gz", complete=True)
    assert {cell.method for cell in whole} == {"shuffled"} and len(whole) == 4
    assert len(read_cells(tmp_path / "readings.csv.gz")) == 6


def test_a_table_without_a_column_is_refused(tmp_path):
    (tmp_path / "readings.csv").write_text("reader,is_correct\na,True\n")
    with pytest.raises(RecordError, match="no column 'answers_of'"):
        read_cells(tmp_path / "readings.csv")


def test_the_pilot_of_the_plan_is_what_it_was():
    readings = {}
    for model, name in zip(MODELS, ("compare", "gemma")):
        rows = published_readings(ROOT / f"figures/{name}/readings.csv.gz")[Row("sft", "expected")]
        readings[model] = [r for r in rows if r.seed == 0]
    gap = contrasts(crossed(readings))["H1"]
    assert [round(x, 3) for x in (gap.value, gap.low, gap.high)] == [0.127, 0.039, 0.212]


@given(st.floats(-0.3, 0.3), st.floats(0, 0.3))
def test_each_interval_has_one_outcome(low, width):
    d = Difference("stratified_auroc", low + width / 2, low, low + width, 0.5, 600, 1.0)
    said, high = verdict(d), low + width
    assert (said == "above 0") == (low > 0)
    assert (said == "within") == (low <= 0 and low >= -0.08 and high <= 0.08)
    assert said != "below 0" or high < 0


@given(st.lists(st.sampled_from([(0.01, 0.1), (-0.05, 0.05), (-0.2, -0.1), (np.nan, np.nan)]), min_size=1, max_size=5))
def test_nothing_is_tested_after_the_first_that_was_not_found(ends):
    found = {}
    for i, (low, high) in enumerate(ends):
        found[f"H{i + 1}"] = Difference("stratified_auroc", 0.0, low, high, 0.5, 600, 1.0)
    tested = list(in_order(found).status == "tested")
    before = [all(verdict(d) == "above 0" for d in list(found.values())[:i]) for i in range(len(ends))]
    assert tested == before


@pytest.mark.parametrize("seed", [0, 1])
def test_permuted_outcomes_stay_in_their_relation_and_are_alike_for_both_readers(seed):
    cells = some_cells()
    drawn = permuted(cells, seed)
    for cell, readings in drawn.items():
        assert [r.confidence for r in readings] == [r.confidence for r in cells[cell]]
        before, after = (Counter(r.relation for r in of[cell] if r.is_correct) for of in (cells, drawn))
        assert before == after
        peer = drawn[Cell("first" if cell.reader == "second" else "second", cell.answers)]
        assert {(r.id, r.is_correct) for r in readings} == {(r.id, r.is_correct) for r in peer}
    assert drawn == permuted(cells, seed) != permuted(cells, seed + 1)


def test_power_is_that_of_a_normal_where_seeds_do_not_matter():
    shares = outcome_shares(0.025, 1e-6, seeds=5, gap=0.07, support=100_000)
    assert shares["above 0"] == pytest.approx(stats.norm.cdf(0.07 / 0.025 - 1.96), abs=0.01)
    assert sum(shares.values()) == pytest.approx(1)


def test_no_gap_is_seldom_found_and_its_chances_are_those_of_the_plan():
    shares = outcome_shares(0.025, 0.0375, seeds=10, gap=0.0)
    assert [round(share, 2) for share in shares.values()] == [0.02, 0.61, 0.37]


def test_the_runs_of_the_primary_comparison_come_first_and_are_balanced():
    runs = planned_runs()
    first = runs[:40]
    assert {cell.method for cell, _ in first} == {"sft"} and "sft" not in {cell.method for cell, _ in runs[40:]}
    for place in range(0, 40, 4):
        assert len({cell for cell, _ in first[place : place + 4]}) == 4
        assert len({seed for _, seed in first[place : place + 4]}) == 1


@pytest.mark.slow
def test_the_plan_can_be_made_again(tmp_path):
    from test_analyses import run_notebook

    cells = run_notebook("study_plan", tmp_path / "plan.ipynb", trials=40)
    assert sum("assert " in cell.source for cell in cells if cell.cell_type == "code") >= 6


def made_up_table(folder, seeds):
    "Readings of the four cells as the study's table holds them, with a gap of .13."
    frames = []
    asked = split_questions(load_questions("study"), 300, 300, 636)
    for split in ("train", "test"):
        rates = {model: {q.relation: 0.5 for q in asked[split]} for model in MODELS}
        cells = simulated(asked[split], rates, seeds=seeds, gap=0.13, auroc=0.75, between=0.3, seed=1)
        for cell, readings in cells.items():
            where = {"reader": cell.reader, "answers_of": cell.answers, "size": cell.size}
            frames.append(pd.DataFrame(map(asdict, readings)).assign(**where, split=split))
    pd.concat(frames).to_csv(folder / "readings.csv.gz", index=False)
    answers = pd.read_csv(ROOT / "figures/whose_knowledge/answers.csv.gz", keep_default_na=False)
    drawn = np.random.default_rng(0).permutation(answers.is_correct)  # nothing of the real test is computed
    answers.assign(is_correct=drawn).to_csv(folder / "answers.csv.gz", index=False)
    for name in ("choice.csv", "runs.json", "samples.csv.gz"):
        shutil.copy(ROOT / "figures/whose_knowledge" / name, folder)


@pytest.mark.slow
def test_the_page_of_results_finds_in_made_up_readings_what_was_put_into_them(tmp_path):
    from test_analyses import run_notebook

    made_up_table(tmp_path, seeds=10)
    cells = run_notebook("whose_knowledge", tmp_path / "page.ipynb", folder=str(tmp_path))
    [shown] = [cell for cell in cells if cell.source.endswith("in_order(found).round(3)")]
    text = shown.outputs[-1]["data"]["text/plain"]
    first = next(line for line in text.splitlines() if line.startswith("H1"))
    assert 0.08 < float(first.split()[1]) < 0.18, text


@pytest.mark.slow
def test_the_page_of_results_computes_nothing_of_the_test_before_the_forty_runs(tmp_path):
    from test_analyses import run_notebook

    made_up_table(tmp_path, seeds=9)
    with pytest.raises(AssertionError, match="4 of the forty runs of H1 are missing"):
        run_notebook("whose_knowledge", tmp_path / "page.ipynb", folder=str(tmp_path))
