"""Degrades batches of 16 pictures of 256 x 256 px; see ``degradation.py``."""

import sys

import torch

from benchmarks.served import serve
from sr_module.degrade import SecondOrder


def main(kind: str) -> None:
    """Serves batches."""
    torch.manual_seed(0)
    hr = torch.rand(16, 3, 256, 256)
    degrade = SecondOrder(4, sharpened=kind == "sharpened")
    generator = torch.Generator().manual_seed(0)
    serve(lambda: degrade(hr, generator))


if __name__ == "__main__":
    main(*sys.argv[1:])
