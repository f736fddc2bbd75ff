"""``srdet interpolate``: the way from a PSNR network to its GAN sister, and what each step costs.

srdet interpolate --psnr srresnet_x4 --gan srgan_x4 --alpha 0.8 --out between.safetensors
srdet interpolate --psnr srresnet_x4 --gan srgan_x4 --out mixtures/
srdet interpolate --psnr srresnet_x4 --gan srgan_x4 --hr Set5/HR --out curve/ \
    --perceptual.niqe_parameters niqe.npz        (or --perceptual.lpips_weights alexnet.pth)

Wang et al. 2018 (ESRGAN), arXiv:1809.00219, section 3.4: a mixture of the weights keeps the GAN's
detail and loses artefacts. Which share does so is read off the curve of distortion against
perception (Blau and Michaeli 2018, "The Perception-Distortion Tradeoff", arXiv:1711.06077).
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline import tracking
from pipeline.columns import Column, Perceptual, columns
from pipeline.files import atomic_file, json_text
from pipeline.mixtures import Ends, How, Step, measure
from pipeline.options import run_function
from pipeline.progress import console
from pipeline.reporting.curve import Axis, Panel, Point, draw_curve, draw_strip
from pipeline.score_table import print_tables
from pipeline.scoring import Evaluated, computed
from pipeline.truth import open_sets
from pipeline.upscalers import Precision, as_upscaler, network_file
from pipeline.world import best_device
from sr_module.checkpoint import load_net, read_provenance, save_net
from sr_module.interpolation import interpolate as mix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALPHAS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
_DISTORTION = ("psnr", "ssim", "rmse")
_REFUSED = r"[^\w.\- ]"  # by MLflow in the names of metrics
_PERCEPTION = ("lpips", "dists", "niqe")


@dataclass(frozen=True)
class Interpolated:
    """What was written: networks, or numbers, pictures and the curve."""

    files: list[Path]
    steps: list[Step]
    scores: Evaluated | None
    """A row for bicubic and one for each step; None where nothing was measured."""


def main(words: list[str]) -> None:
    """The command."""
    run_function(interpolate, words, name="interpolate")


def interpolate(
    psnr: str,
    gan: str,
    out: Path,
    *,
    alpha: list[float] | None = None,
    hr: list[str] | None = None,
    how: list[How] | None = None,
    scale: int | None = None,
    metrics: list[str] | None = None,
    perceptual: Perceptual = Perceptual(),  # noqa: B008 (frozen)
    picture: str | None = None,
    crop: int = 96,
    precision: Precision = "fp32",
    device: str | None = None,
    track: bool = True,
) -> Interpolated:
    """Mixes a PSNR network and its GAN sister: writes the mixtures, or measures them.

    BatchNorm's running statistics are mixed like the weights.

    Args:
        psnr: network trained for distortion: a name of `srdet models`, or a file.
        gan: its sister of the same architecture and size, trained on from it with a GAN loss.
        out: a .safetensors file for one alpha; else a folder, for all mixtures or for the curve.
        alpha: shares of the GAN network, 0 to 1; 0, 0.1, ... 1 without it.
        hr: sets to measure on, each NAME=FOLDER, a folder, or files: scores, a detail along the way
            and, with a metric of perception, the curve; no networks are written then.
        how: what is mixed: "networks", or "pictures" (the results of both) to compare with.
        scale: enlargement, where the weights serve several.
        metrics: columns of the table; PSNR, SSIM, and what files are given for in --perceptual. The
            curve is drawn of the first of psnr, ssim, rmse and the first of lpips, dists, niqe.
        perceptual: files of LPIPS, NIQE and DISTS.
        picture: name of the one that a detail is shown of; the first one without it.
        crop: side of that detail in pixels; the place is where the networks differ most.
        precision: in which the networks compute.
        device: where they run; cuda where there is one without it.
        track: log the curve to MLflow.

    Returns:
        What was written.

    Raises:
        ValueError: networks that cannot be mixed, or settings that do not go together.
        FileNotFoundError: a network, a set or a metric's file is missing.
    """
    alphas = _checked(alpha, out, measured=hr is not None)
    files = network_file(psnr, to_be="mixed"), network_file(gan, to_be="mixed")
    ends = Ends(*(load_net(file, scale=scale) for file in files))
    mix(ends.psnr, ends.gan, alpha=0)  # says at once what keeps them from being mixed
    if hr is None:
        written = list(_write_networks(ends, files, alphas, out))
        number = "1 network" if len(written) == 1 else f"{len(written)} networks"
        console.print(f"{number} written to {out}", highlight=False, soft_wrap=True)
        return Interpolated(written, [Step("networks", share) for share in alphas], None)
    device = device or best_device()
    wanted = metrics or _usual(perceptual)
    measures = columns(wanted, "matlab-y", ends.psnr.scale, settings=perceptual, device=device)
    axes = _axes(measures)
    kinds: list[How] = how or ["networks"]
    steps = [Step(kind, share) for kind in dict.fromkeys(kinds) for share in alphas]
    opener = partial(as_upscaler, precision=precision, device=device)
    rows, details = measure(
        ends, steps, open_sets(hr), measures, opener=opener, shown=picture, crop=crop
    )
    protocols = {column.key: column.protocol for column in measures}
    remarks = [*_REMARKS, f"{computed(rows, device)}time is the median over pictures"]
    scores = Evaluated(ends.psnr.scale, protocols, remarks, rows)
    print_tables(scores, measures)
    written = _write_curve(out, scores, steps, axes, draw_strip(details))
    console.print(
        f"{', '.join(path.name for path in written)} written to {out}",
        highlight=False,
        soft_wrap=True,
    )
    if axes is None:
        console.print(_NO_CURVE, highlight=False, soft_wrap=True)
    if track:
        _track(f"{psnr} to {gan}", scores, steps, written)
    return Interpolated(written, steps, scores)


_NO_CURVE = (
    "no curve: nothing here measures perception; add --perceptual.niqe_parameters FILE or "
    "--perceptual.lpips_weights FILE, or --metrics psnr ssim lpips, which downloads LPIPS's network"
)
_REMARKS = [
    "low resolution: MATLAB's bicubic, 8-bit rounding",
    "bicubic: PSNR, SSIM and RMSE of unrounded luma",
    "alpha: share of the GAN network in the weights; pictures: in the results",
]


def _checked(alpha: list[float] | None, out: Path, *, measured: bool) -> list[float]:
    """The shares in order, each once."""
    alphas = sorted(set(ALPHAS if alpha is None else alpha))
    wrong = [share for share in alphas if not 0 <= share <= 1]
    if wrong:
        raise ValueError(f"--alpha takes shares from 0 to 1, got {', '.join(map(str, wrong))}")
    if out.suffix and measured:
        raise ValueError(f"a curve is several files: give --out a folder, not {out}")
    if out.suffix and len(alphas) > 1:
        raise ValueError(
            f"{len(alphas)} networks do not fit into {out}: add --alpha 0.8, or give a folder"
        )
    return alphas


def _write_networks(
    ends: Ends, files: tuple[Path, Path], alphas: Sequence[float], out: Path
) -> Iterator[Path]:
    psnr, gan = (read_provenance(file) for file in files)
    for alpha in alphas:
        path = out if out.suffix else out / f"alpha_{alpha:g}.safetensors"
        origin = {"interpolated": {"alpha": alpha, "psnr": psnr, "gan": gan}}
        save_net(mix(ends.psnr, ends.gan, alpha=alpha), path, provenance=origin)
        yield path


def _usual(perceptual: Perceptual) -> list[str]:
    """PSNR, SSIM, and the metrics of perception that there are files for."""
    given: dict[str, Path | None] = {
        "lpips": perceptual.lpips_weights,
        "dists": perceptual.dists_weights,
        "niqe": perceptual.niqe_parameters,
    }
    return ["psnr", "ssim", *(metric for metric, file in given.items() if file)]


def _axes(measures: Sequence[Column]) -> tuple[Column, Column] | None:
    """Distortion and perception, or None where nothing measures perception.

    Consistency cannot stand in for it: what is reduced again loses the very detail in question.
    """
    distortion, perception = (
        [column for column in measures if column.key.split("_")[0] in kinds]
        for kinds in (_DISTORTION, _PERCEPTION)
    )
    if not distortion:
        raise ValueError(f"distortion is one of {', '.join(_DISTORTION)}: add it to --metrics")
    return (distortion[0], perception[0]) if perception else None


def _panels(
    scores: Evaluated, steps: Sequence[Step], across: Column, upwards: Column
) -> list[Panel]:
    """One for each set; the first row is bicubic's."""
    panels = []
    for place, data_set in enumerate(scores.models[0].sets):
        lines: dict[str, list[Point]] = {}
        for step, row in zip(steps, scores.models[1:], strict=True):
            mean = row.sets[place].mean
            point = Point(step.alpha, mean[across.key], mean[upwards.key])
            lines.setdefault(f"{step.how} mixed", []).append(point)
        panels.append(Panel(f"{data_set.data_set} x{scores.scale}", lines))
    return panels


