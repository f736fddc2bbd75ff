"""Enlarging: files to files beside the realesrgan package, and SRCNN's descendants beside SRCNN.

Run it with: make bench, or the second table alone: python -m benchmarks.upscale. The peer needs an
environment of its own (requirements-peers.txt), named in SRDET_PEERS_PYTHON; the published weights,
where SRDET_DATA is set, take the place of random ones.
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.clock import medians
from benchmarks.served import Served, interleaved
from pipeline.heap import keep_freed_memory
from pipeline.world import best_device
from sr_module import build, upscale
from sr_module.upscale import precisions

WIDTH, HEIGHT, PICTURES, ROUNDS, THREADS = 768, 512, 3, 3, 2
FRAME = (540, 960)
FAST: dict[str, tuple[str, int, dict[str, object]]] = {
    "srcnn 9-5-5": ("srcnn", 2, {"middle": 5}),  # what the papers of the two others compare with
    "srcnn 9-1-5": ("srcnn", 2, {}),
    "fsrcnn": ("fsrcnn", 2, {}),
    "fsrcnn-s": ("fsrcnn", 2, {"features": 32, "shrunk": 5, "mapping": 1}),
    "espcn": ("espcn", 2, {}),
    "raisr": ("raisr", 2, {}),
    "raisr x4": ("raisr", 4, {}),
    "compact 16 x 8": ("compact", 2, {"features": 16, "convs": 8}),
}


def run() -> Iterator[tuple[str, str]]:
    """Output megapixels a second and peak memory; then the seconds of a 1080p frame."""
    yield from _beside_realesrgan(os.environ.get("SRDET_PEERS_PYTHON"))
    yield from _beside_srcnn()


def _beside_realesrgan(peers: str | None) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        _write_pictures(root / "in")
        weights = _weights(root)
        begin = partial(_begin, stack, root, weights)
        works = {"srdet upscale": begin(sys.executable, "benchmarks.enlarge_srdet")}
        if peers:
            for name, tile in (("realesrgan, untiled", "0"), ("realesrgan, tiles of 256", "256")):
                works[name] = begin(peers, "benchmarks.enlarge_realesrgan", tile)
        taken = interleaved(works, rounds=ROUNDS)
        seconds = {name: each.seconds for name, each in taken.items()}
        pixels = PICTURES * 16 * WIDTH * HEIGHT / 1e6
        ours = seconds["srdet upscale"]
        for name, value in seconds.items():
            figure = f"{pixels / value:6.2f} output MP/s   {works[name].peak_mb:5.0f} MB"
            yield f"compact x4, {name}", f"{figure}   srdet {value / ours:5.2f}x as fast"
        if not peers:
            yield "compact x4, realesrgan", "skipped: SRDET_PEERS_PYTHON is not set"


def _begin(
    stack: contextlib.ExitStack, root: Path, weights: Path, python: str, module: str, *more: str
) -> Served:
    out = root / "-".join((module, *more))
    words = ["-m", module, str(weights), str(root / "in"), str(out), *more]
    return stack.enter_context(Served(python, words, threads=THREADS))


def _write_pictures(folder: Path) -> None:
    """Soft blobs with grain, as much work for a PNG encoder as photographs are."""
    folder.mkdir()
    for number in range(PICTURES):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
        soft = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        grain = rng.normal(0, 3, soft.shape)
        Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


def _weights(root: Path) -> Path:
    """The published file, or one of the same form with random values."""
    if data := os.environ.get("SRDET_DATA"):
        return Path(data) / "weights" / "realesr-animevideov3.pth"
    torch.manual_seed(0)
    torch.save({"params": build("compact", 4).state_dict()}, root / "compact.pth")
    return root / "compact.pth"


def _beside_srcnn() -> Iterator[tuple[str, str]]:
    """Every network makes a frame of 1080p; the weights do not matter for the time.

    On a CPU processor time counts, which other work on the machine disturbs less.
    """
    keep_freed_memory()  # as the commands do
    device = best_device()
    works = {}
    for name, (arch, scale, args) in FAST.items():
        net = build(arch, scale, **args).to(device)
        frame = torch.rand(1, net.channels, *(side * 2 // scale for side in FRAME))
        for precision in precisions(net, device):
            works[name, precision] = partial(upscale, net, frame, precision=precision)
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds = medians(works, rounds=ROUNDS, clock=clock)
    for (name, precision), value in seconds.items():
        of = {p: value / its for (other, p), its in seconds.items() if other == "srcnn 9-5-5"}
        parts = "   ".join(f"{part:6.3f} of SRCNN 9-5-5 in {p}" for p, part in of.items())
        yield f"{name} to 1080p, {precision}", f"{value:7.3f} s   {parts}"


if __name__ == "__main__":
    for label, figure in _beside_srcnn():
        print(f"{label:<44} {figure}", flush=True)
