"""What a report tells, as plain data; whoever ran the study fills it in.

AP and gains are in [0, 1] here and printed in percent. A value that could not be measured, such as
the AP of a size that no object has, is nan and printed as a dash.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR")
HEADLINE = ("AP", "AP_small")  # the page opens with the first of these that was measured


@dataclass(frozen=True)
class ArmView:
    """One way to bring a picture to the detector, and how well and how fast detection then was."""

    name: str
    label: str  # what a reader should see, such as "SRGAN x4"
    metrics: dict[str, float]
    seconds_per_picture: float
    megapixels_per_picture: float  # what the detector looked at
    ceiling: bool = False  # sees what no other arm is given, and so is not to be had


@dataclass(frozen=True)
class GainView:
    """Difference of one metric between an arm and the reference, with its 95 % interval."""

    arm: str
    metric: str
    difference: float
    low: float
    high: float
    verdict: str  # "helps", "hurts" or "inconclusive"


@dataclass(frozen=True)
class BinView:
    """AP and gain of an arm on the objects of one range of sizes (square root of the box area)."""

    arm: str
    low_px: float
    high_px: float  # inf: no upper end
    objects: int
    ap: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class ErrorView:
    """Change of what one kind of error costs an arm in AP50, against the reference."""

    arm: str
    kind: str
    difference: float  # negative: less is lost to it


@dataclass(frozen=True)
class TrustView:
    """How far the scores of one source of an arm can be believed, one point for each score bin."""

    arm: str
    source: str
    calibrated: bool
    points: tuple[tuple[float, float], ...]  # mean score, share of true detections


@dataclass(frozen=True)
class TableView:
    """A small table whose cells are ready to print; the first column names the row."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figure: str = ""  # name of the figure that is shown above it


def _no_boxes() -> Tensor:
    return torch.zeros(0, 4)


@dataclass(frozen=True)
class Tile:
    """One picture of the gallery with the boxes on it."""

    caption: str
    picture: Tensor  # (3, h, w) uint8
    truth: Tensor = field(default_factory=_no_boxes)  # (N, 4) xyxy in pixels of `picture`
    found: Tensor = field(default_factory=_no_boxes)  # (M, 4) xyxy in pixels of `picture`
    found_labels: tuple[str, ...] = ()  # one for each found box, or none


@dataclass(frozen=True)
class GalleryRow:
    """The same place seen by each arm."""

    title: str
    tiles: list[Tile]


@dataclass(frozen=True)
class CurveView:
    """A quantity over training steps: `series` maps a name to (step, value) points."""

    name: str
    unit: str
    series: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class StudyView:
    """A whole study. Lists may be empty: the page leaves those sections out."""

    title: str
    verdict: str  # one sentence
    protocol: str  # how it was measured, a short paragraph
    reference: str  # name of the arm that gains are measured against
    arms: list[ArmView]
    gains: list[GainView]
    curve: list[BinView] = field(default_factory=list)
    coverage: dict[str, str] = field(default_factory=dict)  # what: figure, both ready to print
    costs: dict[str, str] = field(default_factory=dict)  # what: figure, both ready to print
    gallery: list[GalleryRow] = field(default_factory=list)
    training: list[CurveView] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what makes a number untrustworthy
    tables: list[TableView] = field(default_factory=list)
    errors: list[ErrorView] = field(default_factory=list)
    trust: list[TrustView] = field(default_factory=list)
    precision: dict[str, tuple[float, ...]] = field(default_factory=dict)  # arm: at recalls 0 to 1
    upper_bound: bool = False  # measured with knowledge of the truth: no headline

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if self.reference not in names:
            raise ValueError(
                f"reference '{self.reference}' is not an arm of the study; arms: {names}"
            )
        measured = [gain.arm for gain in self.gains] + [point.arm for point in self.curve]
        if unknown := sorted(set(measured) - set(names)):
            raise ValueError(
                f"gains name arms that the study does not have: {unknown}; arms: {names}"
            )

    def label(self, arm: str) -> str:
        """What a reader should see instead of an arm's name."""
        return next(view.label for view in self.arms if view.name == arm)

    def gain(self, arm: str, metric: str) -> GainView | None:
        """The gain of an arm in a metric, where it was measured."""
        rows = (row for row in self.gains if row.arm == arm and row.metric == metric)
        return next(rows, None)

    @property
    def metrics(self) -> list[str]:
        """COCO's metrics in COCO's order, as far as some arm has them."""
        return [metric for metric in METRICS if any(metric in arm.metrics for arm in self.arms)]

    @property
    def headline(self) -> list[GainView]:
        """The gain of every arm in the metric the page opens with; none of an upper bound."""
        if self.upper_bound:
            return []
        for metric in HEADLINE:
            rows = [row for row in self.gains if row.metric == metric]
            if any(not math.isnan(row.difference) for row in rows):
                return rows
        return []


def percent(value: float, *, digits: int = 1) -> str:
    """0.3142 as "31.4"; nan as a dash."""
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}".replace("-", "−")


def points(difference: float) -> str:
    """A difference of AP in percentage points, always with its sign: "+1.2", "−0.3", "0.0"."""
    if math.isnan(difference):
        return "–"
    shown = f"{100 * difference:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


def interval(gain: GainView) -> str:
    """The 95 % interval of a gain in percentage points: "−0.3 to +1.2"."""
    return f"{points(gain.low)} to {points(gain.high)}"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three significant digits; nan as a dash."""
    if math.isnan(seconds):
        return "–"
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
