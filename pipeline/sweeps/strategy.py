"""How a sweep goes about it, in Ray Tune's terms: what is tried next, what goes on, when to end."""

import json
import logging
import math
import random
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.files import atomic_file
from pipeline.sweeps.settings import SEARCHES, Budget, Hopeless, Mode, Scheduler
from pipeline.sweeps.space import Point, Space
from pipeline.sweeps.trial import NUMBER, POINT
from sr_module.choice import unknown

TIME = "validations"
"""What schedulers count."""
SPENT = "spent.json"
WRITE_EVERY_S = 5.0


def points(space: Space, search: str, trials: int, seed: int) -> list[Point] | None:
    """All trials' settings, where they are known before; None where each depends on the others.

    Raises:
        ValueError: no such search, no grid of this space, or a grid in a search that learns.
    """
    if search not in SEARCHES:
        raise unknown("search", search, SEARCHES)
    if trials < 1:
        raise ValueError(f"trials must be 1 or more, got {trials}")
    if search == "grid":
        return space.grid()
    if search == "random":
        return space.random(trials, seed)
    if gridded := [each.key for each in space.dimensions if each.sampler == "grid"]:
        raise ValueError(
            f"space.{gridded[0]} is a grid, and search tpe chooses by itself; make it a choice, or "
            "take --search random"
        )
    return None


