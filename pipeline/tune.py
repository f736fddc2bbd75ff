"""``srdet tune``: a Ray Tune sweep over any training setting; a trial is a ``srdet train`` run.

    srdet tune --config conf/tune/smoke.yaml --shards shards/

In MLflow the sweep is one run and its trials are nested below it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from pipeline import tracking
from pipeline.options import run_function
from pipeline.progress import console
from pipeline.tracking import Run

if TYPE_CHECKING:
    from ray.tune import ResultGrid

SAMPLERS = ("choice", "uniform", "loguniform", "randint", "grid_search")


@dataclass(frozen=True)
class Swept:
    """The end of a sweep."""

    best: dict[str, Any]
    """The settings of the best trial, those that were searched."""
    value: float
    config: Path
    """Resolved config of the best trial, ready for ``srdet train --config``."""
    trials: int
    failed: int


def main(words: list[str]) -> None:
    """The command."""
    run_function(tune, words, name="tune")


def tune(
    train: list[Path],
    space: dict[str, dict[str, list[int | float | str]]],
    *,
    shards: Path,
    fixed: dict[str, int | float | str] | None = None,
    out: Path = Path("runs/tune"),
    metric: str = "val/psnr_y",
    mode: Literal["max", "min"] = "max",
    samples: int = 8,
    scheduler: Literal["asha", "none"] = "asha",
    grace: int = 1,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0.0,
    address: str | None = None,
    seed: int = 0,
    experiment: str = "srdet tune",
) -> Swept:
    """Searches training settings.

    Args:
        train: config files of `srdet train` that every trial starts from.
        space: setting -> one of choice, uniform, loguniform, randint, grid_search -> its values.
        shards: folder of the shards.
        fixed: settings that every trial has instead of those in the files.
        out: folder for the trials.
        metric: a validation metric that training reports.
        mode: whether more or less of it is better.
        samples: trials to draw.
        scheduler: "asha" stops trials that lag behind (Li et al. 2018, arXiv:1810.05934).
        grace: validations that every trial may have before it can be stopped.
        cpus_per_trial: cores of a trial.
        gpus_per_trial: GPUs of a trial, fractions allowed.
        address: of a running Ray cluster; an embedded one without it.
        seed: of the draws.
        experiment: MLflow experiment.

    Returns:
        The best trial.
    """
    import ray
    from ray import tune as ray_tune

    drawn = {key: sampler(key, how) for key, how in space.items()}
    base = [f"--config={path.resolve()}" for path in train]
    base += [f"--{key}={value}" for key, value in (fixed or {}).items()]
    base += [f"--data.shards={shards.resolve()}", f"--run.experiment={experiment}"]
    out = out.resolve()
    with tracking.start(experiment, f"sweep {out.name}") as run:
        run.params({"space": space, "metric": metric, "mode": mode, "samples": samples})
        _connect(address)
        try:
            one = partial(
                trial, base=base, out=out, metric=metric, cores=cpus_per_trial, parent=run
            )
            tuner = ray_tune.Tuner(
                ray_tune.with_resources(one, {"cpu": cpus_per_trial, "gpu": gpus_per_trial}),
                param_space=drawn,
                tune_config=ray_tune.TuneConfig(
                    metric=metric, mode=mode, num_samples=samples,
                    scheduler=_scheduler(scheduler, grace),
                    search_alg=ray_tune.search.BasicVariantGenerator(random_state=seed),
                ),
                run_config=ray_tune.RunConfig(storage_path=str(out), name="ray", verbose=0),
            )  # fmt: skip
            console.print(f"sweep of {samples} trials ...", highlight=False)
            results = tuner.fit()
        finally:
            ray.shutdown()
            tracking.close_children(run)
        return _conclude(results, run, space, metric=metric, mode=mode, out=out)


def sampler(key: str, how: Mapping[str, list[Any]]) -> Any:  # noqa: ANN401 (Ray's own types)
    """One setting's search space, as Ray draws it.

    Raises:
        ValueError: no such sampler, or wrong values for it.
    """
    from ray import tune as ray_tune

    if len(how) != 1 or next(iter(how)) not in SAMPLERS:
        raise ValueError(
            f"space.{key} is {dict(how)}; allowed is exactly one of {', '.join(SAMPLERS)}, such as "
            "loguniform: [1.0e-4, 1.0e-2]"
        )
    name, values = next(iter(how.items()))
    if name in ("choice", "grid_search"):
        return getattr(ray_tune, name)(values)
    if len(values) != 2 or not values[0] < values[1]:
        raise ValueError(f"space.{key}.{name} is {values}; allowed is [low, high], low below high")
    return getattr(ray_tune, name)(*values)


def trial(
    drawn: dict[str, Any], *, base: list[str], out: Path, metric: str, cores: int, parent: Run
) -> None:
    """One trial, in a process of Ray: a training run whose validations are reported."""
    import torch
    from ray import tune as ray_tune

    from pipeline.train import configured, fit
    from pipeline.watch import Reporter

    torch.set_num_threads(cores)
    name = ray_tune.get_context().get_trial_name()
    words = [*base, *(f"--{key}={value}" for key, value in drawn.items())]
    setup = configured([*words, f"--run.out={out / name}", f"--run.name={name}"])

    def report(metrics: dict[str, float]) -> None:
        if metric not in metrics:
            raise ValueError(
                f"metric '{metric}' is not reported; training reports {', '.join(sorted(metrics))}"
            )
        ray_tune.report({**metrics, "trial_name": name})

    fit(setup, parent=parent, watching=[Reporter(report)])


def _connect(address: str | None) -> None:
    import ray

    ray.init(
        address=address,
        num_cpus=None if address else os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def _scheduler(name: str, grace: int) -> Any:  # noqa: ANN401 (Ray's own types)
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

    return AsyncHyperBandScheduler(grace_period=grace) if name == "asha" else FIFOScheduler()


def _conclude(
    results: "ResultGrid",
    run: Run,
    space: Mapping[str, Any],
    *,
    metric: str,
    mode: Literal["max", "min"],
    out: Path,
) -> Swept:
    """The table of trials, and the best one's config."""
    if results.num_errors == len(results):
        said = str(results.errors[0]).strip().splitlines()[-1]
        raise ValueError(f"every trial failed; the first said: {said}")
    rows = [_row(result, space, metric) for result in results]
    rows.sort(key=lambda row: (row[metric] is None, -row[metric] if mode == "max" else row[metric]))
    run.table(rows, "trials.json")
    best = results.get_best_result(metric, mode)
    trial_name = best.metrics["trial_name"]
    config = out / trial_name / "config.yaml"
    drawn = {key: best.config[key] for key in space}
    run.metrics({f"best/{metric.split('/')[-1]}": best.metrics[metric]})
    run.artifact(config, folder="best")
    _print(rows, metric)
    console.print(f"best: {drawn}; its config: {config}", highlight=False)
    return Swept(drawn, float(best.metrics[metric]), config, len(results), results.num_errors)


def _row(result: Any, space: Mapping[str, Any], metric: str) -> dict[str, Any]:  # noqa: ANN401
    metrics = result.metrics or {}
    drawn = {key.split(".")[-1]: result.config[key] for key in space}
    state = "failed" if result.error else "finished"
    return {
        "trial": metrics.get("trial_id", ""), **drawn, metric: metrics.get(metric),
        "validations": metrics.get("training_iteration", 0), "state": state,
    }  # fmt: skip


def _print(rows: list[dict[str, Any]], metric: str) -> None:
    table = Table(title=f"trials by {metric}")
    for key in rows[0]:
        table.add_column(key, justify="left" if key == "trial" else "right")
    for row in rows:
        table.add_row(*(f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
