"""The arms of a study by the words a person types: controls, kernels, networks."""

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from detection.phase import centre_shift
from pipeline.registered import is_registered, short_name
from pipeline.upscalers import KERNELS, Upscaler, bicubic, network_files, open_upscaler
from pipeline.world import best_device
from sr_module.catalogue import trained

Form = Literal["native", "synthetic"]

NONE = "none"
"""The arm without windows: the detector sees the whole given picture once."""
ORIGINAL = "original"
"""The arm whose windows are cut from the original pictures: the ceiling of a synthetic study."""
CROPS = "crops"
"""The arm whose windows are not enlarged: what cutting does without any zoom."""
SHARPENED = "sharpened"
"""Bicubic with an unsharp mask: tells sharp edges, which cost nothing, from learned detail."""
LARGER = "larger"
"""Arms without windows whose whole picture is enlarged by bicubic: what a larger input buys without
cutting. "larger" has as many pixels as the windows, "larger:ARM" takes as long as that arm, and
"larger@FACTOR" is enlarged by a factor."""
LARGER_FORM = re.compile(r"larger(:(?P<arm>.+)|@(?P<factor>\d+(\.\d*)?|\.\d+))?")
REFERENCE = "bicubic"
"""What every arm is measured against: the same windows, the same zoom, no super-resolution."""
CONTROLS = (NONE, LARGER, ORIGINAL, CROPS, SHARPENED, *KERNELS)
"""Words of arms that are no network."""
UNENLARGED = (NONE, ORIGINAL, CROPS)
TRAININGS = ","
"""Stands between the networks of one arm: the same training from several seeds."""

WORST_SHIFT = 0.1
"""Pixels before enlargement. Exact kernels stay below 0.01, the usual mistake of aligned corners at
four times is 0.375."""
STRENGTH = 1.0
"""Of the unsharp mask, whose Gaussian is half a given pixel wide."""


def parse_arms(arms: list[str], protocol: Form) -> dict[str, str]:
    """Arm name to what it enlarges with, in the order given, the reference included.

    Raises:
        ValueError: a name twice, "original" where there is none, or a larger picture that takes as
            long as no arm does.
        FileNotFoundError: neither a word nor a file.
    """
    specs: dict[str, str] = {}
    for word in arms:
        name, _, spec = word.rpartition("=")
        name = name or _name(spec)
        if name in specs:
            raise ValueError(
                f"arm '{name}' is there twice; name them apart with NAME=FILE, or give the "
                f"trainings of one arm as NAME=FILE,FILE"
            )
        specs[name] = spec
    if ORIGINAL in specs.values() and protocol == "native":
        raise ValueError(
            "arm 'original' exists in the synthetic protocol only: native pictures have no better "
            "original; leave it out, or take --protocol synthetic"
        )
    if specs.setdefault(REFERENCE, REFERENCE) != REFERENCE:
        raise ValueError(f"'{REFERENCE}' is the reference arm's name; call yours something else")
    for spec in specs.values():
        _check(spec)
    _check_larger(specs)
    return specs


def is_larger(spec: str) -> bool:
    """Whether an arm is the whole picture at larger input, in whatever form."""
    return LARGER_FORM.fullmatch(spec) is not None


def is_control(spec: str) -> bool:
    """Whether an arm is no network."""
    return spec in CONTROLS or is_larger(spec)


def has_windows(spec: str) -> bool:
    """Whether an arm looks through the windows."""
    return spec != NONE and not is_larger(spec)


def timed_by(spec: str) -> str | None:
    """The arm whose time a larger picture takes; None of all other arms."""
    form = LARGER_FORM.fullmatch(spec)
    return form["arm"] if form else None


def given_factor(spec: str) -> float | None:
    """What a larger picture is enlarged by, where a person says so."""
    form = LARGER_FORM.fullmatch(spec)
    return float(form["factor"]) if form and form["factor"] else None


def _name(spec: str) -> str:
    if arm := timed_by(spec):
        return f"{LARGER} in {arm} time"
    if factor := given_factor(spec):
        return f"{LARGER} {factor:g}"
    if is_registered(spec):
        return short_name(spec)
    if spec.startswith("mix:"):
        return f"mix {spec.rpartition('@')[2]}"
    return Path(spec).stem if Path(spec).suffix else spec


