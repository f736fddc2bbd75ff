"""Pictures of a sweep: each setting against the objective, and the Pareto set."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.sweeps.outcome import Ended, Standing
from pipeline.sweeps.settings import Mode
from pipeline.sweeps.space import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"finished": "#1f6fb4", "stopped": "#9aa5b1", "failed": "#c0392b"}


def plots(standing: Standing, space: Space, objective: Mapping[str, Mode]) -> dict[str, "Figure"]:
    """Name of the plot -> figure."""
    drawn = {"settings": draw_settings(standing, space, objective)}
    if len(objective) > 1:
        drawn["pareto"] = draw_pareto(standing, objective)
    return drawn


def draw_settings(standing: Standing, space: Space, objective: Mapping[str, Mode]) -> "Figure":
    """The first objective against each setting, a point for each trial."""
    from matplotlib.figure import Figure

    metric = next(iter(objective))
    labels = space.labels()
    count = len(space.dimensions)
    columns = min(3, count)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(3.6 * columns, 3.0 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    places: list[Axes] = list(axes.flat)
    for place, dimension in zip(places, space.dimensions, strict=False):
        scored = [t for t in standing.trials if dimension.key in t.point and metric in t.metrics]
        places_x = _places(place, dimension.sampler, [t.point[dimension.key] for t in scored])
        for x, trial in zip(places_x, scored, strict=True):
            _point(place, x, trial.metrics[metric], trial, standing)
        place.set_xlabel(labels[dimension.key].replace("_", " "))
    for place in places[count:]:
        place.remove()
    for line in axes:
        line[0].set_ylabel(metric)
        line[0].ticklabel_format(axis="y", useOffset=False)
    _legend(figure, places[0], standing)
    return figure


def _places(axes: "Axes", sampler: str, values: Sequence[Any]) -> list[float]:
    """Where the values stand on the axis: numbers as they are, words and lists one by one."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numbers and sampler not in ("choice", "grid"):
        if sampler == "loguniform":
            axes.set_xscale("log")
        return [float(value) for value in values]
    names = sorted({str(v) for v in values}, key=lambda n: (float(n) if numbers else 0.0, n))
    axes.set_xticks(range(len(names)), names)
    axes.margins(x=0.2)
    return [float(names.index(str(value))) for value in values]


def _point(axes: "Axes", x: float, y: float, trial: Ended, standing: Standing) -> None:
    best = trial is standing.best
    axes.plot(
        x, y, marker="*" if best else "o", markersize=14 if best else 6, alpha=0.9,
        color="#d98e04" if best else COLOURS[trial.state], linestyle="none",
        zorder=3 if best else 2,
    )  # fmt: skip


def _legend(figure: "Figure", axes: "Axes", standing: Standing) -> None:
    states = [s for s in COLOURS if any(t.state == s for t in standing.trials)]
    marks = [axes.plot([], [], "o", color=COLOURS[state], label=state)[0] for state in states]
    marks += [axes.plot([], [], "*", color="#d98e04", markersize=12, label="best")[0]]
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)


def draw_pareto(standing: Standing, objective: Mapping[str, Mode]) -> "Figure":
    """The first objective against the second, with the trials that no other one beats as a line."""
    from matplotlib.figure import Figure

    first, second = list(objective)[:2]
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for trial in standing.trials:
        if first in trial.metrics and second in trial.metrics:
            _point(axes, trial.metrics[first], trial.metrics[second], trial, standing)
    front = sorted((t.metrics[first], t.metrics[second], t.name) for t in standing.front)
    axes.plot([x for x, _, _ in front], [y for _, y, _ in front], color="#d98e04", zorder=1)
    for x, y, name in front:
        axes.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set_xlabel(f"{first} ({objective[first]})")
    axes.set_ylabel(f"{second} ({objective[second]})")
    axes.ticklabel_format(useOffset=False)
    axes.tick_params(axis="x", rotation=30)
    axes.margins(0.12)  # names of trials stand beside their points
    axes.grid(alpha=0.25)
    _legend(figure, axes, standing)
    return figure
