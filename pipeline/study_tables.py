"""The smaller tables of a study's report: chance, tiny objects, kinds of error, alignment."""

import math
from collections.abc import Mapping

from detection.calibration import Reliability
from detection.gain import Gain
from detection.significance import PairedTest
from detection.tide import KINDS
from pipeline.arms import WORST_SHIFT
from pipeline.measures import TESTED, TINY_METRICS, Measures
from pipeline.report import TableView, percent, points

SIZES = dict(zip(TINY_METRICS, ("2-8", "8-16", "16-32", "32-64"), strict=True))
"""AI-TOD's ranges in pixels."""


def study_tables(
    measures: Measures, moved: Mapping[str, tuple[float, float]], *, reference: str
) -> list[TableView]:
    """Those of which something was measured."""
    tables = [
        _chance(measures, reference),
        _tiny(measures, reference),
        _errors(measures, reference),
        _alignment(moved),
    ]
    return [table for table in tables if table.rows]


def _chance(measures: Measures, reference: str) -> TableView:
    chosen = [g for g in measures.gains if g.metric in TESTED and not math.isnan(g.difference)]
    return TableView(
        "Gain or luck",
        f"Each arm against {reference}. p: share of {_permutations(measures)}random swaps of the "
        f"two arms, picture by picture, with a difference as large; Holm: corrected over the arms "
        f"of one metric. Visible: the smallest true gain that such a set shows 8 times in 10.",
        ("arm", "metric", "gain", "95 % interval", "p", "p after Holm", "visible", "objects"),
        tuple(_chance_row(gain, measures.test(gain.arm, gain.metric)) for gain in chosen),
    )


def _permutations(measures: Measures) -> str:
    return f"{measures.tests[0].permutations:,} " if measures.tests else ""


def _chance_row(gain: Gain, test: PairedTest | None) -> tuple[str, ...]:
    return (
        gain.arm,
        gain.metric,
        points(gain.difference),
        f"{points(gain.low)} to {points(gain.high)}",
        probability(test.p_value if test else math.nan),
        probability(test.p_holm if test else math.nan),
        percent(gain.detectable),
        f"{gain.objects:,}",
    )


def probability(p_value: float) -> str:
    """A p-value with the digits that it has; nan as a dash."""
    if math.isnan(p_value):
        return "–"
    return f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def _tiny(measures: Measures, reference: str) -> TableView:
    arms = list(dict.fromkeys(gain.arm for gain in measures.gains))
    first = {name: measures.gain(arms[0], name) for name in TINY_METRICS} if arms else {}
    shown = {name: gain for name, gain in first.items() if gain is not None}
    base = (reference, *(percent(gain.reference_value) for gain in shown.values()))
    rows = [(arm, *(_tiny_cell(measures.gain(arm, name)) for name in shown)) for arm in arms]
    return TableView(
        "AP by AI-TOD's sizes",
        f"AP in % and, in brackets, gain over {reference} in points with its 95 % interval. Sizes "
        f"are square roots of area in pixels of the original.",
        ("arm", *(f"{SIZES[name]} px ({gain.objects:,})" for name, gain in shown.items())),
        (base, *rows) if shown else (),
    )


def _tiny_cell(gain: Gain | None) -> str:
    if gain is None:
        return "–"
    change = f"{points(gain.difference)}: {points(gain.low)} to {points(gain.high)}"
    return f"{percent(gain.value)} ({change})"


def _errors(measures: Measures, reference: str) -> TableView:
    return TableView(
        "Kinds of error",
        f"Change against {reference} of what mending each kind of error alone would give, in "
        f"points of AP50 (TIDE), and of how many errors there are. Minus: less is lost to that "
        f"kind. cls: wrong category; loc: misplaced; both: wrong category and misplaced; dupe: "
        f"found twice; bkg: nothing is there; miss: not found.",
        ("arm", "AP50", *KINDS),
        tuple(
            (
                name,
                points(errors.ap50),
                *(f"{points(errors.gains[k])} ({_count(errors.counts[k])})" for k in KINDS),
            )
            for name, errors in measures.errors.items()
            if not math.isnan(errors.ap50)
        ),
        "errors",
    )


def _count(change: int) -> str:
    return f"{change:+,}".replace("-", "−") if change else "0"


def _alignment(moved: Mapping[str, tuple[float, float]]) -> TableView:
    return TableView(
        "Alignment",
        f"How far each arm moves a blob that it enlarges, in pixels before enlargement. More than "
        f"{WORST_SHIFT} displaces its boxes.",
        ("arm", "to the right", "down"),
        tuple((name, *(pixels(value) for value in shift)) for name, shift in moved.items()),
    )


def pixels(value: float) -> str:
    """A shift with its sign: "+0.375", "−0.012", "0.000"."""
    shown = f"{value:+.3f}"
    return "0.000" if float(shown) == 0 else shown.replace("-", "−")


def trust_table(trust: Mapping[str, Mapping[str, tuple[Reliability, Reliability]]]) -> TableView:
    """Expected calibration errors of every arm's sources, before calibration and after it."""
    return TableView(
        "Scores taken at their word",
        "Expected calibration error in % (Guo et al. 2017) in the evaluated pictures: how far, on "
        "average, a score lies from the share of true detections that have it.",
        ("arm", "source", "detections", "as given", "calibrated"),
        tuple(
            (arm, source, f"{sum(raw.count):,}", percent(raw.ece), percent(calibrated.ece))
            for arm, sources in trust.items()
            for source, (raw, calibrated) in sources.items()
        ),
        "trust",
    )
