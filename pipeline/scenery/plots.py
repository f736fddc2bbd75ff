"""What may lie beside a street of the built-in scenes: one function per land use.

Each paints its plot in the plan coordinates of `frame` (u along the street, v metres away from its
edge) and returns the places where objects may stand. `reach` is how far the picture goes, in
metres.
"""

from collections.abc import Callable

import numpy as np

from pipeline.scenery.buildings import Buildings
from pipeline.scenery.canvas import Array, Canvas, Colour, Frame, Layer, Points, stencil
from pipeline.scenery.ground import (
    ASPHALT,
    CONCRETE,
    DRY_GRASS,
    GRAVEL,
    PAVING,
    SOIL,
    WHITE,
    WORN_ASPHALT,
    YELLOW,
    Slot,
    pave,
    surface,
    trees,
)
from pipeline.scenery.harbour import harbour

CONTAINERS: tuple[Colour, ...] = (
    (0.58, 0.20, 0.14),
    (0.18, 0.32, 0.52),
    (0.75, 0.74, 0.70),
    (0.24, 0.40, 0.30),
    (0.70, 0.45, 0.14),
)


def houses(canvas: Canvas, frame: Frame, reach: float) -> list[Slot]:
    """Gardens with houses, drives, trees and a pool here and there."""
    rng = canvas.rng
    slots: list[Slot] = []
    drives: list[Points] = []
    lots: list[tuple[float, float, tuple[float, float]]] = []
    for u in np.arange(-reach, reach, rng.uniform(17, 23)):
        size = (float(rng.uniform(9, 13)), float(rng.uniform(7.5, 10)))
        setback = float(rng.uniform(5, 9))
        lots.append((float(u), setback, size))
        drive = u + size[0] + 0.6
        drives.append(frame.patch(drive, drive + 2.8, -2, setback + 5))
        place = frame.to_pixels([(drive + 1.4, setback * rng.uniform(0.3, 0.9))])[0]
        slots.append(
            Slot(place, frame.heading(u, (0, rng.choice([-1, 1]))), ("car", "car", "van"), 1.5)
        )
        if rng.random() < 0.5:
            lots.append((float(u + rng.uniform(-2, 2)), float(setback + rng.uniform(26, 34)), size))
    pave(canvas, drives, PAVING if rng.random() < 0.5 else GRAVEL)
    _gardens(canvas, frame, reach)
    buildings = Buildings(canvas, frame)
    for u, v, size in lots:
        buildings.house(u, v, size=size)
    buildings.raise_all()
    _scatter_trees(canvas, frame, (-reach, reach, 1.0, reach), count=int(rng.integers(22, 45)))
    return slots


def _gardens(canvas: Canvas, frame: Frame, reach: float) -> None:
    rng, layer = canvas.rng, Layer(canvas.size)
    for _ in range(rng.integers(4, 9)):
        u, v = rng.uniform(-reach, reach), rng.uniform(18, 26)
        colour: Colour = (0.42, 0.33, 0.24) if rng.random() < 0.6 else (0.30, 0.62, 0.68)
        long, wide = rng.uniform(3, 7), rng.uniform(2.5, 4.5)
        if colour[2] > 0.5:
            layer.polygon(
                frame.patch(u - 0.6, u + long + 0.6, v - 0.6, v + wide + 0.6),
                (0.75, 0.73, 0.68),
            )
        layer.polygon(frame.patch(u, u + long, v, v + wide), colour)
    canvas.lay(layer, grain=0.05)


