"""The one door to inference: any picture, any size, bounded memory.

``upscale`` writes each tile straight into the output, in main memory unless told otherwise, so that
the accelerator holds one at a time; ``tiles.upscale_parts`` hands them out one by one, for pictures
that main memory cannot hold either.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sr_module.archs import ARCHS
from sr_module.archs.quantised import can_quantise
from sr_module.net import SRNet, evaluating, finished
from sr_module.tiles import best_tile, count_parts, upscale_parts

Precision = Literal["fp32", "bf16", "int8"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
_SMALLEST = 32
"""Tiles are not halved below this; context would outweigh them."""


def upscale(
    net: SRNet,
    image: Tensor,
    *,
    tile: int | None = None,
    device: torch.device | str | None = None,
    precision: Precision = "fp32",
    progress: Callable[[int, int], None] | None = None,
    onto: torch.device | str = "cpu",
) -> Tensor:
    """Super-resolve ``image`` with ``net``.

    Args:
        net: the network; its training mode is left as it was.
        image: ``(C, H, W)`` or ``(B, C, H, W)``, floating point in [0, 1], any size; for networks
            of several frames ``(frames, C, H, W)`` or ``(B, frames, C, H, W)``.
        tile: side of the tiles in low-resolution pixels, halved as often as memory demands. None
            chooses by size and device (``best_tile``).
        device: where to compute; the network moves there and stays. None leaves it where it is.
        precision: ``bf16`` runs the network in bfloat16 under autocast; ``int8`` most of it in
            8-bit integers, for networks that have it, on CPUs that multiply them.
        progress: called with the tiles done and the tiles in all, after each tile.
        onto: device that holds the output. For small pictures that something else on the
            accelerator looks at next, the accelerator.

    Returns:
        ``(C, scale * H, scale * W)``, or with the leading B, float32 in [0, 1] on ``onto``, in the
        layout that the network's own outputs have.

    Raises:
        ValueError: a picture of another shape, type or range, or with NaN; a precision that is
            unknown, or not to be had here.
        FloatingPointError: the network's output is NaN or infinite somewhere.
        MemoryError: even the smallest tile does not fit the accelerator.
    """
    _check(net, image, tile)
    single = image.ndim == (3 if net.frames == 1 else 4)
    batch = image.unsqueeze(0) if single else image
    device = torch.device(device) if device is not None else _device_of(net)
    check_precision(net, precision, device)
    net.to(device).to(memory_format=torch.channels_last)
    height, width = batch.shape[-2:]
    tile = tile or best_tile(height, width, device, overlap=net.overlap, banded=net.banded)
    autocast = torch.autocast(device.type, torch.bfloat16, precision == "bf16")
    with evaluating(net), torch.inference_mode(), autocast:
        dtype = _DTYPES[precision]
        run = _on_processor(net, dtype) if device.type == "cpu" else lambda lr: finished(net(lr))
        sr = _upscale_within_memory(net, run, batch, tile, device, progress, onto)
    return sr[0] if single else sr


def check_precision(net: SRNet, precision: str, device: torch.device | str) -> None:
    """Refuses a precision that cannot be had.

    Raises:
        ValueError: it is unknown, or the network, the device or this processor lacks it.
    """
    if precision not in _DTYPES:
        raise ValueError(f"unknown precision {precision!r}; choose from: {', '.join(_DTYPES)}")
    if precision != "int8":
        return
    name, instead = net.arch or type(net).__name__, "choose fp32 or bf16"
    if not net.has_int8:
        able = ", ".join(arch for arch, kind in ARCHS.items() if kind.has_int8)
        raise ValueError(f"{name} does not compute in int8, only {able} do; {instead}")
    if torch.device(device).type != "cpu":
        raise ValueError(f"int8 is for CPUs, {name} is to run on {device}; {instead}")
    if not can_quantise():
        raise ValueError(
            f"int8 needs a processor that multiplies 8-bit integers (AVX-512 VNNI) and torch with "
            f"oneDNN; {instead}"
        )


def precisions(net: SRNet, device: torch.device | str) -> list[Precision]:
    """Those that the network, the device and this processor have."""
    eight_bits = net.has_int8 and torch.device(device).type == "cpu" and can_quantise()
    return ["fp32", "bf16", "int8"] if eight_bits else ["fp32", "bf16"]


def _check(net: SRNet, image: Tensor, tile: int | None) -> None:
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


def _device_of(net: SRNet) -> torch.device:
    tensor = next(itertools.chain(net.parameters(), net.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _on_processor(net: SRNet, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The network as it is fastest on a CPU, in memory that stays ours from tile to tile.

    The C library hands memory back to the system, which must clear it again before the next tile,
    unless blocks as large as its upper limit of 32 MiB have been freed before: half of the time of
    the smallest networks. So one is, without being touched.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
    return net.prepared(dtype)


def _upscale_within_memory(
    net: SRNet,
    run: Callable[[Tensor], Tensor],
    batch: Tensor,
    tile: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
    onto: torch.device | str,
) -> Tensor:
    """All tiles, starting again with smaller ones whenever the accelerator's memory runs out."""
    while True:
        try:
            return _upscale_tiles(net, run, batch, tile, device, progress, onto)
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
    run: Callable[[Tensor], Tensor],
    batch: Tensor,
    tile: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
    onto: torch.device | str,
) -> Tensor:
    height, width = batch.shape[-2:]
    s = net.scale
    sr = torch.empty(0)
    parts = upscale_parts(
        lambda lr: run(_on(device, lr)),
        lambda rows, columns: batch[..., rows, columns],
        (height, width),
        scale=s,
        tile=tile,
        overlap=net.overlap,
        multiple_of=net.multiple_of,
    )
    total = count_parts((height, width), tile, net.multiple_of)
    for done, (rows, columns, part) in enumerate(parts, 1):
        # in the layout that the network's outputs have
        layout = torch.channels_last if part.stride(1) == 1 else torch.contiguous_format
        if total == 1:  # is the result, not copied into one
            sr = part.to(onto, torch.float32).contiguous(memory_format=layout)
        else:
            if done == 1:
                shape = (len(batch), net.channels, s * height, s * width)
                sr = torch.empty(shape, device=onto, memory_format=layout)
            across = slice(s * columns.start, s * columns.stop)
            sr[..., s * rows.start : s * rows.stop, across].copy_(part)
        if progress is not None:
            progress(done, total)
    return sr


def _on(device: torch.device, part: Tensor) -> Tensor:
    part = part.to(device, torch.float32)
    # channels_last is what convolutions on accelerators prefer; it exists for 4 dimensions only
    return part.contiguous(memory_format=torch.channels_last) if part.ndim == 4 else part
