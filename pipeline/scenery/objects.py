"""Cars, vans, trucks, boats and aircraft seen from above, as lists of shaded polygons.

The classes share sizes and colours on purpose and differ by detail: a car has a bonnet, two slanted
windows and a boot, a van one long roof behind one windscreen, a truck a cab, a gap and a load. What
survives a loss of resolution therefore decides whether a detector can tell them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.scenery.canvas import Colour, Points, rectangle
from pipeline.scenery.sprite import BLACK, GLASS, Body, Part, dim

CATEGORIES: dict[int, str] = {1: "car", 2: "van", 3: "truck", 4: "boat", 5: "aircraft"}

PAINTS: tuple[Colour, ...] = (
    (0.90, 0.90, 0.90), (0.93, 0.93, 0.91), (0.70, 0.72, 0.74), (0.52, 0.54, 0.56),
    (0.25, 0.26, 0.28), (0.14, 0.14, 0.16), (0.62, 0.10, 0.10), (0.75, 0.16, 0.12),
    (0.13, 0.22, 0.45), (0.25, 0.42, 0.62), (0.10, 0.30, 0.22), (0.72, 0.66, 0.52),
    (0.85, 0.68, 0.15), (0.40, 0.28, 0.20),
)  # fmt: skip
PALE: tuple[Colour, ...] = (
    (0.92, 0.92, 0.91),
    (0.88, 0.89, 0.90),
    (0.80, 0.82, 0.83),
    (0.9, 0.87, 0.8),
)
LOADS: tuple[Colour, ...] = (
    (0.88, 0.88, 0.87), (0.80, 0.80, 0.78), (0.20, 0.34, 0.55), (0.60, 0.18, 0.14),
    (0.24, 0.40, 0.28), (0.55, 0.48, 0.38), (0.66, 0.67, 0.68),
)  # fmt: skip


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    red, green, blue = np.asarray(colours[rng.integers(len(colours))]) * rng.uniform(0.92, 1.06)
    return float(red), float(green), float(blue)


def _rounded(x0: float, x1: float, half: float, corner: float) -> Points:
    """A plan outline from x0 to x1, `half` wide to either side, with cut corners."""
    c = corner
    right = [(x0, half - c), (x0 + c, half), (x1 - c, half), (x1, half - c)]
    return np.array(right + [(x, -y) for x, y in reversed(right)])


def _taper(x0: float, x1: float, half0: float, half1: float) -> Points:
    return np.array([(x0, -half0), (x0, half0), (x1, half1), (x1, -half1)])


def _sides(x0: float, x1: float, inner: float, outer: float, colour: Colour) -> list[Part]:
    """The two flanks of a body, each bright or dark as it faces the sun."""
    return [
        Part(rectangle(x0, x1, inner, outer), colour, (0.0, 0.75)),
        Part(rectangle(x0, x1, -outer, -inner), colour, (0.0, -0.75)),
    ]


def car(rng: np.random.Generator, length: float) -> Body:
    """A saloon or hatchback: bonnet, windscreen, roof, rear window and (saloon) boot."""
    n, half = length, 0.205 * length
    paint = _pick(rng, PAINTS)
    back = rng.choice([-0.46, -0.36])  # a hatchback's rear window ends the car
    body = _rounded(-0.5 * n, 0.5 * n, half, 0.055 * n)
    parts = [Part(body, dim(paint, 0.85)), *_sides(-0.42 * n, 0.42 * n, 0.8 * half, half, paint)]
    parts += [
        Part(_taper(0.22 * n, 0.47 * n, 0.84 * half, 0.72 * half), paint, (0.22, 0.0)),
        Part(_taper(-0.48 * n, back * n, 0.74 * half, 0.84 * half), paint, (-0.15, 0.0)),
        Part(_taper(back * n, 0.24 * n, 0.74 * half, 0.86 * half), GLASS),
        Part(_taper(0.10 * n, 0.24 * n, 0.70 * half, 0.88 * half), GLASS, (0.5, 0.0)),
        Part(_taper(back * n + 0.10 * n, 0.10 * n, 0.68 * half, 0.70 * half), paint),
    ]
    if rng.random() < 0.25:  # a glass roof
        parts.append(
            Part(rectangle(-0.10 * n, 0.04 * n, -0.45 * half, 0.45 * half), dim(GLASS, 1.6))
        )
    parts += [
        Part(rectangle(0.455 * n, 0.485 * n, side - 0.12, side + 0.12), (0.85, 0.86, 0.85))
        for side in (-0.62 * half, 0.62 * half)
    ]
    return Body(parts, [(body, 0.7), (_rounded(-0.36 * n, 0.16 * n, 0.75 * half, 0.05 * n), 1.45)])


def van(rng: np.random.Generator, length: float) -> Body:
    """A panel van: short bonnet, one windscreen, one long level roof up to the square tail."""
    n, half = length, 0.185 * length
    paint = _pick(rng, PALE if rng.random() < 0.5 else PAINTS)
    body = _rounded(-0.5 * n, 0.5 * n, half, 0.03 * n)
    parts = [
        Part(body, dim(paint, 0.88)),
        *_sides(-0.49 * n, 0.34 * n, 0.86 * half, half, paint),
        Part(_taper(0.38 * n, 0.49 * n, 0.86 * half, 0.74 * half), paint, (0.4, 0.0)),
        Part(_taper(0.27 * n, 0.39 * n, 0.84 * half, 0.90 * half), GLASS, (0.5, 0.0)),
        Part(rectangle(-0.485 * n, 0.27 * n, -0.85 * half, 0.85 * half), paint),
    ]
    ribs = np.linspace(-0.40, 0.16, 5) * n
    parts += [
        Part(rectangle(x, x + 0.012 * n, -0.7 * half, 0.7 * half), dim(paint, 0.84)) for x in ribs
    ]
    return Body(parts, [(body, 1.0), (_rounded(-0.5 * n, 0.28 * n, half, 0.02 * n), 2.2)])


def truck(rng: np.random.Generator, length: float) -> Body:
    """A cab, a dark gap and a load: a closed box, or an open bed with something on it."""
    n, half = length, min(1.27, 0.17 * length)
    paint, load = _pick(rng, PAINTS), _pick(rng, LOADS)
    cab = 0.5 * n - min(2.3, 0.27 * n)
    rear = cab - 0.055 * n
    parts = [
        Part(rectangle(-0.48 * n, 0.48 * n, -0.7 * half, 0.7 * half), BLACK),
        Part(_rounded(cab, 0.5 * n, 0.95 * half, 0.02 * n), dim(paint, 0.9)),
        Part(_taper(0.435 * n, 0.485 * n, 0.82 * half, 0.86 * half), GLASS, (0.4, 0.0)),
        Part(rectangle(cab + 0.02 * n, 0.43 * n, -0.80 * half, 0.80 * half), paint),
        Part(rectangle(cab + 0.05 * n, cab + 0.09 * n, -0.5 * half, 0.5 * half), dim(paint, 0.75)),
        Part(rectangle(-0.5 * n, rear, -half, half), dim(load, 0.8)),
    ]
    draw_load = _open_bed if rng.random() < 0.3 else _closed_box
    parts += draw_load(rng, -0.5 * n, rear, half, load)
    cab_outline = rectangle(cab, 0.5 * n, -0.95 * half, 0.95 * half)
    return Body(parts, [(cab_outline, 2.8), (rectangle(-0.5 * n, rear, -half, half), 3.3)])


def _closed_box(
    rng: np.random.Generator, x0: float, x1: float, half: float, load: Colour
) -> list[Part]:
    parts = [
        *_sides(x0, x1, 0.9 * half, half, load),
        Part(rectangle(x0, x1, -0.9 * half, 0.9 * half), load),
    ]
    seams = np.arange(x0 + 0.9, x1 - 0.4, rng.uniform(1.0, 1.7))
    parts += [Part(rectangle(x, x + 0.12, -0.9 * half, 0.9 * half), dim(load, 0.86)) for x in seams]
    return parts


def _open_bed(
    rng: np.random.Generator, x0: float, x1: float, half: float, load: Colour
) -> list[Part]:
    bed = rectangle(x0 + 0.15, x1 - 0.15, -0.86 * half, 0.86 * half)
    parts = [*_sides(x0, x1, 0.86 * half, half, load), Part(bed, (0.16, 0.15, 0.14))]
    heap: Colour = _pick(rng, ((0.50, 0.40, 0.28), (0.62, 0.58, 0.50), (0.36, 0.34, 0.32)))
    for _ in range(14):
        x, y = rng.uniform(x0 + 0.6, x1 - 0.6), rng.uniform(-0.55, 0.55) * half
        tilt = (float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.6, 0.6)))
        lump = _rounded(x - 0.5, x + 0.5, 0.32 * half, 0.12)
        parts.append(Part(lump + np.array([0.0, y]), heap, tilt))
    return parts


def boat(rng: np.random.Generator, length: float) -> Body:
    """A pointed hull with a rim, a deck, a cockpit or cabin; some with a mast and boom."""
    n, half = length, length * rng.uniform(0.15, 0.19)
    hull = _hull(n, half)
    rim = _pick(rng, PALE if rng.random() < 0.7 else PAINTS)
    deck = _pick(
        rng, ((0.86, 0.84, 0.78), (0.66, 0.50, 0.34), (0.78, 0.80, 0.82), (0.74, 0.68, 0.56))
    )
    parts = [
        Part(hull, rim),
        Part(hull * (0.88, 0.74), deck),
        Part(hull[:6] * (0.99, 0.99), rim, (0.0, 0.5)),
        Part(hull * (0.86, 0.72), deck),
    ]
    draw_deck = _sailing_deck if rng.random() < 0.4 else _motor_deck
    return Body(parts + draw_deck(rng, n, half), [(hull, 0.6)])


def _hull(n: float, half: float) -> Points:
    along = np.array([-0.5, -0.3, -0.05, 0.2, 0.38, 0.5]) * n
    beam = np.array([0.80, 0.96, 1.0, 0.84, 0.46, 0.03]) * half
    right, left = np.stack([along, beam], axis=1), np.stack([along[::-1], -beam[::-1]], axis=1)
    return np.concatenate([right, left])


def _sailing_deck(rng: np.random.Generator, n: float, half: float) -> list[Part]:
    sail = _pick(rng, ((0.20, 0.30, 0.52), (0.90, 0.90, 0.88), (0.16, 0.16, 0.18)))
    return [
        Part(rectangle(-0.42 * n, -0.16 * n, -0.42 * half, 0.42 * half), (0.38, 0.30, 0.24)),
        Part(_taper(-0.12 * n, 0.20 * n, 0.5 * half, 0.3 * half), (0.93, 0.93, 0.92)),
        Part(rectangle(-0.36 * n, 0.10 * n, -0.12, 0.12), sail),
        Part(_rounded(0.06 * n, 0.12 * n, 0.16, 0.05), BLACK),
    ]


def _motor_deck(rng: np.random.Generator, n: float, half: float) -> list[Part]:
    seat = _pick(rng, ((0.45, 0.16, 0.12), (0.20, 0.24, 0.30), (0.55, 0.45, 0.34)))
    return [
        Part(rectangle(-0.44 * n, -0.06 * n, -0.60 * half, 0.60 * half), dim(seat, 0.7)),
        Part(rectangle(-0.34 * n, -0.26 * n, -0.52 * half, 0.52 * half), seat),
        Part(_taper(-0.06 * n, 0.06 * n, 0.62 * half, 0.50 * half), GLASS, (0.4, 0.0)),
        Part(_taper(0.06 * n, 0.26 * n, 0.48 * half, 0.24 * half), (0.90, 0.90, 0.88), (0.2, 0.0)),
        Part(rectangle(-0.5 * n, -0.455 * n, -0.16 * half, 0.16 * half), BLACK),
    ]


def aircraft(rng: np.random.Generator, length: float) -> Body:
    """A light propeller aircraft with straight wings, or a small jet with swept ones."""
    paint = _pick(rng, PALE if rng.random() < 0.8 else PAINTS)
    stripe = _pick(
        rng, ((0.62, 0.12, 0.12), (0.14, 0.24, 0.50), (0.20, 0.22, 0.24), (0.80, 0.60, 0.14))
    )
    swept = 0.16 * length if rng.random() < 0.45 else 0.01 * length
    wings = _wing(0.14 * length - swept / 4, 0.48 * length, 0.15 * length, swept)
    tail = _wing(-0.39 * length, 0.18 * length, 0.10 * length, swept / 3)
    hull = np.array(
        [(-0.5, 0.012), (-0.3, 0.035), (0.1, 0.052), (0.34, 0.050), (0.45, 0.030), (0.5, 0.008)]
    )
    hull = np.concatenate([hull, hull[::-1] * (1, -1)]) * length
    parts = [Part(wings, paint), Part(tail, dim(paint, 0.96)), *_wing_tips(wings, stripe)]
    if swept > 0.1 * length:
        pods = (-0.085 * length, 0.085 * length)
        parts += [
            Part(
                _rounded(-0.30 * length, -0.16 * length, 0.03 * length, 0.01) + np.array([0.0, y]),
                dim(paint, 0.72),
            )
            for y in pods
        ]
    parts += [
        Part(hull, dim(paint, 0.9)),
        Part(hull[:6] * (0.98, 1.0), paint, (0.0, 0.55)),
        Part(hull[6:] * (0.98, 1.0), paint, (0.0, -0.55)),
        Part(hull * (0.97, 0.5), paint),
        Part(rectangle(-0.48 * length, -0.34 * length, -0.012 * length, 0.012 * length), stripe),
        Part(_taper(0.28 * length, 0.36 * length, 0.040 * length, 0.028 * length), GLASS),
    ]
    return Body(parts, [(hull, 1.6), (wings, 1.4), (tail, 1.9)])


def _wing(lead: float, half_span: float, chord: float, sweep: float) -> Points:
    """A wing of both sides: leading edge at `lead` on the axis, tips moved back by `sweep`."""
    tip = lead - sweep
    right = [(lead, 0.0), (tip, half_span), (tip - 0.55 * chord, half_span), (lead - chord, 0.0)]
    return np.array(right + [(x, -y) for x, y in reversed(right)])


def _wing_tips(wings: Points, colour: Colour) -> list[Part]:
    right = np.array(
        [wings[1], wings[2], 0.9 * wings[2] + 0.1 * wings[3], 0.9 * wings[1] + 0.1 * wings[0]]
    )
    return [Part(right, colour), Part(right * (1, -1), colour)]


@dataclass(frozen=True)
class Kind:
    """How a class is drawn, and how long its members are in metres."""

    draw: Callable[[np.random.Generator, float], Body]
    shortest: float
    longest: float


KINDS: dict[str, Kind] = {
    "car": Kind(car, 3.9, 4.9),
    "van": Kind(van, 4.6, 5.9),
    "truck": Kind(truck, 6.2, 13.5),
    "boat": Kind(boat, 4.5, 12.0),
    "aircraft": Kind(aircraft, 7.5, 14.0),
}
