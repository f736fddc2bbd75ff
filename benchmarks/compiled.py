"""torch.compile beside eager, training steps of each architecture: is it worth its compile time?

Run it with: python -m benchmarks.compiled. Steps of both alternate in one process; the first step
of the compiled one is what compiling costs, and divided by what a step saves it tells after how
many steps it has paid.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.clock import medians
from benchmarks.train_step import train
from pipeline.world import best_device, best_precision
from sr_module import build

SCALE, ROUNDS = 4, 5


@dataclass(frozen=True)
class Kind:
    """A network with its batch."""

    arch: str
    batch: int
    crop: int
    args: dict[str, Any]


KINDS = {
    "SRCNN 9-1-5": Kind("srcnn", 16, 96, {}),
    "ESPCN": Kind("espcn", 16, 96, {}),
    "SRResNet 64 x 16": Kind("msrresnet", 16, 96, {}),
    "RRDB, 6 blocks": Kind("rrdbnet", 4, 128, {"blocks": 6}),
}


def run() -> Iterator[tuple[str, str]]:
    """Milliseconds of a step in both ways, and seconds of the first compiled one."""
    dtype = torch.bfloat16 if best_precision("auto") == "bf16-mixed" else torch.float32
    for name, kind in KINDS.items():
        eager, compiled = _step(kind, dtype, compiles=False), _step(kind, dtype, compiles=True)
        began = time.perf_counter()
        compiled()
        first = time.perf_counter() - began
        taken = medians({"eager": eager, "compiled": compiled}, rounds=ROUNDS)
        saved = taken["eager"] - taken["compiled"]
        pays = f"after {first / saved:,.0f} steps" if saved > 0 else "never"
        steps = "   ".join(f"{way} {1000 * each:7.1f} ms" for way, each in taken.items())
        ratio = taken["eager"] / taken["compiled"]
        yield name, f"{steps}   {ratio:5.2f}x   compiling {first:5.1f} s, pays {pays}"


def _step(kind: Kind, dtype: torch.dtype, *, compiles: bool) -> Callable[[], None]:
    device = best_device()
    torch.manual_seed(0)
    layout = torch.channels_last
    net = build(kind.arch, SCALE, **kind.args).to(device).to(memory_format=layout)
    optimizer = torch.optim.Adam(net.parameters(), 2e-4, fused=True)
    if compiles:
        net.compile()
    side = kind.crop // SCALE
    lr = torch.rand(kind.batch, 3, side, side, device=device).to(memory_format=layout)
    hr = torch.rand(kind.batch, 3, kind.crop, kind.crop, device=device).to(memory_format=layout)
    return partial(train, net, optimizer, lr, hr, dtype)


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<20} {figure}", flush=True)
