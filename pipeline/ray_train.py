"""Training on Ray Train: ``srdet train --ray 8``, on this machine or a cluster.

Each worker runs what every other launcher starts (``pipeline.train.fit``), in the world that Ray
describes. The run's own checkpoints serve, in ``run.out``, which all nodes must see: where a worker
dies, Ray starts the group anew, and the run goes on from the last sealed one.
"""

import contextlib
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.going_on import Note, start_of
from pipeline.held import held
from pipeline.index import load_index
from pipeline.origin import COMMAND, command
from pipeline.outcome import Trained, finished, tell, tell_finished
from pipeline.progress import console
from pipeline.ray_session import ray_session
from pipeline.resume import TERMINATED, stop_file
from pipeline.settings import RaySettings, RunSettings
from pipeline.tracking import Run
from pipeline.transfer import Retry, is_remote
from pipeline.world import RAY, SHARE, check_joined, world_of

if TYPE_CHECKING:
    from pipeline.train import Setup

Watching = Callable[["Setup"], Sequence[Any]]
ENVIRONMENT = {
    "RAY_DEDUP_LOGS": "0",
    # Its notices reach only trainings that ask Ray for them; ours save when a signal tells them to.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # torch is imported first
}
"""Of Ray Train, beside what every Ray here has."""


def _reporter(setup: "Setup") -> list[Any]:
    """Every rank reports, as Ray waits for all of them."""
    from ray import train

    from pipeline.watch import Reporter

    return [Reporter(train.report)]


def main(config: dict[str, Any]) -> int:
    """``srdet train --ray N``: trains, and ends as a run does that is stopped from outside.

    Args:
        config: all settings, resolved.

    Raises:
        ValueError: settings that do not fit, or the error that ended a worker.
        ConnectionError: no Ray at the address.
    """
    _check(config)
    settings, run = RaySettings(**config["ray"]), _run_settings(config)
    # What is wrong is said here, before workers are started to say it.
    data, retry = config["data"], Retry(total_s=config["data"]["retry_s"])
    index = load_index(data["shards"], retry=retry, most=data["max_bad_share"])
    with held(run.out, "trains"):
        start = start_of(run.out, run.resume, Note.of(config, index.digest()))
        if finished(run.out, start, config["trainer"]["max_steps"]):
            tell_finished(run.out, start)
            return 0
    with connected(settings), _stoppable(run.out):
        told = f"{settings.workers} workers on Ray ({_resources()}) ..."
        console.print(told, highlight=False)
        trained = _waited_for(config)
    if trained is None:
        console.print("stopped; the same command goes on from here", highlight=False)
        return TERMINATED
    tell(trained)
    return 0


def fit_on_ray(
    config: dict[str, Any],
    *,
    parent: Run | None = None,
    watching: Watching = _reporter,
    callbacks: Sequence[Any] = (),
) -> Trained | None:
    """Trains ``config["ray"]["workers"]`` processes together, in the Ray that is connected.

    Args:
        config: all settings of a training, resolved, as ``pipeline.parsing.plain`` gives them.
        parent: run in MLflow under which this one is shown.
        watching: makes the callbacks of every process, of its setup. One of them must report each
            validation to Ray Train, on every rank.
        callbacks: ``ray.train.UserCallback`` objects.

    Returns:
        What the run leaves; None where it was stopped from outside, and can go on.

    Raises:
        ValueError: a worker ended by an error more often than ``ray.failures`` allows.
    """
    from ray import train
    from ray.train.torch import TorchTrainer

    settings, run = RaySettings(**config["ray"]), _run_settings(config)
    task = {
        "config": _from_anywhere(config),
        "folder": str(Path.cwd()),
        "parent": parent,
        "watching": watching,
        "environment": {
            **{k: v for k, v in os.environ.items() if k.startswith("MLFLOW_")},
            COMMAND: command(),
            SHARE: str(settings.cpus),  # as Ray sets OMP_NUM_THREADS, where nobody else has
        },
    }
    gpus = _gpus_per_worker(config)
    trainer = TorchTrainer(
        work,
        train_loop_config=task,
        scaling_config=train.ScalingConfig(
            num_workers=settings.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": settings.cpus, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=train.RunConfig(
            name="ray",
            storage_path=str(run.out.absolute()),
            failure_config=train.FailureConfig(max_failures=settings.failures),
            callbacks=list(callbacks),
            # Below errors, it tells of each try to reach its own parts, with tracebacks.
            logging_config=train.LoggingConfig("ERROR"),
        ),
    )
    try:
        result = trainer.fit()
    except train.TrainingFailedError as error:
        raise ValueError(_told(error)) from error
    trained: Trained | None = pickle.loads(result.return_value)
    return trained


