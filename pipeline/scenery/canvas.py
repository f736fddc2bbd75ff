"""The paper the built-in scenes are drawn on: noise, light, supersampled shapes and the camera.

A shape is drawn at `SUPERSAMPLE` times the picture's grid and brought down by area averaging,
which is what a camera's pixel does with an edge. Textures are made of noise whose amplitude falls
as a power of the spatial frequency, as in natural pictures (Field 1987,
doi:10.1364/JOSAA.4.002379).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

SUPERSAMPLE = 4
SHADOW_LOSS = np.array([0.62, 0.57, 0.48], dtype=np.float32)  # red loses most: the sky is blue

Array = NDArray[np.float32]
Points = NDArray[np.float64]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Sun:
    """One light for the whole picture: where shadows fall and which faces are bright."""

    azimuth: float  # radians in the picture's plane, from x towards y, pointing TO the sun
    elevation: float  # radians above the ground

    @property
    def towards(self) -> Points:
        """Unit vector (x, y) in the picture, from the ground to the sun."""
        return np.array([np.cos(self.azimuth), np.sin(self.azimuth)])

    def shadow(self, height: float) -> Points:
        """Where the shadow of a point `height` above the ground falls, as (x, y) from its foot."""
        return np.asarray(self.towards * (-height / np.tan(self.elevation)))


@dataclass(frozen=True)
class Frame:
    """A plan in metres laid on the picture: `u` runs along a street, `v` away from it.

    The street may bend: v = 0 is the parabola `bend` * u^2.
    """

    origin: Points  # (2,) pixels
    u_axis: Points  # (2,) pixels per metre along u
    v_axis: Points  # (2,) pixels per metre along v
    bend: float = 0.0  # 1 / metre
    near: float = 0.0  # metres between the street's axis and v = 0

    def to_pixels(self, points: ArrayLike) -> Points:
        """Map (N, 2) plan points in metres to (N, 2) picture points in pixels."""
        u, v = np.asarray(points, dtype=np.float64).T
        offset = v + self.near + self.bend * u**2
        return np.asarray(self.origin + u[:, None] * self.u_axis + offset[:, None] * self.v_axis)

    def patch(self, u0: float, u1: float, v0: float, v1: float, *, parts: int = 1) -> Points:
        """Corners in pixels of a plan rectangle; `parts` pieces where it follows a bend."""
        return self.to_pixels(rectangle(u0, u1, v0, v1, parts=parts))

    def heading(self, u: float, direction: ArrayLike) -> float:
        """Angle in the picture, in radians, of the plan direction (du, dv) at `u`."""
        du, dv = np.asarray(direction, dtype=np.float64)
        x, y = du * self.u_axis + (dv + 2 * self.bend * u * du) * self.v_axis
        return float(np.arctan2(y, x))

    def plan(self, size: int) -> tuple[Array, Array]:
        """The plan coordinates u and v, in metres, of every pixel: two (size, size)."""
        y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
        x, y = x - self.origin[0], y - self.origin[1]
        scale = float(self.u_axis @ self.u_axis)
        u = (x * self.u_axis[0] + y * self.u_axis[1]) / scale
        v = (x * self.v_axis[0] + y * self.v_axis[1]) / scale
        return u.astype(np.float32), (v - self.near - self.bend * u**2).astype(np.float32)


def rectangle(u0: float, u1: float, v0: float, v1: float, *, parts: int = 1) -> Points:
    """Corners of a plan rectangle; `parts` points along the sides that follow a bending street."""
    us = np.linspace(u0, u1, parts + 1)
    there = np.stack([us, np.full_like(us, v0)], axis=1)
    back = np.stack([us[::-1], np.full_like(us, v1)], axis=1)
    return np.concatenate([there, back])


def swept(outline: Points, offset: Points) -> list[Points]:
    """Polygons that together cover the shadow of an upright prism whose top falls by `offset`."""
    nexts = np.roll(outline, -1, axis=0)
    flanks = [np.array([a, b, b + offset, a + offset]) for a, b in zip(outline, nexts, strict=True)]
    return [outline, outline + offset, *flanks]


def powerlaw_noise(rng: np.random.Generator, size: int, exponent: float) -> Array:
    """Noise of zero mean and unit deviation whose amplitude falls as 1 / frequency**exponent."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency = np.maximum(np.hypot(fy, fx), 1.0 / size)
    return _standardised(np.fft.irfft2(spectrum / frequency**exponent, s=(size, size)))


def ripple_noise(rng: np.random.Generator, size: int, *, period: float, angle: float) -> Array:
    """Waves of about `period` pixels that travel about along `angle`, zero mean, unit deviation."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(fy, fx)
    band = np.exp(-0.5 * (np.log(np.maximum(frequency, 1e-6) * period) / 0.45) ** 2)
    along = np.abs(np.cos(np.arctan2(fy, fx) - angle)) ** 6
    return _standardised(np.fft.irfft2(spectrum * band * (along + 0.08), s=(size, size)))


def _standardised(noise: NDArray[np.float64] | Array) -> Array:
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


class Layer:
    """Coloured shapes on nothing, drawn finely and laid over a picture by area averaging."""

    def __init__(self, size: int) -> None:
        fine = (size * SUPERSAMPLE, size * SUPERSAMPLE)
        self._colour = Image.new("RGB", fine)
        self._cover = Image.new("L", fine)
        self._colour_pen = ImageDraw.Draw(self._colour)
        self._cover_pen = ImageDraw.Draw(self._cover)

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fill a polygon given in pixels."""
        corners = fine_corners(points)
        self._colour_pen.polygon(corners, fill=to_bytes(colour))
        self._cover_pen.polygon(corners, fill=255)

    def disc(self, centre: Points, radius: float, colour: Colour) -> None:
        """Fill a disc given in pixels."""
        low, high = (centre - radius) * SUPERSAMPLE, (centre + radius) * SUPERSAMPLE
        where = (*low.tolist(), *high.tolist())
        self._colour_pen.ellipse(where, fill=to_bytes(colour))
        self._cover_pen.ellipse(where, fill=255)

    def averaged(self) -> tuple[Array, Array]:
        """Colour times cover (size, size, 3) and cover (size, size, 1), both in [0, 1]."""
        cover = from_bytes(self._cover.reduce(SUPERSAMPLE))
        return from_bytes(self._colour.reduce(SUPERSAMPLE)), cover[..., None]


