"""Every rung of the ladder at x4: seconds per megapixel that it makes, on one thread.

Run it with: OMP_NUM_THREADS=1 python -m benchmarks.rungs [NAME ...]. Weights do not matter for the
time. The picture is as large as those of Set14; a rung that takes long is measured once, in bf16.
"""

import statistics
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.upscalers import Precision, Upscaler, as_upscaler, open_upscaler
from sr_module import SRNet, build
from sr_module.upscale import precisions

SIZE, SCALE, ROUNDS, LONG_S = (128, 192), 4, 5, 5.0
RUNGS: dict[str, tuple[str, dict[str, object]]] = {
    "SRCNN 9-1-5": ("srcnn", {}),
    "SRCNN 9-5-5": ("srcnn", {"middle": 5}),
    "FSRCNN": ("fsrcnn", {}),
    "FSRCNN-s": ("fsrcnn", {"features": 32, "shrunk": 5, "mapping": 1}),
    "ESPCN": ("espcn", {}),
    "RAISR": ("raisr", {}),
    "VDSR": ("vdsr", {}),
    "SRResNet, small": ("msrresnet", {"features": 32, "blocks": 8}),
    "SRResNet": ("srresnet", {}),
    "EDSR baseline": ("edsr", {}),
    "compact": ("compact", {}),
    "RRDB, 6 blocks": ("rrdbnet", {"blocks": 6}),
    "RRDB, 23 blocks": ("rrdbnet", {}),
    "EDSR": ("edsr", {"features": 256, "blocks": 32, "residual_scale": 0.1}),
    "DRCN": ("drcn", {}),
}
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32", "int8")
"""In their order: a rung that takes long is not measured beyond the first."""


def run(names: list[str]) -> Iterator[tuple[str, str]]:
    """Seconds per megapixel in each precision; of all rungs where none is named."""
    lr = torch.rand(1, 3, *SIZE)
    for kernel in ("bicubic", "lanczos"):
        if not names:
            yield kernel, f"{_seconds(open_upscaler(kernel, scale=SCALE), lr):8.3f}"
    for name in names or RUNGS:
        arch, args = RUNGS[name]
        yield name, "   ".join(_figures(build(arch, SCALE, **args), name, lr))


def _figures(net: SRNet, name: str, lr: Tensor) -> Iterator[str]:
    for precision in sorted(precisions(net, "cpu"), key=PRECISIONS.index):
        seconds = _seconds(as_upscaler(net, name, precision=precision, device="cpu"), lr)
        yield f"{seconds:8.3f} in {precision}"
        if seconds * lr.shape[-1] * lr.shape[-2] * SCALE**2 / 1e6 > LONG_S:
            return


def _seconds(upscaler: Upscaler, lr: Tensor) -> float:
    """Median processor seconds per megapixel made, after one picture to warm up."""
    taken: list[float] = []
    while not taken or (taken[0] < LONG_S and len(taken) <= ROUNDS):
        started = time.process_time()
        made = upscaler(lr)
        taken.append(time.process_time() - started)
    counted = taken if len(taken) == 1 else taken[1:]
    return statistics.median(counted) / (made.shape[-2] * made.shape[-1] / 1e6)


if __name__ == "__main__":
    for label, figure in run(sys.argv[1:]):
        print(f"{label:<18} {figure}", flush=True)
