"""What being recorded costs a training step: 20 metrics every step, a picture every 100 steps.

Run it with: python -m benchmarks.recording [STEPS ROUNDS]

Steps with and without it take turns in one run, and what they told is sent at their expense. Beside
the clock stand the processor's seconds of all threads, which other work leaves alone. The last rows
measure recording by itself, over more steps than a few turns have.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.train_step import _step
from pipeline.tracking import Run, start

METRICS, PICTURE_EVERY = 20, 100
STEPS, ROUNDS = 50, 4
"""Steps in a row, with it or without it, and how often they take turns."""
ALONE = 200
"""Steps that are recorded and not made."""


def run(steps: int = STEPS, rounds: int = ROUNDS) -> Iterator[tuple[str, str]]:
    """The step without it, and what it adds: by the clock, by the processor, in the step itself."""
    torch.set_num_threads(1)
    step = _step(torch.bfloat16, torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        os.chdir(folder)
        with start("benchmark", "recording") as opened:
            told = Told(opened)
            told()
            step()
            told.sent()
            turns = np.array([_turns(step, told, steps, number) for number in range(rounds)])
            told.seconds = told.steps = 0
            alone = _steps(lambda: None, told, ALONE)[1] / ALONE
    off, on = turns.sum(0)  # each of clock and processor
    made = off[1] / rounds / steps
    yield "step, nothing recorded", f"{1e3 * made:8.1f} ms of a processor"
    yield "20 metrics a step, a picture in 100, clock", f"{100 * (on[0] / off[0] - 1):+8.2f} %"
    yield "the same, processor", f"{100 * (on[1] / off[1] - 1):+8.2f} %"
    yield (
        "recording by itself, all threads",
        f"{1e3 * alone:8.2f} ms a step, {100 * alone / made:.2f} %",
    )
    inside = told.seconds / told.steps
    yield (
        "of it, what the step waits for",
        f"{1e3 * inside:8.2f} ms a step, {100 * inside / made:.2f} %",
    )


class Told:
    """Tells a run of each step, and counts what that takes.

    Args:
        opened: the run.
    """

    def __init__(self, opened: Run) -> None:
        self.opened, self.number, self.steps, self.seconds = opened, 0, 0, 0.0
        self._picture = torch.rand(3, 256, 1024)

    def __call__(self) -> None:
        """One step's metrics, and a strip where one is due."""
        began = time.thread_time()
        self.steps += 1
        self.number += 1
        values = {f"train/metric_{n}": n + 1 / self.number for n in range(METRICS)}
        self.opened.metrics(values, step=self.number)
        if self.number % PICTURE_EVERY == 0:
            self.opened.picture("strip", self._picture, step=self.number)
        self.seconds += time.thread_time() - began

    def sent(self) -> None:
        """Waits until the store has it all."""
        self.opened.history("none")


def _turns(
    step: Callable[[], None], told: Told, steps: int, number: int
) -> list[tuple[float, float]]:
    """Without it and with it, the order changing from round to round."""
    works = [None, told] if number % 2 else [told, None]
    seconds = {work is None: _steps(step, work, steps) for work in works}
    return [seconds[True], seconds[False]]


def _steps(step: Callable[[], None], told: Told | None, steps: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor for so many steps."""
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
        if told:
            told()
    if told:
        told.sent()
    return time.perf_counter() - clock, time.process_time() - processor


if __name__ == "__main__":
    for name, figure in run(*map(int, sys.argv[1:3])):
        print(f"  {name:<44} {figure}", flush=True)
