"""What an evaluation measures: each metric with its protocol, each number with both."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.candidates import Made
from pipeline.pictures import to_float, to_uint8
from pipeline.truth import Truth
from sr_module.backbones import Backbone, Convention
from sr_module.blockiness import blockiness
from sr_module.choice import unknown
from sr_module.dists import DISTS
from sr_module.lpips import LPIPS
from sr_module.metrics import (
    LOWER_IS_BETTER,
    Protocol,
    consistency,
    matlab_y,
    ntire_rgb,
    ntire_y,
    pirm,
    pirm_region,
    psnr,
    rmse,
    ssim,
)
from sr_module.niqe import NIQE, WHENCE

ProtocolName = Literal["matlab-y", "ntire", "pirm"]

PROTOCOLS: dict[ProtocolName, Callable[[int], list[Protocol]]] = {
    "matlab-y": lambda scale: [matlab_y(scale)],
    "ntire": lambda scale: [ntire_rgb(scale), ntire_y(scale)],
    "pirm": lambda scale: [pirm()],
}
USUAL: dict[ProtocolName, list[str]] = {
    "matlab-y": ["psnr", "ssim"],
    "ntire": ["psnr", "ssim"],
    "pirm": ["rmse", "niqe"],
}
"""What the tables of each protocol show."""


@dataclass(frozen=True)
class Perceptual:
    """What the metrics that were fitted to data need.

    Attributes:
        lpips_backbone: network whose features LPIPS compares; papers print "alex".
        lpips_weights: file of these features; without it torchvision's, downloaded once.
        lpips_heads: file of the linear heads; without it those in the torchmetrics package.
        lpips_convention: what the features in lpips_weights were trained to see.
        niqe_parameters: npz file with NIQE's model of pristine pictures.
        dists_weights: file of the factors of DISTS; without it those in its authors' package.
        dists_backbone: file of VGG16's features; without it torchvision's, downloaded once.
    """

    lpips_backbone: Backbone = "alex"
    lpips_weights: Path | None = None
    lpips_heads: Path | None = None
    lpips_convention: Convention = "torchvision"
    niqe_parameters: Path | None = None
    dists_weights: Path | None = None
    dists_backbone: Path | None = None


@dataclass(frozen=True)
class Column:
    """One metric by one protocol."""

    key: str
    """Of JSON and MLflow, such as ``psnr_y``."""
    title: str
    protocol: str
    """How it was measured, to be printed beside every number."""
    digits: int
    measure: Callable[[Truth, Made], float]
    mean: Callable[[Sequence[float]], float] = statistics.fmean
    note: Callable[[float], str | None] = lambda mean: None
    """What the mean of a set says besides its value."""

    @property
    def lower_is_better(self) -> bool:
        """Whether the best row has the smallest value."""
        return self.key.split("_")[0] in LOWER_IS_BETTER


def columns(
    metrics: Sequence[str],
    protocol: ProtocolName,
    scale: int,
    *,
    settings: Perceptual = Perceptual(),
    device: str = "cpu",
) -> list[Column]:
    """The columns of a table, with the files that they need opened.

    Args:
        metrics: each once, in this order.
        protocol: of those that compare pixels; the others have their own.
        scale: of the pictures, which protocols depend on.
        settings: files of the metrics that were fitted to data.
        device: where networks compare features.

    Raises:
        ValueError: an unknown metric, one whose file is not named or is another, or PIRM's protocol
            at another scale than its own.
        FileNotFoundError: a named file is not there.
        ConnectionError: the features of LPIPS or DISTS can neither be downloaded nor were named.
    """
    if protocol == "pirm" and scale != _PIRM_SCALE:
        raise ValueError(
            f"--protocol pirm is that of a challenge of x{_PIRM_SCALE} alone, these pictures are "
            f"x{scale}; take matlab-y or ntire"
        )
    wanted = dict.fromkeys(metrics)  # each once
    others = {
        "consistency": lambda: _consistency(scale),
        "lpips": lambda: _lpips(settings, device),
        "dists": lambda: _dists(settings, device),
        "blockiness": lambda: _blockiness(scale),
        "niqe": lambda: _niqe(settings, shave=pirm().shave if protocol == "pirm" else 0),
    }
    for metric in wanted:
        if metric not in (*_FIDELITY, *others):
            raise unknown("metric", metric, (*_FIDELITY, *others))
    fidelity = [
        _fidelity(metric, by)
        for by in PROTOCOLS[protocol](scale)
        for metric in wanted
        if metric in _FIDELITY
    ]
    return fidelity + [others[metric]() for metric in wanted if metric in others]


_PIRM_SCALE = 4  # Blau et al. 2018, arXiv:1809.07517, section 2

_FIDELITY: dict[str, tuple[Callable[[Tensor, Tensor, Protocol], Tensor], str, int]] = {
    "psnr": (psnr, "PSNR-{} dB", 3),
    "ssim": (ssim, "SSIM-{}", 4),
    "rmse": (rmse, "RMSE-{}", 2),
}
"""Function, title, and digits to print."""


def _fidelity(metric: str, protocol: Protocol) -> Column:
    function, title, digits = _FIDELITY[metric]

    def measure(truth: Truth, made: Made) -> float:
        return float(function(*(made.on_luma or (made.sr, truth.hr)), protocol))

    return Column(
        f"{metric}_{protocol.channels}",
        title.format(protocol.channels.upper()),
        str(protocol) if metric != "rmse" else str(protocol).replace("mean", "root mean square"),
        digits,
        measure,
        mean=statistics.fmean if metric != "rmse" else _root_mean_square,
        note=pirm_region if (metric, protocol.name) == ("rmse", "pirm") else lambda mean: None,
    )


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value**2 for value in values))


def _consistency(scale: int) -> Column:
    return Column(
        "consistency",
        "LR-PSNR dB",
        "the result reduced again, against its low resolution, RGB, 8-bit rounding",
        2,
        lambda truth, made: float(consistency(made.sr, truth.lr, scale)),
    )


def _blockiness(scale: int) -> Column:
    return Column(
        "blockiness",
        "blockiness",
        f"Yim and Bovik's effect of blocks of {8 * scale} px, luma",
        2,
        lambda truth, made: float(blockiness(made.sr, block=8 * scale)),
    )


@contextmanager
def _taking(**options: str) -> Iterator[None]:
    """Names the options for files of what is not there, with what belongs into each."""
    try:
        yield
    except OSError as error:
        named = " and ".join(f"--perceptual.{key} ({what})" for key, what in options.items())
        raise type(error)(f"{error}; files of your own go into {named}") from error


def _lpips(settings: Perceptual, device: str) -> Column:
    backbone = settings.lpips_backbone
    with _taking(lpips_weights=f"{backbone}'s features", lpips_heads="linear heads"):
        metric = LPIPS(
            backbone,
            weights=settings.lpips_weights,
            heads=settings.lpips_heads,
            convention=settings.lpips_convention,
        )
    published = settings.lpips_convention == "torchvision"
    note = "" if published else "; not the published metric's features, so only ranks compare"
    return Column(
        f"lpips_{backbone}",
        f"LPIPS-{backbone}",
        f"version 0.1, {backbone}, RGB in 8 bits, nothing shaved{note}",
        4,
        _by_features(metric.to(device), device),
    )


def _dists(settings: Perceptual, device: str) -> Column:
    with _taking(dists_backbone="VGG16's features", dists_weights="fitted factors"):
        metric = DISTS(settings.dists_weights, backbone_weights=settings.dists_backbone)
    return Column(
        "dists",
        "DISTS",
        "VGG16, RGB in 8 bits, nothing shaved, not resized",
        4,
        _by_features(metric.to(device), device),
    )


def _by_features(metric: nn.Module, device: str) -> Callable[[Truth, Made], float]:
    @torch.inference_mode()
    def measure(truth: Truth, made: Made) -> float:
        return float(metric(_as_saved(made.sr).to(device), _as_saved(truth.hr).to(device)))

    return measure


def _as_saved(picture: Tensor) -> Tensor:
    """8-bit RGB: what was made scores as what is read back from its file."""
    return to_float(to_uint8(picture)).expand(-1, 3, -1, -1)


def _niqe(settings: Perceptual, shave: int) -> Column:
    if settings.niqe_parameters is None:
        raise ValueError(
            "NIQE needs its model of pristine pictures: add --perceptual.niqe_parameters FILE; "
            f"{WHENCE}"
        )
    with _taking(niqe_parameters="npz of this model"):
        metric = NIQE(settings.niqe_parameters)
    return Column(
        "niqe",
        "NIQE",
        f"its authors' model, luma, {shave} px shaved; the truth is not looked at",
        3,
        lambda truth, made: float(metric(made.sr, shave=shave)),
    )
