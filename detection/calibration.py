"""Scores that mean the same wherever they come from.

A detector's 0.6 in an enlarged window is not its 0.6 in the whole picture, nor is that of a tiny
box that of a large one; merged as they are, the source that boasts wins. So the share of true
detections is learnt for each source and size, on a split kept for it, and takes the score's place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.boxes import Detections, iou_matrix, share_inside
from detection.files import write_atomically
from detection.merge import best_first
from detection.truth import Objects

Floats = NDArray[np.float64]
SLOPE = 1e-3
"""Of the score itself that is mixed in, so that no two scores of one source become equal: average
precision asks for the order, and a plateau would leave it to chance."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A rising line through points: score to the share of true detections at that score.

    Beyond the outer points it is flat. ``samples`` detections stand behind it.
    """

    scores: tuple[float, ...]
    shares: tuple[float, ...]
    samples: int

    def __call__(self, scores: Tensor) -> Tensor:
        """Calibrated scores ``(N,)`` in [0, 1], in the same strict order."""
        raw = scores.double().cpu().numpy()
        line = np.interp(raw, self.scores, self.shares)
        return torch.as_tensor((1 - SLOPE) * line + SLOPE * raw).to(scores)


@dataclass(frozen=True, slots=True)
class Samples:
    """Detections of one source on the calibration split, each with its truth.

    ``scores`` and ``sides`` (square root of area, original pixels) ``(N,)``; ``hits`` ``(N,)``
    bool. All before merging, for the curves are applied before it.
    """

    scores: Tensor
    sides: Tensor
    hits: Tensor


@dataclass(frozen=True, slots=True)
class Calibration:
    """The curves of every source (whole picture, windows of one arm) and size.

    Attributes:
        edges: limits between size bins, square root of area in original pixels.
        curves: source to one curve for each bin, from small to large.
        fallbacks: one sentence for every bin whose own detections were too few.
    """

    edges: tuple[float, ...]
    curves: dict[str, tuple[Curve, ...]]
    fallbacks: tuple[str, ...] = field(default=())

    def apply(self, source: str, found: Detections) -> Detections:
        """The detections of one source with calibrated scores.

        Raises:
            ValueError: a source that was not calibrated.
        """
        if source not in self.curves:
            raise ValueError(
                f"no calibration for source '{source}'; there is one for {', '.join(self.curves)}"
            )
        place = _size_bin(found.sides(), self.edges)
        scores = found.scores.clone()
        for index, curve in enumerate(self.curves[source]):
            scores[place == index] = curve(found.scores[place == index])
        return Detections(found.boxes, scores, found.labels)

    def save(self, path: Path) -> None:
        """Write it as JSON; a reader never sees half a file."""
        write_atomically(path, json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what ``save`` wrote.

        Raises:
            ValueError: the file is no calibration.
        """
        try:
            stored = json.loads(path.read_text())
            curves = {name: tuple(map(_curve, rows)) for name, rows in stored["curves"].items()}
            return cls(tuple(stored["edges"]), curves, tuple(stored["fallbacks"]))
        except (UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is not a calibration ({error}); fit it again") from error


def fit_calibration(
    sources: Mapping[str, Samples],
    *,
    edges: Sequence[float] = (16.0, 32.0, 96.0),
    least: int = 200,
    least_of_each: int = 20,
) -> Calibration:
    """Isotonic curves for each source and size bin.

    A bin with fewer than ``least`` detections, or fewer than ``least_of_each`` true or false ones,
    takes the curve of all sizes of its source; if those are too few, that of all sources; if even
    those are, scores stay as they are. Each such case is told in ``fallbacks``.

    Args:
        sources: name to the detections on the CALIBRATION split: never the split that the merge is
            tuned on, never the test split.
        edges: limits between size bins in original pixels, rising.
        least: detections that a curve needs.
        least_of_each: true and false detections that a curve needs.
    """
    if list(edges) != sorted(set(edges)):
        raise ValueError(f"edges of size bins must rise, got {tuple(edges)}")
    fallbacks: list[str] = []
    enough = (least, least_of_each)
    everything = _joined(list(sources.values()))
    common = _fit_or(everything, enough, IDENTITY, "all sources", fallbacks)
    curves = {}
    for name, samples in sources.items():
        whole = _fit_or(samples, enough, common, f"{name}, all sizes", fallbacks)
        place = _size_bin(samples.sides, edges)
        curves[name] = tuple(
            _fit_or(_chosen(samples, place == b), enough, whole, f"{name}, size {b}", fallbacks)
            for b in range(len(edges) + 1)
        )
    return Calibration(tuple(edges), curves, tuple(fallbacks))


def true_and_false(
    objects: Objects, found: Detections, *, iou: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Which detections of one picture are true, and which count at all, both ``(N,)`` bool.

    The best first, each takes the free object of its class that it overlaps most. Unmerged windows
    see an object several times: a detection of an object that is taken already counts neither way,
    as does one in a crowd region, for its place is not wrong.
    """
    overlap = iou_matrix(found.boxes, objects.boxes)
    overlap[:, objects.crowds] = share_inside(found.boxes, objects.boxes[objects.crowds])
    overlap[found.labels[:, None] != objects.labels[None, :]] = 0
    true = torch.zeros(len(found), dtype=torch.bool)
    taken = objects.crowds.clone()
    for row in best_first(found).tolist():
        free = overlap[row].masked_fill(taken, 0)
        if len(free) and float(free.max()) >= iou:
            true[row] = taken[free.argmax()] = True
    near = (overlap >= iou).any(dim=1)
    return true, true | ~near


IDENTITY = Curve((0.0, 1.0), (0.0, 1.0), 0)


def isotonic(scores: Floats, hits: Floats) -> Curve:
    """The rising line nearest to the hits: pooled adjacent violators (Ayer et al. 1955).

    Each pool becomes one point, at its mean score, and lines join the points (centred isotonic
    regression, Oron and Flournoy 2017): steps would make scores equal that were not.
    """
    pools: list[tuple[float, float, float]] = []  # sum of scores, sum of hits, count
    values, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    sums = np.bincount(where, weights=hits)
    for value, hit, count in zip(values, sums, counts, strict=True):
        pool = (float(value * count), float(hit), float(count))
        while pools and pools[-1][1] * pool[2] >= pool[1] * pools[-1][2]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    places = tuple(total / count for total, _, count in pools)
    return Curve(places, tuple(hit / count for _, hit, count in pools), len(scores))


def _fit_or(
    samples: Samples, enough: tuple[int, int], coarser: Curve, what: str, fallbacks: list[str]
) -> Curve:
    true = int(samples.hits.sum())
    false = len(samples.hits) - true
    if true + false >= enough[0] and min(true, false) >= enough[1]:
        return isotonic(samples.scores.double().numpy(), samples.hits.double().numpy())
    fallbacks.append(f"{what}: {true} true and {false} false detections, took the coarser curve")
    return coarser


def _size_bin(sides: Tensor, edges: Sequence[float]) -> Tensor:
    """The bin of each side; one that lies on a limit belongs to the larger."""
    return torch.bucketize(sides, sides.new_tensor(list(edges)), right=True)


def _chosen(samples: Samples, mask: Tensor) -> Samples:
    return Samples(samples.scores[mask], samples.sides[mask], samples.hits[mask])


def _joined(parts: Sequence[Samples]) -> Samples:
    if not parts:
        raise ValueError("no source to calibrate; give the detections of at least one")
    return Samples(
        torch.cat([part.scores for part in parts]),
        torch.cat([part.sides for part in parts]),
        torch.cat([part.hits for part in parts]),
    )


def _curve(row: Mapping[str, Any]) -> Curve:
    curve = Curve(tuple(row["scores"]), tuple(row["shares"]), int(row["samples"]))
    if not curve.scores or len(curve.scores) != len(curve.shares):
        raise ValueError("a curve needs as many shares as scores, and at least one")
    return curve


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far scores can be taken at their word, bin by bin (Guo et al. 2017).

    Attributes:
        confidence: mean score of each bin; nan where it is empty.
        precision: share of true detections of each bin; nan where it is empty.
        count: detections of each bin.
    """

    confidence: tuple[float, ...]
    precision: tuple[float, ...]
    count: tuple[int, ...]

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap, weighted by count; nan without detections."""
        gaps = [
            count * abs(confidence - precision)
            for confidence, precision, count in zip(
                self.confidence, self.precision, self.count, strict=True
            )
            if count
        ]
        return sum(gaps) / sum(self.count) if gaps else math.nan


def reliability(scores: Tensor, hits: Tensor, *, bins: int = 15) -> Reliability:
    """The data of a reliability diagram: ``bins`` bins of equal width over [0, 1].

    Args:
        scores: ``(N,)`` in [0, 1].
        hits: ``(N,)`` bool.
        bins: number of bins; a score on a limit belongs to the upper one, 1 to the last.
    """
    place = (scores.double() * bins).long().clamp(max=bins - 1)
    count = torch.bincount(place, minlength=bins)
    confidence = torch.bincount(place, weights=scores.double(), minlength=bins) / count
    precision = torch.bincount(place, weights=hits.double(), minlength=bins) / count
    return Reliability(tuple(confidence.tolist()), tuple(precision.tolist()), tuple(count.tolist()))
