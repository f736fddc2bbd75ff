"""Training steps beside BasicSR's own, each in its process, in turn: SRResNet, RRDB, ESRGAN.

Run it with: python -m benchmarks.training. The whole step counts: forward, losses, backward,
optimisers, running average, and what the trainer around it costs. BasicSR runs in the environment
whose interpreter SRDET_PEERS_PYTHON names (requirements-peers.txt). Networks that train alone are
also set against the machine's ceiling, products of large matrices in the same number format.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.products import OPERATIONS
from benchmarks.served import Served, Taken, interleaved
from pipeline.world import best_precision
from sr_module import build

BASICSR = "BasicSR, fp32"
PRODUCTS = "products of matrices, "
ROUNDS, SCALE = 4, 4


@dataclass(frozen=True)
class Kind:
    """One training: the name that the processes know it by, and its size."""

    name: str
    batch: int
    crop: int
    steps: int
    """A round."""

    def operations(self) -> int:
        """Multiplications and additions of a step's convolutions; 0 for several networks."""
        name, _, blocks = self.name.partition("-")
        if name == "esrgan":
            return 0
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            net = (
                build("rrdbnet", SCALE, blocks=int(blocks)) if blocks else build("msrresnet", SCALE)
            )
            net(torch.rand(self.batch, 3, *[self.crop // SCALE] * 2)).sum().backward()
        return counter.get_total_flops()


CPU = (Kind("srresnet", 16, 96, 1), Kind("rrdb-6", 4, 128, 1), Kind("esrgan-23", 2, 128, 1))
CUDA = (Kind("srresnet", 16, 96, 20), Kind("rrdb-23", 16, 128, 5), Kind("esrgan-23", 16, 128, 5))


@dataclass(frozen=True)
class Work:
    """What runs, by which interpreter, and what it computes in a round."""

    python: str
    words: list[str]
    form: str
    """Number format."""
    operations: int


def run() -> Iterator[tuple[str, str]]:
    """Images a second, how many times BasicSR's, and what part of the ceiling."""
    for kind in CUDA if torch.cuda.is_available() else CPU:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            works = _works(kind, folder)
            running = {
                name: stack.enter_context(Served(work.python, work.words, threads=1))
                for name, work in works.items()
            }
            taken = interleaved(running, rounds=ROUNDS)
            for name, work in works.items():
                rate = work.operations / taken[name].seconds
                if name.startswith(PRODUCTS):
                    yield f"{kind.name}: {name}", f"{rate / 1e9:7.0f} G operations/s"
                    continue
                figure = _figure(kind, taken[name], taken.get(BASICSR))
                if ceiling := works.get(PRODUCTS + work.form):
                    most = ceiling.operations / taken[PRODUCTS + work.form].seconds
                    figure += f"   {rate / most:4.0%} of products in {work.form}"
                yield f"{kind.name}: {name}", f"{figure}   {running[name].peak_mb:6.0f} MB"
    if BASICSR not in taken:
        yield BASICSR, "skipped: SRDET_PEERS_PYTHON is not set"


def _works(kind: Kind, folder: str) -> dict[str, Work]:
    size = [str(kind.batch), str(kind.crop), str(kind.steps)]
    computed = kind.operations() * kind.steps
    forms = {"fp32": "32-true"}
    if (precision := best_precision("auto")) != "32-true":
        forms["bf16"] = precision

    def ours(name: str, form: str) -> Work:
        words = ["-m", "benchmarks.train_srdet", name, forms[form], folder, *size]
        return Work(sys.executable, words, form, computed)

    works = {f"srdet, {form}": ours(kind.name, form) for form in forms}
    if kind.name.startswith("rrdb"):
        # images count, not what is computed twice for them
        works["srdet, activations recomputed"] = ours(f"{kind.name}+recompute", [*forms][-1])
    if peers := os.environ.get("SRDET_PEERS_PYTHON"):
        words = ["-m", "benchmarks.train_basicsr", kind.name, *size]
        works[BASICSR] = Work(peers, words, "fp32", computed)
    if computed:
        for form in forms:
            words = ["-m", "benchmarks.products", form, str(_count(kind))]
            works[PRODUCTS + form] = Work(sys.executable, words, form, OPERATIONS * _count(kind))
    return works


def _count(kind: Kind) -> int:
    """Products that take about a quarter of a round's time."""
    return max(1, kind.operations() * kind.steps // OPERATIONS // 4)


def _figure(kind: Kind, each: Taken, peer: Taken | None) -> str:
    said = f"{kind.batch * kind.steps / each.seconds:7.2f} images/s"
    if peer is None:
        return said
    by_clock, by_processor = peer.seconds / each.seconds, peer.processor / each.processor
    return f"{said}   {by_clock:5.2f} x BasicSR   ({by_processor:5.2f} by processor time)"


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<40} {figure}", flush=True)