def _write_curve(
    out: Path,
    scores: Evaluated,
    steps: Sequence[Step],
    axes: tuple[Column, Column] | None,
    strip: Image.Image,
) -> list[Path]:
    numbers = json_text({"steps": [asdict(step) for step in steps], **asdict(scores)}) + "\n"
    files = {"curve.json": numbers.encode(), "detail.png": _png(strip)}
    if axes is not None:
        distortion, perception = (Axis(c.title, c.lower_is_better) for c in axes)
        panels = _panels(scores, steps, *axes)
        figure = draw_curve(panels, distortion=distortion, perception=perception)
        files |= {f"curve.{kind}": _figure_bytes(figure, kind) for kind in ("png", "svg")}
    for name, data in files.items():
        with atomic_file(out / name) as temporary:
            temporary.write_bytes(data)
    return [out / name for name in files]


def _figure_bytes(figure: "Figure", kind: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150)
    return file.getvalue()


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def _track(name: str, scores: Evaluated, steps: Sequence[Step], written: Sequence[Path]) -> None:
    """One run; its metrics are curves over the share in percent."""
    with tracking.start("srdet interpolate", f"{name} x{scores.scale}") as run:
        run.params({"networks": name, "scale": scores.scale, "protocol": scores.protocols})
        for step, row in zip(steps, scores.models[1:], strict=True):
            for data_set in row.sets:
                prefix = f"{step.how}/{re.sub(_REFUSED, '_', data_set.data_set)}"
                means = {f"{prefix}/{key}": value for key, value in data_set.mean.items()}
                run.metrics(means, step=round(100 * step.alpha))
        run.table(list(_table_rows(scores)), "scores.json")
        for path in written:
            run.artifact(path)


def _table_rows(scores: Evaluated) -> Iterator[dict[str, str | float]]:
    for row in scores.models:
        for data_set in row.sets:
            yield {"mixture": row.model, "set": data_set.data_set, **data_set.mean}
