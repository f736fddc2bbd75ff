"""Pairs ``(lr, hr)`` of pictures that were read: the one low resolution, made where these are."""

import random

import torch
from torch import Tensor

from sr_module.degrade import AnyDegradation
from sr_module.resize import crop_to_multiple


def pair(
    pictures: Tensor,
    degradation: AnyDegradation,
    *,
    frames: int,
    rng: random.Random,
    crop: int | None = None,
) -> tuple[Tensor, Tensor]:
    """``(lr, hr)`` float32 in [0, 1]; for several frames ``lr`` is a clip, ``hr`` its middle frame.

    Args:
        pictures: uint8 ``hr`` ``(B, C, H, W)``, or clips ``(B, frames, C, H, W)`` of it.
        degradation: what makes ``lr``, and by which scale.
        frames: that the network reads; stills are repeated as if nothing moved.
        rng: of all that is random.
        crop: side of ``hr`` that is left of each picture, at a place of its own, once it is
            degraded; None leaves all.
    """
    hr = crop_to_multiple(pictures, degradation.scale).float().div_(255)
    noise = torch.Generator().manual_seed(rng.getrandbits(63))
    lr = degradation(hr, noise)
    if crop is not None:
        lr, hr = _cropped(lr, hr, crop // degradation.scale, degradation.scale, rng)
    if hr.ndim == 4:
        return (lr if frames == 1 else _repeated(lr, frames)), hr
    return lr, hr[:, frames // 2]


def _cropped(
    lr: Tensor, hr: Tensor, side: int, scale: int, rng: random.Random
) -> tuple[Tensor, Tensor]:
    """Of each picture a crop whose ``lr`` has this side, at a place of its own."""
    room = lr.shape[-1] - side
    corners = [(rng.randint(0, room), rng.randint(0, room)) for _ in lr]
    small = [
        picture[..., y : y + side, x : x + side]
        for picture, (y, x) in zip(lr, corners, strict=True)
    ]
    large = [
        picture[..., scale * y : scale * (y + side), scale * x : scale * (x + side)]
        for picture, (y, x) in zip(hr, corners, strict=True)
    ]
    return torch.stack(small), torch.stack(large)


def _repeated(lr: Tensor, frames: int) -> Tensor:
    """Stills ``(B, C, H, W)`` as clips ``(B, frames, C, H, W)`` in which nothing moves."""
    return lr.unsqueeze(1).expand(-1, frames, -1, -1, -1)