def searcher(space: Space, objective: Mapping[str, Mode], trials: int, seed: int) -> Any:  # noqa: ANN401
    """Optuna's tree-structured Parzen estimator, of one objective or several."""
    warnings.filterwarnings("ignore", module="optuna")
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True,
            n_startup_trials=max(4, min(10, trials // 3)),
        )  # fmt: skip
    several = len(objective) > 1
    metrics, modes = list(objective), list(objective.values())
    return OptunaSearch(
        partial(_suggest, space=space),
        metric=metrics if several else metrics[0],
        mode=modes if several else modes[0],
        sampler=sampler,
    )


def _suggest(trial: Any, *, space: Space) -> None:  # noqa: ANN401 (Optuna's)
    space.suggest(trial, f"{POINT}/")


def scheduler(
    settings: Scheduler, space: Space, objective: Mapping[str, Mode], validations: int, seed: int
) -> Any:  # noqa: ANN401 (Ray's own types)
    """Ray's scheduler, which looks at the first objective.

    Raises:
        ValueError: trials are shorter than their grace.
    """
    from ray.tune import schedulers

    metric, mode = next(iter(objective.items()))
    shared = {"time_attr": TIME, "metric": metric, "mode": mode}
    if settings.kind == "none":
        return schedulers.FIFOScheduler()
    if settings.kind == "pbt":
        return _pbt(settings, space, shared, seed)
    if settings.grace > validations:
        raise ValueError(
            f"scheduler.grace is {settings.grace} validations, and a trial has {validations} in "
            "all; lower it, or data.steps_per_epoch"
        )
    if settings.kind == "median":
        return schedulers.MedianStoppingRule(
            **shared, grace_period=settings.grace, min_samples_required=2
        )
    if settings.kind == "hyperband":
        return schedulers.HyperBandScheduler(
            **shared, max_t=validations + 1, reduction_factor=settings.reduction
        )
    return schedulers.ASHAScheduler(
        **shared, max_t=validations + 1, grace_period=settings.grace,
        reduction_factor=settings.reduction,
    )  # fmt: skip


def _pbt(settings: Scheduler, space: Space, shared: Mapping[str, str], seed: int) -> Any:  # noqa: ANN401
    from ray.tune import schedulers

    rng = random.Random(seed)
    random.seed(seed)  # Ray perturbs by the module's own generator
    by_key = {each.key: each for each in space.dimensions}
    changing = settings.mutate or space.keys
    mutations = {
        key: list(by_key[key].values)
        if by_key[key].sampler in ("choice", "grid")
        else partial(by_key[key].draw, rng)
        for key in changing
    }
    return schedulers.PopulationBasedTraining(
        **shared,
        perturbation_interval=settings.interval,
        hyperparam_mutations={POINT: mutations},
        quantile_fraction=settings.quantile,
        resample_probability=settings.resample,
        synch=settings.synchronous,
        custom_explore_fn=partial(_inside, space=space),
    )


def _inside(config: dict[str, Any], *, space: Space) -> dict[str, Any]:
    """A changed point, back inside the ranges that the space allows."""
    point = config[POINT]
    by_key = {each.key: each for each in space.dimensions}
    inside = {key: by_key[key].clamp(value) for key, value in point.items() if key in by_key}
    return {**config, POINT: {**point, **inside}}


def limits(out: Path, budget: Budget, hopeless: Hopeless, objective: Mapping[str, Mode]) -> Any:  # noqa: ANN401
    """Ends hopeless trials, and the whole sweep when its budget is spent."""
    from ray.tune import Stopper

    class Limits(Stopper):  # type: ignore[misc]
        def __init__(self) -> None:
            self.spending = Spending(out, budget)

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            self.spending.note(trial_id, int(result.get("images", 0)))
            return is_hopeless(result, hopeless, objective)

        def stop_all(self) -> bool:
            return self.spending.is_spent()

    return Limits()


def is_hopeless(
    result: Mapping[str, Any], hopeless: Hopeless, objective: Mapping[str, Mode]
) -> bool:
    """Whether a trial need not go on after these metrics."""
    if not all(math.isfinite(result.get(metric, 0.0)) for metric in objective):
        return True
    if hopeless.floor is None or result.get(TIME, 0) < hopeless.after:
        return False
    metric, mode = next(iter(objective.items()))
    value = float(result[metric])
    return value < hopeless.floor if mode == "max" else value > hopeless.floor


class Spending:
    """Time and images that a sweep has spent, in a file beside it, so that a resume counts on."""

    def __init__(self, out: Path, budget: Budget) -> None:
        self.path, self.budget = out / SPENT, budget
        self.images: dict[str, int] = {}
        self.before = self.began = self.written = 0.0

    def note(self, trial: str, images: int) -> None:
        """What a trial has seen in all."""
        self._begin()
        self.images[trial] = images
        if time.time() - self.written > WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Notes what is spent."""
        self.written = time.time()
        with atomic_file(self.path) as temporary:
            temporary.write_text(json.dumps({"seconds": self.seconds(), "images": self.images}))

    def seconds(self) -> float:
        """Wall time so far, that before a resume included."""
        return self.before + time.time() - self.began

    def is_spent(self) -> bool:
        """Whether nothing is left."""
        self._begin()
        hours, images = self.budget.hours, self.budget.images
        spent = hours is not None and self.seconds() >= 3600 * hours
        return spent or (images is not None and sum(self.images.values()) >= images)

    def _begin(self) -> None:
        if self.began:
            return
        self.began = time.time()
        if self.path.exists():
            known = json.loads(self.path.read_text())
            self.before, self.images = known["seconds"], known["images"]


class Names:
    """Names trials ``trial-001`` and so on, the same for the same trial in every part of a sweep.

    A point that was known before has a number. Otherwise trials are numbered as they come, and a
    file remembers which is which.

    Args:
        out: folder of the sweep.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / "names.json"

    def __call__(self, trial: Any) -> str:  # noqa: ANN401 (Ray's)
        """The name of a trial, which is its folder's too."""
        number = trial.config.get(POINT, {}).get(NUMBER)
        if number is not None:
            return f"trial-{number:03d}"
        known: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}
        if trial.trial_id not in known:
            known[trial.trial_id] = f"trial-{len(known) + 1:03d}"
            with atomic_file(self.path) as temporary:
                temporary.write_text(json.dumps(known))
        return known[trial.trial_id]


def numbered(points: list[Point]) -> list[Point]:
    """The points as Ray carries them: each with its place among them."""
    return [{**point, NUMBER: place} for place, point in enumerate(points, start=1)]
