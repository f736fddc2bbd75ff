"""The ceiling of what neighbouring frames are worth is found where it is known."""

import random
from pathlib import Path

import torch

from benchmarks.motion import make
from benchmarks.motion_ceiling import KINDS, measure, read
from pipeline.pictures import write_picture


def test_told_motion_and_phases_are_worth_something_where_frames_are_aliased(tmp_path: Path):
    torch.manual_seed(0)
    random.seed(0)
    for n in range(2):
        write_picture(torch.rand(3, 200, 200), tmp_path / "photos" / f"{n}.png")
    make([tmp_path / "photos"], tmp_path / "clips", frames=3, count=4, seed=0)
    clips = list(read(tmp_path / "clips"))
    found = {kind.name: measure(kind, clips, clips)[0] for kind in KINDS}
    alone = found["the middle frame alone"]
    assert alone < found["in register, bicubic"] < found["bicubic, and phases"]
    assert measure(KINDS[0], clips, clips)[1] < alone  # bicubic enlargement
