"""What enlarges pictures, by the word a person types: a kernel, a trained network, or a file."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.registered import is_registered, network_of
from pipeline.world import best_device, best_precision
from sr_module.catalogue import trained
from sr_module.checkpoint import load_net
from sr_module.export import load_onnx
from sr_module.interpolation import interpolate
from sr_module.net import SRNet
from sr_module.resize import imresize
from sr_module.upscale import Precision as Decided
from sr_module.upscale import check_precision, upscale

Precision = Literal["auto", "fp32", "bf16", "int8"]
"""``auto``: bf16 where the hardware multiplies it natively, else fp32. ``int8``: most of a network
that has it in 8-bit integers, on CPUs that multiply them."""


@dataclass(frozen=True)
class Upscaler:
    """A named enlargement ``(B, 3, h, w) -> (B, 3, scale * h, scale * w)``, floats in [0, 1]."""

    name: str
    scale: int
    parameters: int
    """0 for a kernel."""
    run: Callable[[Tensor], Tensor]
    overlap: int = 4
    """Low-resolution pixels around a piece that its enlargement depends on."""
    frames: int = 1
    """That one enlarged frame is made from; where more than one, the function takes clips
    ``(B, frames, 3, h, w)``."""
    multiple_of: int = 1
    """Pieces whose places and sides are multiples of this give what the whole picture gives."""
    banded: bool = False
    """Whether it needs no small pieces to stay in a CPU's cache."""
    precision: Decided | None = None
    """In which a network computes; None for a kernel."""

    def __call__(self, lr: Tensor) -> Tensor:
        """The enlarged pictures."""
        return self.run(lr)


def of_pictures(upscaler: Upscaler, *, repeat_still: bool) -> Upscaler:
    """The upscaler as one of single pictures, each repeated where it reads several frames.

    Raises:
        ValueError: it reads several frames, and repeating is not asked for.
    """
    count = upscaler.frames
    if count == 1:
        return upscaler
    if not repeat_still:
        raise ValueError(
            f"{upscaler.name} reads {count} frames of a clip, not single pictures; give it clips, "
            "or have each picture repeated with --repeat_still true"
        )

    def run(lr: Tensor) -> Tensor:
        return upscaler.run(lr.unsqueeze(1).expand(-1, count, -1, -1, -1))

    return replace(upscaler, run=run, frames=1)


def bicubic(lr: Tensor, scale: float) -> Tensor:
    """MATLAB's bicubic enlargement, not rounded to 8 bits, as no network's output is."""
    return imresize(lr, scale, quantize=False).clamp(0, 1)


def lanczos(lr: Tensor, scale: int) -> Tensor:
    """MATLAB's lanczos3 enlargement, sharper than bicubic, not rounded either."""
    return imresize(lr, scale, quantize=False, kernel="lanczos3").clamp(0, 1)


def bilinear(lr: Tensor, scale: int) -> Tensor:
    """Bilinear enlargement with pixel centres kept in place."""
    return F.interpolate(lr, scale_factor=scale, mode="bilinear", align_corners=False)


def nearest(lr: Tensor, scale: int) -> Tensor:
    """Every pixel becomes a square."""
    return F.interpolate(lr, scale_factor=scale, mode="nearest")


MIXTURE = re.compile(r"mix:(?P<psnr>.+)\+(?P<gan>.+)@(?P<alpha>\d+\.?\d*|\.\d+)")
"""``mix:PSNR+GAN@ALPHA``: the network between two sisters, see ``sr_module.interpolation``."""

KERNELS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "bicubic": bicubic,
    "lanczos": lanczos,
    "bilinear": bilinear,
    "nearest": nearest,
}


def open_upscaler(
    model: str,
    *,
    scale: int | None = None,
    precision: Precision = "fp32",
    device: str | None = None,
    tile: int | None = None,
    onto: str = "cpu",
) -> Upscaler:
    """The enlargement that ``model`` names.

    Args:
        model: "bicubic", "lanczos", "bilinear", "nearest", a trained network of ``srdet models``,
            one of MLflow's registry (models:/NAME@ALIAS, models:/NAME/VERSION), a file: weights
            (ours, or published ones), or what ``srdet export`` wrote as .onnx; or
            "mix:PSNR+GAN@ALPHA", the network between two such.
        scale: needed for a kernel; must be one that the network serves.
        precision: in which a network computes.
        device: where a network runs; None takes cuda where there is one.
        tile: low-resolution side of the pieces of large pictures; None chooses.
        onto: device that holds what was enlarged, and on which kernels work.

    Raises:
        ValueError: no scale for a kernel, or one that the network does not serve; a precision that
            cannot be had.
        FileNotFoundError: no kernel, no trained network and no file.
    """
    if model in KERNELS:
        return _kernel(model, scale, onto)
    if model.startswith("mix:"):
        mixed = _mixture(model, scale)
        return as_upscaler(mixed, model, precision=precision, device=device, tile=tile, onto=onto)
    path = network_file(model)
    if path.suffix == ".onnx":
        return _exported(path, scale, precision, device, tile, onto)
    net = load_net(path, scale=scale)
    return as_upscaler(net, _name(path), precision=precision, device=device, tile=tile, onto=onto)


