"""``srdet train``: train a super-resolution network from shards.

    srdet train --config conf/experiment/srresnet.yaml --data.shards shards/ --run.out runs/srresnet
    srdet train validate --config conf/experiment/srresnet.yaml --run.out runs/srresnet
    lightning run --devices 8 pipeline/train.py fit --config conf/experiment/srresnet.yaml ...
    torchrun --nproc_per_node 8 pipeline/train.py fit --config conf/experiment/srresnet.yaml ...
    srdet train --ray 8 --config conf/experiment/srresnet.yaml ...

Settings come from conf/default.yaml, then each --config in turn, then the command line.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from pipeline import profiling, tracking
from pipeline.best import KeepBest, SameBuffers
from pipeline.checkpoints import LAST, check_space, sweep
from pipeline.data import ShardData
from pipeline.fingerprints import listed
from pipeline.going_on import Note, Start, TakeSettings, start_of
from pipeline.heap import keep_freed_memory
from pipeline.held import held
from pipeline.index import Index
from pipeline.outcome import BEST_NET, NET, Best, Trained, finished, tell, tell_finished
from pipeline.parsing import CONF, TrainCLI, parse, plain
from pipeline.progress import console
from pipeline.registered import check_free
from pipeline.resume import KeepLast, WholeFiles, fit_or_stop, stop_file
from pipeline.settings import RunSettings
from pipeline.skipped import TellSkipped
from pipeline.tracking import Run
from pipeline.train_record import Origins, record_settings, send_networks
from pipeline.training_bar import show
from pipeline.watch import Recorder, Throughput, ValidationPictures, quiet_lightning
from pipeline.world import check_world, cores_shared_with, world_of
from sr_module.training import SRTraining

__all__ = ["CONF", "Setup", "Trained", "configured", "export", "fit", "main", "period", "validate"]


@dataclass(frozen=True)
class Setup:
    """A run that is ready to go."""

    trainer: pl.Trainer
    model: SRTraining
    data: ShardData
    settings: RunSettings
    config: dict[str, Any]
    """All settings, resolved, as plain values."""
    files: list[str]
    """Where they come from, besides conf/default.yaml and the command line."""


def main(words: list[str]) -> int:
    """The command: ``fit`` (the default) or ``validate``."""
    verb, rest = (words[0], words[1:]) if words[:1] in (["fit"], ["validate"]) else ("fit", words)
    quiet_lightning()
    cli = parse(profiling.spelled_out(rest))
    if verb == "fit" and cli.config["ray"]["workers"]:
        from pipeline import ray_train

        return ray_train.main(plain(cli))
    setup = _built(cli)
    if verb == "validate":
        for name, score in validate(setup).items():
            console.print(f"{name} {score:.4f}", highlight=False)
        return 0
    if not _is_over(setup):
        trained = fit(setup)
        if trained is not None:
            tell(trained)
    return 0


def _is_over(setup: Setup) -> bool:
    """Whether the run is finished already, which is told."""
    out = setup.settings.out
    if not (out / NET).is_file():
        return False  # without reading the checkpoint, which ``fit`` reads
    setup.data.setup("fit")
    note = Note.of(setup.config, setup.data.digest)
    start = start_of(out, setup.settings.resume, note, says=False)
    over = finished(out, start, setup.trainer.max_steps)
    if over and setup.trainer.global_rank == 0:
        tell_finished(out, start)
    return over


def configured(words: list[str]) -> Setup:
    """Builds a run from conf/default.yaml and ``words``, as on the command line.

    Raises:
        ValueError: a key or value that does not fit, with the nearest right one.
    """
    quiet_lightning()
    return _built(parse(words))


def _built(cli: TrainCLI) -> Setup:
    cli.build()
    config = plain(cli)
    settings = RunSettings(**{**config["run"], "out": Path(config["run"]["out"])})
    files = [str(file) for file in cli.config.get("config") or []][1:]
    return Setup(cli.trainer, cli.model, cli.datamodule, settings, config, files)


def period(config: Mapping[str, Any]) -> int:
    """Steps between two validations, by all settings of a run."""
    batches: int = config["data"]["steps_per_epoch"]
    return max(1, batches // (config["trainer"].get("accumulate_grad_batches") or 1))


def fit(
    setup: Setup, *, parent: Run | None = None, watching: Sequence[Callback] = ()
) -> Trained | None:
    """Trains, tracks and exports; goes on after a stop.

    Args:
        setup: of ``configured``; its trainer gets logger and callbacks here.
        parent: run under which this one is shown.
        watching: callbacks besides our own, of every rank.

    Returns:
        What rank zero wrote; None on the other ranks.

    Raises:
        BlockingIOError: another process trains in the run's folder.
        ValueError: the folder holds another run, or settings do not fit.
    """
    keep_freed_memory()
    check_world(setup.trainer.world_size)
    setup.data.setup("fit")
    first = setup.trainer.global_rank == 0
    with held(setup.settings.out, "trains") if first else nullcontext():
        note = Note.of(setup.config, setup.data.digest)
        start = start_of(setup.settings.out, setup.settings.resume, note, says=first)
        last = _last(setup, note, start)
        if first:
            return _fit_first(setup, start, last, parent=parent, watching=watching)
        counted = Throughput(setup.settings.log_every)
        _train(setup, start, [*_everywhere(counted), *watching, last])
        return None


def _last(setup: Setup, note: Note, start: Start) -> KeepLast:
    """What keeps the run's state, on every rank."""
    settings, world = setup.settings, world_of()
    setup.trainer.strategy.checkpoint_io = files = WholeFiles(settings.keep_last)
    asked = stop_file(settings.out) if world and world.launcher == "Ray" else None
    return KeepLast(
        settings.out, settings.checkpoint_every, files=files, note=note, resumed=start.path,
        asked=asked,
    )  # fmt: skip


