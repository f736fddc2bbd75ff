"""The smaller tables of a study's report: chance, tiny objects, kinds of error, alignment."""

import math
from collections.abc import Mapping, Sequence

from detection.calibration import Reliability
from detection.errors import Transitions
from detection.gain import Gain
from detection.significance import PairedTest
from detection.tide import KINDS
from pipeline.arms import WORST_SHIFT
from pipeline.larger import Zoom
from pipeline.measures import TESTED, TINY_METRICS, Measures
from pipeline.report import TableView, milliseconds, percent, points
from pipeline.study import ArmResult

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
        _errors_by_size(measures, reference),
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


def _errors_by_size(measures: Measures, reference: str) -> TableView:
    return TableView(
        "Kinds of error by size",
        f"The same change against {reference} among objects of each size (square root of area in "
        f"pixels of the original). Sizes without objects are left out.",
        ("arm", "size", "objects", "AP50", *KINDS),
        tuple(
            (
                name,
                _size(errors.range),
                f"{errors.objects:,}",
                points(errors.ap50),
                *(f"{points(errors.gains[k])} ({_count(errors.counts[k])})" for k in KINDS),
            )
            for name, each in measures.errors_by_size.items()
            for errors in each
            if errors.objects
        ),
    )


def _size(name: str) -> str:
    low, _, high = name.partition("_")
    return f"{low} and more" if high == "inf" else f"{low}–{high}"


def objects_table(
    changes: Mapping[str, Sequence[Transitions]], invented: Mapping[str, float]
) -> TableView:
    """What became of the objects of each size, and what each arm invented.

    Args:
        changes: arm to its rows against the reference, one for each size.
        invented: arm, the reference included, to hallucinations per megapixel.
    """
    base = next((f"{value:.2f}" for name, value in invented.items() if name not in changes), "–")
    return TableView(
        "Objects found and lost",
        f"At score 0.3 and an overlap of 0.5, against the reference, which invents {base} boxes a "
        f"megapixel where there is nothing. Overlap: mean change of those that both found.",
        ("arm", "size", "objects", "found", "lost", "both", "neither", "overlap", "invented/MP"),
        tuple(
            (
                name,
                _size(row.bin),
                f"{row.objects:,}",
                *(f"{number:,}" for number in (row.found, row.lost, row.both, row.neither)),
                "–" if math.isnan(row.overlap_change) else f"{row.overlap_change:+.3f}",
                f"{invented[name]:.2f}",
            )
            for name, rows in changes.items()
            for row in rows
            if row.objects
        ),
    )


def larger_table(
    arms: Sequence[ArmResult], measures: Measures, larger: Mapping[str, Zoom]
) -> TableView:
    """What a larger picture does in the time of an arm, and what the arm gains over it."""
    by_name = {arm.name: arm for arm in arms}
    return TableView(
        "The whole picture at larger input",
        "Enlarged by bicubic, without windows: to as many pixels as the windows have, by a factor "
        "that was given, or until it takes as long as an arm. For that both were timed in turn on "
        "a few pictures before the study; what they took in it depends on what else ran. Where "
        "that arm loses against it, its time is better spent on a larger picture.",
        ("arm", "enlarged", "to take as long as", "timed, ms", "in the study, ms", "AP",
         "that arm's gain over it in AP", "in AP_small"),
        tuple(
            (
                name,
                f"× {zoom.factor:.3g}",
                zoom.arm or "–",
                f"{milliseconds(zoom.seconds)} and {milliseconds(zoom.wanted)}"
                if zoom.pictures
                else "–",
                _both_times(by_name[name], by_name.get(zoom.arm)),
                percent(by_name[name].metrics["AP"]),
                *(_over(measures, name, metric) for metric in TESTED),
            )
            for name, zoom in larger.items()
        ),
    )  # fmt: skip


def _both_times(larger: ArmResult, other: ArmResult | None) -> str:
    shown = [milliseconds(arm.seconds_per_picture) for arm in (larger, other) if arm is not None]
    return " and ".join(shown)


def _over(measures: Measures, larger: str, metric: str) -> str:
    for gain in measures.same_time:
        if (gain.reference, gain.metric) == (larger, metric):
            return f"{points(gain.difference)} ({points(gain.low)} to {points(gain.high)})"
    return "–"


def finetuned_table(arms: Sequence[ArmResult], measures: Measures) -> TableView:
    """The arms with detectors of their own, against bicubic with a detector of its own."""
    return TableView(
        "The detector fine-tuned on each arm's pictures",
        "Another experiment than the table above: every arm has its own detector, trained on from "
        "the same one with equal crops and steps, and bicubic, too, which is the reference here.",
        ("arm", "AP", "AP50", "AP_small", "gain in AP", "gain in AP_small", "p after Holm"),
        tuple(
            (
                arm.name,
                *(percent(arm.metrics[metric]) for metric in ("AP", "AP50", "AP_small")),
                *(_gain_cell(measures.gain(arm.name, metric)) for metric in ("AP", "AP_small")),
                probability(test.p_holm if (test := measures.test(arm.name, "AP")) else math.nan),
            )
            for arm in arms
        ),
    )


def _gain_cell(gain: Gain | None) -> str:
    if gain is None:
        return "reference"
    return f"{points(gain.difference)} ({points(gain.low)} to {points(gain.high)})"


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