def work(task: Mapping[str, Any]) -> bytes:
    """One worker, in a process of Ray: the same run as under any launcher.

    Returns:
        What ``fit`` gave, pickled: Ray's controller passes it on and need not import torch for it.
    """
    os.environ.update(task["environment"])
    os.environ[RAY] = "1"
    with contextlib.suppress(OSError):  # another node may not have the folder
        os.chdir(task["folder"])
    from pipeline.train import configured, fit

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(task["config"]))
        setup = configured(["--config", str(path)])
    try:
        trained = fit(setup, parent=task["parent"], watching=task["watching"](setup))
    except SystemExit as stop:
        if stop.code != TERMINATED:
            raise
        trained = None  # what was asked for is no failure, after which Ray would begin anew
    return pickle.dumps(trained)


def connected(settings: RaySettings) -> contextlib.AbstractContextManager[Any]:
    """A block with a Ray to train on.

    Raises:
        ConnectionError: Ray does not start, or nothing answers at the address.
    """
    # More workers than cores take turns rather than wait for ever.
    cores = max(os.cpu_count() or 1, settings.workers * settings.cpus)
    return ray_session(settings.address, cores=cores, environment=ENVIRONMENT, show_workers=True)


def _check(config: Mapping[str, Any]) -> None:
    """Ray alone says how many processes there are."""
    world = world_of()
    if world is None:
        check_joined(1)
    elif world.size > 1:
        raise ValueError(
            f"ray.workers is {config['ray']['workers']}, but {world.launcher} started this process "
            f"as one of {world.size}; start the command once, or leave --ray out"
        )
    for key, free in (("devices", (None, "auto", -1, "-1")), ("num_nodes", (None, 1))):
        if config["trainer"].get(key) not in free:
            raise ValueError(
                f"trainer.{key} is {config['trainer'][key]}, but on Ray it is ray.workers that "
                f"says how many processes train; leave trainer.{key} out"
            )


def _from_anywhere(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the places of run and shards as every process can name them."""
    shards = config["data"]["shards"]
    place = shards if is_remote(shards) else str(Path(shards).absolute())
    # After a failure the run goes on, whatever it should have done with what lay there before.
    run = {"out": str(Path(config["run"]["out"]).absolute()), "resume": "auto"}
    return {
        **config, "data": {**config["data"], "shards": place}, "run": {**config["run"], **run},
    }  # fmt: skip


def _run_settings(config: Mapping[str, Any]) -> RunSettings:
    return RunSettings(**{**config["run"], "out": Path(config["run"]["out"])})


def _gpus_per_worker(config: Mapping[str, Any]) -> float:
    """What the settings say, else one where the cluster has GPUs and the trainer wants them."""
    import ray

    given = config["ray"]["gpus"]
    if given is not None:
        return float(given)
    wanted = config["trainer"].get("accelerator") in ("auto", "gpu", "cuda")
    return 1.0 if wanted and ray.cluster_resources().get("GPU") else 0.0


def _resources() -> str:
    import ray

    there = ray.cluster_resources()
    return f"{len(ray.nodes())} nodes, {there.get('CPU', 0):g} CPUs, {there.get('GPU', 0):g} GPUs"


@contextlib.contextmanager
def _stoppable(out: Path) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask the workers to save and end; a second one ends this process.

    Ray's workers get no signals, and their training is no main thread: they look for a file.
    """
    asked, path = threading.Event(), stop_file(out)
    path.unlink(missing_ok=True)

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        console.print("asked to stop; saving after this step ...", highlight=False)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        path.unlink(missing_ok=True)


def _waited_for(config: dict[str, Any]) -> Trained | None:
    """``fit_on_ray`` beside the main thread: there, Ray would take Ctrl-C for itself."""
    pool = ThreadPoolExecutor(1)
    training: Future[Trained | None] = pool.submit(fit_on_ray, config)
    try:
        return training.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _told(error: Exception) -> str:
    """What ended the workers, in one sentence, the most telling of them."""
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    causes = {rank: getattr(failed, "_base_exc", failed) for rank, failed in failures.items()}
    # Where one rank ends, the others lose their connection to it.
    telling = sorted(causes, key=lambda rank: (not isinstance(causes[rank], ValueError), rank))
    if not telling:
        return str(error)
    rank = telling[0]
    lines = str(causes[rank]).strip().splitlines() or [type(causes[rank]).__name__]
    return (
        f"rank {rank} on Ray ended: {lines[0]}; the run goes on from its last checkpoint when "
        "the command is given again"
    )