def _everywhere(counted: Throughput) -> list[Callback]:
    """What every rank has, in front of what only some have."""
    return [SameBuffers(), TakeSettings(), TellSkipped(), counted]


def _fit_first(
    setup: Setup,
    start: Start,
    last: KeepLast,
    *,
    parent: Run | None,
    watching: Sequence[Callback],
) -> Trained:
    """Rank zero's part of ``fit``: it tells, keeps, shows and writes."""
    trainer, settings = setup.trainer, setup.settings
    counted, resumed = Throughput(settings.log_every), start.path is not None
    if resumed:
        console.print(start.told(trainer.max_steps), highlight=False, soft_wrap=True)
    _prepare(setup, tracking.store_under(parent))
    with _open_run(setup, parent=parent, resumed=resumed) as run:
        record_settings(run, setup.config, _origins(setup), settings.out)
        run.tags(start.tags)
        best = KeepBest(
            settings.out / BEST_NET, settings.best, export=partial(export, setup, run),
            resumed=resumed, validation=setup.data.validation,
        )  # fmt: skip
        if settings.send_last:
            last.files.send = partial(run.checkpoint, keep=settings.send_last)
        trainer.logger = Recorder(run, trainer)
        pictures = ValidationPictures(settings.pictures, setup.data.first_validated)
        over = start.ended(trainer.max_steps)
        bar = [] if over else show("training", every=settings.log_every, best=lambda: best.best)
        if settings.profile:
            tell_profile = partial(profiling.tell, folder=settings.out, run=run)
            trainer.profiler = profiling.StepProfile(settings.profile, done=tell_profile)  # type: ignore[attr-defined]
        # The bar behind the counts that it shows, the checkpoint behind everything.
        _train(setup, start, [*_everywhere(counted), best, pictures, *bar, *watching, last])
        return _finish(setup, run, counted, best.best)


def _prepare(setup: Setup, store: str) -> None:
    """What is to be found out before the first step rather than after hours."""
    settings = setup.settings
    if settings.profile:
        profiling.check_long_enough(setup.trainer.max_steps)
    sweep(settings.out)
    check_space(settings.out, setup.model, keep=settings.keep_last)
    check_free(settings.register, store, kind="network", scale=setup.model.net.scale)
    settings.out.mkdir(parents=True, exist_ok=True)


def _origins(setup: Setup) -> Origins:
    assert setup.data.index is not None
    return Origins(
        type(setup.model).__name__, setup.model.net, setup.data.shards, setup.data.index,
        setup.files, setup.trainer.world_size,
    )  # fmt: skip


def _train(setup: Setup, start: Start, callbacks: Sequence[Callback]) -> None:
    """Every rank's part: training, and scores of the very weights that leave the run."""
    setup.trainer.callbacks += callbacks  # type: ignore[attr-defined]
    started = 1 if world_of() else setup.trainer.num_devices  # by Lightning, in fit
    with cores_shared_with(setup.data.workers, processes=started):
        fit_or_stop(setup.trainer, setup.model, setup.data, checkpoint=start.path)
    if setup.model.validated_at != setup.trainer.global_step:
        setup.trainer.validate(setup.model, datamodule=setup.data, verbose=False)


def _open_run(setup: Setup, *, parent: Run | None, resumed: bool) -> AbstractContextManager[Run]:
    settings, origins = setup.settings, _origins(setup)
    return tracking.start_in(
        settings.out, settings.experiment, settings.name or settings.out.name, parent=parent,
        tags=origins.tags, resumed=resumed,
        at_once=parent is not None,
    )  # fmt: skip


def _finish(setup: Setup, run: Run, counted: Throughput, best: Best | None) -> Trained:
    """Exports the averaged network, and sums up."""
    net, metrics = setup.settings.out / NET, _metrics(setup.trainer)
    export(setup, run, net)
    steps = setup.trainer.global_step
    send_networks(
        run, net, _origins(setup), setup.settings, best=best, metrics=metrics, steps=steps
    )
    return Trained(
        net, metrics, run, steps=steps, images=counted.seen,
        seconds=counted.seconds, skipped=int(metrics.get("train/skipped", 0)), best=best,
    )  # fmt: skip


def export(setup: Setup, run: Run, path: Path) -> None:
    """Writes the averaged network with where it comes from."""
    index = setup.data.index
    assert index is not None
    provenance = {
        "steps": setup.trainer.global_step,
        "metrics": _metrics(setup.trainer),
        "protocol": str(setup.model.protocol),
        "data": {"source": index.source, "digest": index.digest()},
        "validation": setup.data.validation,
        **_pictures(setup, index),
        "mlflow_run": run.stored_id,
    }
    setup.model.export(path, provenance=provenance)


def _pictures(setup: Setup, index: Index) -> dict[str, str]:
    before = setup.config["model"]["init_args"].get("init_from")
    return listed(index.fingerprints, before=Path(before) if before else None)


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def validate(setup: Setup) -> dict[str, float]:
    """Scores the run's last checkpoint on the val split, every sample counted once."""
    check_world(setup.trainer.world_size)
    last = start_of(setup.settings.out, "auto", Note.of(setup.config)).path
    if last is None:
        raise FileNotFoundError(
            f"no checkpoint {setup.settings.out / LAST}; train first, or name the run's folder "
            "with --run.out"
        )
    scores = setup.trainer.validate(
        setup.model, datamodule=setup.data, ckpt_path=str(last), verbose=False
    )
    return {key: float(value) for key, value in scores[0].items()}


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"srdet train: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
