"""Object sizes: the published area ranges and the bins of the gain-by-size curve.

COCO's ranges (Lin et al. 2014, arXiv:1405.0312) and those of AI-TOD (Wang et al. 2021, "Tiny Object
Detection in Aerial Images", absolute sizes of 2-8, 8-16, 16-32 and 32-64 pixels) include both ends,
as their evaluation code does: an object exactly on a border counts in both. A bin of our own leaves
its upper end to the next one, so that the bins share the objects out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

BINS: tuple[tuple[float, float], ...] = (
    (0, 8), (8, 16), (16, 24), (24, 32), (32, 48), (48, 96), (96, math.inf)
)  # fmt: skip
"""Square root of area in pixels, from, up to but without: the points of the gain-by-size curve."""

LARGEST_AREA = 1e10
"""Square pixels that no object reaches; pycocotools uses the same number."""

COCO_AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, LARGEST_AREA),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, LARGEST_AREA),
}

AITOD_AREAS: dict[str, tuple[float, float]] = {
    "aitod_very_tiny": (2.0**2, 8.0**2),
    "aitod_tiny": (8.0**2, 16.0**2),
    "aitod_small": (16.0**2, 32.0**2),
    "aitod_medium": (32.0**2, 64.0**2),
}


def bin_name(low: float, high: float) -> str:
    """Name of a size bin in metrics: ``8_16``, ``96_inf``."""
    return f"{low:g}_{high:g}"


def area_ranges(bins: Sequence[tuple[float, float]] = BINS) -> dict[str, tuple[float, float]]:
    """Range name to square pixels from, to, both ends included: COCO's, AI-TOD's, then the bins.

    Raises:
        ValueError: a bin that ends where it begins or before.
    """
    ranges = COCO_AREAS | AITOD_AREAS
    for low, high in bins:
        if not 0 <= low < high:
            raise ValueError(
                f"size bin ({low:g}, {high:g}) is empty; give (from, to), 0 <= from < to"
            )
        # both ends count, and the upper end belongs to the next bin
        ranges[bin_name(low, high)] = (low**2, min(math.nextafter(high**2, 0), LARGEST_AREA))
    return ranges
