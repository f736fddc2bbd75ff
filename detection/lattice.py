"""Where a window may stand, and which places together hold the most.

Windows stand on a lattice, lines across times lines down, so a window's value is the product of the
values of its two lines and a choice is one matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor

Span = tuple[int, int]
"""Start and extent of a window along one side of the picture."""


def starts(length: int, size: int, step: int, multiple: int) -> list[Span]:
    """Spans of ``size`` that cover ``length`` in steps, the last one shifted inside."""
    length = length // multiple * multiple
    if length <= size:
        return [(0, length)] if length else []
    last = length - size
    return [(start, size) for start in [*range(0, last, step), last]]


def fine_starts(length: int, size: int, multiple: int) -> list[Span]:
    """Spans in steps of an eighth of their size, so that a place does not give away the object."""
    return starts(length, size, max(multiple, size // 8 // multiple * multiple), multiple)


def holds(ends: Tensor, spans: list[Span], *, margin: float) -> Tensor:
    """``(N, M)`` bool: span M holds interval N of ``(N, 2)`` with its context.

    Args:
        ends: begin and end of every interval, in pixels.
        spans: of the windows; the last one ends where the picture does.
        margin: context on both sides, of the interval's length; beyond the picture there is none.
    """
    first, last = _edges(ends, spans)
    context = margin * (ends[:, 1:] - ends[:, :1])  # (N, 1)
    limit = float(last.max()) if spans else 0.0
    low, high = (ends[:, :1] - context).clamp(min=0), (ends[:, 1:] + context).clamp(max=limit)
    return (low >= first) & (high <= last)


def off_centre(ends: Tensor, spans: list[Span]) -> Tensor:
    """``(N, M)`` in [0, 1]: how far interval N stands from the middle of span M."""
    first, last = _edges(ends, spans)
    offset = (ends.mean(dim=1, keepdim=True) - (first + last) / 2).abs()
    return (offset / (last - first)).clamp(max=1)


def greedy_cover(
    down: Tensor, across: Tensor, weights: Tensor, *, budget: int
) -> list[tuple[int, int, float]]:
    """Rows, columns and gains of the chosen windows, the most weight still uncovered first.

    Gains never grow along the list. Greedy maximum coverage reaches at least ``1 - 1/e`` of what
    the best choice of as many windows would (Nemhauser et al. 1978).

    Args:
        down: ``(N, rows)`` value of object N for a row of windows, 0 where it is not held.
        across: ``(N, columns)`` likewise.
        weights: ``(N,)``.
        budget: most windows.
    """
    chosen: list[tuple[int, int, float]] = []
    left = weights.clone()
    while len(chosen) < budget and across.shape[1] and down.shape[1]:
        gains = (down * left[:, None]).T @ across  # (rows, columns)
        y, x = divmod(int(gains.argmax()), across.shape[1])
        gain = float(gains[y, x])
        if gain <= 0:
            break
        chosen.append((y, x, gain))
        left[(down[:, y] > 0) & (across[:, x] > 0)] = 0
    return chosen


def _edges(ends: Tensor, spans: list[Span]) -> tuple[Tensor, Tensor]:
    table = torch.tensor(spans, dtype=ends.dtype).reshape(-1, 2)
    return table[:, 0], table.sum(dim=1)
