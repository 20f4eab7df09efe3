"""Records say what is drawn; drawing works on edge cases, without warnings, and gives the same files again."""
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from calib_nb import metrics as M
from calib_nb import plots as P
from calib_nb.core import UnknownName, jsonable
from calib_nb.inference import metric_card
from calib_nb.label_noise import JudgeQuality, judged_by
from calib_nb.resampling import made_up_readings

EDGES = {
    "none": ([], []),
    "one": ([0.7], [1]),
    "one value": ([0.5] * 20, [0, 1] * 10),
    "all right": ([0.2, 0.9], [1, 1]),
    "all wrong": ([0.2, 0.9], [0, 0]),
    "0 and 1": ([0.0, 1.0] * 10, [0, 1, 1, 0] * 5),
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def forecasts(n=500):
    rng = np.random.default_rng(0)
    p = rng.random(n).round(2)
    return p, (rng.random(n) < p).astype(float)


def shares_within(band, record, slack=0.0):
    "Which of the diagram's dots lie in the band."
    return ((band.low - slack <= record.accuracy) & (record.accuracy <= band.high + slack)).tolist()


@pytest.mark.parametrize("data", EDGES.values(), ids=EDGES)
def test_edge_cases_draw_without_warnings(data):
    with P.theme(), warnings.catch_warnings():
        warnings.simplefilter("error")
        fig, axes = plt.subplots(1, 5)
        P.plot_reliability(P.reliability(*data), axes[0])
        P.plot_band(P.binned_band(*data, n_draws=20), axes[0])
        P.plot_curve(P.corp_curve(*data, n_draws=20), axes[1])
        P.plot_curve(P.smooth_curve(*data, n_draws=20), axes[2])
        P.plot_risk_coverage(P.risk_coverage(*data), axes[3], "m")
        P.plot_histogram(P.confidence_histogram(*data), axes[4])
        fig.canvas.draw()


def test_a_figure_that_fails_leaves_interactive_mode_and_settings_as_they_are_elsewhere():
    before, interactive = dict(plt.rcParams), matplotlib.is_interactive()
    try:
        with pytest.raises(ValueError, match="it fails"):
            with P.theme():
                matplotlib.interactive(True)  # as a notebook's backend does at the first figure
                raise ValueError("it fails")
        assert matplotlib.is_interactive()
    finally:
        matplotlib.interactive(interactive)
    changed = [name for name, value in plt.rcParams.items() if before[name] != value]
    assert changed == [] or changed == ["interactive"]


def test_bins_of_the_diagram_are_those_of_the_error():
    p, y = forecasts()
    record = P.reliability(p, y)
    error = record.rows @ np.abs(record.confidence - record.accuracy) / record.n
    assert error == pytest.approx(M.expected_calibration_error(p, y))


def test_wilson_interval_contains_the_share_and_is_the_known_one():
    low, high = P.wilson_interval(np.array([0, 5, 10]), np.array([10, 10, 10]))
    assert (low[0], high[2]) == pytest.approx((0, 1))
    assert high[0] == pytest.approx(0.27753, abs=1e-4)
    assert (low[1], high[1]) == pytest.approx((0.23659, 0.76341), abs=1e-4)


def test_the_consistency_band_holds_95_percent_of_calibrated_diagrams():
    inside = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p = rng.choice([0.15, 0.45, 0.85], 300)
        record = P.reliability(p, rng.random(300) < p)
        band = P.binned_band(p, np.zeros(300), n_draws=200)
        inside += shares_within(band, record)
    assert 0.9 <= np.mean(inside) <= 0.99


def test_curves_report_their_own_error():
    p, y = forecasts()
    corp, smooth = P.corp_curve(p, y, n_draws=20), P.smooth_curve(p, y, n_draws=20)
    assert corp.error == pytest.approx(M.corp_decomposition(p, y).mcb)
    assert smooth.error == M.smooth_calibration_error(p, y)
    assert (np.diff(corp.accuracy) >= -1e-12).all()
    assert np.abs(smooth.accuracy - smooth.at)[10:-10].max() < 0.15


def test_histogram_counts_every_row_once():
    p, y = forecasts()
    record = P.confidence_histogram(p, y)
    assert record.correct.sum() == y.sum() and record.wrong.sum() == len(y) - y.sum()
    assert len(record.edges) == len(record.wrong) + 1


def test_risk_coverage_lies_between_oracle_and_ends_at_random():
    record = P.risk_coverage(*forecasts())
    assert (record.oracle <= record.risk + 1e-12).all()
    assert record.risk[-1] == pytest.approx(record.random) == pytest.approx(record.oracle[-1])
    assert record.risk.mean() == pytest.approx(record.aurc)


def test_the_side_by_side_figure_says_n_parsed_share_and_captions():
    before = made_up_readings(100, missing=0.3, method="baseline")
    after = made_up_readings(100, method="sft", says=lambda c: np.full(len(c), 0.5))
    panels = {"baseline, verbalized": before, "sft, expected": after}
    fig = P.reliability_figure(panels, title="message")
    top = fig.axes[:2]
    assert [ax.get_title(loc="left") for ax in top] == list(panels)
    assert fig.get_suptitle() == "message"
    text = top[0].texts[0].get_text()
    present = sum(r.confidence is not None for r in before)
    assert f"n = {present}" in text and f"parsed {present}%" in text
    assert np.isfinite(fig.get_size_inches()).all()


def legend(fig):
    "The texts of a figure's legend."
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_a_bin_of_fewer_than_five_answers_is_faint():
    record = P.reliability([0.1] * 4 + [0.9] * 5, [0, 1, 0, 0, 1, 1, 1, 0, 1])
    _, ax = plt.subplots()
    P.plot_reliability(record, ax, label="m")
    bars, dots = ax.collections
    for colours in (bars.get_color(), dots.get_facecolor()):
        few, enough = colours[:, 3]
        assert few < 0.5 < enough
    (handle,) = ax.get_legend_handles_labels()[0]
    assert matplotlib.colors.to_rgba(handle.get_color())[3] == 1


def test_the_legend_explains_dots_bars_bands_and_circles():
    shown = legend(P.reliability_figure({"m": made_up_readings(50)}))
    explained = "number of answers", "95 % interval", "calibrated forecaster", "perfect calibration", "right", "wrong"
    for words in explained:
        assert any(words in text for text in shown), words
    circles = P.reliability_key(open_circles="a further seed")[-1]
    assert circles.get_label() == "a further seed" and circles.get_markerfacecolor() == "none"


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_a_diagram_and_its_histogram_have_one_horizontal_axis(columns):
    fig = P.reliability_figure({f"m{i}": made_up_readings(50) for i in range(columns)}, title="message")
    fig.canvas.draw()
    for diagram, histogram in zip(fig.axes[:columns], fig.axes[columns:]):
        above, below = diagram.get_position(), histogram.get_position()
        assert (above.x0, above.x1) == pytest.approx((below.x0, below.x1), abs=1e-3)
        assert diagram.get_xlim() == histogram.get_xlim()


def test_a_returned_figure_is_closed_so_that_a_notebook_shows_it_once():
    P.reliability_figure({"m": made_up_readings(50)})
    P.training_figure([{"step": 1, "loss": 2.0}])
    assert not plt.get_fignums()


def test_a_caption_may_have_a_colour_of_its_own():
    panels = {"one": made_up_readings(50, method="sft"), "two": made_up_readings(50, method="sft")}
    fig = P.reliability_figure(panels, colours={"two": "#123456"})
    one, two = (ax.collections[0].get_color()[0] for ax in fig.axes[:2])
    assert matplotlib.colors.to_hex(one) == P.method_colour("sft").lower()
    assert matplotlib.colors.to_hex(two) == "#123456"


def test_the_judge_s_band_holds_the_dots_with_true_labels():
    judge, inside = JudgeQuality(800, 1000, 970, 1000), []
    for seed in range(15):
        true = made_up_readings(600, missing=0.1, says=lambda c: c.round(1), seed=seed)
        band = P.judge_reliability(judged_by(true, 0.8, 0.97, seed), judge, n_draws=100)
        kept = [r for r in true if r.confidence is not None]
        dots = P.reliability([r.confidence for r in kept], [r.is_correct for r in kept])
        assert band.at == pytest.approx(dots.confidence)
        inside += shares_within(band, dots, slack=1e-9)
    assert np.mean(inside) > 0.85


@pytest.mark.parametrize("n, missing", [(600, 0.1), (1, 0.0), (10, 1.0)])
def test_the_judge_s_band_is_drawn_on_request(n, missing):
    judge = JudgeQuality(800, 1000, 970, 1000)
    made = made_up_readings(n, missing=missing, says=lambda c: c.round(1), seed=14)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, asked = P.reliability_figure({"m": made}), P.reliability_figure({"m": made}, judge=judge)
        asked.canvas.draw()
    assert len(asked.axes[0].collections) == len(plain.axes[0].collections) + 1
    assert any("true labels" in text for text in legend(asked)) and not any("true labels" in t for t in legend(plain))


def test_readings_that_are_all_missing_still_draw():
    made = made_up_readings(10, missing=1.0)
    fig = P.reliability_figure({"nothing": made})
    assert "parsed 0%" in fig.axes[0].texts[0].get_text()


def test_training_curve_takes_what_the_history_has():
    only_loss, both = {"step": 2, "loss": 1.0}, {"step": 1, "loss": 2.0, "calibration_brier": 0.2}
    curve = P.training_curve([only_loss, both, {"step": 3, "calibration_brier": None}])
    steps, losses = curve["loss"]
    assert steps.tolist() == [1, 2] and losses.tolist() == [2, 1]
    assert curve["calibration_brier"][1].tolist() == [0.2]


def test_a_panel_for_the_brier_score_only_where_the_history_has_it():
    entry = {"step": 1, "loss": 2.0}
    assert len(P.training_figure([entry]).axes) == 1
    assert len(P.training_figure([entry | {"calibration_brier": 0.2}]).axes) == 2
    assert len(P.training_figure([]).axes) == 1


@pytest.mark.parametrize("metric", ["brier_skill_score", "rms_calibration_error"])
def test_forest_reads_cards_and_files_alike(metric):
    cards = {"baseline": metric_card(made_up_readings(80), 0.3, 50, names=[metric])}
    rows = P.forest(cards, metric)
    np.testing.assert_equal(rows, P.forest(jsonable(cards), metric))
    _, ax = plt.subplots()
    P.plot_forest(rows, ax)
    assert ax.get_yticklabels()[0].get_text() == "baseline"


def test_a_forest_says_value_interval_and_n_or_that_there_is_none():
    whole = {"method": "a", "value": 0.1, "low": 0.0, "high": 0.25, "n": 30}
    bare, none = whole | {"low": np.nan}, whole | {"value": np.nan}
    _, ax = plt.subplots()
    P.plot_forest([whole, bare, none], ax)
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["undefined   n = 30", "+0.10   n = 30", "+0.10  [+0.00, +0.25]   n = 30"]


def test_a_forest_of_an_unknown_metric_names_the_known_ones():
    card = metric_card(made_up_readings(50), 0.3, n_resamples=20, names=["auroc"])
    with pytest.raises(UnknownName, match="unknown metric 'auroq'. Did you mean 'auroc'"):
        P.forest({"a": card}, "auroq")


@pytest.mark.parametrize("panels, said", [({}, "there are no panels"), ({"sft": []}, "panel 'sft' has no readings")])
def test_a_figure_of_nothing_says_what_is_lacking(panels, said):
    with pytest.raises(ValueError, match=said):
        P.reliability_figure(panels)


def test_a_row_of_a_forest_with_fewer_than_thirty_questions_is_hollow():
    row = {"method": "a", "value": 0.1, "low": 0.0, "high": 0.25}
    _, ax = plt.subplots()
    P.plot_forest([row | {"n": 30}, row | {"n": 29}], ax)
    fewer, enough = [line for line in ax.lines if line.get_marker() == "o"]
    assert fewer.get_markerfacecolor() == "white" and enough.get_markerfacecolor() == P.method_colour("a")
    assert ax.texts[0].get_text().endswith("n = 29 (hollow: below 30)")


def test_a_method_has_one_colour_and_known_methods_differ():
    known = set(P.METHOD_COLOURS.values())
    assert len(known) == len(P.METHOD_COLOURS) and not known & set(P._OTHER_COLOURS)
    assert P.method_colour("brand new") == P.method_colour("brand new") in P._OTHER_COLOURS


def test_saved_figures_are_the_same_bytes_each_time(tmp_path):
    made = made_up_readings(60)
    paths = [P.save_figure(P.reliability_figure({"m": made}), tmp_path / name) for name in ("a", "b")]
    for one, two in zip(*paths):
        assert Path(one).read_bytes() == Path(two).read_bytes()
