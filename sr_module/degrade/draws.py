"""What is random in a degradation: one seed a picture, and everything else from that seed."""

import math
import random
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

Range = float | tuple[float, float]
"""A value, or the bounds between which each picture draws its own."""
Quality = int | tuple[int, int] | None
"""A codec's quality, or the bounds between which each picture draws its own; None is no codec."""


class Seeded(Protocol):
    """What a degradation draws for a picture, with the seed of its noise."""

    @property
    def seed(self) -> int:
        """Of the noise."""

    def _replace(self, *, seed: int) -> Self: ...


Drawn = TypeVar("Drawn", bound=Seeded)


def draw_seeds(count: int, generator: torch.Generator | None) -> list[int]:
    """A seed for each of ``count`` pictures, drawn one after the other; torch's own by default.

    A generator on an accelerator is waited for; one on the CPU is not.
    """
    device = "cpu" if generator is None else generator.device
    return [
        int(torch.randint(2**63 - 1, (), generator=generator, device=device)) for _ in range(count)
    ]


def frame_seeds(seed: int, frames: int) -> list[int]:
    """Seeds of the noise in each frame of a clip; the first frame's is the clip's own."""
    return [seed, *(random.Random(f"{seed}/{frame}").getrandbits(63) for frame in range(1, frames))]


def draw_frames(
    draw_one: Callable[[int], Drawn], hr: Tensor, generator: torch.Generator | None
) -> list[Drawn]:
    """What is drawn for each picture of ``(B, 3, H, W)``, ``(3, H, W)`` or ``(B, T, 3, H, W)``.

    Frames of a clip share all but the seed of their noise.
    """
    frames = hr.shape[-4] if hr.ndim == 5 else 1
    clips = math.prod(hr.shape[:-3]) // frames
    return [
        drawn._replace(seed=seed)
        for drawn in map(draw_one, draw_seeds(clips, generator))
        for seed in frame_seeds(drawn.seed, frames)
    ]


def draw(rng: random.Random, bounds: Range) -> float:
    """A value between the bounds, or the one value."""
    return rng.uniform(*bounds) if isinstance(bounds, tuple) else float(bounds)


def draw_quality(rng: random.Random, quality: int | tuple[int, int]) -> int:
    """A whole number between the bounds, both of which may come up, or the one value."""
    return rng.randint(*quality) if isinstance(quality, tuple) else quality


def check_range(name: str, value: Range | Quality, low: float, high: float, unit: str = "") -> None:
    """Refuses a value or bounds outside ``low`` to ``high``, or bounds in the wrong order.

    Raises:
        ValueError: with the name, what was given and what is allowed.
    """
    lower, upper = value if isinstance(value, tuple) else (value, value)
    if lower is None or upper is None:
        return
    if not (low <= lower <= upper <= high) or math.isinf(upper):
        said = list(value) if isinstance(value, tuple) else value
        raise ValueError(
            f"{name} must be {low:g} to {high:g}{unit}, or two such bounds, the lower one first; "
            f"got {said}"
        )
