"""One annotated box, whatever file it came from, and the error that names its line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mark:
    """A box as annotated: left, top, width and height in pixels, and the name of its category.

    ``crowd`` marks what counts neither for a detector nor against it.
    """

    box: tuple[float, float, float, float]
    category: str
    crowd: bool = False


def wrong(path: Path, line: int, what: str, cure: str) -> ValueError:
    """The error of one line of a file."""
    return ValueError(f"{path}, line {line}: {what}; {cure}")


def numbers(path: Path, line: int, words: list[str]) -> list[float]:
    """Finite numbers of a line.

    Raises:
        ValueError: a word is none.
    """
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise wrong(path, line, f"'{word}' is no number", "mend or remove the line")
        values.append(value)
    return values
