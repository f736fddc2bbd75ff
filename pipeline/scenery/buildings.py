"""Houses and halls of the built-in scenes: roofs lit by the sun, and their shadows."""

import numpy as np

from pipeline.scenery.canvas import Canvas, Colour, Frame, Layer, Points, stencil, swept

ROOFS: tuple[Colour, ...] = (
    (0.56, 0.30, 0.22), (0.62, 0.38, 0.28), (0.42, 0.26, 0.20), (0.40, 0.40, 0.42),
    (0.30, 0.31, 0.34), (0.50, 0.44, 0.38), (0.66, 0.62, 0.56),
)  # fmt: skip
FLAT_ROOFS: tuple[Colour, ...] = (
    (0.72, 0.72, 0.70),
    (0.56, 0.56, 0.55),
    (0.44, 0.43, 0.42),
    (0.62, 0.58, 0.52),
)


class Buildings:
    """The buildings of one plot. They are drawn by `raise_all`, shadows before roofs."""

    def __init__(self, canvas: Canvas, frame: Frame) -> None:
        self._canvas = canvas
        self._frame = frame
        self._roofs = Layer(canvas.size)
        self._shadows: list[Points] = []

    def house(self, u: float, v: float, *, size: tuple[float, float]) -> None:
        """Add a house with a gable roof: tiles, a ridge along the street and a chimney."""
        rng, (long, wide) = self._canvas.rng, size
        self._cast(self._frame.patch(u, u + long, v, v + wide), height=rng.uniform(4.5, 7.5))
        colour, ridge = _roof_colour(rng, ROOFS), v + wide / 2
        away = self._frame.v_axis / np.hypot(*self._frame.v_axis)
        for low, high, normal in ((v, ridge, -away), (ridge, v + wide, away)):
            tone = colour * (0.86 + 0.30 * float(normal @ self._canvas.sun.towards))
            self._fill((u, u + long, low, high), tone)
            for row in np.arange(low + 0.5, high, 1.0):
                self._fill((u, u + long, row, row + 0.32), tone * 0.88)
        self._fill((u, u + long, ridge - 0.12, ridge + 0.12), colour * 1.15)
        self._furnish((u + 1, u + long - 1.5, v + 1, v + wide - 1.5))

    def hall(self, u0: float, u1: float, v0: float, v1: float) -> None:
        """Add a hall or block with a flat roof: parapet, sheets, roof lights and ventilation."""
        rng = self._canvas.rng
        self._cast(self._frame.patch(u0, u1, v0, v1), height=rng.uniform(5, 9))
        colour = _roof_colour(rng, FLAT_ROOFS)
        self._fill((u0, u1, v0, v1), colour * 1.15)
        self._fill((u0 + 0.5, u1 - 0.5, v0 + 0.5, v1 - 0.5), colour)
        for u in np.arange(u0 + 1.5, u1 - 1, rng.uniform(1.2, 3.0)):
            self._fill((u, u + 0.25, v0 + 0.5, v1 - 0.5), colour * 0.9)
        for _ in range(rng.integers(2, 6)):
            self._furnish((u0 + 1, u1 - 3, v0 + 1, v1 - 3))

    def raise_all(self) -> None:
        """Draw what was added and keep its ground clear of trees and objects."""
        self._canvas.darken(stencil(self._canvas.size, self._shadows))
        self._canvas.taken |= self._canvas.lay(self._roofs, grain=0.05)[..., 0] > 0

    def _cast(self, outline: Points, *, height: float) -> None:
        self._shadows += swept(outline, self._canvas.sun.shadow(height) * self._canvas.metre)

    def _fill(self, corners: tuple[float, float, float, float], colour: Points) -> None:
        self._roofs.polygon(self._frame.patch(*corners), tuple(colour))

    def _furnish(self, within: tuple[float, float, float, float]) -> None:
        """A chimney, roof light or fan with its own little dark side."""
        rng, (u0, u1, v0, v1) = self._canvas.rng, within
        u, v = rng.uniform(u0, max(u1, u0 + 0.1)), rng.uniform(v0, max(v1, v0 + 0.1))
        long, wide = rng.uniform(0.7, 1.8), rng.uniform(0.7, 1.4)
        self._fill((u + 0.4, u + long + 0.4, v + 0.3, v + wide + 0.3), np.array([0.15, 0.15, 0.16]))
        self._fill((u, u + long, v, v + wide), rng.choice([0.16, 0.45, 0.80]) * np.ones(3))


def _roof_colour(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Points:
    return np.asarray(colours[rng.integers(len(colours))]) * rng.uniform(0.9, 1.08)
