r"""Windows: the small objects they hold and the pixels they cost, beside the plain grid.

python -m benchmarks.guided --coco val.json --images val/ --detector detector.safetensors \
        --keep runs/first_look [--missed 0.4]
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from detection.boxes import areas, iou_matrix
from detection.detectors import load_detector
from detection.windows import WindowPlan, reached
from pipeline.kept import file_digest
from pipeline.look import Looking
from pipeline.plans import plan_windows
from pipeline.study import Found, Pictures, find_in_full, load_pictures
from pipeline.study_settings import Windows

SMALL = 32.0
TOUCHED = 0.05
"""Overlap from which a detection gives an object away."""
GRID = Windows("grid", size=192, overlap=0.2, small=SMALL)
PLANS = {
    **{f"shared, {s} px, {b:g} a picture": Windows("shared", size=s, budget=b, small=SMALL)
       for s, b in ((192, 2), (192, 3), (128, 4), (128, 7), (96, 7), (96, 12))},
    **{f"guided, {s} px, {b:g} at most": Windows("guided", size=s, budget=b, small=SMALL)
       for s, b in ((192, 3), (128, 7), (96, 12))},
    **{f"density, {s} px, {b:g} a picture": Windows("density", size=s, budget=b, small=SMALL)
       for s, b in ((192, 3), (128, 7), (96, 12))},
    "random, 96 px, 12 at most": Windows("random", size=96, budget=12, small=SMALL),
    "oracle, 96 px, 12 at most": Windows("oracle", size=96, budget=12, small=SMALL),
}  # fmt: skip


def run(
    coco: Path, images: Path, detector: str, keep: Path | None, missed: float
) -> Iterator[tuple[str, str]]:
    """Each plan's share of the small objects that the grid holds, and of the grid's pixels."""
    pictures = load_pictures([coco], [images], degradation=None, limit=None)
    find = load_detector(detector, categories=pictures.truth.categories, bf16=True)
    looking = Looking(folder=keep, key={"detector": file_digest(detector)})
    full = find_in_full(pictures, find, looking).found
    full = poorer(full, pictures, missed)
    grid = plan_windows(pictures, GRID, full)
    for name, how in PLANS.items():
        plan = plan_windows(pictures, how, full)
        share, pixels = compared(pictures, plan, grid)
        count = sum(map(len, plan.windows.values())) / len(pictures.truth.images)
        yield (
            name,
            f"{100 * share:5.1f} % of its objects   {pixels:5.3f} of its pixels   {count:4.1f}",
        )


def poorer(full: Found, pictures: Pictures, missed: float) -> Found:
    """A first look that saw nothing of a share of the objects, drawn by a fixed seed."""
    draw = torch.Generator().manual_seed(0)
    left = {}
    for image, boxes in pictures.truth.boxes.items():
        gone = torch.rand(len(boxes), generator=draw) < missed
        touched = iou_matrix(full[image].boxes, boxes[gone]) > TOUCHED
        left[image] = full[image].select(~touched.any(dim=1))
    return left


def compared(pictures: Pictures, plan: WindowPlan, grid: WindowPlan) -> tuple[float, float]:
    """Share of the grid's small objects, and of its pixels."""
    boxes = pictures.truth.boxes
    ours, all_of_them = reached(boxes, plan), reached(boxes, grid)
    held = total = 0
    for image, each in boxes.items():
        small = (areas(each).sqrt() < SMALL) & all_of_them[image]
        held, total = held + int((ours[image] & small).sum()), total + int(small.sum())
    costs = [
        sum(w.width * w.height for rows in p.windows.values() for w in rows) for p in (plan, grid)
    ]
    return held / total, costs[0] / costs[1]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--missed", type=float, default=0.0)
    torch.set_num_threads(1)
    for name, figure in run(**vars(parser.parse_args())):
        print(f"  {name:<32} {figure}", flush=True)


if __name__ == "__main__":
    main()
