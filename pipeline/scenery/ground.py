"""Ground of the built-in scenes: grass, paving, streets, buildings, trees, places for objects."""

from dataclasses import dataclass

import numpy as np

from pipeline.scenery.canvas import (
    Array,
    Canvas,
    Colour,
    Frame,
    Layer,
    Points,
    rectangle,
    stencil,
)

WHITE: Colour = (0.82, 0.82, 0.80)
YELLOW: Colour = (0.78, 0.62, 0.18)
LEAVES: tuple[Colour, ...] = (
    (0.20, 0.29, 0.13),
    (0.25, 0.33, 0.15),
    (0.16, 0.25, 0.14),
    (0.31, 0.34, 0.16),
    (0.36, 0.32, 0.15),
)


@dataclass(frozen=True)
class Slot:
    """A place where one of some kinds of object may stand."""

    centre: Points  # (2,) pixels
    heading: float  # radians in the picture
    kinds: tuple[str, ...]
    pull: float = 1.0  # how much sooner than others this place is taken
    under_way: bool = False  # a boat that leaves a wake


@dataclass(frozen=True)
class Material:
    """A ground: its colour, and how strongly it varies at large, middle and small scale."""

    colour: Colour
    broad: float
    middle: float
    fine: float
    tint: Colour = (0.0, 0.0, 0.0)  # added colour per unit of large-scale noise


GRASS = Material((0.37, 0.42, 0.26), 0.05, 0.10, 0.09, (0.03, 0.012, 0.008))
DRY_GRASS = Material((0.53, 0.50, 0.35), 0.06, 0.10, 0.08, (0.02, 0.015, 0.005))
SOIL = Material((0.52, 0.42, 0.31), 0.07, 0.08, 0.08, (0.02, 0.01, 0.0))
ASPHALT = Material((0.36, 0.36, 0.37), 0.05, 0.04, 0.035)
WORN_ASPHALT = Material((0.47, 0.46, 0.45), 0.06, 0.05, 0.04)
CONCRETE = Material((0.66, 0.65, 0.61), 0.04, 0.035, 0.025)
PAVING = Material((0.60, 0.57, 0.53), 0.04, 0.04, 0.05)
GRAVEL = Material((0.58, 0.54, 0.47), 0.05, 0.05, 0.10)


def surface(canvas: Canvas, material: Material) -> Array:
    """A whole picture of one material, (size, size, 3): the cover says later where it shows."""
    broad = canvas.noise(1.8)
    relief = material.broad * broad + material.middle * canvas.noise(1.0)
    relief = relief + material.fine * canvas.noise(0.3)
    tint = np.asarray(material.tint, dtype=np.float32) * broad
    colour = np.asarray(material.colour, dtype=np.float32) * canvas.rng.uniform(0.9, 1.1)
    return np.asarray((colour + tint) * (1 + relief), dtype=np.float32)


def pave(canvas: Canvas, polygons: list[Points], material: Material) -> Array:
    """Cover polygons, in pixels, with a material; returns their cover."""
    cover = stencil(canvas.size, polygons)
    canvas.fill(cover, surface(canvas, material))
    return cover


def countryside(canvas: Canvas, frame: Frame) -> None:
    """What lies under everything: grass, dry grass and bare soil running into each other."""
    rng = canvas.rng
    canvas.image = surface(canvas, GRASS if rng.random() < 0.7 else DRY_GRASS)
    patches = np.clip((canvas.noise(1.8) - rng.uniform(0.4, 1.2)) * 2.5, 0, 1)
    canvas.fill(
        patches * rng.uniform(0.4, 0.9), surface(canvas, SOIL if rng.random() < 0.5 else DRY_GRASS)
    )
    if rng.random() < 0.5:  # mown in stripes along the street
        _, v = frame.plan(canvas.size)
        stripes = np.sin(v * 2 * np.pi / rng.uniform(2.5, 6.0))[..., None]
        canvas.image *= 1 + 0.035 * np.sign(stripes)


def street(canvas: Canvas, frame: Frame, *, lanes: int, reach: float) -> tuple[float, list[Slot]]:
    """Draw a street along v = 0; returns half its width in metres and the places on its lanes."""
    lane, rng = 3.4, canvas.rng
    half = lanes * lane / 2 + 0.5
    edge = half + (1.8 if rng.random() < 0.7 else 0.6)
    strip = frame.patch(-reach, reach, -edge, edge, parts=24)
    pave(canvas, [strip], CONCRETE if edge > half + 1 else GRAVEL)
    road = pave(
        canvas,
        [_band(frame, reach, 0.0, 2 * half)],
        ASPHALT if rng.random() < 0.6 else WORN_ASPHALT,
    )
    _wear(canvas, frame, road, lane)
    _mend(canvas, frame, reach, half)
    _road_lines(canvas, frame, lanes=lanes, reach=reach, lane=lane)
    return edge, _lane_slots(canvas, frame, lanes=lanes, reach=reach, lane=lane)


def _band(frame: Frame, reach: float, v: float, width: float) -> Points:
    return frame.patch(-reach, reach, v - width / 2, v + width / 2, parts=24)


