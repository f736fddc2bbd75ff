"""Real time: frames of 540p enlarged to 1080p on two cores, in frames a second.

Run it with: python -m benchmarks.realtime. Weights do not matter for the time. Two ways of using
two cores: both on one frame, and each on a frame of its own (a frame then takes twice as long).
"""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from pipeline.heap import keep_freed_memory
from sr_module import SRNet, build, upscale
from sr_module.upscale import Precision, precisions

FRAME, CORES, FRAMES, ROUNDS = (540, 960), 2, 8, 3
NETS: dict[str, tuple[str, dict[str, object]]] = {
    "fsrcnn-s": ("fsrcnn", {"features": 32, "shrunk": 5, "mapping": 1}),
    "fsrcnn": ("fsrcnn", {}),
    "espcn": ("espcn", {}),
    "compact 16 x 4": ("compact", {"features": 16, "convs": 4}),
}


def run() -> Iterator[tuple[str, str]]:
    """Frames a second of every network, in fp32, bf16 and, where it has it, int8."""
    keep_freed_memory()  # as the commands do
    for name, (arch, args) in NETS.items():
        net = build(arch, 2, **args).eval()
        for precision in precisions(net, "cpu"):
            for kind, work in _works(net, precision).items():
                with _threads(CORES):
                    together = _both_on_one(work)
                with _threads(1):
                    apart = _one_each(work)
                figures = f"{together:5.1f} frames/s both on one, {apart:5.1f} one each"
                yield f"{name}, {precision}, {kind}", figures


def _works(net: SRNet, precision: Precision) -> dict[str, Callable[[], object]]:
    picture = torch.randint(0, 256, (*FRAME, 3), dtype=torch.uint8)
    lr = picture.permute(2, 0, 1) / 255
    return {
        "tensor to tensor": partial(upscale, net, lr, precision=precision),
        "8-bit frame to 8-bit frame": partial(_bytes_to_bytes, net, picture, precision),
    }


def _bytes_to_bytes(net: SRNet, picture: Tensor, precision: Precision) -> Tensor:
    sr = upscale(net, picture.permute(2, 0, 1) / 255, precision=precision)
    return sr.mul(255).add_(0.5).byte().permute(1, 2, 0)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _both_on_one(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(ROUNDS * 2):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return 1 / statistics.median(seconds)


def _one_each(work: Callable[[], object]) -> float:
    with ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(lambda _: work(), range(CORES)))
        rates = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            list(pool.map(lambda _: work(), range(FRAMES)))
            rates.append(FRAMES / (time.perf_counter() - started))
    return statistics.median(rates)


if __name__ == "__main__":
    for label, figure in run():
        print(f"{label:<44} {figure}", flush=True)