def network_files(model: str) -> list[Path]:
    """The files that an enlargement is made from: none for a kernel, two for a mixture.

    Raises:
        FileNotFoundError: as ``network_file``.
        ValueError: a mixture that is not of the form "mix:PSNR+GAN@ALPHA".
    """
    if model in KERNELS:
        return []
    if not model.startswith("mix:"):
        return [network_file(model)]
    parts = _parts(model)
    return [network_file(parts[end], to_be="mixed") for end in ("psnr", "gan")]


def network_file(model: str, *, to_be: str = "taken here") -> Path:
    """The file of a network by its name, in MLflow's registry, or ``model`` itself if it is a file.

    Args:
        model: as people type it.
        to_be: what is done with networks and cannot be done with kernels, for messages.

    Raises:
        FileNotFoundError: it is neither; the nearest name is offered.
        ValueError: it is a kernel, or the registry has no such model.
        ConnectionError: the registry does not answer.
    """
    if model in KERNELS:
        raise ValueError(f"{model} is a kernel; only networks are {to_be} (`srdet models`)")
    if is_registered(model):
        return network_of(model)
    nets = trained()
    path = nets.get(model, Path(model))
    if not path.is_file():
        names = [*KERNELS, *nets]
        near = difflib.get_close_matches(model, names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise FileNotFoundError(f"'{model}' is neither a file nor one of {', '.join(names)}{hint}")
    return path


def as_upscaler(
    net: SRNet,
    name: str,
    *,
    precision: Precision = "fp32",
    device: str | None = None,
    tile: int | None = None,
    onto: str = "cpu",
) -> Upscaler:
    """A network, moved to its device, as an enlargement; the arguments of ``open_upscaler``.

    Raises:
        ValueError: a precision that the network, the device or this processor lacks.
    """
    place = device or best_device()
    decided = _decided(precision, device)
    check_precision(net, decided, place)
    net.to(place)
    parameters = sum(p.numel() for p in net.parameters())
    return _from_net(net, name, parameters, tile, decided, onto)


def _parts(model: str) -> dict[str, str]:
    fits = MIXTURE.fullmatch(model)
    if fits is None:
        raise ValueError(
            f"'{model}' is no mixture; write mix:PSNR+GAN@ALPHA with two networks and the share of "
            f"the second, from 0 to 1, such as mix:psnr.safetensors+gan.safetensors@0.6"
        )
    return fits.groupdict()


def _mixture(model: str, scale: int | None) -> SRNet:
    psnr, gan = (load_net(path, scale=scale) for path in network_files(model))
    return interpolate(psnr, gan, alpha=float(_parts(model)["alpha"]))


def _kernel(name: str, scale: int | None, onto: str) -> Upscaler:
    if not scale or scale < 1:
        raise ValueError(f"{name} needs a scale of 1 or more, got {scale}; add --scale 4")
    kernel, factor = KERNELS[name], scale
    return Upscaler(name, factor, 0, lambda lr: kernel(lr.to(onto), factor))


def _exported(
    path: Path,
    scale: int | None,
    precision: Precision,
    device: str | None,
    tile: int | None,
    onto: str,
) -> Upscaler:
    net = load_onnx(path, device=device)
    if scale not in (None, net.scale):
        raise ValueError(f"{path}: this network enlarges {net.scale} times, not {scale} times")
    if precision in ("bf16", "int8"):
        raise ValueError(f"{path} computes in fp32, as it was exported; leave --precision out")
    return _from_net(net, _name(path), net.parameter_count, tile, "fp32", onto)


def _from_net(
    net: SRNet,
    name: str,
    parameters: int,
    tile: int | None,
    precision: Decided,
    onto: str,
) -> Upscaler:
    return Upscaler(
        name,
        net.scale,
        parameters,
        lambda lr: upscale(net, lr, tile=tile, precision=precision, onto=onto),
        overlap=net.overlap,
        frames=net.frames,
        multiple_of=net.multiple_of,
        banded=net.banded,
        precision=precision,
    )


def _decided(precision: Precision, device: str | None) -> Decided:
    if precision != "auto":
        return precision
    accelerator = torch.device(device).type if device else "auto"
    return "bf16" if best_precision(accelerator).startswith("bf16") else "fp32"


def _name(path: Path) -> str:
    """Every run calls its network "net": the run's folder tells them apart."""
    return path.resolve().parent.name if path.stem == "net" else path.stem