def _wear(canvas: Canvas, frame: Frame, road: Array, lane: float) -> None:
    """Wheels polish two tracks into each lane, and engines drip between them."""
    _, v = frame.plan(canvas.size)
    tracks = np.cos(v * 4 * np.pi / lane)[..., None]
    canvas.image *= 1 + road * 0.05 * tracks * (1 + 0.4 * canvas.noise(1.0))


def _mend(canvas: Canvas, frame: Frame, reach: float, half: float) -> None:
    """Mended rectangles and tarred cracks."""
    layer, rng = Layer(canvas.size), canvas.rng
    for _ in range(rng.integers(2, 7)):
        u, v = rng.uniform(-reach, reach), rng.uniform(-0.8, 0.4) * half
        tone = float(rng.uniform(0.24, 0.34))
        patch = rectangle(u, u + rng.uniform(1.5, 9), v, v + rng.uniform(0.8, 2.2))
        layer.polygon(frame.to_pixels(patch), (tone, tone, tone * 1.02))
    for _ in range(rng.integers(3, 10)):
        u = rng.uniform(-reach, reach)
        crack = rectangle(u, u + 0.22, -half * rng.uniform(0.2, 1), half * rng.uniform(0.2, 1))
        layer.polygon(frame.to_pixels(crack), (0.2, 0.2, 0.21))
    canvas.lay(layer, grain=0.05)


def _road_lines(canvas: Canvas, frame: Frame, *, lanes: int, reach: float, lane: float) -> None:
    layer, rng = Layer(canvas.size), canvas.rng
    middle = YELLOW if rng.random() < 0.35 else WHITE
    for side in (-1, 1):
        layer.polygon(_band(frame, reach, side * lanes * lane / 2, 0.18), WHITE)
    for index in range(1, lanes):
        v = (index - lanes / 2) * lane
        solid = v == 0 and lanes > 2
        for u in [] if solid else np.arange(-reach, reach, 9.0):
            layer.polygon(
                frame.patch(u, u + 3.5, v - 0.1, v + 0.1),
                middle if v == 0 else WHITE,
            )
        for offset in (-0.22, 0.22) if solid else ():
            layer.polygon(_band(frame, reach, v + offset, 0.16), middle)
    if rng.random() < 0.6:
        _crossing(layer, frame, rng.uniform(-0.5, 0.5) * reach, lanes * lane / 2)
    canvas.lay(layer, grain=0.08)


def _crossing(layer: Layer, frame: Frame, u: float, half: float) -> None:
    for v in np.arange(-half + 0.4, half - 0.4, 1.0):
        layer.polygon(frame.patch(u, u + 3.0, v, v + 0.5), WHITE)


def _lane_slots(
    canvas: Canvas, frame: Frame, *, lanes: int, reach: float, lane: float
) -> list[Slot]:
    slots, rng = [], canvas.rng
    for index in range(lanes):
        v = (index + 0.5 - lanes / 2) * lane
        way = 1.0 if v > 0 else -1.0
        for u in np.arange(-reach, reach, 9.0) + rng.uniform(0, 9):
            place = frame.to_pixels([(u + rng.uniform(-2, 2), v + rng.uniform(-0.3, 0.3))])[0]
            heading = frame.heading(u, (way, rng.normal(0, 0.01)))
            slots.append(Slot(place, heading, ("car", "car", "van", "truck")))
    return slots


def trees(canvas: Canvas, centres: Points, radii: Array) -> None:
    """Crowns of many leaf clumps, bright towards the sun, over their own shadows. Pixels."""
    cast = canvas.sun.shadow(1.0)
    shadow, crowns = Layer(canvas.size), Layer(canvas.size)
    for centre, radius in zip(centres, radii, strict=True):
        shadow.disc(centre + cast * radius * 1.1, radius * 0.95, WHITE)
        shadow.disc(centre + cast * radius * 0.5, radius * 0.95, WHITE)
    canvas.darken(shadow.averaged()[1])
    for centre, radius in zip(centres, radii, strict=True):
        _crown(crowns, canvas, centre, float(radius))
    cover = canvas.lay(crowns, grain=0.13)
    canvas.taken |= cover[..., 0] > 0


def _crown(layer: Layer, canvas: Canvas, centre: Points, radius: float) -> None:
    rng = canvas.rng
    leaf = np.asarray(LEAVES[rng.integers(len(LEAVES))]) * rng.uniform(0.85, 1.15)
    count = int(np.clip(radius * 5, 12, 60))
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    where = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
    light = where @ canvas.sun.towards  # -1 on the far side of the crown, 1 towards the sun
    tones = 0.62 + 0.42 * light + rng.normal(0, 0.14, count) + 0.15 * (1 - reach)
    layer.disc(centre, 0.8 * radius, tuple(leaf * 0.5))
    for step, tone in zip(where, tones, strict=True):
        clump = float(rng.uniform(0.14, 0.30)) * radius
        layer.disc(centre + step * (radius - clump), clump, tuple(leaf * max(tone, 0.25) * 1.25))
