"""Scores of a candidate's pictures, one by one and on average."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.candidates import Candidate, Made
from pipeline.columns import Column
from pipeline.truth import Truth


@dataclass(frozen=True)
class PictureScores:
    """One picture's numbers, by the columns' keys."""

    picture: str
    scores: dict[str, float]
    seconds_per_megapixel: float | None
    """Of output; None where the picture was made elsewhere."""


@dataclass(frozen=True)
class SetScores:
    """What one row scores on one set."""

    data_set: str
    mean: dict[str, float]
    notes: dict[str, str]
    """On means, such as PIRM's region of an RMSE."""
    seconds_per_megapixel: float | None
    """The median over pictures."""
    pictures: list[PictureScores]


@dataclass(frozen=True)
class ModelScores:
    """One row of the table."""

    model: str
    parameters: int | None
    sets: list[SetScores]
    precision: str | None = None
    """In which the network computed; None for kernels and pictures made elsewhere."""


@dataclass(frozen=True)
class Evaluated:
    """A table, and how it was measured."""

    scale: int
    protocols: dict[str, str]
    """By the columns' keys."""
    remarks: list[str]
    models: list[ModelScores]


def score(
    candidate: Candidate, truth: Truth, measures: Sequence[Column]
) -> tuple[PictureScores, Made]:
    """One picture made by one candidate and measured; with the picture.

    Raises:
        ValueError: it is of another size than the truth, or too small for a metric.
    """
    try:
        made = candidate.make(truth)
        _check_size(made.sr, truth.hr)
        scores = {column.key: column.measure(truth, made) for column in measures}
    except ValueError as error:
        raise ValueError(f"{truth.path}, by {candidate.name}: {error}") from error
    megapixels = truth.hr.shape[-1] * truth.hr.shape[-2] / 1e6
    seconds = None if made.seconds is None else made.seconds / megapixels
    return PictureScores(truth.name, scores, seconds), made


def _check_size(sr: Tensor, hr: Tensor) -> None:
    if sr.shape != hr.shape:
        raise ValueError(
            f"the picture to score is {_size(sr)}, the high-resolution one {_size(hr)}; they must "
            "be equal (after cropping hr to a multiple of the scale)"
        )


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]} x {picture.shape[-2]}"


def computed(models: Sequence[ModelScores], device: str) -> str:
    """In what the networks among ``models`` computed, and where; "" where there is none."""
    rows: dict[str, list[str]] = {}
    for row in models:
        if row.precision:
            rows.setdefault(row.precision, []).append(row.model)
    if len(rows) < 2:
        said = "".join(rows)
    else:
        said = " and ".join(f"{key} ({', '.join(names)})" for key, names in rows.items())
    return f"networks in {said} on {device}; " if said else ""


def by_clip(frames: Sequence[tuple[str, PictureScores]]) -> list[PictureScores]:
    """The scores of frames, each with the name of its clip, as one mean for each clip."""
    clips: dict[str, list[PictureScores]] = {}
    for clip, scores in frames:
        clips.setdefault(clip, []).append(scores)
    return [_mean_of_frames(clip, each) for clip, each in clips.items()]


def _mean_of_frames(clip: str, frames: list[PictureScores]) -> PictureScores:
    keys = frames[0].scores
    means = {key: statistics.fmean(frame.scores[key] for frame in frames) for key in keys}
    seconds = [s for frame in frames if (s := frame.seconds_per_megapixel) is not None]
    return PictureScores(clip, means, statistics.median(seconds) if seconds else None)


def average(data_set: str, pictures: list[PictureScores], measures: Sequence[Column]) -> SetScores:
    """The means over a set, each as its metric is averaged, and the median time."""
    means = {
        column.key: column.mean([picture.scores[column.key] for picture in pictures])
        for column in measures
    }
    notes = {column.key: column.note(means[column.key]) for column in measures}
    seconds = [s for picture in pictures if (s := picture.seconds_per_megapixel) is not None]
    return SetScores(
        data_set,
        means,
        {key: note for key, note in notes.items() if note},
        statistics.median(seconds) if seconds else None,
        pictures,
    )
