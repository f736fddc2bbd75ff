"""Sliced detection as a study's arm does it, once a line of its input (see ``sliced.py``)."""

import json
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.served import serve
from detection.borders import Border
from detection.boxes import Detections
from detection.crops import detect_full, see_windows
from detection.detectors import load_detector
from detection.group import Merge
from detection.merge import SizeGate, fuse
from detection.proposals import guided_plan
from detection.windows import WindowPlan, grid_windows
from pipeline.heap import keep_freed_memory
from pipeline.pictures import read_picture, to_float
from pipeline.upscalers import bicubic

SIZE, OVERLAP, SCALE = 192, 0.2, 2
NARROW, BUDGET, SMALL = 128, 7.0, 32
"""Guided windows: the plan of ``guided.py`` that holds nine tenths of what the grid holds, at a
fifth of its pixels."""
GATE = SizeGate(small_below=64, large_above=0)


def main(job: str) -> None:
    """Serves rounds."""
    keep_freed_memory()
    said = json.loads(Path(job).read_text())
    kind, precision = said["how"].split()
    categories = {int(key): name for key, name in said["categories"].items()}
    detector = load_detector(said["detector"], categories=categories, bf16=precision == "bf16")
    pictures = {int(key): read_picture(Path(file)) for key, file in said["files"].items()}

    def detect() -> None:
        given = [(image, to_float(picture)) for image, picture in pictures.items()]
        full = detect_full(given, detector) if kind == "guided" else None
        plan = _plan(given, full)
        seen = see_windows(given, plan, partial(bicubic, scale=SCALE), detector, scale=SCALE)
        found = {}
        for image, each in seen.items():
            # SAHI drops nothing at a slice's side, so neither does the grid here
            inside = each.found if full is None else Border(2.0).apply(each)
            joined = inside if full is None else GATE.join(inside, full[image])
            found[image] = fuse(joined, Merge("nms", 0.5))
        _write(found, Path(said["out"]))

    serve(detect)


def _plan(given: list[tuple[int, torch.Tensor]], full: dict[int, Detections] | None) -> WindowPlan:
    sizes = {image: (picture.shape[2], picture.shape[1]) for image, picture in given}
    if full is not None:
        return guided_plan(full, sizes, size=NARROW, mean_budget=BUDGET, small=SMALL)
    return WindowPlan(
        {i: tuple(grid_windows(*s, size=SIZE, overlap=OVERLAP)) for i, s in sizes.items()}
    )


def _write(found: dict[int, Detections], out: Path) -> None:
    rows = {
        image: torch.cat(
            [each.boxes.double(), each.scores.double()[:, None], each.labels.double()[:, None]], 1
        ).tolist()
        for image, each in found.items()
    }
    out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
