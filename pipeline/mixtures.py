"""What lies between two networks: mixtures of their weights or of their pictures, measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.candidates import Candidate, in_colour, on_luma
from pipeline.columns import Column
from pipeline.progress import bar
from pipeline.scoring import ModelScores, average, score
from pipeline.truth import DataSet, Truth, truth_reader
from pipeline.upscalers import Upscaler, open_upscaler
from sr_module.choice import unknown
from sr_module.interpolation import interpolate
from sr_module.net import SRNet

How = Literal["networks", "pictures"]

Opener = Callable[[SRNet, str], Upscaler]
"""Makes a network and its name an upscaler."""

Readers = Mapping[str, Callable[[str], Truth]]
"""By set, how its pictures are read."""

Details = list[tuple[str, Tensor]]
"""The same part of a picture, ``(3, h, w)``, by the name of what made it."""


@dataclass(frozen=True)
class Ends:
    """Two sister networks: of one architecture, size and scale."""

    psnr: SRNet
    gan: SRNet


@dataclass(frozen=True)
class Step:
    """One mixture."""

    how: How
    alpha: float
    """Share of the GAN network."""

    @property
    def name(self) -> str:
        """In tables and above pictures."""
        return f"{'alpha' if self.how == 'networks' else self.how} {self.alpha:g}"


@dataclass(frozen=True)
class Detail:
    """A square part of one high-resolution picture."""

    truth: Truth
    top: int
    left: int
    side: int

    def of(self, picture: Tensor, *, scale: int = 1) -> Tensor:
        """``(3, h, w)``: that part of a ``(1, C, H, W)`` picture, ``scale`` times smaller."""
        top, left, side = self.top // scale, self.left // scale, self.side // scale
        return picture[0, :, top : top + side, left : left + side].expand(3, -1, -1)


def measure(
    ends: Ends,
    steps: Sequence[Step],
    sets: Sequence[DataSet],
    measures: Sequence[Column],
    *,
    opener: Opener,
    shown: str | None,
    crop: int,
) -> tuple[list[ModelScores], Details]:
    """Bicubic and every mixture on every picture, and one detail as each of them makes it.

    Args:
        ends: the networks.
        steps: the mixtures.
        sets: of pictures to score on.
        measures: the metrics.
        opener: where and how networks compute.
        shown: name of the picture whose detail is kept; the first one without it.
        crop: side of the detail in high-resolution pixels.

    Returns:
        A row for bicubic and one for each step; details: LR, those of the rows, HR.
    """
    scale = ends.psnr.scale
    read = {data_set.name: truth_reader(data_set, scale) for data_set in sets}
    detail = _busiest(ends, opener, _shown(sets, read, shown), crop)
    details = [("LR", detail.of(detail.truth.lr, scale=scale))]
    rows = []
    with bar("scoring", (1 + len(steps)) * sum(len(each.pictures) for each in sets)) as advance:
        for candidate in _candidates(ends, steps, opener):
            rows.append(_row(candidate, sets, read, measures, advance))
            details.append((candidate.name, detail.of(candidate.make(detail.truth).sr)))
    return rows, [*details, ("HR", detail.of(detail.truth.hr))]


def _candidates(ends: Ends, steps: Sequence[Step], opener: Opener) -> Iterator[Candidate]:
    """One at a time: each mixture is as large as the networks."""
    yield on_luma(open_upscaler("bicubic", scale=ends.psnr.scale))
    for step in steps:
        yield in_colour(_mixture(ends, step, opener))


def _mixture(ends: Ends, step: Step, opener: Opener) -> Upscaler:
    if step.how == "networks":
        return opener(interpolate(ends.psnr, ends.gan, alpha=step.alpha), step.name)
    psnr, gan = opener(ends.psnr, step.name), opener(ends.gan, step.name)
    return Upscaler(
        step.name,
        psnr.scale,
        psnr.parameters + gan.parameters,
        lambda lr: torch.lerp(psnr(lr), gan(lr), step.alpha),
        overlap=psnr.overlap,
        multiple_of=psnr.multiple_of,
        precision=psnr.precision,
    )


def _row(
    candidate: Candidate,
    sets: Sequence[DataSet],
    read: Readers,
    measures: Sequence[Column],
    advance: Callable[[int], None],
) -> ModelScores:
    scored = []
    for data_set in sets:
        pictures = []
        for name in data_set.pictures:
            pictures.append(score(candidate, read[data_set.name](name), measures)[0])
            advance(1)
        scored.append(average(data_set.name, pictures, measures))
    return ModelScores(candidate.name, candidate.parameters, scored, candidate.precision)


def _shown(sets: Sequence[DataSet], read: Readers, name: str | None) -> Truth:
    homes = {picture: data_set.name for data_set in sets for picture in data_set.pictures}
    name = name or next(iter(homes))
    if name not in homes:
        raise unknown("picture", name, homes)
    return read[homes[name]](name)


def _busiest(ends: Ends, opener: Opener, truth: Truth, crop: int) -> Detail:
    """Where the two networks differ most: what lies between is to be seen there."""
    lr = truth.lr.expand(-1, 3, -1, -1)
    apart = (opener(ends.gan, "gan")(lr) - opener(ends.psnr, "psnr")(lr)).abs().mean(1, True)
    scale = truth.scale
    side = max(scale, min(crop, *truth.hr.shape[-2:]) // scale * scale)
    means = F.avg_pool2d(apart, side, stride=scale)[0, 0]
    top, left = divmod(int(means.argmax()), means.shape[1])
    return Detail(truth, scale * top, scale * left, side)