def stencil(size: int, polygons: Sequence[Points]) -> Array:
    """How much of each pixel the polygons cover: (size, size, 1) in [0, 1]."""
    fine = Image.new("L", (size * SUPERSAMPLE, size * SUPERSAMPLE))
    pen = ImageDraw.Draw(fine)
    for points in polygons:
        pen.polygon(fine_corners(points), fill=255)
    return from_bytes(fine.reduce(SUPERSAMPLE))[..., None]


def fine_corners(points: Points, scale: float = SUPERSAMPLE) -> list[tuple[float, float]]:
    """Polygon corners on a grid `scale` times finer, in the form Pillow draws."""
    return [(float(x), float(y)) for x, y in points * scale]


def from_bytes(image: Image.Image) -> Array:
    """A drawn picture as float32 in [0, 1]."""
    return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)


def to_bytes(colour: Colour) -> tuple[int, int, int]:
    """A colour in [0, 1] as three bytes; what lies outside is cut."""
    red, green, blue = (round(255 * min(max(float(value), 0.0), 1.0)) for value in colour)
    return red, green, blue


@dataclass
class Canvas:
    """A picture while it is being painted: light, scale, colours and what stands where."""

    size: int
    metre: float  # pixels per metre
    rng: np.random.Generator
    sun: Sun
    image: Array = field(init=False)  # (size, size, 3) in [0, 1]
    shade: Array = field(init=False)  # (size, size, 1): 1 in full shadow
    taken: NDArray[np.bool_] = field(init=False)  # (size, size): no object may stand here
    noises: dict[float, Array] = field(init=False)

    def __post_init__(self) -> None:
        self.image = np.zeros((self.size, self.size, 3), np.float32)
        self.shade = np.zeros((self.size, self.size, 1), np.float32)
        self.taken = np.zeros((self.size, self.size), bool)
        self.noises = {
            power: powerlaw_noise(self.rng, self.size, power) for power in (0.3, 1.0, 1.8)
        }

    def noise(self, exponent: float) -> Array:
        """One more (size, size, 1) noise: a stored one, shifted, so that it costs no transform."""
        shift = self.rng.integers(self.size, size=2)
        rolled = np.roll(self.noises[exponent], (int(shift[0]), int(shift[1])), axis=(0, 1))
        return rolled[..., None] if self.rng.random() < 0.5 else rolled.T[..., None]

    def fill(self, cover: Array, material: Array | Colour) -> None:
        """Paint a material, (size, size, 3) or one colour, where `cover` (size, size, 1) says."""
        self.image += cover * (np.asarray(material, dtype=np.float32) - self.image)

    def lay(self, layer: Layer, *, grain: float = 0.0) -> Array:
        """Lay shapes over the picture, with noise of deviation `grain`; returns their cover."""
        colour, cover = layer.averaged()
        texture = 1 + grain * self.noise(0.3) if grain else 1.0
        self.image = self.image * (1 - cover) + colour * texture
        return cover

    def darken(self, cover: Array) -> None:
        """Cast a shadow: sunlight is gone, the blue light of the sky stays."""
        self.image *= 1 - cover * SHADOW_LOSS
        self.shade = np.maximum(self.shade, cover)


def photograph(image: Array, rng: np.random.Generator, *, blur: float = 0.5) -> NDArray[np.uint8]:
    """Look at the finished picture through a camera: exposure, lens blur, photon and read noise.

    Takes (H, W, 3) in [0, 1], gives (H, W, 3) uint8. `blur` is the deviation, in pixels, of the
    Gaussian that stands for the lens; the pixel's own area is already in the supersampled shapes.
    """
    cast = rng.normal(1.0, 0.02, size=3) * rng.uniform(0.92, 1.1)
    haze = rng.uniform(0.0, 0.05)
    image = np.clip(image, 0.0, 1.0) * cast.astype(np.float32) * (1 - haze) + haze
    image = _blurred(image, blur)
    photon, read = rng.uniform(1e-5, 5e-5), rng.uniform(0.002, 0.006)
    sigma = np.sqrt(photon * np.maximum(image, 0) + read**2).astype(np.float32)
    noisy = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def _blurred(image: Array, sigma: float) -> Array:
    side = float(np.exp(-0.5 / sigma**2))
    centre, side = 1 / (1 + 2 * side), side / (1 + 2 * side)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = centre * padded[1:-1] + side * (padded[:-2] + padded[2:])
    return np.asarray(
        centre * rows[:, 1:-1] + side * (rows[:, :-2] + rows[:, 2:]), dtype=np.float32
    )
