"""Built-in aerial scenes with exact boxes, so that the whole job can be tried without any data.

Each picture shows a street and the land on its two sides from straight above, under one sun, with
cars, vans, trucks, boats and aircraft of 6 to 40 pixels. Everything follows from one seed. The
scenes are drawn, not photographed: figures measured on them show that the tool works, not what
super-resolution will gain on real pictures.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.files import atomic_folder
from pipeline.pictures import write_picture
from pipeline.scenery.canvas import SHADOW_LOSS, Canvas, Frame, Sun, photograph
from pipeline.scenery.ground import Slot, countryside, street
from pipeline.scenery.harbour import wake
from pipeline.scenery.objects import CATEGORIES, KINDS
from pipeline.scenery.plots import PLOTS
from pipeline.scenery.sprite import Sprite, draw_sprite

__all__ = ["CATEGORIES", "Scene", "render_scene", "write_scenes"]

SMALLEST_SIZE = 128  # below it a street and its sides leave no room for objects
OBJECTS = (8, 25)  # per picture of 320 x 320
LENGTHS = (6.5, 39.0)  # pixels, of an object along its own axis
MARGIN = 2  # pixels between an object and the border


@dataclass(frozen=True)
class Scene:
    """A picture and what is on it."""

    picture: Tensor  # (3, H, W) uint8
    boxes: Tensor  # (N, 4) float32, xyxy in pixels
    labels: Tensor  # (N,) int64, from 1, as in CATEGORIES


def render_scene(seed: int, *, size: int = 320) -> Scene:
    """Draw one scene of `size` x `size` pixels; the same seed gives the same bytes.

    Boxes enclose the visible object to an eighth of a pixel, without its shadow.
    Raises ValueError for a size under 128.
    """
    if size < SMALLEST_SIZE:
        raise ValueError(f"scenes need at least {SMALLEST_SIZE} pixels a side, got size={size}")
    rng = np.random.default_rng(seed)
    canvas = Canvas(
        size=size,
        metre=1 / float(np.exp(rng.uniform(np.log(0.26), np.log(0.52)))),
        rng=rng,
        sun=Sun(azimuth=rng.uniform(0, 2 * np.pi), elevation=rng.uniform(0.6, 1.1)),
    )
    slots = _landscape(canvas)
    low, high = (max(1, round(count * (size / 320) ** 2)) for count in OBJECTS)
    placed = _populate(canvas, slots, count=int(rng.integers(low, high + 1)))
    picture = photograph(canvas.image, rng, blur=float(rng.uniform(0.42, 0.6)))
    return Scene(
        picture=torch.from_numpy(picture).permute(2, 0, 1).contiguous(),
        boxes=torch.from_numpy(np.stack([sprite.box for sprite, _ in placed])),
        labels=torch.tensor([label for _, label in placed], dtype=torch.int64),
    )


def _landscape(canvas: Canvas) -> list[Slot]:
    """Paint the ground, a street and both its sides; returns the places for objects."""
    rng = canvas.rng
    reach = 0.75 * canvas.size / canvas.metre
    frame = _street_frame(canvas)
    countryside(canvas, frame)
    lanes = int(rng.choice([2, 2, 4]))
    sides = rng.choice(list(PLOTS), size=2, replace=False, p=[share for _, share in PLOTS.values()])
    edge = lanes * 1.7 + 2.5
    slots: list[Slot] = []
    for name, way in zip(sides, (1.0, -1.0), strict=True):
        beside = Frame(frame.origin, frame.u_axis, way * frame.v_axis, way * frame.bend, edge)
        slots += PLOTS[name][0](canvas, beside, reach)
    return slots + street(canvas, frame, lanes=lanes, reach=reach)[1]


def _street_frame(canvas: Canvas) -> Frame:
    rng = canvas.rng
    angle = rng.uniform(0, 2 * np.pi)
    u_axis = np.array([np.cos(angle), np.sin(angle)]) * canvas.metre
    v_axis = np.array([-u_axis[1], u_axis[0]])
    aside = rng.uniform(-0.2, 0.2) * canvas.size / canvas.metre
    bend = rng.uniform(-1, 1) * 1.2e-3 if rng.random() < 0.5 else 0.0
    return Frame(np.full(2, canvas.size / 2) + aside * v_axis, u_axis, v_axis, bend)


def _populate(canvas: Canvas, slots: list[Slot], *, count: int) -> list[tuple[Sprite, int]]:
    """Put up to `count` objects on free places, drawn in the order of their random pull."""
    pulls = np.array([slot.pull for slot in slots])
    order = np.argsort(canvas.rng.exponential(1 / pulls))
    placed: list[tuple[Sprite, int]] = []
    for index in order:
        slot = slots[index]
        kind = str(canvas.rng.choice(slot.kinds))
        sprite = _sprite(canvas, slot, kind)
        if sprite is not None and _is_free(canvas, sprite):
            if slot.under_way:
                wake(canvas, slot.centre, heading=slot.heading, length=sprite.length)
            _place(canvas, sprite)
            placed.append((sprite, list(CATEGORIES.values()).index(kind) + 1))
        if len(placed) == count:
            break
    return placed


def _sprite(canvas: Canvas, slot: Slot, name: str) -> Sprite | None:
    """Draw an object for a place; None where the place lies at or beyond the border."""
    if not (0 < slot.centre[0] < canvas.size and 0 < slot.centre[1] < canvas.size):
        return None
    kind = KINDS[name]
    low, high = LENGTHS
    length = float(
        np.clip(
            canvas.rng.uniform(kind.shortest, kind.longest), low / canvas.metre, high / canvas.metre
        )
    )
    body = kind.draw(canvas.rng, length)
    return draw_sprite(body, slot.centre, heading=slot.heading, metre=canvas.metre, sun=canvas.sun)


def _is_free(canvas: Canvas, sprite: Sprite) -> bool:
    low, high = sprite.box[:2].min(), sprite.box[2:].max()
    if low < MARGIN or high > canvas.size - MARGIN:
        return False
    rows, columns, inside = _window(canvas, sprite)
    return not (canvas.taken[rows, columns] & (sprite.cover[inside][..., 0] > 0)).any()


def _window(canvas: Canvas, sprite: Sprite) -> tuple[slice, slice, tuple[slice, slice]]:
    """The part of the picture under a sprite, and the part of the sprite over the picture."""
    height, width = sprite.cover.shape[:2]
    top, left = max(sprite.top, 0), max(sprite.left, 0)
    bottom, right = min(sprite.top + height, canvas.size), min(sprite.left + width, canvas.size)
    inside = (
        slice(top - sprite.top, bottom - sprite.top),
        slice(left - sprite.left, right - sprite.left),
    )
    return slice(top, bottom), slice(left, right), inside


def _place(canvas: Canvas, sprite: Sprite) -> None:
    """Lay a sprite and its shadow over the picture; one that stands in the shade is darker."""
    rows, columns, inside = _window(canvas, sprite)
    cover, shadow = sprite.cover[inside], sprite.shadow[inside]
    shade = canvas.shade[rows, columns]
    ground = canvas.image[rows, columns] * (1 - shadow * (1 - shade) * SHADOW_LOSS)
    lit = sprite.colour[inside] * (1 - 0.85 * shade * SHADOW_LOSS)
    canvas.image[rows, columns] = ground * (1 - cover) + lit
    canvas.taken[rows, columns] |= cover[..., 0] > 0


def write_scenes(
    folder: Path,
    *,
    count: int,
    size: int = 320,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write `count` scenes as a COCO set: `folder`/images/*.png and `folder`/annotations.json.

    The folder appears whole or not at all. Sets of different seeds share no picture.

    Args:
        folder: where to; one that has content is refused, or replaced with `overwrite`.
        count: pictures.
        size: pixels a side, at least 128.
        seed: of the whole set.
        overwrite: replace what is there, once the new set is complete.
        progress: called with the number of pictures done since the last call.

    Returns:
        The path of annotations.json.

    Raises:
        ValueError: no pictures are asked for, or too small ones.
        FileExistsError: `folder` has content and `overwrite` is off.
    """
    if count < 1:
        raise ValueError(f"write_scenes needs at least one picture, got count={count}")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with atomic_folder(folder, overwrite=overwrite) as place:
        for number in range(1, count + 1):
            scene = render_scene(_picture_seed(seed, number), size=size)
            name = f"{number:06d}.png"
            write_picture(scene.picture, place / "images" / name)
            images.append({"id": number, "file_name": name, "width": size, "height": size})
            annotations += _annotations(scene, number, first=len(annotations) + 1)
            if progress is not None:
                progress(1)
        coco = {"info": _info(seed), "images": images, "annotations": annotations}
        coco["categories"] = [{"id": label, "name": name} for label, name in CATEGORIES.items()]
        (place / "annotations.json").write_text(json.dumps(coco))
    return folder / "annotations.json"


def _picture_seed(seed: int, number: int) -> int:
    """A seed of 64 bits, so that picture 1 of set 0 is not picture 0 of set 1."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0])


def _annotations(scene: Scene, image: int, *, first: int) -> list[dict[str, Any]]:
    """One COCO row per box. Without outlines, the area is that of the box."""
    rows: list[dict[str, Any]] = []
    for box, label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
        left, top, right, bottom = box
        wide, high = right - left, bottom - top
        rows.append(
            {
                "id": first + len(rows),
                "image_id": image,
                "category_id": label,
                "bbox": [left, top, wide, high],
                "area": wide * high,
                "iscrowd": 0,
            }
        )
    return rows


def _info(seed: int) -> dict[str, str]:
    return {
        "description": f"srdet built-in aerial scenes, drawn by pipeline/scenes.py, seed {seed}",
        "license": "CC0 1.0: drawn by a program from random numbers, no photograph was used",
    }
