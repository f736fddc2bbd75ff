"""Training steps beside BasicSR's own, each in its process, in turn: SRResNet, RRDB, ESRGAN.

Run it with: python -m benchmarks.training. The whole step counts: forward, losses, backward,
optimisers, running average, and what the trainer around it costs. BasicSR runs in the environment
whose interpreter SRDET_PEERS_PYTHON names (requirements-peers.txt).
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.served import Served, Taken, interleaved
from pipeline.world import best_precision

BASICSR = "BasicSR, fp32"
ROUNDS = 4


@dataclass(frozen=True)
class Kind:
    """One training: the name that the processes know it by, and its size."""

    name: str
    batch: int
    crop: int
    steps: int
    """A round."""


CPU = (Kind("srresnet", 16, 96, 1), Kind("rrdb-6", 4, 128, 1), Kind("esrgan-23", 2, 128, 1))
CUDA = (Kind("srresnet", 16, 96, 20), Kind("rrdb-23", 16, 128, 5), Kind("esrgan-23", 16, 128, 5))


def run() -> Iterator[tuple[str, str]]:
    """Images a second, and how many times BasicSR's, by the clock and by processor time."""
    for kind in CUDA if torch.cuda.is_available() else CPU:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            works = {
                name: stack.enter_context(Served(python, words, threads=1))
                for name, (python, words) in _works(kind, folder).items()
            }
            taken = interleaved(works, rounds=ROUNDS)
            for name, each in taken.items():
                memory = f"{works[name].peak_mb:6.0f} MB"
                yield f"{kind.name}: {name}", f"{_figure(kind, each, taken)}   {memory}"
    if BASICSR not in taken:
        yield BASICSR, "skipped: SRDET_PEERS_PYTHON is not set"


def _works(kind: Kind, folder: str) -> dict[str, tuple[str, list[str]]]:
    """What runs, and by which interpreter."""
    size = [str(kind.batch), str(kind.crop), str(kind.steps)]
    ours = ["-m", "benchmarks.train_srdet"]
    precisions = dict.fromkeys(("32-true", best_precision("auto")))
    works = {
        f"srdet, {'fp32' if precision == '32-true' else 'bf16'}": (
            sys.executable, [*ours, kind.name, precision, folder, *size],
        )
        for precision in precisions
    }  # fmt: skip
    if kind.name.startswith("rrdb"):
        words = [*ours, f"{kind.name}+recompute", list(precisions)[-1], folder, *size]
        works["srdet, activations recomputed"] = (sys.executable, words)
    if peers := os.environ.get("SRDET_PEERS_PYTHON"):
        works[BASICSR] = (peers, ["-m", "benchmarks.train_basicsr", kind.name, *size])
    return works


def _figure(kind: Kind, each: Taken, taken: dict[str, Taken]) -> str:
    said = f"{kind.batch * kind.steps / each.seconds:7.2f} images/s"
    if BASICSR not in taken:
        return said
    peer = taken[BASICSR]
    by_clock, by_processor = peer.seconds / each.seconds, peer.processor / each.processor
    return f"{said}   {by_clock:5.2f} x BasicSR   ({by_processor:5.2f} by processor time)"


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<40} {figure}", flush=True)
