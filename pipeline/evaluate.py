"""``srdet evaluate``: PSNR and SSIM by the papers' protocol, per picture and mean.

srdet evaluate --model bicubic --scale 4 --hr Set5/HR --json set5.json
srdet evaluate --model runs/srresnet/net.safetensors --hr Set5/HR
srdet evaluate --sr outputs/ --scale 4 --hr Set5/HR        (scores pictures made by anyone)
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline import tracking
from pipeline.files import atomic_file
from pipeline.options import run_function
from pipeline.pictures import find_pictures, read_grey_or_rgb, read_picture, to_float
from pipeline.progress import bar
from pipeline.upscalers import Precision, Upscaler, open_upscaler
from sr_module.metrics import Protocol, luma, matlab_y, psnr, ssim
from sr_module.resize import crop_to_multiple, imresize


@dataclass(frozen=True)
class Score:
    """One picture's numbers."""

    picture: str
    psnr: float
    ssim: float
    seconds_per_megapixel: float
    """Of output; 0 where the pictures were made elsewhere."""


@dataclass(frozen=True)
class Evaluated:
    """A table of scores, its mean, and how it was measured."""

    model: str
    scale: int
    protocol: str
    parameters: int
    scores: list[Score]
    psnr: float
    ssim: float


def main(words: list[str]) -> None:
    """The command."""
    run_function(evaluate, words, name="evaluate")


def evaluate(
    hr: list[Path],
    *,
    model: str | None = None,
    sr: Path | None = None,
    lr: Path | None = None,
    scale: int | None = None,
    precision: Precision = "fp32",
    json: Path | None = None,
    track: bool = True,
) -> Evaluated:
    """Scores a network, a kernel, or pictures made by anyone against high-resolution pictures.

    Args:
        hr: folders or files of high-resolution pictures, cropped to multiples of the scale.
        model: "bicubic", "bilinear", "nearest", or a file of weights.
        sr: folder of pictures to score instead; a file belongs to the hr picture whose name it
            begins with.
        lr: folder of low-resolution pictures, named as for sr; made from hr by MATLAB's bicubic
            without it.
        scale: enlargement; a network knows its own.
        precision: in which a network computes.
        json: file for the numbers.
        track: log the table to MLflow.

    Returns:
        The table.
    """
    if (model is None) == (sr is None):
        raise ValueError("say what to score: either --model NAME_OR_FILE or --sr FOLDER")
    if sr is not None and not scale:
        raise ValueError("--sr needs the --scale its pictures were made for, such as --scale 4")
    upscaler = open_upscaler(model, scale=scale, precision=precision) if model else None
    factor = upscaler.scale if upscaler else int(scale or 0)
    protocol = matlab_y(factor)
    make = _maker(upscaler, sr, lr)
    scores = []
    pictures = find_pictures(hr)
    with bar("scoring", len(pictures)) as advance:
        for path in pictures:
            truth = crop_to_multiple(to_float(read_grey_or_rgb(path))[None], factor)
            pair, seconds = make(path, truth)
            scores.append(_score(path.stem, *pair, protocol, seconds))
            advance(1)
    result = _mean(scores, upscaler, str(sr), factor, protocol)
    _print(result)
    if json:
        with atomic_file(json) as temporary:
            temporary.write_text(dumps(asdict(result), indent=1) + "\n")
    if track:
        _track(result, hr)
    return result


Pair = tuple[Tensor, Tensor]
"""The made picture and the true one, ``(1, C, H, W)``, one channel where they are grey."""


def _maker(
    upscaler: Upscaler | None, sr: Path | None, lr: Path | None
) -> Callable[[Path, Tensor], tuple[Pair, float]]:
    """How the pictures to score come about, from a path and its true picture; with the seconds."""
    if upscaler is None:
        assert sr is not None, "evaluate checks that model or sr is given"
        return lambda path, truth: ((_channels_of(_read(path, sr), truth), truth), 0.0)
    if upscaler.parameters or lr is not None:
        return lambda path, truth: _by_network(path, truth, upscaler, lr)
    return lambda path, truth: _by_kernel(truth, upscaler)


