"""Drawing one object as a small shaded picture with its shadow and its exact box."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.scenery.canvas import (
    Array,
    Colour,
    Points,
    Sun,
    fine_corners,
    from_bytes,
    swept,
    to_bytes,
)

FINE = 8  # objects are few pixels long, so their edges are averaged over 8 x 8 points per pixel

GLASS: Colour = (0.10, 0.12, 0.15)
BLACK: Colour = (0.07, 0.07, 0.08)


@dataclass(frozen=True)
class Part:
    """One polygon of an object: (N, 2) metres, x forward and y to its right side."""

    points: Points
    colour: Colour
    tilt: tuple[float, float] = (0.0, 0.0)  # horizontal part of the surface normal; (0, 0) is level


@dataclass(frozen=True)
class Body:
    """An object to draw: parts from the lowest to the highest, and what throws the shadow."""

    parts: list[Part]
    shadows: list[tuple[Points, float]]  # outlines in metres, and their height above the ground


@dataclass(frozen=True)
class Sprite:
    """A drawn object, ready to be laid over the picture."""

    left: int
    top: int
    colour: Array  # (h, w, 3), times cover
    cover: Array  # (h, w, 1) in [0, 1]
    shadow: Array  # (h, w, 1) in [0, 1]; lies under the object
    box: NDArray[np.float32]  # (4,) xyxy pixels, tight around the cover
    length: float  # pixels along the object's own axis


def dim(colour: Colour, factor: float) -> Colour:
    """The same colour under `factor` times the light."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def draw_sprite(body: Body, centre: Points, *, heading: float, metre: float, sun: Sun) -> Sprite:
    """Draw an object at `centre` (x, y) pixels, turned by `heading` radians; `metre` in pixels."""
    cos, sin = np.cos(heading), np.sin(heading)
    turn = np.array([[cos, sin], [-sin, cos]])  # rows: where x (forward) and y (right) point
    placed = [part.points @ turn * metre + centre for part in body.parts]
    fallen = [
        piece * metre + centre
        for outline, height in body.shadows
        for piece in swept(outline @ turn, sun.shadow(height))
    ]
    everything = np.concatenate([*placed, *fallen])
    left, top = (int(value) for value in np.floor(everything.min(axis=0)) - 1)
    width, height = (int(value) for value in np.ceil(everything.max(axis=0)) + 1 - (left, top))
    corner = np.array([left, top])
    light = turn @ sun.towards
    tones = [_lit(part, light) for part in body.parts]
    colour, fine_cover = _paint([p - corner for p in placed], tones, width, height)
    _, fine_shadow = _paint([p - corner for p in fallen], [BLACK] * len(fallen), width, height)
    along = np.concatenate([part.points[:, 0] for part in body.parts])
    return Sprite(
        left=left,
        top=top,
        colour=_average(colour),
        cover=_average(fine_cover)[..., None],
        shadow=_average(fine_shadow)[..., None],
        box=_tight(fine_cover, corner),
        length=float(np.ptp(along)) * metre,
    )


def _lit(part: Part, light: Points) -> Colour:
    """A face's colour: brighter when it leans towards the sun; glass mirrors the sky instead."""
    lean = float(np.dot(part.tilt, light))
    if part.colour == GLASS:
        sky = max(lean, 0.0)
        return GLASS[0] + 0.20 * sky, GLASS[1] + 0.24 * sky, GLASS[2] + 0.28 * sky
    return dim(part.colour, 0.94 + (0.36 if lean > 0 else 0.6) * lean)


def _paint(
    shapes: list[Points], colours: list[Colour], width: int, height: int
) -> tuple[Image.Image, Image.Image]:
    colour = Image.new("RGB", (width * FINE, height * FINE))
    cover = Image.new("L", colour.size)
    colour_pen, cover_pen = ImageDraw.Draw(colour), ImageDraw.Draw(cover)
    for points, tone in zip(shapes, colours, strict=True):
        corners = fine_corners(points, FINE)
        colour_pen.polygon(corners, fill=to_bytes(tone))
        cover_pen.polygon(corners, fill=255)
    return colour, cover


def _average(fine: Image.Image) -> Array:
    return from_bytes(fine.reduce(FINE))


def _tight(fine_cover: Image.Image, corner: Points) -> NDArray[np.float32]:
    box = fine_cover.getbbox()
    assert box is not None, "an object has at least one part"
    return (np.array(box) / FINE + np.tile(corner, 2)).astype(np.float32)
