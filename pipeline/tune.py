"""``srdet tune``: a Ray Tune sweep over any training setting; a trial is a ``srdet train`` run.

    srdet tune --config conf/tune/smoke.yaml --shards shards/
    srdet tune --config conf/tune/smoke.yaml --shards shards/ --resume
    srdet tune --config conf/tune/srgan.yaml --shards shards/ --address head:6379

In MLflow the sweep is one run and its trials are nested below it. The best trial's network is left
as net.safetensors and its settings as best.yaml, which ``srdet train --config`` takes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipeline import tracking
from pipeline.addresses import is_server, open_command, run_page, without_credentials
from pipeline.files import atomic_file, json_text
from pipeline.options import run_function
from pipeline.ray_session import check_address, ray_session
from pipeline.recording.registry import check_name
from pipeline.sweeps.board import Board, say, showing
from pipeline.sweeps.cluster import ENVIRONMENT, room_for
from pipeline.sweeps.outcome import (
    Ended,
    Standing,
    ended,
    failures,
    print_table,
    rows,
    stand,
    story,
)
from pipeline.sweeps.settings import Budget, GainStudy, Hopeless, Lpips, Mode, Resources, Scheduler
from pipeline.sweeps.space import Point, Space, parse_space
from pipeline.sweeps.words import base_words
from pipeline.tracking import Run

if TYPE_CHECKING:
    from pipeline.sweeps.running import Strategy
    from pipeline.sweeps.trial import Plan

DEFINITION = "sweep.json"
NET, BEST = "net.safetensors", "best.yaml"


@dataclass(frozen=True)
class Swept:
    """The end of a sweep.

    Attributes:
        best: settings of the best trial, those that were searched.
        metrics: of its network.
        net: that network.
        config: its settings as a file for `srdet train --config`.
        trials: all of them, the best first.
        front: trials that no other one beats; of one objective, the best alone.
    """

    best: Point
    metrics: dict[str, float]
    net: Path
    config: Path
    trials: list[Ended]
    front: list[Ended]


def main(words: list[str]) -> None:
    """The command; a bare ``--resume`` or ``--dry`` means yes."""
    followed = zip(words, [*words[1:], "--"], strict=True)
    switches = [w in ("--resume", "--dry") and after.startswith("--") for w, after in followed]
    words = [f"{w}=true" if bare else w for w, bare in zip(words, switches, strict=True)]
    run_function(tune, words, name="tune")


def tune(
    train: list[Path],
    space: dict[str, dict[str, Any]],
    *,
    shards: str,
    fixed: dict[str, Any] | None = None,
    objective: dict[str, Mode] = {"val/psnr_y": "max"},  # noqa: B006 (never written to)
    trials: int = 8,
    search: str = "random",
    scheduler: Scheduler = Scheduler(),  # noqa: B008 (frozen)
    resources: Resources = Resources(),  # noqa: B008 (frozen)
    budget: Budget = Budget(),  # noqa: B008 (frozen)
    hopeless: Hopeless = Hopeless(),  # noqa: B008 (frozen)
    lpips: Lpips = Lpips(),  # noqa: B008 (frozen)
    detection: GainStudy | None = None,
    retries: int = 1,
    out: Path = Path("runs/tune"),
    resume: bool = False,
    dry: bool = False,
    address: str | None = None,
    seed: int = 0,
    name: str | None = None,
    experiment: str = "srdet tune",
    register: str | None = None,
) -> Swept | None:
    """Searches training settings.

    Args:
        train: config files of `srdet train` that every trial starts from.
        space: setting -> one of uniform, loguniform, quniform (with a step), randint (both ends
            included), choice, grid -> its values; beside it `when`: other setting -> values with
            which this one plays a part.
        shards: folder or address of the shards.
        fixed: settings that every trial has instead of those in the files.
        objective: metric -> max or min: val/psnr_y, val/ssim_y, val/lpips, or detect/gain_low, the
            lower end of the interval of the mAP gain over bicubic. With several the Pareto set is
            found; schedulers look at the first.
        trials: to draw. A grid has as many as it has combinations.
        search: "random", "grid", or "tpe", which learns from what ended (Bergstra et al. 2011, by
            Optuna).
        scheduler: which trials go on.
        resources: what one trial gets.
        budget: what the sweep may spend.
        hopeless: trials that need not go on.
        lpips: the network behind val/lpips.
        detection: the study behind detect/gain_low.
        retries: how often a failed trial goes on from its last checkpoint.
        out: folder of the sweep, on a disk that all machines of a cluster share.
        resume: go on with the sweep in out.
        dry: only check all settings, and say what would be run.
        address: of a running Ray cluster, such as head:6379; without it RAY_ADDRESS, and without
            that an embedded Ray.
        seed: of the draws.
        name: how the sweep is called in MLflow; the out folder's name without it.
        experiment: MLflow experiment.
        register: name in MLflow's registry, of which the best network becomes a version.

    Returns:
        The best trial; None of a dry run.

    Raises:
        ValueError: settings that do not fit, or no trial that came to a result.
        FileExistsError: out holds a sweep, and resume is off.
        ConnectionError: no Ray answers at the address, or the MLflow server does not.
    """
    from pipeline.sweeps.checks import check
    from pipeline.sweeps.running import Strategy
    from pipeline.sweeps.strategy import points
    from pipeline.sweeps.trial import Plan, noted

    searched, fixed, out = parse_space(space), fixed or {}, out.resolve()
    listed = points(searched, search, trials, seed)
    definition = {
        "train": [str(path) for path in train], "space": space, "fixed": fixed,
        "shards": without_credentials(shards), "objective": objective, "trials": trials,
        "search": search, "scheduler": asdict(scheduler), "seed": seed,
    }  # fmt: skip
    _check_folder(out, definition, resume=resume)
    address = address or os.environ.get("RAY_ADDRESS")
    check_address(address)
    if not resume:
        tracking.check_store(tracking.default_uri())
    say("checking every setting against the training parser ...")
    base = base_words(train, fixed, shards)
    checked = check(searched, base, objective, scheduler, detection, lpips)
    if register:
        check_name(tracking.default_uri(), register, kind="network", scale=checked.scale)
    count = len(listed) if listed is not None else trials
    if dry:
        say(f"{count} trials of {checked.validations} validations each; every setting fits")
        return None
    settings = {**definition, "resources": asdict(resources), "budget": asdict(budget)}
    with ray_session(address, environment=ENVIRONMENT) as ray:
        room = room_for(resources, ray.cluster_resources())
        _define(out, definition)
        with tracking.start_in(
            out, experiment, name or f"sweep {out.name}", parent=None, resumed=resume,
            tags={"kind": "sweep", "objective": ", ".join(objective)},
        ) as run:  # fmt: skip
            _warn_of_file(address, run)
            run.params(settings)
            chosen = room.gpus or "trainer.accelerator" in fixed
            given = [] if chosen else ["--trainer.accelerator=cpu"]
            plan = Plan(
                base=[*base, *given, f"--run.experiment={experiment}"], out=out,
                objective=objective, labels=searched.labels(), workers=resources.workers,
                threads=resources.cpus, gpus=room.gpus, parent=noted(run), lpips=lpips.absolute(),
                study=detection.absolute() if detection else None,
            )  # fmt: skip
            strategy = Strategy(
                searched, listed, count, room.trials, scheduler, budget, hopeless, retries, seed
            )
            standing = _held(plan, strategy, checked.validations, run, resume=resume)
            return _conclude(
                standing, run, searched, train=train, fixed=fixed, plan=plan, register=register
            )


def _held(
    plan: "Plan", strategy: "Strategy", validations: int, run: Run, *, resume: bool
) -> Standing:
    """The sweep itself, with the board, and who won."""
    from pipeline.sweeps.reports import tidy
    from pipeline.sweeps.running import run_sweep

    board = Board(plan.objective, plan.labels, strategy.trials, validations)
    try:
        with showing(board):
            results = run_sweep(plan, strategy, validations, resume=resume)
    except KeyboardInterrupt:
        say(f"go on with the same command and --resume (the sweep is in {plan.out})")
        raise
    finally:
        tracking.close_children(run)
    for folder in plan.out.glob("trial-*"):  # Ray ends the last ones' processes without mercy
        tidy(folder)
    return stand(ended(results, plan.out, validations), plan.objective)


def _check_folder(out: Path, definition: Mapping[str, Any], *, resume: bool) -> None:
    """Refuses to mix sweeps.

    Raises:
        FileExistsError: there is one, and it was not asked to go on.
        FileNotFoundError: there is none to go on with.
        ValueError: there is another one.
    """
    noted = out / DEFINITION
    if not noted.exists():
        if resume:
            raise FileNotFoundError(f"{out} holds no sweep to go on with; leave --resume out")
        if out.exists() and any(out.iterdir()):
            raise FileExistsError(f"{out} exists and is not empty; choose another --out")
        return
    if not resume:
        raise FileExistsError(f"{out} holds a sweep; go on with --resume, or choose another --out")
    known, asked = json.loads(noted.read_text()), json.loads(json.dumps(definition))
    if differs := [key for key in asked if asked[key] != known.get(key)]:
        told = "; ".join(f"{key} was {known.get(key)} and is {asked[key]}" for key in differs)
        raise ValueError(
            f"{out} holds another sweep ({told}); give the settings it was begun with, or choose "
            "another --out"
        )


def _define(out: Path, definition: Mapping[str, Any]) -> None:
    with atomic_file(out / DEFINITION) as temporary:
        temporary.write_text(json.dumps(definition, indent=1))


def _warn_of_file(address: str | None, run: Run) -> None:
    if address and not is_server(run.uri):
        say(
            "the MLflow store is a file: trials on other machines reach it only on a disk that all "
            "share; better set MLFLOW_TRACKING_URI to a server"
        )


def _conclude(
    standing: Standing,
    run: Run,
    space: Space,
    *,
    train: list[Path],
    fixed: Mapping[str, Any],
    plan: "Plan",
    register: str | None,
) -> Swept:
    """What the sweep leaves: table, plots, the best network and its recipe, marks on the trials."""
    from pipeline.sweeps.leave import leave_networks, mark_trials, register_best, trial_runs
    from pipeline.sweeps.plots import plots

    objective, out, best = plan.objective, plan.out, standing.best
    table = rows(standing, objective, plan.labels)
    with atomic_file(out / "trials.json") as temporary:
        temporary.write_text(json_text(table))
    run.table(table, "trials.json")
    for title, figure in plots(standing, space, objective).items():
        figure.savefig(out / f"{title}.png", dpi=120)
        run.figure(figure, f"plots/{title}.png")
    run.metrics({f"best/{metric}": best.metrics[metric] for metric in objective})
    run.tags({"best": best.name})
    runs = trial_runs(run)
    pages = {trial: run_page(run.experiment_id, run_id) for trial, run_id in runs.items()}
    run.describe(story(standing, objective, plan.labels, pages))
    leave_networks(standing, run, train=train, fixed=fixed, plan=plan)
    register_best(standing, run, register, plan)
    mark_trials(standing, run, runs)
    print_table(table, objective, Console())
    for line in failures(standing.trials):
        say(line)
    scores = ", ".join(f"{metric} {best.metrics[metric]:.5g}" for metric in objective)
    say(f"best: {best.name}, {scores}")
    say(f"its network: {out / NET}; its recipe, for srdet train --config: {out / BEST}")
    say(f"MLflow: {open_command(run.uri)}")
    return Swept(
        best.point, dict(best.metrics), out / NET, out / BEST, standing.trials, standing.front
    )
