"""What is searched: settings of training, how each is drawn, and when it plays a part.

space:
  model.init_args.optimisation.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}
  model.init_args.arch_args.blocks: {randint: [2, 16]}
  model.init_args.gan: {choice: [vanilla, ragan]}
  model.init_args.warmup_steps: {choice: [0, 500], when: {model.init_args.gan: [ragan]}}
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sr_module.choice import unknown

Point = dict[str, Any]
"""Setting -> value; one trial's."""

LISTED = ("choice", "grid")
RANGES = ("uniform", "loguniform", "quniform", "randint")
SAMPLERS = (*RANGES, *LISTED)
LARGEST_GRID = 10_000
PATIENCE = 20
"""Draws for every point that is wanted; those that were there before do not count."""


@dataclass(frozen=True)
class Dimension:
    """One setting: its sampler, the sampler's values, and other settings' values that it needs."""

    key: str
    sampler: str
    values: tuple[Any, ...]
    when: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def applies(self, point: Point) -> bool:
        """Whether this setting plays a part beside those drawn so far."""
        return all(key in point and point[key] in allowed for key, allowed in self.when.items())

    def draw(self, rng: random.Random) -> Any:  # noqa: ANN401
        """One value."""
        if self.sampler in LISTED:
            return rng.choice(self.values)
        low, high = self.values[:2]
        if self.sampler == "randint":
            return rng.randint(low, high)
        if self.sampler == "loguniform":
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        return rng.uniform(low, high) if self.sampler == "uniform" else rng.choice(self.finite())

    def suggest(self, trial: Any, name: str) -> Any:  # noqa: ANN401 (Optuna's)
        """One value, by an Optuna trial's experience with the setting called ``name``."""
        if self.sampler in LISTED:
            return trial.suggest_categorical(name, list(self.values))
        low, high = self.values[:2]
        if self.sampler == "randint":
            return trial.suggest_int(name, low, high)
        step = self.values[2] if self.sampler == "quniform" else None
        return trial.suggest_float(name, low, high, log=self.sampler == "loguniform", step=step)

    def finite(self) -> list[Any]:
        """All values, where there are finitely many.

        Raises:
            ValueError: the sampler draws from a continuum.
        """
        if self.sampler in LISTED:
            return list(self.values)
        if self.sampler in ("uniform", "loguniform"):
            raise ValueError(
                f"space.{self.key} is {self.sampler}, of which there is no grid; choose from "
                "grid, choice, randint and quniform, or take --search random"
            )
        low, high, step = (*self.values, 1)[:3]
        count = math.floor((high - low) / step + 1e-9) + 1
        return [low + step * number for number in range(count)]

    def extremes(self) -> list[Any]:
        """The values that a check must see: the ends of a range, or every one of a list."""
        return list(self.values if self.sampler in LISTED else self.values[:2])

    def clamp(self, value: Any) -> Any:  # noqa: ANN401
        """The nearest value inside the range; of a list, the value itself."""
        if self.sampler in LISTED:
            return value
        low, high = self.values[:2]
        inside = min(max(value, low), high)
        return round(inside) if self.sampler == "randint" else inside


@dataclass(frozen=True)
class Space:
    """All that is searched; a setting stands behind those that it depends on."""

    dimensions: tuple[Dimension, ...]

    @property
    def keys(self) -> list[str]:
        """The settings."""
        return [each.key for each in self.dimensions]

    def suggest(self, trial: Any, prefix: str) -> Point:  # noqa: ANN401 (Optuna's)
        """One point by an Optuna trial; its parameters are called ``prefix`` + setting."""
        point: Point = {}
        for each in self.dimensions:
            if each.applies(point):
                point[each.key] = each.suggest(trial, f"{prefix}{each.key}")
        return point

    def random(self, count: int, seed: int) -> list[Point]:
        """``count`` draws, no two alike, each with every combination of what is ``grid``."""
        rng = random.Random(seed)
        gridded = Space(tuple(d for d in self.dimensions if d.sampler == "grid"))
        free = Space(tuple(d for d in self.dimensions if d.sampler != "grid"))
        drawn: list[Point] = []
        for _ in range(PATIENCE * count):  # a small space may have fewer points than that
            point = {each.key: each.draw(rng) for each in free.dimensions}
            if len(drawn) < count and point not in drawn:
                drawn.append(point)
        combined = ({**point, **fixed} for point in drawn for fixed in gridded.grid())
        return _distinct(self._kept(point) for point in combined)

    def grid(self) -> list[Point]:
        """Every combination once.

        Raises:
            ValueError: a setting is drawn from a continuum, or there are too many combinations.
        """
        values = [each.finite() for each in self.dimensions]
        if (count := math.prod(map(len, values))) > LARGEST_GRID:
            raise ValueError(
                f"the grid has {count:,} combinations; take fewer values, or --search random"
            )
        return _distinct(
            self._kept(dict(zip(self.keys, each, strict=True)))
            for each in itertools.product(*values)
        )

    def _kept(self, point: Point) -> Point:
        """A point without the settings whose condition is not met."""
        kept: Point = {}
        for each in self.dimensions:
            if each.key in point and each.applies(kept):
                kept[each.key] = point[each.key]
        return kept

    def checks(self) -> Iterator[Point]:
        """Points that between them hold every extreme of every setting, with what these need."""
        for each in self.dimensions:
            for value in each.extremes():
                point = {key: allowed[0] for key, allowed in each.when.items()}
                yield {**point, each.key: value}

    def labels(self) -> dict[str, str]:
        """Setting -> its shortest name that no other setting has: ``learning_rate``."""
        labels = {}
        for key in self.keys:
            words = key.split(".")
            for count in range(1, len(words) + 1):
                label = ".".join(words[-count:])
                if sum(f".{other}".endswith(f".{label}") for other in self.keys) == 1:
                    break
            labels[key] = label
        return labels


