import math
from itertools import pairwise

import pytest

from detection.sizes import BINS, area_ranges


def test_the_ranges_are_those_of_coco_and_ai_tod() -> None:
    ranges = area_ranges()
    assert ranges["small"] == (0, 1024)
    assert ranges["medium"] == (1024, 9216)
    assert ranges["aitod_very_tiny"] == (4, 64)
    assert ranges["aitod_medium"] == (1024, 4096)
    assert next(iter(ranges)) == "all"


def test_bins_share_the_objects_out() -> None:
    ranges = list(area_ranges().values())[-len(BINS) :]
    for (_, before), (after, _) in pairwise(ranges):
        assert before < after
        assert math.nextafter(before, math.inf) == after


def test_an_empty_bin_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size bin \(8, 8\) is empty"):
        area_ranges([(8, 8)])
