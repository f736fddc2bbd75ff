"""Labels of detectors against category ids of data sets.

COCO's 80 classes have ids up to 90, models count from 0 or 1: a list position taken for an id
gives an average precision of zero without any error. So labels meet categories by NAME.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)


def training_labels(categories: Mapping[int, str]) -> dict[int, int]:
    """Category id to the label a model is trained with: 1, 2, ... by rising id, 0 is background."""
    return {category: label for label, category in enumerate(sorted(categories), start=1)}


def match_categories(
    names: Sequence[str | None], categories: Mapping[int, str]
) -> list[int | None]:
    """Category id for every label of a detector, by name without regard to case.

    Args:
        names: the detector's label names by label; None for labels that are nothing.
        categories: id to name, of the data set.

    Raises:
        ValueError: not one name is in common, or two categories of the set share a name.
    """
    by_name = {name.casefold(): category for category, name in categories.items()}
    if len(by_name) < len(categories):
        raise ValueError(f"two categories of the set share a name: {sorted(categories.values())}")
    ids = [None if name is None else by_name.get(name.casefold()) for name in names]
    known = {category for category in ids if category is not None}
    if not known:
        raise ValueError(
            f"the detector knows {[name for name in names if name][:12]}, the data set asks for "
            f"{sorted(categories.values())[:12]}: no name in common; rename the categories of the "
            f"set or train a detector on it"
        )
    if missing := [name for category, name in categories.items() if category not in known]:
        logger.warning("the detector does not know %s: their AP is 0 in every arm", missing)
    return ids
