"""The end of a sweep: every trial's result, the best one, the Pareto set, what failed and why."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.sweeps.reports import BEST_NET
from pipeline.sweeps.settings import Mode
from pipeline.sweeps.space import Point
from pipeline.sweeps.trial import point_of, shown
from sr_module.checkpoint import read_provenance

Row = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Ended:
    """A trial after the sweep.

    Attributes:
        name: of its folder.
        point: its settings, at the end.
        state: "finished", "stopped" early, or "failed".
        validations: it had.
        metrics: of its network that counts; empty where there is none.
        net: that network.
        error: why it failed.
    """

    name: str
    point: Point
    state: str
    validations: int
    metrics: Mapping[str, float]
    net: Path | None
    error: str = ""

    def values(self, objective: Mapping[str, Mode]) -> list[float]:
        """Of the objectives, all of them to be as large as possible; NaN where there is none."""
        nan = math.nan
        return [
            self.metrics.get(metric, nan) * (1 if mode == "max" else -1)
            for metric, mode in objective.items()
        ]


def ended(results: Iterable[Any], out: Path, validations: int) -> list[Ended]:
    """Ray's results, each with what its folder holds."""
    return [_ended(result, out, validations) for result in results]


def _ended(result: Any, out: Path, validations: int) -> Ended:  # noqa: ANN401 (Ray's)
    name = Path(result.path).name
    last = result.metrics or {}
    had = int(last.get("validations", 0))
    state = "failed" if result.error else "finished" if had >= validations else "stopped"
    net = out / name / BEST_NET
    metrics: dict[str, float] = {}
    if net.exists():
        provenance: Any = read_provenance(net)
        metrics = provenance["metrics"]
    error = said(result.error) if result.error else ""
    return Ended(
        name, point_of(result.config or {}), state, had, metrics, net if metrics else None, error
    )


def said(error: object) -> str:
    """The last line of an error, which is the one for people."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^(\w+\.)+(?=\w+: )", "", lines[-1]) if lines else type(error).__name__


def pareto(values: Sequence[Sequence[float]]) -> list[int]:
    """Which of the points no other one beats: as good in everything and better in something.

    Args:
        values: a row for each point; more is better in every column.
    """
    finite = [i for i, row in enumerate(values) if all(map(math.isfinite, row))]

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        pairs = list(zip(one, other, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return [i for i in finite if not any(beats(values[j], values[i]) for j in finite)]


def knee(values: Sequence[Sequence[float]], front: Sequence[int]) -> int:
    """The point of the front nearest to what is best in everything, each column's range being 1."""
    columns = list(zip(*(values[i] for i in front), strict=True))
    best, span = [max(c) for c in columns], [max(c) - min(c) or 1.0 for c in columns]

    def distance(i: int) -> float:
        return math.dist([0.0] * len(best), [
            (b - v) / s for b, v, s in zip(best, values[i], span, strict=True)
        ])  # fmt: skip

    return min(front, key=distance)


@dataclass(frozen=True)
class Standing:
    """The trials in their order, the best first; those without a result last."""

    trials: list[Ended]
    front: list[Ended]
    """Trials that no other one beats; of one objective, the best alone."""
    best: Ended


def stand(trials: Sequence[Ended], objective: Mapping[str, Mode]) -> Standing:
    """Who won.

    Raises:
        ValueError: no trial has a result.
    """
    sound = [each for each in trials if each.state != "failed"] or list(trials)
    values = [each.values(objective) for each in sound]
    front = pareto(values)
    if not front:
        why = next((f"; the first said: {e.error}" for e in trials if e.error), "")
        if not why and not any(each.validations for each in trials):
            why = (
                "; they were stopped before their first validation: give the sweep a larger "
                "budget, and go on with --resume"
            )
        raise ValueError(f"no trial came to a result{why}")
    best = sound[knee(values, front)]
    ordered = sorted(trials, key=lambda each: _order(each, best, objective))
    return Standing(ordered, [sound[i] for i in front], best)


def _order(each: Ended, best: Ended, objective: Mapping[str, Mode]) -> tuple[bool, bool, float]:
    value = each.values(objective)[0]
    return each is not best, not math.isfinite(value), -value if math.isfinite(value) else 0.0


def rows(standing: Standing, objective: Mapping[str, Mode], labels: Mapping[str, str]) -> list[Row]:
    """The table of the sweep, in which every trial has the same columns."""
    return [
        {
            "trial": each.name,
            **{label: each.point.get(key) for key, label in labels.items()},
            **{metric: each.metrics.get(metric) for metric in objective},
            "validations": each.validations,
            "state": each.state,
            "pareto": each in standing.front,
            "best": each is standing.best,
            "error": each.error,
        }
        for each in standing.trials
    ]


def print_table(table: Sequence[Row], objective: Mapping[str, Mode], console: Console) -> None:
    """The table on the terminal; the best in bold, without columns that say nothing."""
    several = len(objective) > 1
    hidden = {"best", "error"} | (set() if several else {"pareto"})
    shown_as = Table(title=f"trials by {', '.join(objective)}", box=None, pad_edge=False)
    columns = [key for key in table[0] if key not in hidden]
    for key in columns:
        text = key in ("trial", "state")
        title = key if key in objective else key.replace("_", " ")
        shown_as.add_column(title, justify="left" if text else "right")
    for row in table:
        cells = [_cell(key, row[key], objective) for key in columns]
        shown_as.add_row(*cells, style="bold" if row["best"] else "")
    console.print(shown_as)


def _cell(key: str, value: object, objective: Mapping[str, Mode]) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "*" if value else ""
    return f"{value:.5g}" if key in objective else shown(value)


def failures(trials: Iterable[Ended]) -> list[str]:
    """One line for each trial that failed."""
    return [f"{each.name} failed: {each.error}" for each in trials if each.state == "failed"]


def story(
    standing: Standing,
    objective: Mapping[str, Mode],
    labels: Mapping[str, str],
    pages: Mapping[str, str],
) -> str:
    """The sweep in Markdown, as its page in MLflow shows it.

    Args:
        standing: of the trials.
        objective: metric -> max or min.
        labels: setting -> short name.
        pages: name of a trial -> address of its run, for those that have one.
    """
    best = standing.best

    def linked(trial: Ended) -> str:
        return f"[{trial.name}]({pages[trial.name]})" if trial.name in pages else trial.name

    aims = ", ".join(f"{metric} ({mode})" for metric, mode in objective.items())
    scores = ", ".join(f"{metric} {best.metrics[metric]:.5g}" for metric in objective)
    settings = [f"- `{key}`: {shown(value)}" for key, value in best.point.items()]
    counts = {
        state: sum(each.state == state for each in standing.trials)
        for state in ("finished", "stopped", "failed")
    }
    lines = [
        f"Sweep of {len(standing.trials)} trials by {aims}: {counts['finished']} finished, "
        f"{counts['stopped']} stopped early, {counts['failed']} failed.",
        "",
        f"**Best: {linked(best)}**, {scores}",
        "",
        *settings,
        "",
        "| trial | " + " | ".join([*labels.values(), *objective, "state"]) + " |",
        "|---|" + "---|" * (len(labels) + len(objective) + 1),
    ]
    for each in standing.trials[:20]:
        point = [shown(each.point[key]) if key in each.point else "" for key in labels]
        values = [f"{each.metrics[m]:.5g}" if m in each.metrics else "" for m in objective]
        lines.append("| " + " | ".join([linked(each), *point, *values, each.state]) + " |")
    return "\n".join([*lines, "", *failures(standing.trials)])
