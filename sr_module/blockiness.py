"""Blockiness: how much the edges of JPEG's blocks stand out from the rest of a picture.

The blocking effect factor of Yim and Bovik 2011, "Quality Assessment of Deblocked Images", IEEE
Transactions on Image Processing 20(1). A network that was never shown JPEG sharpens the blocks of
its input; neither PSNR nor NIQE names that fault.
"""

import math

import torch
from torch import Tensor

from sr_module.metrics import luma


def blockiness(image: Tensor, *, block: int = 8) -> Tensor:
    """Excess of the squared steps across block edges over those elsewhere; 0 where there is none.

    Args:
        image: ``(B, 3, H, W)`` RGB or ``(B, 1, H, W)`` grey in [0, 1], whose first block starts at
            the upper left corner; luma is measured.
        block: side of a block in pixels: 8 for a JPEG picture itself, ``8 * scale`` for what was
            made from one.

    Returns:
        ``(B,)`` float64, in squared 8-bit levels.

    Raises:
        ValueError: another shape, an integer picture, or fewer than two blocks on a side.
    """
    if image.ndim != 4 or image.shape[1] not in (1, 3) or not image.is_floating_point():
        raise ValueError(
            f"blockiness takes floating-point pictures (B, 3 or 1, H, W), got {image.dtype} "
            f"{tuple(image.shape)}"
        )
    side = min(image.shape[-2:])
    if block < 2 or side <= block:
        raise ValueError(f"blockiness needs two blocks of {block} pixels a side, got {side} pixels")
    image = image.double().clamp(0, 1)
    levels = (luma(image) if image.shape[1] == 3 else image) * 255
    steps = [_steps(picture, block) for picture in (levels, levels.mT)]
    at_edges, elsewhere = (torch.cat(parts, 1).mean(1) for parts in zip(*steps, strict=True))
    excess = (at_edges - elsewhere).clamp(min=0)
    return excess * math.log2(block) / math.log2(side)


def _steps(levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Squared steps from row to row ``(B, n)``: those across block edges, and the others."""
    squared = levels.diff(dim=-2).square()
    edge = torch.arange(1, squared.shape[-2] + 1, device=levels.device) % block == 0
    return squared[..., edge, :].flatten(1), squared[..., ~edge, :].flatten(1)
