"""What a person sees of a sweep while it goes: a bar, and a table of the trials."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.progress import console
from pipeline.sweeps.settings import Mode
from pipeline.sweeps.trial import point_of, shown

STATES = {
    "PENDING": ("waiting", "dim"),
    "RUNNING": ("running", "cyan"),
    "PAUSED": ("paused", "yellow"),
    "TERMINATED": ("done", "green"),
    "ERROR": ("failed", "red"),
}
ORDER = ("RUNNING", "ERROR", "PAUSED", "TERMINATED", "PENDING")
OVERHEAD = 8
"""Lines of the terminal that are no trial's."""


@dataclass(frozen=True)
class Row:
    """A trial as the board shows it."""

    name: str
    status: str
    point: Mapping[str, Any]
    metrics: Mapping[str, Any]
    failures: int = 0

    @property
    def validations(self) -> int:
        """So far."""
        return int(self.metrics.get("validations", 0))


@dataclass
class Board:
    """The state of a sweep, as of the last look at its trials.

    Attributes:
        objective: metric -> max or min; the first one leads.
        labels: setting -> short name.
        total: trials.
        validations: of a trial that goes to its end.
        refresh: seconds between two looks.
    """

    objective: Mapping[str, Mode]
    labels: Mapping[str, str]
    total: int
    validations: int
    refresh: float = 0.5
    rows: list[Row] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    told: set[str] = field(default_factory=set)
    best: float | None = None
    looked: float = 0.0
    live: Live | None = None

    def look(self, trials: Sequence[Any], *, now: bool = False) -> None:
        """Takes the state of Ray's trials over, now and then."""
        if not now and time.monotonic() - self.looked < self.refresh:
            return
        self.looked = time.monotonic()
        self.rows = [_row(trial) for trial in trials]
        if self.live is not None:
            self.live.update(self)
        else:
            self._tell()

    def _tell(self) -> None:
        """A line for every trial that ended, where the output is no terminal."""
        metric, mode = next(iter(self.objective.items()))
        for row in self.rows:
            value = row.metrics.get(metric)
            if value is not None and (self.best is None or _better(value, self.best, mode)):
                self.best = value
                say(f"{row.name}: {metric} {value:.5g}, the best so far ({self._said(row)})")
            if row.status in ("TERMINATED", "ERROR") and row.name not in self.told:
                self.told.add(row.name)
                state = self._state(row)[0]
                done = sum(r.status in ("TERMINATED", "ERROR") for r in self.rows)
                last = f", {metric} {value:.5g}" if value is not None else ""
                count = f"{row.validations} of {self.validations} validations"
                say(f"{row.name}: {state} after {count}{last}; {done} of {self.total} trials")

    def _state(self, row: Row) -> tuple[str, str]:
        """Word and style; Ray itself does not tell a trial that was stopped from one that ended."""
        if row.status == "TERMINATED" and row.validations < self.validations:
            return "stopped", "yellow"
        return STATES[row.status]

    def _said(self, row: Row) -> str:
        return ", ".join(f"{self.labels[key]} {shown(value)}" for key, value in row.point.items())

    def done(self) -> float:
        """Share of the work that is behind: what was stopped early counts as done."""
        each = [
            1.0 if row.status in ("TERMINATED", "ERROR") else row.validations / self.validations
            for row in self.rows
        ]
        return min(1.0, sum(each) / max(1, self.total, len(each)))

    def __rich__(self) -> RenderableType:
        return Group(self._header(), self._table())

    def _header(self) -> RenderableType:
        elapsed, share = time.monotonic() - self.began, self.done()
        over = sum(row.status in ("TERMINATED", "ERROR") for row in self.rows)
        left = f", about {_time(elapsed / share * (1 - share))} left" if 0 < share < 1 else ""
        line = Table.grid(padding=(0, 1))
        line.add_row(
            Text(f"{over} of {self.total} trials"),
            ProgressBar(total=1.0, completed=share, width=30),
            Text(f"{100 * share:.0f} %, {_time(elapsed)}{left}"),
        )
        return line

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("trial")
        table.add_column("state")
        for label in self.labels.values():
            table.add_column(label.replace("_", " "), justify="right")
        table.add_column("validations", justify="right")
        for metric in self.objective:
            table.add_column(metric, justify="right")
        best = self._leader()
        rows = sorted(self.rows, key=lambda row: ORDER.index(row.status))
        room = max(3, console.size.height - OVERHEAD)
        for row in sorted(rows[:room], key=lambda row: row.name):
            table.add_row(*self._cells(row), style="bold" if row is best else "")
        if len(rows) > room:
            table.add_row(f"... and {len(rows) - room} more")
        return table

    def _cells(self, row: Row) -> list[RenderableType]:
        state, style = self._state(row)
        if row.failures and row.status != "ERROR":
            state += f", try {row.failures + 1}"
        settings = [shown(row.point[key]) if key in row.point else "" for key in self.labels]
        scores = [
            f"{row.metrics[metric]:.5g}" if metric in row.metrics else ""
            for metric in self.objective
        ]
        count = f"{row.validations}/{self.validations}"
        return [row.name, Text(state, style), *settings, count, *scores]

    def _leader(self) -> Row | None:
        metric, mode = next(iter(self.objective.items()))
        scored = [row for row in self.rows if metric in row.metrics]
        pick = max if mode == "max" else min
        return pick(scored, key=lambda row: row.metrics[metric], default=None)


def _row(trial: Any) -> Row:  # noqa: ANN401 (Ray's)
    result = trial.last_result or {}
    return Row(str(trial), trial.status, point_of(trial.config), result, trial.num_failures)


def _better(value: float, than: float, mode: Mode) -> bool:
    return value > than if mode == "max" else value < than


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def say(line: str) -> None:
    """One line to the person."""
    console.print(line, highlight=False, soft_wrap=True)


_showing: list[Board] = []


@contextlib.contextmanager
def showing(board: Board) -> Iterator[Board]:
    """Shows the board until the block ends: a live table on a terminal, lines elsewhere."""
    _showing.append(board)
    try:
        if not sys.stderr.isatty():
            yield board
            return
        with Live(board, console=console, refresh_per_second=2) as board.live:
            yield board
        board.live = None
    finally:
        _showing.remove(board)


def look(trials: Sequence[Any], *, now: bool = False) -> None:
    """Has the board that is shown look at Ray's trials."""
    for board in _showing:
        board.look(trials, now=now)


def watcher() -> Any:  # noqa: ANN401 (a Ray callback)
    """What Ray calls; it holds nothing, for Ray stores it beside the sweep and brings it back."""
    from ray import tune

    class Watcher(tune.Callback):  # type: ignore[misc]
        def on_step_end(self, iteration: int, trials: list[Any], **info: object) -> None:
            look(trials)

        def on_experiment_end(self, trials: list[Any], **info: object) -> None:
            look(trials, now=True)

    return Watcher()
