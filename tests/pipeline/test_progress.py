"""A bar on a terminal, one line in a log."""

import io
import sys

import pytest
from rich.console import Console

from pipeline import progress


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    shown = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=shown, force_terminal=True, width=120))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    return shown


def test_a_log_gets_one_line(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=shown))
    with progress.bar("writing [1]", 3) as advance:
        for _ in range(3):
            advance(1)
    assert shown.getvalue() == "writing [1] ...\n"


def test_a_terminal_gets_a_bar_with_the_count(terminal):
    with progress.bar("writing", 30) as advance:
        advance(10)
        advance(20)
    assert "30/30" in terminal.getvalue()


def test_a_bar_without_a_total_counts_on(terminal):
    with progress.bar("reading", None) as advance:
        advance(7)
    assert "7/?" in terminal.getvalue()


def test_a_training_bar_shows_what_is_said(terminal):
    with progress.StepsBar() as bar:
        bar.add_task("training", total=5, completed=2, said="loss 0.5")
    assert "2/5" in terminal.getvalue()
    assert "loss 0.5" in terminal.getvalue()
