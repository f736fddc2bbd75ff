"""Does an enlargement keep things where they are?

Boxes found in an enlarged window are mapped back by a division. That is right only where pixel
centres were kept in place; half a pixel of error costs a box of 8 pixels a fifth of its overlap.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detection.boxes import Upscale

POSITIONS = ((0.0, 0.0), (0.25, 0.0), (0.5, 0.5), (0.0, 0.75))
"""Places of the blob within a pixel."""


def centre_shift(upscale: Upscale, *, scale: int, side: int = 48) -> tuple[float, float]:
    """How far right and down an enlargement moves a smooth blob, in pixels BEFORE enlargement.

    Nearest, bilinear, bicubic and Lanczos enlargement with centres kept in place stay below 0.01;
    one that lets the corner pixels coincide misses by ``(scale - 1) / (2 * scale)``: 0.375 at 4
    times.

    Args:
        upscale: ``(B, 3, h, w) -> (B, 3, scale * h, scale * w)``, floats in [0, 1].
        scale: what it enlarges by.
        side: of the test pictures in pixels, at least 32.
    """
    centres = torch.tensor(POSITIONS) + side // 2
    blobs = torch.stack([_blob(float(x), float(y), side) for x, y in centres])
    flat = torch.full_like(blobs[:1], 0.25)
    # A network may change a flat picture, too: only what the blob adds has a centre.
    added = (upscale(blobs) - upscale(flat)).float().cpu().mean(dim=1)
    # A network's faint noise far from the blob would pull on its centre.
    added = added * (added.abs() > 1e-3 * added.amax(dim=(1, 2), keepdim=True))
    shift = (_centroid(added) / scale - centres).mean(dim=0)
    return float(shift[0]), float(shift[1])


def _blob(x: float, y: float, side: int) -> Tensor:
    """A Gaussian on grey, ``(3, side, side)``, sampled at the middle of every pixel."""
    grid = torch.arange(side) + 0.5
    down, across = (torch.exp(-((grid - centre) ** 2) / (2 * 3.0**2)) for centre in (y, x))
    return (0.25 + 0.5 * torch.outer(down, across)).expand(3, -1, -1)


def _centroid(mass: Tensor) -> Tensor:
    """Centre of mass ``(B, 2)`` x, y of ``(B, H, W)``, where pixel i covers [i, i + 1)."""
    rows, columns = (torch.arange(n) + 0.5 for n in mass.shape[-2:])
    total = mass.sum(dim=(1, 2))
    x, y = (mass.sum(dim=1) * columns).sum(dim=1), (mass.sum(dim=2) * rows).sum(dim=1)
    return torch.stack([x / total, y / total], dim=1)
