"""The whole picture at larger input: by how much, so that it is a fair rival of the windows.

Cutting windows, enlarging them and looking at each takes time. A detector that is given the same
time can look at a larger picture instead, which is enlarged by bicubic and has no borders inside.
"larger" has as many pixels as the windows; "larger:ARM" takes as long as an arm does. For that the
two are timed in turn on a few pictures, and the factor that this led to is kept with the study: run
again, or spread over workers, it enlarges by the same one.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from detection.boxes import Detector
from pipeline.arms import ORIGINAL, given_factor, identity, is_larger, timed_by, trainings
from pipeline.files import atomic_file
from pipeline.kept import Images, short_digest
from pipeline.look import Eyes, Look, refuse_vast
from pipeline.progress import bar
from pipeline.study import Split
from pipeline.study_settings import Join
from pipeline.upscalers import Upscaler

PICTURES = 4
"""That the two are timed on."""
CLOSE = 0.03
"""Of the time that is wanted; a clock tells no better."""
ROUNDS = 6
PASSES, LONG = 3, 60.0
"""Times that the two are timed in turn for one factor, fewer where so many seconds have passed. The
middle one counts: what else runs for a while slows both, or one of them once."""
MOST_PIXELS = 16e6
"""Of an enlarged picture: a detector keeps some hundred bytes for each, all at once."""

UNEQUAL = 1.5
"""Times further apart are told: the comparison is not one of equal time."""

KEPT = "larger.json"

Times = Callable[[float], tuple[float, float]]
"""Of a factor: seconds a picture of the arm, and of the whole picture enlarged by the factor."""


@dataclass(frozen=True)
class Zoom:
    """What whole pictures are enlarged by.

    Attributes:
        factor: on both sides.
        arm: whose time that was to take; empty where it was not chosen by time.
        seconds: of a picture enlarged so, when the factor was chosen.
        wanted: of a picture of that arm, right before.
        pictures: on which both were timed.
    """

    factor: float
    arm: str = ""
    seconds: float = math.nan
    wanted: float = math.nan
    pictures: int = 0


@dataclass(frozen=True)
class Timed:
    """What an arm is timed with."""

    split: Split
    join: Join
    batch_size: int
    detector: Detector


def zooms(
    specs: Mapping[str, str],
    upscalers: Mapping[str, Upscaler | None],
    timed: Timed,
    *,
    scale: int,
    folder: Path,
    key: Mapping[str, str],
) -> dict[str, Zoom]:
    """What each arm of larger pictures enlarges them by, by its name.

    Args:
        specs: all arms of the study.
        upscalers: of each.
        timed: the study's pictures and detector.
        scale: that windows are enlarged by.
        folder: of the study, in which factors are kept that were chosen by time.
        key: what, besides pictures, windows and arm, decides how long an arm takes.

    Raises:
        ValueError: a picture that is too large to be enlarged as a whole.
    """
    chosen = {}
    for name, spec in specs.items():
        if not is_larger(spec):
            continue
        arm, factor = timed_by(spec), given_factor(spec)
        if factor is not None:
            chosen[name] = Zoom(factor)
        elif arm is None:
            chosen[name] = Zoom(equal_pixels(timed.split, timed.join, scale))
        else:
            content = {
                "key": dict(key), "spec": identity(trainings(specs[arm])[0]),
                "pictures": timed.split.pictures.digest, "windows": timed.split.plan.digest,
                "full": timed.join.full, "batch_size": timed.batch_size,
            }  # fmt: skip
            kept = _Kept(folder / KEPT, short_digest(content))
            chosen[name] = kept.load(arm) or kept.save(
                _equal_time(arm, specs[arm], upscalers[arm], timed, scale)
            )
    return chosen


def equal_pixels(split: Split, join: Join, scale: int) -> float:
    """What to enlarge whole pictures by so that a detector sees as many pixels as with windows."""
    reduction = split.pictures.reduction
    windows = itertools.chain.from_iterable(split.plan.windows.values())
    seen = sum(w.width * w.height for w in windows) * (scale / reduction) ** 2
    given = sum(p.width * p.height for p in split.truth.images) / reduction**2
    return float(math.sqrt(seen / given + (1.0 if join.full else 0.0))) if seen else 1.0


def _equal_time(arm: str, spec: str, upscaler: Upscaler | None, timed: Timed, scale: int) -> Zoom:
    pictures = timed.split.pictures
    refuse_vast([p.id for p in timed.split.truth.images if pictures.vast(p.id)])
    images = _spread_out([i for i, windows in timed.split.plan.windows.items() if windows])
    start = equal_pixels(timed.split, timed.join, scale)
    if not images:  # no window anywhere: the arm is the first look, or nothing at all
        return Zoom(1.0, arm)
    sides = max(p.width * p.height for p in timed.split.truth.images) / pictures.reduction**2
    most = max(1.0, math.sqrt(MOST_PIXELS / sides))
    watch = _Watch(timed, spec == ORIGINAL, upscaler, images)
    with bar(f"a larger picture in the time of {arm}", None):
        factor, wanted, seconds = same_time(watch, start=start, most=most)
    return Zoom(factor, arm, seconds, wanted, len(images))


def same_time(times: Times, *, start: float, most: float) -> tuple[float, float, float]:
    """The factor at which a whole picture takes as long as the arm, with what both took.

    Time grows with pixels, nearly along a line. So the ratio of the two times, taken one right
    after the other, is followed along the line through the last two factors until it is 1.

    Args:
        times: of a factor.
        start: the first factor to try.
        most: the largest that may be tried.

    Returns:
        Factor in hundredths, seconds of the arm, seconds of the whole picture.
    """
    tried: dict[float, tuple[float, float]] = {}
    factor = _hundredths(min(start, most))
    while factor not in tried and len(tried) < ROUNDS:
        tried[factor] = times(factor)
        arm, whole = tried[factor]
        if abs(whole / arm - 1) <= CLOSE:
            break
        factor = _hundredths(min(_next(tried, factor), most))
    best = min(tried, key=lambda z: abs(math.log(tried[z][1] / tried[z][0])))
    return best, *tried[best]


def unequal_times(larger: Mapping[str, Zoom], seconds: Mapping[str, float]) -> list[str]:
    """One sentence for every larger picture that did not take as long in the study as its arm.

    Args:
        larger: arms of larger pictures.
        seconds: of a picture, by arm, in the study.
    """
    told = []
    for name, zoom in larger.items():
        capped = zoom.seconds * UNEQUAL < zoom.wanted  # by memory, as its table shows
        if not zoom.pictures or zoom.arm not in seconds or capped:
            continue
        took, wanted = seconds[name], seconds[zoom.arm]
        if abs(math.log(took / wanted)) > math.log(UNEQUAL):
            told.append(
                f"{name} took {1e3 * took:.0f} ms a picture and {zoom.arm} {1e3 * wanted:.0f}: "
                f"other work ran beside one of them, or beside the timing. On an idle machine, "
                f"remove {KEPT} and the folder 'seen' and run the study again."
            )
    return told


def _next(tried: Mapping[float, tuple[float, float]], last: float) -> float:
    """Where the line through the last two ratios is 1; through the origin where it leads astray."""
    points = [(z * z, whole / arm) for z, (arm, whole) in tried.items()]
    pixels, ratio = points[-1]
    nearer = pixels / ratio
    if len(points) > 1:
        before, other = points[-2]
        slope = (ratio - other) / (pixels - before)
        along = pixels + (1 - ratio) / slope if slope > 0 else 0.0
        # a clock that errs by a tenth must not send the search to a multiple
        nearer = along if pixels / 4 < along < 4 * pixels else nearer
    return math.sqrt(nearer)


def _hundredths(factor: float) -> float:
    return max(0.01, round(factor, 2))


def _spread_out(images: Sequence[int]) -> Images:
    """Some of the pictures, in equal distances."""
    count = min(PICTURES, len(images))
    return tuple(images[(2 * n + 1) * len(images) // (2 * count)] for n in range(count))


@dataclass(frozen=True)
class _Watch:
    """Times an arm and larger pictures on ``images``, as means over all pictures of the study."""

    timed: Timed
    original: bool
    upscaler: Upscaler | None
    images: Images

    def __call__(self, factor: float) -> tuple[float, float]:
        pairs: list[tuple[float, float]] = []
        while len(pairs) < PASSES and sum(map(sum, pairs)) * len(self.images) < LONG:
            pairs.append(self._once(factor))
        return sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]

    def _once(self, factor: float) -> tuple[float, float]:
        split, detector = self.timed.split, self.timed.detector
        whole = Look(split.pictures, None, 1)
        windows = Look(split.pictures, split.plan, self.timed.batch_size, original=self.original)
        arm = self._windows(seconds_of(windows, self.images, (detector, self.upscaler)))
        if self.timed.join.full:
            arm += self._whole(seconds_of(whole, self.images, (detector, None)))
        larger = replace(whole, zoom=factor)
        return arm, self._whole(seconds_of(larger, self.images, (detector, None)))

    def _windows(self, seconds: float) -> float:
        """Of what the windows of ``images`` took, seconds a picture of the study."""
        plan = self.timed.split.plan.windows
        areas = {image: sum(w.width * w.height for w in each) for image, each in plan.items()}
        return self._mean(seconds, areas)

    def _whole(self, seconds: float) -> float:
        pictures = self.timed.split.truth.images
        return self._mean(seconds, {p.id: p.width * p.height for p in pictures})

    def _mean(self, seconds: float, pixels: Mapping[int, int]) -> float:
        """The pictures that are timed have more or fewer pixels to look at than the others."""
        return seconds * sum(pixels.values()) / sum(pixels[i] for i in self.images) / len(pixels)


def seconds_of(look: Look, images: Images, eyes: Eyes) -> float:
    """What enlarging and detecting take in some pictures; sizes are met once before."""
    look(images[:1], eyes)
    sight = look(images, eyes)
    return sight.enlarging + sight.detecting


@dataclass(frozen=True)
class _Kept:
    """The factors that a study chose by time, by arm, each with what decided it."""

    path: Path
    key: str

    def load(self, arm: str) -> Zoom | None:
        stored = self._all().get(arm)
        return Zoom(**stored["zoom"]) if stored and stored["key"] == self.key else None

    def save(self, zoom: Zoom) -> Zoom:
        stored = {**self._all(), zoom.arm: {"key": self.key, "zoom": asdict(zoom)}}
        with atomic_file(self.path) as temporary:
            temporary.write_text(json.dumps(stored, indent=1))
        return zoom

    def _all(self) -> dict[str, Any]:
        stored: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}
        return stored
