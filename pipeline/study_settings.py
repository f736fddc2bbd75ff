"""What a study is told: how windows are laid, how their results are joined, how sure it must be."""

from dataclasses import dataclass
from typing import Literal

from detection.borders import Border
from detection.group import Merge
from detection.merge import SizeGate


@dataclass(frozen=True)
class Windows:
    """How windows are laid; sides in original pixels.

    Attributes:
        kind: "grid" covers the picture. "guided" holds the small objects that the whole-picture
            pass doubts; "shared" does so with one budget for all pictures together; "density" goes
            where its faintest answers crowd. Controls: "random" lays as many as "guided" would,
            anywhere; "oracle" knows the truth, an upper bound and never a result.
        size: side of a window.
        overlap: share that neighbouring grid windows share.
        budget: most windows of a picture; of "shared", the mean over the pictures.
        most: most windows of one picture where the budget is shared.
        small: objects below this side are what windows are laid for.
        seed: of "random" and "oracle".
    """

    kind: Literal["grid", "guided", "shared", "density", "random", "oracle"] = "grid"
    size: int = 192
    overlap: float = 0.25
    budget: int = 8
    most: int = 16
    small: float = 48.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget < 1 or self.most < 1:
            raise ValueError(
                f"windows.budget and windows.most must be at least 1, got {self.budget} and "
                f"{self.most}"
            )


@dataclass(frozen=True)
class Join:
    """What of windows and whole picture counts, before it is merged; original pixels.

    Attributes:
        full: join each arm with the same whole-picture detections.
        small_below: windows speak for objects below this side.
        large_above: the whole picture speaks for objects above this side.
        border: boxes so near an inner side of their window count as cut.
        border_weight: scores of cut boxes are multiplied by it; 0 drops them.
        border_cut: "every" treats all of them so, "seen_whole" only those whose place another
            window holds clear of its own border.
    """

    full: bool = False
    small_below: float = 1e5
    large_above: float = 0.0
    border: float = 2.0
    border_weight: float = 0.0
    border_cut: Literal["every", "seen_whole"] = "every"

    @property
    def gate(self) -> SizeGate:
        """Who speaks for which size; windows for all where they are alone."""
        return SizeGate(self.small_below, self.large_above) if self.full else SizeGate()

    @property
    def cut(self) -> Border:
        """What becomes of boxes that an inner side of their window may have cut."""
        return Border(self.border, self.border_weight, self.border_cut)

    def __post_init__(self) -> None:
        # Both refuse what cannot be, even where a study does not use them.
        Border(self.border, self.border_weight, self.border_cut)
        SizeGate(self.small_below, self.large_above)


class Merging(Merge):
    """``Merge`` as a command's default, which a command line cannot read out of slots."""


@dataclass(frozen=True)
class Statistics:
    """How a difference is told from luck.

    Attributes:
        resamples: paired bootstrap draws of pictures, behind the intervals.
        permutations: paired swaps of two arms, behind the p-values; 0 leaves them out.
        seed: of both.
        groups: which pictures are of one scene or recording, and drawn together: a field of the
            images in the COCO file, a pattern with parentheses that is looked for in file names, or
            a file of names and groups (CSV or JSON). Without it each picture stands for itself.
    """

    resamples: int = 1000
    permutations: int = 1000
    seed: int = 0
    groups: str | None = None

    def __post_init__(self) -> None:
        if self.resamples < 1 or self.permutations < 0:
            raise ValueError(
                f"statistics.resamples must be at least 1 and statistics.permutations not "
                f"negative, got {self.resamples} and {self.permutations}"
            )