def parking(canvas: Canvas, frame: Frame, reach: float) -> list[Slot]:
    """A car park: rows of marked bays along aisles, then a hall."""
    rng, bay, deep, aisle = canvas.rng, 2.6, 5.2, 6.2
    rows = int(rng.integers(2, 4))
    start, end = -reach * rng.uniform(0.4, 0.9), reach * rng.uniform(0.4, 0.9)
    far = 3 + rows * (2 * deep + aisle)
    pave(
        canvas,
        [frame.patch(start - 4, end + 4, 2, far + 1)],
        WORN_ASPHALT if rng.random() < 0.6 else ASPHALT,
    )
    pave(canvas, [frame.patch(-4, 3, -3, 3)], ASPHALT)
    lines, slots = Layer(canvas.size), []
    for row in range(2 * rows):
        v = 3 + (row // 2) * (2 * deep + aisle) + (row % 2) * (deep + aisle)
        way = 1.0 if row % 2 else -1.0
        for u in np.arange(start, end, bay):
            lines.polygon(frame.patch(u - 0.07, u + 0.07, v, v + deep), WHITE)
            if u + bay < end and rng.random() < 0.6:
                slots.append(_bay_slot(canvas, frame, u + bay / 2, v + deep / 2, way))
        lines.polygon(
            frame.patch(start, end, v + deep * (way > 0) - 0.07, v + deep * (way > 0) + 0.07),
            WHITE,
        )
    canvas.lay(lines, grain=0.1)
    if rng.random() < 0.75:
        shop = Buildings(canvas, frame)
        shop.hall(start, end * rng.uniform(0.3, 1), far + 6, far + 6 + rng.uniform(16, 30))
        shop.raise_all()
    _scatter_trees(canvas, frame, (-reach, reach, far + 3, reach), count=int(rng.integers(8, 20)))
    return slots


def _bay_slot(canvas: Canvas, frame: Frame, u: float, v: float, way: float) -> Slot:
    rng = canvas.rng
    place = frame.to_pixels([(u + rng.normal(0, 0.12), v + rng.normal(0, 0.2))])[0]
    facing = way if rng.random() < 0.7 else -way
    return Slot(
        place, frame.heading(u, (rng.normal(0, 0.025), facing)), ("car", "car", "car", "van")
    )


def apron(canvas: Canvas, frame: Frame, reach: float) -> list[Slot]:
    """An airfield's apron: jointed concrete, yellow lead-in lines, stands, and a hangar."""
    rng = canvas.rng
    deep = float(rng.uniform(48, 70))
    cover = pave(
        canvas,
        [frame.patch(-reach, reach, 5, deep)],
        CONCRETE if rng.random() < 0.7 else WORN_ASPHALT,
    )
    joints = _joints(canvas, frame, every=float(rng.uniform(4, 6)))
    canvas.image *= 1 - 0.14 * cover * joints
    lines, slots = Layer(canvas.size), []
    taxi = deep - 9
    lines.polygon(frame.patch(-reach, reach, taxi - 0.15, taxi + 0.15, parts=24), YELLOW)
    for row in np.arange(14, taxi - 12, 17.0):
        for u in np.arange(-reach, reach, 18) + rng.uniform(0, 9):
            lines.polygon(frame.patch(u - 0.12, u + 0.12, row - 6, row + 11), YELLOW)
            lines.polygon(frame.patch(u - 2, u + 2, row + 6, row + 6.3), WHITE)
            turn = frame.heading(u, (rng.normal(0, 0.25), rng.choice([-1, 1])))
            slots.append(Slot(frame.to_pixels([(u, row)])[0], turn, ("aircraft",), 8.0))
            beside = frame.to_pixels([(u + 9, row + rng.uniform(-4, 4))])[0]
            slots.append(
                Slot(beside, float(rng.uniform(0, 2 * np.pi)), ("van", "truck", "car"), 0.6)
            )
    canvas.lay(lines, grain=0.08)
    hangar = Buildings(canvas, frame)
    start, end = rng.uniform(-0.6, 0) * reach, rng.uniform(0.2, 0.7) * reach
    hangar.hall(start, end, deep + 4, deep + rng.uniform(22, 34))
    hangar.raise_all()
    return slots


def _joints(canvas: Canvas, frame: Frame, *, every: float) -> Array:
    u, v = frame.plan(canvas.size)
    width = max(0.14, 0.5 / canvas.metre)  # metres; thinner than a pixel they would break up
    lines = (np.abs((u % every) - every / 2) < width) | (np.abs((v % every) - every / 2) < width)
    return np.asarray(lines[..., None], dtype=np.float32)


def yard(canvas: Canvas, frame: Frame, reach: float) -> list[Slot]:
    """Warehouses with trucks at the docks, and stacked containers that resemble truck boxes."""
    rng = canvas.rng
    depth = float(rng.uniform(26, 36))
    pave(
        canvas,
        [frame.patch(-reach, reach, 0.5, depth, parts=24)],
        WORN_ASPHALT if rng.random() < 0.5 else CONCRETE,
    )
    slots: list[Slot] = []
    warehouses = Buildings(canvas, frame)
    for u in np.arange(-reach, reach, rng.uniform(40, 60)):
        long = float(rng.uniform(28, 38))
        warehouses.hall(u, u + long, depth, depth + rng.uniform(20, 34))
        for dock in np.arange(u + 3, u + long - 2, 4.2):
            place = frame.to_pixels([(dock, depth - rng.uniform(7.5, 9))])[0]
            kinds = ("truck", "truck", "van")
            slots.append(Slot(place, frame.heading(dock, (rng.normal(0, 0.02), -1)), kinds, 2.0))
    warehouses.raise_all()
    _containers(canvas, frame, reach)
    _scatter_trees(canvas, frame, (-reach, reach, depth + 36, reach), count=12)
    return slots


def _containers(canvas: Canvas, frame: Frame, reach: float) -> None:
    rng, layer = canvas.rng, Layer(canvas.size)
    starts = [float(u) for u in np.arange(-reach, reach, 6.8) if rng.random() < 0.45]
    shapes = [frame.patch(u, u + 6.1, 2.0, 4.4) for u in starts]
    fallen = canvas.sun.shadow(1.3) * canvas.metre
    canvas.darken(stencil(canvas.size, [shape + fallen for shape in shapes]))
    for u, shape in zip(starts, shapes, strict=True):
        colour = np.asarray(CONTAINERS[rng.integers(len(CONTAINERS))])
        layer.polygon(shape, tuple(colour))
        for rib in np.arange(u + 0.3, u + 6, 0.7):
            layer.polygon(frame.patch(rib, rib + 0.3, 2.0, 4.4), tuple(colour * 0.85))
    canvas.taken |= canvas.lay(layer, grain=0.04)[..., 0] > 0


def park(canvas: Canvas, frame: Frame, reach: float) -> list[Slot]:
    """A ploughed or mown field, a track, and a wood."""
    rng = canvas.rng
    near, far = float(rng.uniform(4, 12)), float(rng.uniform(40, 70))
    cover = pave(
        canvas,
        [frame.patch(-reach, reach, near, far, parts=24)],
        SOIL if rng.random() < 0.5 else DRY_GRASS,
    )
    _, v = frame.plan(canvas.size)
    furrows = np.sin(v * 2 * np.pi / rng.uniform(1.0, 2.2))[..., None]
    canvas.image *= 1 + 0.10 * cover * furrows * (1 + 0.5 * canvas.noise(1.0))
    track = frame.patch(-reach, reach, far, far + 4, parts=24)
    canvas.fill(stencil(canvas.size, [track]), surface(canvas, GRAVEL))
    _scatter_trees(canvas, frame, (-reach, reach, far + 6, reach), count=70)
    _scatter_trees(canvas, frame, (-reach, reach, 1.5, near - 0.5), count=12)
    return [
        Slot(frame.to_pixels([(u, far + 2)])[0], frame.heading(u, (1, 0)), ("car", "van", "truck"))
        for u in np.arange(-reach, reach, 14.0)
    ]


def _scatter_trees(
    canvas: Canvas, frame: Frame, area: tuple[float, float, float, float], *, count: int
) -> None:
    """Trees at random in a plan rectangle, where nothing stands yet."""
    rng, (u0, u1, v0, v1) = canvas.rng, area
    if v1 <= v0:
        return
    plan = np.stack([rng.uniform(u0, u1, count), rng.uniform(v0, v1, count)], axis=1)
    centres = frame.to_pixels(plan)
    radii = (rng.uniform(1.4, 4.2, count) * canvas.metre).astype(np.float32)
    inside = ((centres > -radii[:, None]) & (centres < canvas.size + radii[:, None])).all(axis=1)
    cell = np.clip(centres.astype(int), 0, canvas.size - 1)
    free = inside & ~canvas.taken[cell[:, 1], cell[:, 0]]
    trees(canvas, centres[free], radii[free])


PLOTS: dict[str, tuple[Callable[[Canvas, Frame, float], list[Slot]], float]] = {
    "houses": (houses, 0.18),
    "parking": (parking, 0.20),
    "harbour": (harbour, 0.22),
    "apron": (apron, 0.20),
    "yard": (yard, 0.12),
    "park": (park, 0.08),
}
