"""A trial that several processes train: Ray Train inside Ray Tune.

Tune's own process of the trial trains nothing. It starts the group, passes on what rank zero
reports, and has the group save and end when the trial is stopped. States travel as paths, for the
sweep's folder is on a disk that all machines share.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from pipeline.parsing import parse, plain
from pipeline.ray_train import fit_on_ray
from pipeline.resume import stop_file
from pipeline.sweeps.reports import STATE, Reports, tidy
from pipeline.sweeps.space import Point
from pipeline.sweeps.trial import Plan, kept, measures, numbers, words_for
from pipeline.train import Setup

PLACE = "state"
"""Under which name the folder of a state travels beside its metrics."""
LOOK_S = 0.5


def train_together(
    plan: Plan, point: Point, folder: Path, report: Callable[[dict[str, Any], Path], None]
) -> None:
    """Trains a trial on ``plan.workers`` processes.

    Args:
        plan: of the sweep.
        point: settings of the trial.
        folder: of the trial.
        report: is given metrics and a folder with the state.

    Raises:
        ValueError: the error that ended a worker.
    """
    from ray.util.queue import Queue

    # Nothing is built here: this process may be where no GPU is.
    config = plain(parse(words_for(plan, point, folder)))
    config["run"] |= kept(config)
    config["ray"] |= {"workers": plan.workers, "cpus": plan.threads, "gpus": int(plan.gpus)}
    queue = Queue(actor_options={"num_cpus": 0})
    pool = ThreadPoolExecutor(1)
    with _tidied(folder):
        training = pool.submit(
            fit_on_ray, config, parent=plan.run(), callbacks=[_passing_on(queue)],
            watching=partial(watching, plan=plan, point=point, name=folder.name),
        )  # fmt: skip
        try:
            for metrics in _reported(queue, training):
                place = Path(metrics.pop(PLACE))
                report(metrics, place)
                shutil.rmtree(place)
            training.result()
        finally:  # the sweep ends a trial by an exception out of its report
            stop_file(folder).touch()
            wait([training])
            pool.shutdown()
            queue.shutdown()


@contextlib.contextmanager
def _tidied(folder: Path) -> Iterator[None]:
    """No group finds what asked the one before it to stop, nor leaves what nobody took."""
    tidy(folder)
    try:
        yield
    finally:
        tidy(folder)


def _reported(queue: Any, training: "Future[Any]") -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """What the group reports, as it comes, until it has ended and all is told."""
    from ray.util.queue import Empty

    while True:
        over = training.done()
        try:
            yield queue.get(timeout=LOOK_S)
        except Empty:
            if over:
                return


def _passing_on(queue: Any) -> Any:  # noqa: ANN401 (Ray's)
    """What Ray Train calls, in a process of its own, when all ranks have reported."""
    from ray.train import UserCallback

    class PassOn(UserCallback):  # type: ignore[misc]
        def after_report(self, run_context: object, metrics: list[Any], checkpoint: object) -> None:
            queue.put(metrics[0])

    return PassOn()


def watching(setup: Setup, *, plan: Plan, point: Point, name: str) -> list[pl.Callback]:
    """What every process of the group has besides its training."""
    reports = GroupReports(setup, plan.objective, numbers(plan, point), name, _report)
    return [*measures(plan, setup), reports]


def _report(metrics: dict[str, Any], place: Path) -> None:
    from ray import train

    train.report({**metrics, PLACE: str(place)})


class GroupReports(Reports):
    """Reports to Ray Train, on every rank; rank zero leaves the state in a folder.

    The last validation is reported when the state is written; the run may still close after it.
    """

    def last(self) -> None:
        """Reports the last validation, if it was not yet."""
        if not self.pending:
            return
        metrics, self.pending = self.pending, {}
        out = self.training.settings.out
        if not self.training.trainer.is_global_zero:
            self.report(metrics, out)  # Ray Train waits for all ranks; only rank zero is heard
            return
        place = Path(tempfile.mkdtemp(prefix=STATE, dir=out))
        self.state(place, metrics["step"])
        self.report(metrics, place)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Where the run ended with a validation; its files are whole by now."""
        self.last()
