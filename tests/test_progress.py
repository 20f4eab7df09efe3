"""A bar says in the end what was done; in a terminal it is tqdm's."""
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_nb import progress
from calib_nb.progress import Bar


class Line:
    "Keeps what a display is replaced by."

    def __init__(self):
        self.texts = []

    def update(self, data, raw, metadata):
        assert raw and metadata == {"progress": True}
        self.texts.append(data["text/plain"])


@pytest.fixture
def line(monkeypatch):
    "As if there were a notebook."
    shown = Line()
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress, "_show", lambda text: shown)
    return shown


def test_the_last_form_says_what_was_done_and_nothing_is_written_after_it(line, capfd, monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 0.02)
    with Bar("answers", 3) as bar:
        for _ in range(3):
            bar.update()
    said = list(line.texts)
    time.sleep(0.2)
    assert line.texts == said and said[-1] == "answers: 3 in 0:00"
    bar.close()
    assert line.texts == said and capfd.readouterr() == ("", ""), "nothing beside the line"


def test_it_moves_though_nothing_is_counted(line, monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 0.02)
    with Bar("loading"):
        time.sleep(0.3)
    assert len(line.texts) > 3 and line.texts[-1] == "loading: 0:00"


def test_one_that_was_stopped_says_where(line):
    bar = Bar("answers", 10)
    bar.update(4)
    Bar.stop()
    assert line.texts[-1] == "answers: stopped at 4 of 10 after 0:00"


def test_in_a_terminal_it_is_tqdm_s_and_a_quiet_one_says_nothing(capfd):
    with Bar("answers", 2) as bar:
        bar.update(2)
    assert "answers: 100%" in capfd.readouterr().err
    with Bar("answers", 2, quiet=True) as bar:
        bar.update(2)
    assert capfd.readouterr() == ("", "")


@given(st.integers(0, 10**6))
def test_a_duration_is_minutes_and_seconds(seconds):
    minutes, rest = progress._minutes(seconds).split(":")
    assert 60 * int(minutes) + int(rest) == seconds and len(rest) == 2
