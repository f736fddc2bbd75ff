"""The windows of a study, laid once for all its arms."""

from collections.abc import Iterator

from detection.proposals import (
    density_windows,
    guided_plan,
    oracle_plan,
    random_plan,
    score_density,
)
from detection.windows import Window, WindowPlan, grid_windows, guided_windows
from pipeline.study import Found, Pictures
from pipeline.study_settings import Windows

Sizes = dict[int, tuple[int, int]]


def plan_windows(pictures: Pictures, how: Windows, full: Found) -> WindowPlan:
    """The windows that every arm uses, in original pixels, on the grid of given pixels.

    Args:
        pictures: all that get windows.
        how: the settings.
        full: image id to what the whole-picture pass found, before merging.
    """
    multiple = pictures.reduction
    sizes = {
        p.id: (p.width - p.width % multiple, p.height - p.height % multiple)
        for p in pictures.truth.images
    }
    if how.kind == "shared":
        return guided_plan(
            full, sizes, size=how.size, mean_budget=how.budget, most=how.most, small=how.small,
            multiple=multiple,
        )  # fmt: skip
    if how.kind == "oracle":
        return oracle_plan(
            pictures.truth.boxes, sizes, size=how.size, small=how.small, budget=how.budget,
            seed=how.seed, multiple=multiple,
        )  # fmt: skip
    if how.kind == "random":
        like = WindowPlan(dict(_guided(sizes, how, full, multiple)))
        return random_plan(like, sizes, size=how.size, seed=how.seed, multiple=multiple)
    each = {"grid": _grid, "guided": _guided, "density": _density}[how.kind]
    return WindowPlan(dict(each(sizes, how, full, multiple)))


Rows = Iterator[tuple[int, tuple[Window, ...]]]


def _grid(sizes: Sizes, how: Windows, full: Found, multiple: int) -> Rows:
    del full  # a grid covers what the first look missed, too
    for image, (width, height) in sizes.items():
        windows = grid_windows(
            width, height, size=how.size, overlap=how.overlap, multiple=multiple
        )  # fmt: skip
        yield image, tuple(windows)


def _guided(sizes: Sizes, how: Windows, full: Found, multiple: int) -> Rows:
    for image, (width, height) in sizes.items():
        windows = guided_windows(
            full[image], width, height,
            size=how.size, small=how.small, budget=how.budget, multiple=multiple,
        )  # fmt: skip
        yield image, tuple(windows)


def _density(sizes: Sizes, how: Windows, full: Found, multiple: int) -> Rows:
    for image, (width, height) in sizes.items():
        faint = full[image].select(full[image].sides() < how.small)
        windows = density_windows(
            score_density(faint, width, height), width, height,
            size=how.size, budget=how.budget, multiple=multiple,
        )  # fmt: skip
        yield image, tuple(windows)