def _check(spec: str) -> None:
    for word in trainings(spec):
        if is_control(word):
            continue
        try:
            network_files(word)
        except FileNotFoundError as error:
            words = ", ".join((*CONTROLS, *trained()))
            raise FileNotFoundError(
                f"arm '{word}' is neither a file nor one of {words} ({error})"
            ) from error


def _check_larger(specs: Mapping[str, str]) -> None:
    for name, spec in specs.items():
        arm = timed_by(spec)
        if arm is not None and not has_windows(specs.get(arm, NONE)):
            there = ", ".join(each for each, said in specs.items() if has_windows(said))
            raise ValueError(
                f"arm '{name}' takes as long as arm '{arm}', and there is none of that name with "
                f"windows; choose from {there}, or give a factor: {LARGER}@2"
            )
        if given_factor(spec) == 0:
            raise ValueError(f"arm '{name}' enlarges 0 times; give a factor above 0: {LARGER}@2")


def trainings(spec: str) -> list[str]:
    """The networks of an arm that was trained several times; others have one."""
    return [spec] if is_larger(spec) else spec.split(TRAININGS)


def is_one_file(spec: str) -> bool:
    """Whether an arm is one network: no control, no mixture, not trained several times."""
    return not is_control(spec) and TRAININGS not in spec and not spec.startswith("mix:")


def weights_of(spec: str) -> list[Path]:
    """The files of weights behind an arm, of all its trainings."""
    words = [word for word in trainings(spec) if not is_control(word)]
    return [path for word in words for path in network_files(word)]


def identity(spec: str) -> str:
    """What an arm enlarges with, as a name that no other network shares."""
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights_of(spec)]
    share = spec.rpartition("@")[2] if spec.startswith("mix:") else ""
    return " ".join([*files, share]).strip() or spec


def open_arm(spec: str, scale: int, *, bf16: bool) -> Upscaler | None:
    """What enlarges the windows of an arm, one training of it; None where nothing does.

    What it makes stays where the detector is, on the accelerator where there is one.
    """
    if spec in UNENLARGED or is_larger(spec):
        return None
    device = best_device()
    if spec == SHARPENED:
        return Upscaler(SHARPENED, scale, 0, lambda lr: sharpened(lr.to(device), scale))
    return open_upscaler(spec, scale=scale, precision="bf16" if bf16 else "fp32", onto=device)


def sharpened(lr: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement plus what a Gaussian of half a given pixel takes from it, in [0, 1]."""
    enlarged = bicubic(lr, scale)
    sigma = scale / 2
    kernel = 2 * math.ceil(3 * sigma) + 1
    # the blur reflects at borders, which needs more pixels than half of its kernel
    kernel = min(kernel, 2 * (min(enlarged.shape[-2:]) - 1) + 1)
    blurred = gaussian_blur(enlarged, [kernel, kernel], [sigma, sigma])
    sharp: Tensor = enlarged + STRENGTH * (enlarged - blurred)
    return sharp.clamp(0, 1)


def shifts(upscalers: dict[str, Upscaler | None]) -> dict[str, tuple[float, float]]:
    """How far right and down each enlarging arm moves things, in pixels before enlargement."""
    with torch.inference_mode():
        return {
            name: centre_shift(upscaler, scale=upscaler.scale)
            for name, upscaler in upscalers.items()
            if upscaler is not None
        }


def shift_warnings(moved: Mapping[str, tuple[float, float]]) -> list[str]:
    """One sentence for every arm whose boxes come back in the wrong place."""
    return [
        f"{name} moves what it enlarges by {x:+.2f} pixels to the right and {y:+.2f} down (in "
        f"pixels before enlargement): its boxes come back displaced, which costs small objects "
        f"overlap and is no property of its pictures. Mend the alignment before trusting its AP."
        for name, (x, y) in moved.items()
        if max(abs(x), abs(y)) > WORST_SHIFT
    ]
