"""What neighbouring frames are worth to a linear estimate, whose best is found by solving.

    python -m benchmarks.motion_ceiling train_frames val_frames --clips 120

Clips are those of ``benchmarks.motion``, and so is their motion, which the estimate is told: what
it gains is what a network could learn besides. Ridge least squares from patches of the
low-resolution luma, x4, to what bicubic enlargement lacks; PSNR of luma, 20 pixels shaved, mean
over clips.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.motion import true_flow
from pipeline.clips import frame_files
from pipeline.pictures import read_picture, to_float
from sr_module.archs.luma import enlarge, luma
from sr_module.archs.vespcn import warp
from sr_module.resize import imresize

SCALE, FRAMES, SHAVED = 4, 3, 5
RIDGE = 1e-6  # of the mean variance
OWN, OTHER, TURNED = 9, 7, 5
"""Sides of the patches: of the middle frame, of its neighbours, of differences with a phase."""


@dataclass(frozen=True)
class Clip:
    """Three low-resolution frames, their motion, and what the middle one lacks."""

    lr: Tensor  # luma, (3, 1, h, w)
    flow: Tensor  # (2, 2, h, w)
    lacks: Tensor  # (16, h, w)


@dataclass(frozen=True)
class Kind:
    """What the estimate sees."""

    name: str
    kernel: str | None = None  # of the warp; None leaves frames where they are
    frames: int = FRAMES
    phases: bool = False
    off: float = 0.0  # mean distance of the told flow from the true one, pixels


KINDS = (
    Kind("the middle frame alone", frames=1),
    Kind("three frames as they are"),
    Kind("in register, bilinear", "bilinear"),
    Kind("in register, bicubic", "bicubic"),
    Kind("bicubic, and phases", "bicubic", phases=True),
    Kind("bicubic, flow 0.125 px off", "bicubic", off=0.125),
    Kind("bicubic and phases, flow 0.125 px off", "bicubic", phases=True, off=0.125),
)


def read(folder: Path) -> Iterator[Clip]:
    """The middle of each clip."""
    for place in sorted(folder.rglob("motion.json")):
        motion = torch.tensor(json.loads(place.read_text()), dtype=torch.float64)
        first = (len(motion) - FRAMES) // 2
        files = frame_files(place.parent)[first : first + FRAMES]
        hr = torch.stack([to_float(read_picture(file)) for file in files])
        lr = imresize(hr, Fraction(1, SCALE)).mul(255).round().div(255)
        if min(lr.shape[-2:]) < 4 * SHAVED:
            continue
        y = luma(lr)
        flow = true_flow(motion[first : first + FRAMES], *lr.shape[-2:], SCALE).float()
        lacks = F.pixel_unshuffle(luma(hr[1:2]) - enlarge(y[1:2], SCALE), SCALE)[0]
        yield Clip(y, flow, lacks)


def seen(clip: Clip, kind: Kind) -> Tensor:
    """What the estimate is made from, ``(pixels, inputs)``."""
    middle = clip.lr[1:2]
    parts = [_patches(middle, OWN)]
    if kind.frames > 1:
        flow = clip.flow + kind.off / math.sqrt(math.pi / 2) * torch.randn(2, 2, 1, 1)
        others = clip.lr[0::2]
        if kind.kernel:
            others = warp(others, flow, kernel=kind.kernel)
        parts += [_patches(other[None], OTHER) for other in others]
        if kind.phases:
            angle = 2 * math.pi * flow
            turns = torch.cat((angle.cos(), angle.sin()), 1)
            for other, turn in zip(others, turns, strict=True):
                unlike = _patches(other[None] - middle, TURNED)
                parts += [unlike * each for each in turn]
    x = torch.cat([*parts, torch.ones_like(parts[0][:1])])
    return _inner(x).double()


def _patches(image: Tensor, side: int) -> Tensor:
    columns = F.unfold(image, side, padding=side // 2)
    return columns.view(-1, *image.shape[-2:])


def _inner(x: Tensor) -> Tensor:
    return x[:, SHAVED:-SHAVED, SHAVED:-SHAVED].flatten(1).T


def measure(kind: Kind, train: list[Clip], val: list[Clip]) -> tuple[float, float]:
    """PSNR of the estimate, and of bicubic enlargement, in dB."""
    torch.manual_seed(0)
    covariance, towards = torch.zeros(()), torch.zeros(())
    for clip in train:
        x, y = seen(clip, kind), _inner(clip.lacks).double()
        covariance, towards = covariance + x.T @ x, towards + x.T @ y
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    weights = torch.linalg.solve(covariance + ridge, towards)
    wrong = []
    for clip in val:
        y = _inner(clip.lacks).double()
        wrong.append([(y - seen(clip, kind) @ weights).square().mean(), y.square().mean()])
    estimate, bicubic = (-10 * torch.tensor(wrong).log10()).mean(0).tolist()
    return estimate, bicubic


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--clips", type=int, default=120)
    given = parser.parse_args()
    train, val = list(read(given.train))[: given.clips], list(read(given.val))
    for kind in KINDS:
        estimate, bicubic = measure(kind, train, val)
        print(f"{kind.name}: {estimate:.3f} dB, bicubic enlargement {bicubic:.3f}", flush=True)


if __name__ == "__main__":
    main()
