"""Timing that alternates what is compared, so that a machine that slows down slows all of it."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def medians(
    works: Mapping[Name, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, float]:
    """Median seconds of each work over ``rounds`` interleaved rounds, after one to warm up."""
    seconds: dict[Name, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = clock()
            work()
            if number:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
