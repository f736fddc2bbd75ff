"""A harbour beside the street: quay, water, jetties with berths, boats under way."""

import numpy as np

from pipeline.scenery.canvas import (
    Array,
    Canvas,
    Frame,
    Layer,
    Points,
    ripple_noise,
    stencil,
)
from pipeline.scenery.ground import CONCRETE, Slot, pave


def harbour(canvas: Canvas, frame: Frame, reach: float) -> list[Slot]:
    """A quay, water with ripples, jetties with berths on both sides, and boats under way."""
    rng = canvas.rng
    quay = float(rng.uniform(5, 12))
    pave(canvas, [frame.patch(-reach, reach, 0, quay, parts=24)], CONCRETE)
    sea = frame.patch(-reach, reach, quay, 3 * reach, parts=24)
    foot = stencil(canvas.size, [sea])
    canvas.darken(
        stencil(canvas.size, [frame.patch(-reach, reach, quay - 0.4, quay, parts=24)]) * 0.7
    )
    water(canvas, [sea])
    canvas.taken &= foot[..., 0] < 1
    slots = [_quay_slot(canvas, frame, u, quay) for u in np.arange(-reach, reach, 9)]
    for u in np.arange(-reach, reach, rng.uniform(26, 36)) + rng.uniform(0, 10):
        slots += _jetty(canvas, frame, float(u), quay)
    for _ in range(6):
        u, v = rng.uniform(-0.7, 0.7) * reach, quay + rng.uniform(40, 80)
        place = frame.to_pixels([(u, v)])[0]
        slots.append(Slot(place, float(rng.uniform(0, 2 * np.pi)), ("boat",), 5.0, under_way=True))
    return slots


def _quay_slot(canvas: Canvas, frame: Frame, u: float, quay: float) -> Slot:
    rng = canvas.rng
    place = frame.to_pixels([(u + rng.uniform(0, 3), quay / 2)])[0]
    return Slot(
        place,
        frame.heading(u, (rng.choice([-1, 1]), rng.normal(0, 0.05))),
        ("car", "van", "truck"),
        0.5,
    )


def _jetty(canvas: Canvas, frame: Frame, u: float, quay: float) -> list[Slot]:
    rng, length = canvas.rng, canvas.rng.uniform(18, 34)
    wood = np.array([0.52, 0.45, 0.36]) * rng.uniform(0.85, 1.2)
    shape = frame.patch(u - 1, u + 1, quay - 0.5, quay + length)
    canvas.darken(stencil(canvas.size, [shape + canvas.sun.shadow(1.0) * canvas.metre]))
    layer, slots = Layer(canvas.size), []
    layer.polygon(shape, tuple(wood))
    for v in np.arange(quay, quay + length, 0.8):
        layer.polygon(frame.patch(u - 1, u + 1, v, v + 0.25), tuple(wood * 0.8))
    for v in np.arange(quay + 3, quay + length - 1, 4.4):
        for side in (-1, 1):
            if rng.random() < 0.75:
                way = side if rng.random() < 0.6 else -side
                slots.append(
                    Slot(
                        frame.to_pixels([(u + side * 5.6, v)])[0],
                        frame.heading(u, (way, rng.normal(0, 0.06))),
                        ("boat",),
                        4.0,
                    )
                )
    canvas.taken |= canvas.lay(layer, grain=0.05)[..., 0] > 0.2
    return slots


def water(canvas: Canvas, polygons: list[Points]) -> Array:
    """Water with swell, ripples and glints where a ripple tips the sun into the camera."""
    rng = canvas.rng
    base = np.asarray(((0.10, 0.20, 0.24), (0.13, 0.25, 0.23), (0.09, 0.16, 0.22))[rng.integers(3)])
    wind = rng.uniform(0, np.pi)
    small = ripple_noise(rng, canvas.size, period=rng.uniform(2.6, 4.0), angle=wind)
    swell = ripple_noise(
        rng, canvas.size, period=rng.uniform(8, 16), angle=wind + rng.uniform(-0.4, 0.4)
    )
    relief = (0.10 * small + 0.07 * swell)[..., None] + 0.06 * canvas.noise(1.8)
    glint = np.clip(small + 0.5 * swell - 2.3, 0, 1)[..., None] * rng.uniform(0.1, 0.45)
    cover = stencil(canvas.size, polygons)
    canvas.fill(cover, np.asarray(base * (1 + relief) + glint, dtype=np.float32))
    return cover


def wake(canvas: Canvas, centre: Points, *, heading: float, length: float) -> None:
    """Foam behind a boat: a churned trail and two thin arms. `length` is the boat's, in pixels."""
    ahead = np.array([np.cos(heading), np.sin(heading)]) * length
    aside = np.array([-ahead[1], ahead[0]])
    bow, stern = centre + 0.3 * ahead, centre - 0.45 * ahead
    end = stern - 2.2 * ahead
    trail = [stern + 0.10 * aside, stern - 0.10 * aside, end - 0.16 * aside, end + 0.16 * aside]
    arms = [
        np.array([bow, bow - 2.6 * ahead + outer, bow - 2.6 * ahead + 0.84 * outer])
        for outer in (0.95 * aside, -0.95 * aside)
    ]
    foam = np.clip(0.45 + 0.35 * canvas.noise(0.3) + 0.25 * canvas.noise(1.0), 0, 0.9)
    cover = stencil(canvas.size, [np.array(trail), *arms]) * ~canvas.taken[..., None]
    y, x = np.mgrid[: canvas.size, : canvas.size] + 0.5
    behind = ((centre[0] - x) * ahead[0] + (centre[1] - y) * ahead[1]) / length
    fading = np.exp(-np.clip(behind, 0, None) / (1.2 * length))[..., None]
    canvas.fill(np.asarray(cover * foam * fading, dtype=np.float32), (0.80, 0.86, 0.86))