def _by_network(
    path: Path, truth: Tensor, upscaler: Upscaler, lr: Path | None
) -> tuple[Pair, float]:
    """Enlarges 8-bit low resolution in colour, as networks are used."""
    low = _read(path, lr) if lr else imresize(truth, 1 / upscaler.scale)
    started = time.perf_counter()
    made = upscaler(low.expand(-1, 3, -1, -1))
    return (_channels_of(made, truth), truth), time.perf_counter() - started


def _by_kernel(truth: Tensor, upscaler: Upscaler) -> tuple[Pair, float]:
    """Reduces and enlarges the luma unrounded, as the bicubic rows of the papers' tables are."""
    grey = truth.double() if truth.shape[1] == 1 else luma(truth.double())
    low = imresize(grey, 1 / upscaler.scale, quantize=False)
    started = time.perf_counter()
    made = upscaler(low)
    return (made, grey), time.perf_counter() - started


def _read(path: Path, folder: Path) -> Tensor:
    return to_float(read_picture(_named_like(path, folder)))[None]


def _channels_of(made: Tensor, truth: Tensor) -> Tensor:
    return made.mean(1, keepdim=True) if truth.shape[1] == 1 else made


def _named_like(path: Path, folder: Path) -> Path:
    """The picture in ``folder`` whose name is, or begins with, that of ``path``.

    Raises:
        FileNotFoundError: there is none, or more than one.
    """
    pictures = find_pictures([folder])
    found = [p for p in pictures if p.stem == path.stem]
    # img10_x4 does not belong to img1.
    found = found or [p for p in pictures if re.match(rf"{re.escape(path.stem)}(?!\d)", p.stem)]
    if len(found) != 1:
        raise FileNotFoundError(
            f"{len(found)} pictures in {folder} belong to {path.name}; exactly one should be named "
            f"{path.stem} or begin so"
        )
    return found[0]


def _score(name: str, made: Tensor, truth: Tensor, protocol: Protocol, seconds: float) -> Score:
    if made.shape != truth.shape:
        raise ValueError(
            f"{name}: the picture to score is {_size(made)}, the high-resolution one "
            f"{_size(truth)}; they must be equal (after cropping hr to a multiple of the scale)"
        )
    pixels = truth.shape[-1] * truth.shape[-2] / 1e6
    return Score(
        name,
        float(psnr(made, truth, protocol)),
        float(ssim(made, truth, protocol)),
        seconds / pixels,
    )


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]} x {picture.shape[-2]}"


def _mean(
    scores: list[Score], upscaler: Upscaler | None, sr: str, scale: int, protocol: Protocol
) -> Evaluated:
    count = len(scores)
    return Evaluated(
        upscaler.name if upscaler else sr,
        scale,
        str(protocol),
        upscaler.parameters if upscaler else 0,
        scores,
        sum(s.psnr for s in scores) / count,
        sum(s.ssim for s in scores) / count,
    )


def _rows(result: Evaluated) -> Iterator[tuple[str, ...]]:
    for s in result.scores:
        yield s.picture, f"{s.psnr:.3f}", f"{s.ssim:.4f}", f"{s.seconds_per_megapixel:.3f}"


def _print(result: Evaluated) -> None:
    table = Table(
        title=f"{result.model} x{result.scale}, {result.parameters:,} parameters",
        caption=f"protocol {result.protocol}",
    )
    table.add_column("picture")
    for column in ("PSNR dB", "SSIM", "s per megapixel"):
        table.add_column(column, justify="right")
    for row in _rows(result):
        table.add_row(*row)
    table.add_section()
    table.add_row("mean", f"{result.psnr:.3f}", f"{result.ssim:.4f}", "", style="bold")
    Console().print(table)


def _track(result: Evaluated, hr: list[Path]) -> None:
    with tracking.start("srdet evaluate", f"{result.model} x{result.scale}") as run:
        run.params({"model": result.model, "scale": result.scale, "protocol": result.protocol})
        run.params({"hr": ", ".join(path.name for path in hr), "parameters": result.parameters})
        run.metrics({"psnr_y": result.psnr, "ssim_y": result.ssim})
        run.table([asdict(score) for score in result.scores], "scores.json")
