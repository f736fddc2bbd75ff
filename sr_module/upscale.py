"""The one door to inference: any picture, any size, bounded memory on the accelerator.

Tiles are cut with enough context that the tiled result equals the untiled one; each is written
straight into the output in main memory, so the accelerator holds one tile at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.net import SRNet

_WHOLE = 512 * 1024
"""Pictures up to this many pixels are not tiled."""
_TILE = 384
"""Side of a tile otherwise: the context then costs a third of the work at most."""
_SMALLEST = 32
"""Tiles are not halved below this; context would outweigh them."""


class _Tile(NamedTuple):
    """A stretch of rows and of columns to produce, and the wider ones to read for it."""

    rows: slice
    columns: slice
    read_rows: slice
    read_columns: slice


def upscale(
    net: SRNet,
    image: Tensor,
    *,
    tile: int | None = None,
    device: torch.device | str | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Super-resolve ``image`` with ``net``.

    Args:
        net: the network; its training mode is left as it was.
        image: ``(C, H, W)`` or ``(B, C, H, W)``, floating point in [0, 1], any size; for networks
            of several frames ``(frames, C, H, W)`` or ``(B, frames, C, H, W)``.
        tile: side of the tiles in low-resolution pixels. None takes the whole picture up to half a
            megapixel and tiles of 384 pixels above. Halved as often as memory demands.
        device: where to compute; the network moves there and stays. None leaves it where it is.
        precision: ``bf16`` runs the network in bfloat16 under autocast.
        progress: called with the tiles done and the tiles in all, after each tile.

    Returns:
        ``(C, scale * H, scale * W)``, or with the leading B, float32 in [0, 1] on the CPU.

    Raises:
        ValueError: a picture of another shape, type or range, or with NaN; an unknown precision.
        MemoryError: even the smallest tile does not fit the accelerator.
    """
    _check(net, image, tile, precision)
    single = image.ndim == (3 if net.frames == 1 else 4)
    batch = image.unsqueeze(0) if single else image
    device = torch.device(device) if device is not None else _device_of(net)
    net.to(device).to(memory_format=torch.channels_last)
    with _evaluating(net), torch.autocast(device.type, torch.bfloat16, precision == "bf16"):
        sr = _upscale_within_memory(net, batch, tile or _default_tile(batch), device, progress)
    return sr[0] if single else sr


def _check(net: SRNet, image: Tensor, tile: int | None, precision: str) -> None:
    core = "C, H, W" if net.frames == 1 else f"{net.frames}, C, H, W"
    rank = 3 if net.frames == 1 else 4
    if (
        image.ndim not in (rank, rank + 1)
        or image.shape[-3] != net.channels
        or (net.frames > 1 and image.shape[-4] != net.frames)
        or 0 in image.shape
    ):
        raise ValueError(
            f"upscale takes ({core}) or (B, {core}) with C = {net.channels}, "
            f"got shape {tuple(image.shape)}"
        )
    if not image.is_floating_point():
        raise ValueError(
            f"upscale takes floating point in [0, 1], got {image.dtype}; divide 8-bit by 255"
        )
    low, high = (float(bound) for bound in image.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also catches NaN
        raise ValueError(f"upscale takes values in [0, 1], got {low:g} to {high:g}")
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"unknown precision {precision!r}; choose from: fp32, bf16")


def _device_of(net: SRNet) -> torch.device:
    tensor = next(net.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _default_tile(batch: Tensor) -> int:
    height, width = batch.shape[-2:]
    return max(height, width) if height * width <= _WHOLE else _TILE


@contextmanager
def _evaluating(net: SRNet) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module in the mode it was in."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def _upscale_within_memory(
    net: SRNet,
    batch: Tensor,
    tile: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    """All tiles, starting again with smaller ones whenever the accelerator's memory runs out."""
    while True:
        try:
            return _upscale_tiles(net, batch, tile, device, progress)
        except torch.OutOfMemoryError as error:
            if tile <= _SMALLEST:
                raise MemoryError(
                    f"a tile of {tile} pixels of {len(batch)} picture(s) does not fit the memory of"
                    f" {device}; pass fewer pictures at once, use bf16, or free the device"
                ) from error
        tile = min(tile, max(batch.shape[-2:])) // 2
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what the failed tile left in pieces


def _upscale_tiles(
    net: SRNet,
    batch: Tensor,
    tile: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    height, width = batch.shape[-2:]
    padded = _pad(batch, net.multiple_of)
    s = net.scale
    sr = torch.empty(len(batch), net.channels, s * height, s * width)
    tiles = _tiles(padded.shape[-2:], tile, net.overlap, net.multiple_of)
    for done, (rows, columns, read_rows, read_columns) in enumerate(tiles, 1):
        part = net(_on(device, padded[..., read_rows, read_columns]))
        top, left = rows.start - read_rows.start, columns.start - read_columns.start
        target = sr[..., s * rows.start : s * rows.stop, s * columns.start : s * columns.stop]
        part = part[..., s * top :, s * left :][..., : target.shape[-2], : target.shape[-1]]
        target.copy_(part.clamp(0, 1))
        if progress is not None:
            progress(done, len(tiles))
    return sr


def _on(device: torch.device, part: Tensor) -> Tensor:
    part = part.to(device, torch.float32)
    # channels_last is what convolutions on accelerators prefer; it exists for 4 dimensions only
    return part.contiguous(memory_format=torch.channels_last) if part.ndim == 4 else part


def _pad(batch: Tensor, multiple: int) -> Tensor:
    """Sides up to a multiple, continued by reflection where the picture is large enough."""
    height, width = batch.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return batch
    mode = "reflect" if bottom < height and right < width else "replicate"
    flat = F.pad(batch.flatten(0, -4), (0, right, 0, bottom), mode=mode)
    return flat.view(*batch.shape[:-2], height + bottom, width + right)


def _tiles(size: torch.Size, tile: int, overlap: int, multiple: int) -> list[_Tile]:
    """Tiles that cover ``size`` once; both what they produce and what they read is aligned."""
    step = -(-tile // multiple) * multiple
    context = -(-overlap // multiple) * multiple
    rows, columns = (
        [
            (slice(a, min(a + step, n)), slice(max(0, a - context), min(a + step + context, n)))
            for a in range(0, n, step)
        ]
        for n in size
    )
    return [_Tile(y, x, read_y, read_x) for y, read_y in rows for x, read_x in columns]
