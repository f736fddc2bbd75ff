r"""Sliced detection beside SAHI: the same detector, slices and bicubic enlargement.

    python -m benchmarks.sliced --coco val.json --images val/ --detector detector.safetensors

One thread each. The peer needs an environment of its own (requirements-peers.txt), named in
SRDET_PEERS_PYTHON. Both begin with decoded pictures and end with merged boxes in them; AP is COCO's
over the same pictures.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.served import Served
from detection.boxes import Detections
from detection.coco import evaluate
from detection.truth import CocoSet, read_coco

OURS = ("grid fp32", "grid bf16", "guided fp32", "guided bf16")


def run(
    coco: Path, images: Path, detector: str, *, pictures: int, rounds: int, only: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Pictures a second and AP of each way; medians of interleaved rounds after one to warm up.

    Seconds are of the processor, one thread each: other work on the machine does not stretch them.
    """
    truth = read_coco(coco, images=images)
    every = [picture.id for picture in truth.images]
    # evenly over the set, for neighbours show one scene
    truth = truth.subset(every[:: max(1, len(every) // pictures)][:pictures])
    peers = os.environ.get("SRDET_PEERS_PYTHON")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        begin = partial(_begin, stack, Path(folder), truth, images, detector)
        works = {}
        if peers:
            works["SAHI"] = begin(peers, "benchmarks.sliced_sahi", "grid fp32")
        for how in only:
            works[f"srdet, {how}"] = begin(sys.executable, "benchmarks.sliced_srdet", how)
        taken = [
            {name: work.round().processor for name, (work, _) in works.items()}
            for _ in range(rounds + 1)
        ]
        seconds = {n: statistics.median(each[n] for each in taken[1:]) for n in works}
        base = seconds.get("SAHI")
        for name, (_, out) in works.items():
            speed = len(truth.images) / seconds[name]
            ratio = f"{base / seconds[name]:5.2f}x SAHI" if base else "SRDET_PEERS_PYTHON not set"
            metrics = evaluate(truth, read_found(out, truth)).metrics
            figures = f"AP {metrics['AP']:.4f}  AP_small {metrics['AP_small']:.4f}"
            yield name, f"{speed:6.2f} pictures/s   {ratio}   {figures}"


def _begin(
    stack: contextlib.ExitStack,
    folder: Path,
    truth: CocoSet,
    images: Path,
    detector: str,
    python: str,
    module: str,
    how: str,
) -> tuple[Served, Path]:
    out = folder / f"{module} {how}.json"
    job = folder / f"{module} {how}.job"
    files = {picture.id: str((images / picture.file_name).resolve()) for picture in truth.images}
    content = {"files": files, "categories": truth.categories, "detector": detector}
    job.write_text(json.dumps({**content, "how": how, "out": str(out)}))
    return stack.enter_context(Served(python, ["-m", module, str(job)], threads=1)), out


def read_found(path: Path, truth: CocoSet) -> dict[int, Detections]:
    """What a work left: image id to rows of a box's corners, its score and its category."""
    stored = json.loads(path.read_text())
    found = {}
    for picture in truth.images:
        rows = torch.tensor(stored[str(picture.id)], dtype=torch.float64).reshape(-1, 6)
        found[picture.id] = Detections(rows[:, :4].float(), rows[:, 4].float(), rows[:, 5].long())
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=OURS, choices=OURS)
    words = vars(parser.parse_args())
    for name, figure in run(words.pop("coco"), words.pop("images"), words.pop("detector"), **words):
        print(f"  {name:<22} {figure}", flush=True)


if __name__ == "__main__":
    main()
