"""The rows of an evaluation: networks, kernels, and folders of pictures made by anyone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from pipeline.truth import DataSet, Truth, belonging, channels_like, read_like, split_name
from pipeline.upscalers import KERNELS, Precision, Upscaler, open_upscaler
from sr_module.ensemble import self_ensemble
from sr_module.metrics import luma
from sr_module.resize import imresize


@dataclass(frozen=True)
class Made:
    """A picture to score, ``(1, C, H, W)`` as the true one."""

    sr: Tensor
    seconds: float | None
    """What making it took; None where it was made elsewhere."""
    on_luma: tuple[Tensor, Tensor] | None = None
    """What a kernel made of the unrounded luma, and the true luma: fidelity is measured there."""


@dataclass(frozen=True)
class Candidate:
    """One row of the table."""

    name: str
    make: Callable[[Truth], Made]
    parameters: int | None = None
    """None where the pictures were made elsewhere."""
    precision: str | None = None
    """In which it computes; None for all but networks."""


def open_models(
    words: Sequence[str],
    *,
    scale: int | None,
    precision: Precision = "fp32",
    device: str | None = None,
) -> list[Upscaler]:
    """The upscalers that ``words`` name; kernels take the scale of the networks beside them.

    Args:
        words: each a kernel or another thing that ``open_upscaler`` opens, or ``NAME=THING``.
        scale: of kernels; a network knows its own.
        precision: in which networks compute.
        device: where networks run.

    Raises:
        ValueError: no scale, or more than one.
        FileNotFoundError: no such thing.
    """
    given = [split_name(word) for word in words]

    def opened(model: str, scale: int | None) -> Upscaler:
        return open_upscaler(model, scale=scale, precision=precision, device=device)

    networks = {model: opened(model, scale) for _, model in given if model not in KERNELS}
    scales = {network.scale for network in networks.values()}
    if len(scales) > 1:
        each = ", ".join(f"{network.name} x{network.scale}" for network in networks.values())
        raise ValueError(
            f"one table has one scale, these networks differ: {each}; drop some of them"
        )
    scale = scales.pop() if scales else scale
    upscalers = [networks.get(model) or opened(model, scale) for _, model in given]
    return [
        replace(upscaler, name=name or upscaler.name)
        for (name, _), upscaler in zip(given, upscalers, strict=True)
    ]


def is_kernel(word: str) -> bool:
    """Whether ``word``, of ``open_models``, is a resampling kernel."""
    return split_name(word)[1] in KERNELS


def in_colour(upscaler: Upscaler) -> Candidate:
    """A row whose pictures are made of 8-bit colour, as networks are used."""

    def make(truth: Truth) -> Made:
        made, seconds = _timed(upscaler, truth.frames(upscaler.frames))
        return Made(channels_like(made, truth.hr), seconds)

    return Candidate(upscaler.name, make, upscaler.parameters, upscaler.precision)


def ensembled(upscaler: Upscaler) -> Candidate:
    """``in_colour`` by the eightfold self-ensemble, marked as in the papers' tables."""
    run = self_ensemble(upscaler.run)
    return in_colour(replace(upscaler, name=f"{upscaler.name}+", run=run))


def on_luma(upscaler: Upscaler) -> Candidate:
    """A kernel, whose fidelity is measured on luma reduced and enlarged without rounding.

    The bicubic rows of the papers' tables are made so. Its picture, which everything else is
    measured on, and its time are those of ``in_colour``.
    """
    coloured = in_colour(upscaler)

    def make(truth: Truth) -> Made:
        grey = truth.hr.double() if truth.hr.shape[1] == 1 else luma(truth.hr.double())
        low = imresize(grey, Fraction(1, truth.scale), quantize=False)
        return replace(coloured.make(truth), on_luma=(upscaler(low), grey))

    return replace(coloured, make=make)


def _timed(upscaler: Upscaler, lr: Tensor) -> tuple[Tensor, float]:
    started = time.perf_counter()
    made = upscaler(lr)
    return made, time.perf_counter() - started


def made_elsewhere(name: str, folder: Path, sets: Sequence[DataSet]) -> Candidate:
    """A row of pictures that lie in ``folder``.

    Raises:
        FileNotFoundError: a picture of the sets has no file there, or more than one.
    """
    files: dict[Path, Path] = {}
    for data_set in sets:
        files |= belonging(data_set, folder)
    return Candidate(name, lambda truth: Made(read_like(files[truth.path], truth.hr), None))
