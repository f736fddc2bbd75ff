"""``srdet evaluate``: networks, kernels and anyone's pictures in one table, by a stated protocol.

srdet evaluate --model bicubic runs/srresnet/net.safetensors --hr Set5=Set5/HR Set14
srdet evaluate --model mine=net.safetensors --ensemble true --hr Set5/HR --markdown table.md
srdet evaluate --sr RCAN=outputs/ --scale 4 --hr Set5/HR        (scores pictures made by anyone)
srdet evaluate --model bicubic vespcn.safetensors --hr Vid4/ --clips true
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from re import sub

from pipeline import tracking
from pipeline.candidates import (
    Candidate,
    ensembled,
    in_colour,
    is_kernel,
    made_elsewhere,
    on_luma,
    open_models,
)
from pipeline.clip_truth import clip_truths, count_frames, open_clips
from pipeline.columns import USUAL, Column, Perceptual, ProtocolName, columns
from pipeline.files import atomic_file, json_text
from pipeline.options import run_function
from pipeline.pictures import write_picture
from pipeline.progress import bar
from pipeline.score_table import markdown as as_markdown
from pipeline.score_table import print_tables
from pipeline.scoring import (
    Evaluated,
    ModelScores,
    PictureScores,
    SetScores,
    average,
    by_clip,
    computed,
    score,
)
from pipeline.truth import DataSet, Truth, open_sets, picture_truths, split_name
from pipeline.upscalers import Precision, Upscaler, of_pictures
from pipeline.world import best_device

_WARM_UP = 64
"""Low-resolution side of the first, uncounted piece."""


_Reader = Callable[[DataSet], Iterator[Truth]]


def main(words: list[str]) -> None:
    """The command."""
    run_function(evaluate, words, name="evaluate")


def evaluate(
    hr: list[str],
    *,
    model: list[str] | None = None,
    sr: list[str] | None = None,
    lr: Path | None = None,
    scale: int | None = None,
    protocol: ProtocolName = "matlab-y",
    metrics: list[str] | None = None,
    perceptual: Perceptual = Perceptual(),  # noqa: B008 (frozen)
    ensemble: bool = False,
    clips: bool = False,
    repeat_still: bool = False,
    precision: Precision = "fp32",
    device: str | None = None,
    save: Path | None = None,
    per_picture: bool = False,
    json: Path | None = None,
    markdown: Path | None = None,
    track: bool = True,
) -> Evaluated:
    """Scores networks, kernels and pictures made by anyone against high-resolution pictures.

    Args:
        hr: the sets, each NAME=FOLDER, a folder, or files; cropped to multiples of the scale.
        model: the rows: "bicubic" and other kernels, networks by name, files of weights; NAME=MODEL
            names a row.
        sr: rows of pictures made elsewhere, each FOLDER or NAME=FOLDER; a file belongs to the hr
            picture whose name it begins with.
        lr: folder of low-resolution pictures, named as for sr; made from hr by MATLAB's bicubic
            without it.
        scale: enlargement; a network knows its own.
        protocol: "matlab-y" of the papers' tables, "ntire" (RGB and Y), or "pirm" (RMSE and NIQE).
        metrics: the columns, of psnr, ssim, rmse, consistency, lpips, dists, blockiness and niqe;
            those that the protocol's tables show without it.
        perceptual: files of LPIPS, NIQE and DISTS.
        ensemble: networks by the mean of eight flips and turns, marked "+" (eight times slower).
        clips: the sets are of videos or of folders of frames: means over the frames of each, then
            over clips.
        repeat_still: let a network of several frames enlarge single pictures, as if nothing moved,
            and clips shorter than it reads.
        precision: in which a network computes.
        device: where networks run; cuda where there is one without it.
        save: folder for the made pictures, as SAVE/ROW/SET/PICTURE.png.
        per_picture: print every picture's scores, too.
        json: file for all numbers; null is one that is infinite, or none.
        markdown: file for the table.
        track: log every row to MLflow.

    Returns:
        The table.

    Raises:
        ValueError: settings that do not go together, or pictures that cannot be compared.
        FileNotFoundError: a set, a model, a metric's file or a picture's partner is missing.
    """
    upscalers = open_models(model or [], scale=scale, precision=precision, device=device)
    factor = _scale_of(upscalers, sr, scale)
    if clips:
        _check_clips(lr=lr, sr=sr)
        longest = max(upscaler.frames for upscaler in upscalers)
        reader: _Reader = partial(
            clip_truths, scale=factor, frames=longest, repeat_still=repeat_still
        )
    else:
        upscalers = [of_pictures(upscaler, repeat_still=repeat_still) for upscaler in upscalers]
        reader = partial(picture_truths, scale=factor, lr=lr)
    sets = open_clips(hr) if clips else open_sets(hr)
    luma = protocol == "matlab-y" and lr is None
    rows = [
        _row(word, upscaler, ensemble=ensemble, luma=luma)
        for word, upscaler in zip(model or [], upscalers, strict=True)
    ]
    rows += [_folder(word, sets) for word in sr or []]
    _check(rows, ensemble=ensemble, save=save)
    device = device or best_device()
    wanted = metrics or USUAL[protocol]
    measures = columns(wanted, protocol, factor, settings=perceptual, device=device)
    models = _score_all(rows, sets, measures, reader, save=save)
    kernels = [row.name for row, word in zip(rows, model or [], strict=False) if is_kernel(word)]
    remarks = _remarks(protocol, lr, ensemble, clips, kernels if luma else [])
    remarks.append(f"{computed(models, device)}time is the median over pictures")
    result = Evaluated(factor, {c.key: c.protocol for c in measures}, remarks, models)
    print_tables(result, measures, per_picture=per_picture)
    if json:
        _write(json, json_text(asdict(result)) + "\n")
    if markdown:
        _write(markdown, as_markdown(result, measures, per_picture=per_picture))
    if track:
        _track(result)
    return result


def _scale_of(upscalers: Sequence[Upscaler], sr: Sequence[str] | None, scale: int | None) -> int:
    if not upscalers and not sr:
        raise ValueError("say what to score: --model NAME_OR_FILE, or --sr FOLDER, or both")
    if upscalers:
        return upscalers[0].scale
    if not scale or scale < 1:
        raise ValueError("--sr needs the --scale its pictures were made for, such as --scale 4")
    return scale


def _check_clips(*, lr: Path | None, sr: Sequence[str] | None) -> None:
    for option, given in (("lr", lr), ("sr", sr)):
        if given:
            raise ValueError(
                f"--{option} goes with pictures; clips are reduced and enlarged here, leave it out"
            )


def _row(word: str, upscaler: Upscaler, *, ensemble: bool, luma: bool) -> Candidate:
    if is_kernel(word):
        return on_luma(upscaler) if luma else in_colour(upscaler)
    return ensembled(upscaler) if ensemble else in_colour(upscaler)


def _folder(word: str, sets: Sequence[DataSet]) -> Candidate:
    name, place = split_name(word)
    folder = Path(place).expanduser()
    return made_elsewhere(name or folder.resolve().name, folder, sets)


def _check(rows: Sequence[Candidate], *, ensemble: bool, save: Path | None) -> None:
    """Refuses before the work what would be wrong or missing after it."""
    for name in {row.name for row in rows if [r.name for r in rows].count(row.name) > 1}:
        raise ValueError(f"two rows would be called '{name}'; name them, as in --model mine=FILE")
    if ensemble and not any(row.name.endswith("+") for row in rows):
        raise ValueError("--ensemble needs a network; kernels treat every orientation alike")
    if save and all(row.parameters is None for row in rows):
        raise ValueError("--save keeps what models make; there is no --model")


def _score_all(
    rows: Sequence[Candidate],
    sets: Sequence[DataSet],
    measures: Sequence[Column],
    reader: _Reader,
    *,
    save: Path | None,
) -> list[ModelScores]:
    """Every row on every picture; a picture is read once for all rows."""
    scored: dict[tuple[str, str], list[tuple[str, PictureScores]]] = defaultdict(list)
    truths = [reader(data_set) for data_set in sets]  # all must be complete
    with bar("scoring", len(rows) * count_frames(sets)) as advance:
        for truth in chain.from_iterable(truths):
            if not scored:
                _warm_up(rows, truth)
            for row in rows:
                scores, made = score(row, truth, measures)
                scored[row.name, truth.data_set].append((truth.clip or truth.name, scores))
                if save and row.parameters is not None:
                    place = save / row.name / truth.data_set / f"{truth.name}.png"
                    write_picture(made.sr[0].expand(3, -1, -1), place)
                advance(1)
    return [
        ModelScores(
            row.name,
            row.parameters,
            [average(each.name, by_clip(scored[row.name, each.name]), measures) for each in sets],
            row.precision,
        )
        for row in rows
    ]


def _warm_up(rows: Sequence[Candidate], truth: Truth) -> None:
    """What is done once, such as choosing algorithms, is not charged to the first picture."""
    for row in rows:
        if row.parameters is not None:
            row.make(truth.corner(_WARM_UP))


def _remarks(
    protocol: ProtocolName, lr: Path | None, ensemble: bool, clips: bool, on_luma: Sequence[str]
) -> list[str]:
    """What the protocols of the columns leave unsaid."""
    low = f"read from {lr.name}" if lr else "MATLAB's bicubic, 8-bit rounding"
    remarks = [f"low resolution: {low}"]
    if on_luma:
        remarks.append(f"{', '.join(on_luma)}: PSNR, SSIM and RMSE of unrounded luma")
    if clips:
        remarks.append(
            "clips: mean over all frames of each, then over clips; the first and the last frame "
            "are repeated where a window reaches beyond them"
        )
    if ensemble:
        remarks.append("+: mean of eight flips and turns")
    if protocol == "pirm":
        remarks.append(
            "no perceptual index: its other half, the score of Ma et al. 2017, is not freely "
            "licensed"
        )
    return remarks


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text)


def _track(result: Evaluated) -> None:
    """A run for each row, so that rows are compared as runs are."""
    for row in result.models:
        with tracking.start("srdet evaluate", f"{row.model} x{result.scale}") as run:
            run.params({"model": row.model, "scale": result.scale, "parameters": row.parameters})
            run.params({"sets": ", ".join(scores.data_set for scores in row.sets)})
            run.params({"protocol": result.protocols, "remarks": "; ".join(result.remarks)})
            for scores in row.sets:
                run.metrics(_metrics(scores))
            run.table(list(_table_rows(row)), "scores.json")


def _metrics(scores: SetScores) -> dict[str, float]:
    """Means as ``Set5/psnr_y``; a set's name without what MLflow refuses."""
    name = sub(r"[^\w.\- ]", "_", scores.data_set)
    metrics = {f"{name}/{key}": value for key, value in scores.mean.items()}
    if scores.seconds_per_megapixel is not None:
        metrics[f"{name}/seconds_per_megapixel"] = scores.seconds_per_megapixel
    return metrics


def _table_rows(row: ModelScores) -> Iterator[dict[str, str | float | None]]:
    for scores in row.sets:
        for picture in scores.pictures:
            seconds = picture.seconds_per_megapixel
            yield {
                "set": scores.data_set,
                "picture": picture.picture,
                **picture.scores,
                "seconds_per_megapixel": seconds,
            }
