"""``srdet jpeg``: how networks stand low-resolution pictures that were saved as JPEG.

srdet jpeg --model bicubic clean=a.safetensors jpeg=b.safetensors --hr Set5/HR --out runs/jpeg
srdet jpeg --model ... --hr Set5/HR --detect.coco boxes.json --detect.images images
    --detect.detector yolox.onnx
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from torch import Tensor

from pipeline import tracking
from pipeline.candidates import Candidate, in_colour, open_models
from pipeline.columns import Column, Perceptual, columns
from pipeline.detect import detect as run_study
from pipeline.files import atomic_file, json_text
from pipeline.jpeg_points import CLEAN, Piece, Point, curves, markdown, name_of, show, strips
from pipeline.options import run_function
from pipeline.progress import bar
from pipeline.scoring import score
from pipeline.study_settings import Join, Statistics, Windows
from pipeline.tracking import Run
from pipeline.truth import DataSet, Truth, open_sets, truth_reader
from pipeline.upscalers import Precision
from sr_module.degrade import Degradation

_AP = "AP"
_SHOWN = 48
"""Low-resolution pixels a side of the pieces that are shown."""


@dataclass(frozen=True)
class Detecting:
    """The detection set on which AP is measured beside the pictures' own scores.

    Attributes:
        coco: COCO annotation file; without one no detector runs.
        images: its picture folder.
        detector: what ``srdet detect`` takes.
        qualities: those that are run, of the command's; all of them without it.
        limit: only the first so many pictures.
        windows: how windows are laid.
        join: what of windows and whole picture counts.
        statistics: how sure the studies are to be, one for each quality.
    """

    coco: Path | None = None
    images: Path | None = None
    detector: str | None = None
    qualities: list[int] | None = None
    limit: int | None = None
    windows: Windows = Windows(size=416)  # noqa: RUF009 (frozen)
    join: Join = Join(full=True, small_below=208, large_above=104, border=4)  # noqa: RUF009
    statistics: Statistics = Statistics()  # noqa: RUF009

    def __post_init__(self) -> None:
        given = [self.coco, self.images, self.detector]
        if any(given) and not all(given):
            raise ValueError(
                "AP needs all three of --detect.coco, --detect.images and --detect.detector"
            )


def main(words: list[str]) -> None:
    """The command."""
    run_function(jpeg, words, name="jpeg")


def jpeg(
    model: list[str],
    *,
    hr: list[str],
    quality: list[int] = [10, 20, 30, 40, 50, 60, 75, 85, 95],  # noqa: B006 (never changed)
    scale: int | None = None,
    metrics: list[str] = ["psnr", "blockiness"],  # noqa: B006
    perceptual: Perceptual = Perceptual(),  # noqa: B008 (frozen)
    detect: Detecting = Detecting(),
    precision: Precision = "fp32",
    device: str | None = None,
    shown: list[int] = [10, 30, 60],  # noqa: B006
    out: Path = Path("runs/jpeg"),
) -> list[Point]:
    """Scores models over the JPEG quality of the low-resolution pictures that they are given.

    Args:
        model: the curves: "bicubic" and other kernels, networks by name, files of weights;
            NAME=MODEL names a curve.
        hr: the sets, each NAME=FOLDER, a folder, or files.
        quality: libjpeg's, 1 to 100; low resolution without JPEG is always measured, too.
        scale: of kernels; a network knows its own.
        metrics: as of ``srdet evaluate``; blockiness is measured on the enlarged blocks.
        perceptual: files of LPIPS, NIQE and DISTS.
        detect: the detection set for AP.
        precision: in which networks compute.
        device: where networks run; cuda where there is one without it.
        shown: those of the qualities whose pictures are shown side by side.
        out: folder for curves, pictures and numbers.

    Returns:
        Every point of every curve.

    Raises:
        ValueError: a quality that libjpeg does not have, or settings that do not go together.
        FileNotFoundError: a set, a model or a metric's file is missing.
    """
    qualities = _checked(quality)
    seen = [each for each in _checked(shown) if each in qualities]
    detected = qualities if detect.qualities is None else _checked(detect.qualities)
    upscalers = open_models(model, scale=scale, precision=precision, device=device)
    factor = upscalers[0].scale
    rows = [in_colour(upscaler) for upscaler in upscalers]
    measures = columns(metrics, "matlab-y", factor, settings=perceptual, device=device or "cpu")
    sets = open_sets(hr)
    out.mkdir(parents=True, exist_ok=True)
    with tracking.start("srdet jpeg", out.name) as run:
        run.params({"models": ", ".join(model), "scale": factor, "qualities": qualities})
        points = _score(rows, sets, measures, factor, qualities)
        titles = {column.key: column.title for column in measures}
        if detect.coco:
            points += _detect(detect, model, factor, detected, out, run)
            titles[_AP] = "AP of the detector"
        pieces = _pieces(rows, sets[0], factor, seen)
        _record(run, points, titles, pieces, out)
    show(points, titles)
    return points


def _checked(qualities: Sequence[int]) -> list[int]:
    """In their order, and the clean one behind them."""
    wrong = [quality for quality in qualities if not 1 <= quality <= 100]
    if wrong:
        raise ValueError(
            f"JPEG quality must be 1 to 100, got {wrong[0]}; low resolution without JPEG is "
            "measured anyway"
        )
    return sorted({*qualities, CLEAN})


def _degradation(scale: int, quality: int) -> Degradation:
    return Degradation(scale, jpeg_quality=None if quality == CLEAN else quality)


def _given(truth: Truth, quality: int) -> Truth:
    """The same picture with its low resolution saved as JPEG; grey as three equal channels."""
    lr: Tensor = _degradation(1, quality)(truth.lr.expand(-1, 3, -1, -1))
    return replace(truth, lr=lr if truth.hr.shape[1] == 3 else lr.mean(1, keepdim=True))


def _truths(sets: Sequence[DataSet], scale: int) -> Iterator[Truth]:
    for data_set in sets:
        yield from map(truth_reader(data_set, scale), data_set.pictures)


def _score(
    rows: Sequence[Candidate],
    sets: Sequence[DataSet],
    measures: Sequence[Column],
    scale: int,
    qualities: Sequence[int],
) -> list[Point]:
    scored: dict[tuple[str, str, int], list[dict[str, float]]] = defaultdict(list)
    pictures = sum(len(data_set.pictures) for data_set in sets)
    with bar("scoring", len(rows) * pictures * len(qualities)) as advance:
        for truth in _truths(sets, scale):
            for quality in qualities:
                given = _given(truth, quality)
                for row in rows:
                    scores, _ = score(row, given, measures)
                    scored[row.name, truth.data_set, quality].append(scores.scores)
                    advance(1)
    return [
        Point(*key, {metric: fmean(each[metric] for each in all_of) for metric in all_of[0]})
        for key, all_of in scored.items()
    ]


def _detect(
    settings: Detecting,
    models: Sequence[str],
    scale: int,
    qualities: Sequence[int],
    out: Path,
    run: Run,
) -> list[Point]:
    """A study for each quality; all of them have the same windows."""
    assert settings.coco is not None
    assert settings.images is not None
    assert settings.detector is not None
    points = []
    for quality in qualities:
        study = run_study(
            [settings.coco],
            [settings.images],
            settings.detector,
            arms=list(models),
            out=out / f"detect_{quality}",
            scale=scale,
            degradation=_degradation(scale, quality),
            windows=settings.windows,
            join=settings.join,
            statistics=settings.statistics,
            limit=settings.limit,
            name=f"quality {quality}",
            parent=run,
        )
        for arm in study.findings.arms:
            scores = {_AP: 100 * arm.evaluation.metrics["AP"]}
            points.append(Point(arm.name, settings.coco.parent.name, quality, scores))
    return points


def _pieces(
    rows: Sequence[Candidate], data_set: DataSet, scale: int, qualities: Sequence[int]
) -> list[Piece]:
    """The middle of the set's last picture, as every model makes it at some qualities."""
    truth = truth_reader(data_set, scale)(list(data_set.pictures)[-1])
    height, width = truth.lr.shape[-2:]
    y, x = max(0, height - _SHOWN) // 16 * 8, max(0, width - _SHOWN) // 16 * 8
    cut = (..., slice(scale * y, scale * (y + _SHOWN)), slice(scale * x, scale * (x + _SHOWN)))
    pieces = []
    for quality in qualities:
        given = _given(truth, quality)
        made = {row.name: row.make(given).sr[cut][0] for row in rows}
        small = given.lr[0, :, y : y + _SHOWN, x : x + _SHOWN]
        pieces.append(Piece(name_of(quality), small, made, truth.hr[cut][0]))
    return pieces


def _record(
    run: Run,
    points: Sequence[Point],
    titles: dict[str, str],
    pieces: Sequence[Piece],
    out: Path,
) -> None:
    """Numbers and plots, on disk and in the run; there quality is the step."""
    for point in points:
        run.metrics(
            {f"{point.data_set}/{point.model}/{key}": v for key, v in point.scores.items()},
            step=point.quality,
        )
    figures = {"curves.png": curves(points, titles)}
    if pieces:
        figures["pictures.png"] = strips(pieces)
    for name, figure in figures.items():
        run.figure(figure, name)
        with atomic_file(out / name) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    with atomic_file(out / "points.json") as temporary:
        temporary.write_text(json_text([asdict(point) for point in points]) + "\n")
    with atomic_file(out / "table.md") as temporary:
        temporary.write_text(markdown(points, titles))
    run.table(
        [{**asdict(p), "scores": json_text(p.scores, indent=None)} for p in points], "points.json"
    )
