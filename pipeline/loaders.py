"""Torch's data loaders over the streams: where a pass begins, and what a reader's end says."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.stream import TrainStream

_GRACE = 60
"""Seconds."""


class Loader(DataLoader[Tensor]):
    """Says in one sentence what a reader process ended with."""

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except (ValueError, OSError) as error:
            raise type(error)(_sentence(str(error))) from error


class TrainLoader(Loader):
    """Tells its stream, at the start of every pass, where the trainer stands."""

    def __init__(
        self,
        stream: TrainStream,
        reading: dict[str, Any],
        position: Callable[[], tuple[int, int]],
    ) -> None:
        super().__init__(stream, batch_size=None, **reading)
        self.stream, self.position = stream, position

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]
        self.stream.epoch, self.stream.skip = self.position()
        return super().__iter__()


def _sentence(said: str) -> str:
    """An error's own words, without the traceback that torch puts before those of a reader."""
    lines = said.splitlines()
    return lines[-1].partition(": ")[2] if len(lines) > 1 else said


def reading(workers: int, *, pin_memory: bool) -> dict[str, Any]:
    """How torch's loaders read, by the settings of ``ShardData``."""
    return {
        "num_workers": workers,
        "pin_memory": pin_memory and torch.cuda.is_available(),
        # fork is Linux's default up to Python 3.13 and starts in milliseconds; the readers use no
        # threads.
        "multiprocessing_context": "fork" if workers else None,
        "worker_init_fn": _outlive_sigterm,
    }


def _outlive_sigterm(worker: int) -> None:
    """SIGTERM ends a reader a minute later: launchers send it to all processes of a job.

    Until then training takes the steps after which its ranks stop together, and saves them. A
    reader whose training process has died ends by itself.
    """
    del worker
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
