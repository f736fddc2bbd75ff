"""Ray's part of a sweep, from the first trial or from where it was stopped."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.sweeps.board import watcher
from pipeline.sweeps.settings import Budget, Hopeless, Scheduler
from pipeline.sweeps.space import Point, Space
from pipeline.sweeps.strategy import Names, limits, numbered, scheduler, searcher
from pipeline.sweeps.trial import POINT, Plan, bundles, trial

KEPT_STATES = 3
"""Checkpoints that Ray keeps of a trial: what it noted last may be one behind."""


@dataclass(frozen=True)
class Strategy:
    """How the sweep goes about it.

    Attributes:
        space: what is searched.
        points: the trials' settings, where they are known before.
        trials: to run.
        at_once: of them at most; None leaves it to Ray, by what is free.
        scheduler: which of them go on.
        budget: what they may spend.
        hopeless: which need not go on.
        retries: how often a failed one goes on.
        seed: of the draws.
    """

    space: Space
    points: list[Point] | None
    trials: int
    at_once: int | None
    scheduler: Scheduler
    budget: Budget
    hopeless: Hopeless
    retries: int
    seed: int


def run_sweep(plan: Plan, strategy: Strategy, validations: int, *, resume: bool) -> Any:  # noqa: ANN401
    """Ray's results.

    Args:
        plan: of the trials.
        strategy: of the sweep.
        validations: of a trial that goes to its end.
        resume: go on where Ray noted something; trials also know what they have on disk.
    """
    from ray import tune

    trainable = tune.with_resources(partial(trial, plan=plan), bundles(plan))
    place = plan.out / "ray"
    if resume and tune.Tuner.can_restore(str(place)):
        return tune.Tuner.restore(str(place), trainable, resume_errored=True).fit()
    listed, objective, names = strategy.points, plan.objective, Names(plan.out)
    tuner = tune.Tuner(
        trainable,
        param_space=None if listed is None else {POINT: tune.grid_search(numbered(listed))},
        tune_config=tune.TuneConfig(
            num_samples=strategy.trials if listed is None else 1,
            max_concurrent_trials=strategy.at_once,
            scheduler=scheduler(
                strategy.scheduler, strategy.space, objective, validations, strategy.seed
            ),
            search_alg=searcher(strategy.space, objective, strategy.trials, strategy.seed)
            if listed is None
            else None,
            reuse_actors=True,  # a process pays ten seconds of imports once, not for every trial
            trial_name_creator=names,
            trial_dirname_creator=names,
        ),
        run_config=tune.RunConfig(
            storage_path=str(place.parent),
            name=place.name,
            verbose=0,
            callbacks=[watcher()],
            stop=limits(plan.out, strategy.budget, strategy.hopeless, objective),
            failure_config=tune.FailureConfig(max_failures=strategy.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT_STATES),
        ),
    )
    return tuner.fit()
