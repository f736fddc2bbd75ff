"""The merge of every arm, chosen on a validation split with the same budget for each.

Detections of one arm are denser or surer than another's, so one threshold for all favours the arm
it was found on, and a threshold tuned for one arm only favours that one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from detection.group import Merge

Found = TypeVar("Found")

CANDIDATES: tuple[Merge, ...] = (
    *(Merge("nms", threshold) for threshold in (0.4, 0.5, 0.6, 0.7)),
    *(Merge("nms", threshold, overlap="ios") for threshold in (0.5, 0.7)),
    *(Merge("soft_nms_linear", threshold) for threshold in (0.3, 0.5)),
    *(Merge("soft_nms_gaussian", sigma=sigma) for sigma in (0.25, 0.5)),
    *(Merge("nmm", threshold, overlap="ios") for threshold in (0.5, 0.7)),
    *(Merge("wbf", threshold) for threshold in (0.5, 0.6)),
)
"""Fourteen merges of all kinds around their papers' settings."""


@dataclass(frozen=True, slots=True)
class TunedMerge:
    """What was chosen for one arm, and what every candidate was worth on the validation split."""

    best: Merge
    candidates: tuple[Merge, ...]
    values: tuple[float, ...]


def tune_merge(
    arms: Mapping[str, Found],
    score: Callable[[Found, Merge], float],
    *,
    candidates: Sequence[Merge] = CANDIDATES,
) -> dict[str, TunedMerge]:
    """The best candidate of every arm; each arm is tried with all of them, once.

    Args:
        arms: name to what the arm found on the VALIDATION split, not merged; never the test split.
        score: what an arm's detections are worth, merged so; higher is better (AP of small
            objects).
        candidates: tried in this order; of equally good ones the first is taken.

    Raises:
        ValueError: no candidate, one twice, or an arm that no candidate gives a number to.
    """
    if not candidates or len(set(candidates)) < len(candidates):
        raise ValueError(
            f"each of the candidates must be there once, got {len(candidates)} of which "
            f"{len(set(candidates))} differ"
        )
    return {name: _tune(name, found, score, tuple(candidates)) for name, found in arms.items()}


def _tune(
    name: str,
    found: Found,
    score: Callable[[Found, Merge], float],
    candidates: tuple[Merge, ...],
) -> TunedMerge:
    values = tuple(score(found, how) for how in candidates)
    known = [index for index, value in enumerate(values) if not math.isnan(value)]
    if not known:
        raise ValueError(
            f"arm '{name}': no merge has a value on the validation split; does it hold objects of "
            f"the size that is scored?"
        )
    # max takes the first of equals
    return TunedMerge(candidates[max(known, key=values.__getitem__)], candidates, values)
