"""Clips whose motion is known: photographs panned, turned and zoomed, and how well it is found.

    python -m benchmarks.motion make PHOTOS... --out clips/ --frames 5 --count 300
    python -m benchmarks.motion flow NET CLIPS

``make`` writes a folder of frames for each clip, with ``motion.json`` beside them: for every frame
the 2x3 matrix that leads from its pixels (x, y, 1) to the photograph's. Frames are read from the
photograph bicubically, the middle one too, at a place between its pixels, so that none is sharper.
``flow`` prints how far the flow of a network lies from the known one, in low-resolution pixels.
"""

import argparse
import json
import random
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.clips import frame_files
from pipeline.picture_files import find_pictures
from pipeline.pictures import read_picture, to_float, write_picture
from pipeline.progress import bar
from sr_module import load_net
from sr_module.resize import imresize

SIDE = 192
PAN, TURN, ZOOM = 3.0, 0.5, 0.005
"""At most, from frame to frame: high-resolution pixels, degrees, and share of the size."""


def matrices(frames: int, centre: tuple[float, float], side: int, rng: random.Random) -> Tensor:
    """From pixels of each frame to those of the photograph, ``(frames, 2, 3)``, double."""
    pan = [rng.uniform(-PAN, PAN) for _ in "xy"]
    turn, zoom = rng.uniform(-TURN, TURN), rng.uniform(-ZOOM, ZOOM)
    made = []
    for t in range(-(frames // 2), frames // 2 + 1):
        angle, size = torch.deg2rad(torch.tensor(turn * t, dtype=torch.float64)), (1 + zoom) ** t
        cos, sin = size * angle.cos(), size * angle.sin()
        linear = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
        middle = torch.full((2,), (side - 1) / 2, dtype=torch.float64)
        at = torch.tensor(centre, dtype=torch.float64) + t * torch.tensor(pan, dtype=torch.float64)
        made.append(torch.cat((linear, (at - linear @ middle).unsqueeze(1)), 1))
    return torch.stack(made)


def frames_of(photo: Tensor, motion: Tensor, side: int = SIDE) -> Tensor:
    """The frames ``(T, 3, side, side)`` that ``motion`` reads from ``photo`` ``(3, H, W)``."""
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    places = torch.stack((x, y, torch.ones_like(x)), -1) @ motion.mT.unsqueeze(1)
    size = torch.tensor([photo.shape[-1], photo.shape[-2]], dtype=torch.float64)
    grid = (2 * places + 1) / size - 1
    many = photo.double().expand(len(motion), -1, -1, -1)
    made = F.grid_sample(many, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return made.float().clamp(0, 1)


def true_flow(motion: Tensor, height: int, width: int, scale: int) -> Tensor:
    """From the middle frame to each other one, ``(T - 1, 2, height, width)`` low-resolution px."""
    square = torch.cat((motion, motion.new_tensor([0, 0, 1]).expand(len(motion), 1, 3)), 1)
    at = len(motion) // 2
    others = torch.cat((square[:at], square[at + 1 :]))
    lead = torch.linalg.inv(others) @ square[at]
    y, x = torch.meshgrid(
        *(torch.arange(n, dtype=motion.dtype) for n in (height, width)), indexing="ij"
    )
    places = torch.stack((scale * (x + 0.5) - 0.5, scale * (y + 0.5) - 0.5, torch.ones_like(x)))
    moved = torch.einsum("tij,jhw->tihw", lead, places)
    return (moved - places)[:, :2] / scale


def make(photos: list[Path], out: Path, *, frames: int, count: int, seed: int) -> None:
    """Writes ``count`` clips, from each photograph in turn."""
    files = find_pictures(photos)
    rng = random.Random(seed)
    with bar("making clips", count) as advance:
        for number in range(count):
            file = files[number % len(files)]
            photo = to_float(read_picture(file))
            height, width = photo.shape[-2:]
            side = min(SIDE, height // 4 * 4, width // 4 * 4)
            centre = tuple(
                rng.uniform(min(side / 2, n - side / 2 - 1), max(side / 2, n - side / 2 - 1))
                for n in (width, height)
            )
            motion = matrices(frames, centre, side, rng)
            folder = out / f"{number:04d}_{file.stem}"
            for index, frame in enumerate(frames_of(photo, motion, side)):
                write_picture(frame, folder / f"{index}.png")
            (folder / "motion.json").write_text(json.dumps(motion.tolist()))
            advance(1)


@torch.inference_mode()
def flow(model: Path, clips: Path) -> None:
    """Prints the mean distance between the network's flow and the known one."""
    net = load_net(model)
    wrong, still = [], []
    for place in sorted(clips.rglob("motion.json")):
        motion = torch.tensor(json.loads(place.read_text()), dtype=torch.float64)
        first = (len(motion) - net.frames) // 2
        motion = motion[first : first + net.frames]
        files = frame_files(place.parent)[first : first + net.frames]
        hr = torch.stack([to_float(read_picture(file)) for file in files])
        lr = imresize(hr, Fraction(1, net.scale))[None]
        found = net.flow(lr)[0].double()
        true = true_flow(motion, *lr.shape[-2:], net.scale)
        wrong.append((found - true).square().sum(1).sqrt().flatten())
        still.append(true.square().sum(1).sqrt().flatten())
    errors, lengths = torch.cat(wrong), torch.cat(still)
    print(f"{len(wrong)} clips, {errors.numel()} flow vectors, low-resolution pixels")
    print(f"distance from the known flow: mean {errors.mean():.3f}, median {errors.median():.3f}")
    print(f"length of the known flow: mean {lengths.mean():.3f}, largest {lengths.max():.3f}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    jobs = parser.add_subparsers(dest="job", required=True)
    making = jobs.add_parser("make")
    making.add_argument("photos", nargs="+", type=Path)
    making.add_argument("--out", type=Path, required=True)
    for name, default in (("frames", 5), ("count", 300), ("seed", 0)):
        making.add_argument(f"--{name}", type=int, default=default)
    measuring = jobs.add_parser("flow")
    measuring.add_argument("model", type=Path)
    measuring.add_argument("clips", type=Path)
    given = vars(parser.parse_args())
    {"make": make, "flow": flow}[given.pop("job")](**given)


if __name__ == "__main__":
    main()
