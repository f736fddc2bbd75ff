"""Multiplies square matrices, so many times for a line of its input: the most a machine computes.

See ``training.py``. Run by this project's interpreter.
"""

import sys

import torch

from benchmarks.served import serve
from pipeline.world import best_device

SIDE = 8192 if torch.cuda.is_available() else 2048
OPERATIONS = 2 * SIDE**3
"""Of a product: multiplications and additions."""


def main(precision: str, count: str) -> None:
    """Serves rounds of ``count`` products."""
    device = best_device()
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # what its convolutions do unasked
    one, other = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))

    def work() -> None:
        for _ in range(int(count)):
            torch.mm(one, other)

    serve(work, settle=torch.cuda.synchronize if device == "cuda" else int)


if __name__ == "__main__":
    main(*sys.argv[1:])
