"""Work shared among the workers of a Ray cluster, whatever the work is.

Each worker opens its tools once and keeps them. Results come as they are done; who calls puts them
in order. A worker that dies is started again and its piece of work is done anew.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from pipeline.heap import keep_freed_memory
from pipeline.ray_session import ray_session

Piece = TypeVar("Piece")
Tools = TypeVar("Tools")
Result = TypeVar("Result")

TRIES = 3
"""Of a piece whose worker dies."""


@dataclass(frozen=True)
class RaySpread:
    """Spreads pieces of work over Ray actors.

    Attributes:
        workers: how many.
        address: of a running cluster ("auto" finds this machine's); without it RAY_ADDRESS, and
            without that an embedded one.
        gpus: of a worker, fractions allowed.
    """

    workers: int
    address: str | None = None
    gpus: float = 0.0

    def __call__(
        self,
        work: Callable[[Piece, Tools], Result],
        open_tools: Callable[[], Tools],
        pieces: Sequence[Piece],
    ) -> Iterator[tuple[Piece, Result]]:
        """Each piece with what ``work(piece, tools)`` made of it, in the order they are done.

        Args:
            work: sent to every worker, like ``open_tools``.
            open_tools: called once by every worker.
            pieces: of the work.
        """
        with self.connected() as ray:
            yield from self._results(ray, work, open_tools, pieces)

    def connected(self) -> AbstractContextManager[Any]:
        """A block within which all calls share one Ray.

        Raises:
            ConnectionError: Ray does not start, or nothing answers at the address.
        """
        return ray_session(self.address, cores=max(self.workers, 1))

    def _results(
        self,
        ray: Any,  # noqa: ANN401 (ray publishes no types that mypy follows)
        work: Callable[[Piece, Tools], Result],
        open_tools: Callable[[], Tools],
        pieces: Sequence[Piece],
    ) -> Iterator[tuple[Piece, Result]]:
        actor = ray.remote(
            num_cpus=1, num_gpus=self.gpus, max_restarts=TRIES, max_task_retries=TRIES
        )(_Worker)
        work_ref = ray.put((work, open_tools, torch.get_num_threads()))
        count = min(self.workers, len(pieces))
        idle = [actor.remote(work_ref) for _ in range(count)]
        waiting = list(pieces)
        running: dict[Any, tuple[Piece, Any]] = {}
        while waiting or running:
            while waiting and idle:
                piece, worker = waiting.pop(0), idle.pop()
                running[worker.do.remote(piece)] = (piece, worker)
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            piece, worker = running.pop(ready)
            idle.append(worker)
            yield piece, ray.get(ready)


class _Worker:
    """Holds the opened tools; as many threads as the calling process, for the same rounding."""

    def __init__(self, sent: tuple[Callable[..., Any], Callable[[], Any], int]) -> None:
        keep_freed_memory()
        self.work, open_tools, threads = sent
        torch.set_num_threads(threads)
        self.tools = open_tools()

    def do(self, piece: Any) -> Any:  # noqa: ANN401 (as the caller's work is)
        return self.work(piece, self.tools)