def _distinct(points: Iterator[Point]) -> list[Point]:
    kept: list[Point] = []
    for point in points:
        if point not in kept:
            kept.append(point)
    return kept


def parse_space(space: Mapping[str, Mapping[str, Any]]) -> Space:
    """The space as YAML has it.

    Raises:
        ValueError: nothing to search, no such sampler, or values that do not fit it.
    """
    if not space:
        raise ValueError(
            "space is empty: there is nothing to search; name settings of `srdet train`, such as "
            "model.init_args.optimisation.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}"
        )
    given = {key: _dimension(key, how) for key, how in space.items()}
    for each in given.values():
        _check_conditions(each, given)
    ordered: dict[str, Dimension] = {}
    while len(ordered) < len(given):
        ready = [d for d in given.values() if d.key not in ordered and set(d.when) <= set(ordered)]
        if not ready:
            left = ", ".join(key for key in given if key not in ordered)
            raise ValueError(f"space: {left} depend on each other in a circle; break it")
        ordered |= {each.key: each for each in ready}
    return Space(tuple(ordered.values()))


def _dimension(key: str, how: Mapping[str, Any]) -> Dimension:
    named = [name for name in how if name != "when"]
    if len(named) != 1:
        raise ValueError(
            f"space.{key} is {dict(how)}; allowed is exactly one of {', '.join(SAMPLERS)}, such as "
            "loguniform: [1.0e-4, 1.0e-2], and beside it `when`"
        )
    if named[0] not in SAMPLERS:
        raise unknown(f"sampler of space.{key}", named[0], SAMPLERS)
    values, when = how[named[0]], how.get("when") or {}
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"space.{key}.{named[0]} is {values!r}; allowed is a list of values")
    if named[0] in RANGES:
        _check_range(f"space.{key}.{named[0]}", named[0], values)
    return Dimension(
        key,
        named[0],
        tuple(values),
        {k: v if isinstance(v, list) else [v] for k, v in when.items()},
    )


def _check_range(name: str, sampler: str, values: Sequence[Any]) -> None:
    form = "[low, high, step]" if sampler == "quniform" else "[low, high]"
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(values) != form.count(",") + 1 or not numbers or not values[0] < values[1]:
        raise ValueError(f"{name} is {list(values)}; allowed is {form}, numbers, low below high")
    if sampler == "loguniform" and values[0] <= 0:
        raise ValueError(f"{name} is {list(values)}; low must be above 0")
    if sampler == "quniform" and values[2] <= 0:
        raise ValueError(f"{name} is {list(values)}; step must be above 0")
    if sampler == "randint" and not all(isinstance(v, int) for v in values):
        raise ValueError(f"{name} is {list(values)}; allowed are whole numbers, both ends included")


def _check_conditions(dimension: Dimension, given: Mapping[str, Dimension]) -> None:
    for key, allowed in dimension.when.items():
        where = f"setting in space.{dimension.key}.when"
        if key not in given:
            raise unknown(where, key, [k for k in given if k != dimension.key])
        other = given[key]
        if other.sampler not in LISTED:
            raise ValueError(f"{where}: {key} must be drawn by choice or grid, not {other.sampler}")
        for value in allowed:
            if value not in other.values:
                raise ValueError(
                    f"{where}: {key} is never {value!r}; choose from "
                    f"{', '.join(map(str, other.values))}"
                )
