r"""A study of one picture of 20,000 x 20,000 pixels: its greatest memory, and its seconds.

python -m benchmarks.vast --coco val.json --images val/ --detector detector.safetensors \
        --keep FOLDER

The most crowded picture of the set is laid side by side until the large one is full, as a tiled
TIFF. It is reduced four times and looked at in sheets; windows, laid by the truth because a first
look at so little finds nothing to guide by, are enlarged and looked at.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyvips

SIDE = 20_000
ANNOTATED = 3
"""Rows and columns of the large picture, in small ones, that are annotated: below 500 objects."""
STUDY = (
    "--protocol", "synthetic", "--windows.kind", "oracle", "--windows.size", "256",
    "--windows.budget", "64", "--join.full", "true", "--arms", "none", "bicubic",
    "srresnet_small_x4", "original", "--statistics.resamples", "10", "--statistics.permutations",
    "0",
)  # fmt: skip


def lay(coco: Path, images: Path, folder: Path, side: int) -> Path:
    """Writes the large picture and its annotations; gives the annotation file."""
    given = json.loads(coco.read_text())
    most = Counter(row["image_id"] for row in given["annotations"]).most_common(1)[0][0]
    (picture,) = [row for row in given["images"] if row["id"] == most]
    width, height = picture["width"], picture["height"]
    small = pyvips.Image.new_from_file(str(images / picture["file_name"]))
    large = small.replicate(-(-side // width), -(-side // height)).crop(0, 0, side, side)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    large.tiffsave(str(folder / "images/large.tif"), tile=True, bigtiff=True, compression="deflate")
    rows = []
    for place in range(ANNOTATED**2):
        right, down = place % ANNOTATED * width, place // ANNOTATED * height
        for row in given["annotations"]:
            if row["image_id"] == most:
                x, y, *sides = row["bbox"]
                rows.append({**row, "id": len(rows) + 1, "bbox": [x + right, y + down, *sides]})
    frame = {"id": most, "file_name": "large.tif", "width": side, "height": side}
    path = folder / "annotations.json"
    path.write_text(json.dumps({**given, "images": [frame], "annotations": rows}))
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--side", type=int, default=SIDE)
    given = parser.parse_args()
    annotations = lay(given.coco, given.images, given.keep, given.side)
    words = ["--coco", str(annotations), "--images", str(given.keep / "images")]
    words += ["--detector", given.detector, "--out", str(given.keep / "study"), *STUDY]
    started = time.perf_counter()
    srdet = Path(sys.executable).with_name("srdet")
    subprocess.run([srdet, "detect", *words], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(f"{given.side} x {given.side} pixels: {3 * given.side**2 / 2**20:,.0f} MiB of pixels")
    print(f"  {peak:,.0f} MiB at most in {time.perf_counter() - started:,.0f} s")
    arms = json.loads((given.keep / "study" / "study.json").read_text())["arms"]
    for name, arm in arms.items():
        print(f"  {name:<20} {arm['seconds_per_picture']:8.1f} s a picture, without reading it")


if __name__ == "__main__":
    main()
