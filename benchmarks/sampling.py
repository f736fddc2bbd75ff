"""Drawing 8 -> 32 pixels: features computed once each, beside the whole PixelCNN for every value.

Run it with: python -m benchmarks.sampling
"""

import time
from collections.abc import Iterator
from itertools import islice

import torch

from sr_module import build

SIZES: dict[str, dict[str, object]] = {
    "the paper's prior (20 layers of 64)": {},
    "a small one (6 layers of 32)": {"prior_features": 32, "prior_layers": 6, "hidden": 256},
}
VALUES = 96
"""Of 3072 that the slower way is timed for."""


def run() -> Iterator[tuple[str, str]]:
    """Processor seconds for one picture, and how many times as fast the cache makes it."""
    lr = torch.rand(1, 3, 8, 8)
    for name, sizes in SIZES.items():
        net = build("pixel_recursive", 4, **sizes).eval()
        began = time.process_time()
        net.sample(lr, generator=torch.Generator().manual_seed(0))
        cached = time.process_time() - began
        levels = torch.zeros(1, 3, 32, 32, dtype=torch.long)
        with torch.no_grad():
            began = time.process_time()
            done = sum(1 for _ in islice(net._naive(levels), VALUES))
            naive = (time.process_time() - began) * 3072 / done
        yield name, f"{cached:6.2f} s   naive {naive:7.1f} s   {naive / cached:5.1f}x as fast"


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<40} {figure}")
