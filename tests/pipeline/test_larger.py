"""The whole picture at larger input, enlarged until it takes as long as an arm does."""

import json
import math
from dataclasses import replace

import pytest

from detection.coco import evaluate, truth_as_detections
from detection.windows import WindowPlan
from pipeline import cli
from pipeline.arms import (
    given_factor,
    has_windows,
    is_control,
    is_larger,
    is_one_file,
    open_arm,
    parse_arms,
    timed_by,
    trainings,
)
from pipeline.larger import (
    CLOSE,
    Timed,
    Zoom,
    equal_pixels,
    same_time,
    seconds_of,
    unequal_times,
    zooms,
)
from pipeline.look import Look
from pipeline.measures import measure_arms
from pipeline.plans import plan_windows
from pipeline.study import ArmResult, Full, Split, load_pictures
from pipeline.study_settings import Join, Statistics, Windows
from pipeline.study_tables import larger_table
from pipeline.upscalers import open_upscaler
from tests.pipeline.test_detect import scene, words
from tests.pipeline.test_study import SIDE, find_bright, write_squares

__all__ = ["scene"]

A_PIXEL = 1e-6
"""Seconds, of the clock that these tests put in the place of the real one."""


def by_pixels(look, images, eyes):
    """A detector of which every pixel costs the same; enlarging costs nothing."""
    pixels = 0.0
    for image in images:
        if look.plan is None:
            sides = next(p for p in look.pictures.truth.images if p.id == image)
            pixels += sides.width * sides.height * look.zoom**2 / look.pictures.reduction**2
        else:
            scale = eyes[1].scale if eyes[1] else 1
            share = 1 if look.original else look.pictures.reduction
            area = sum(w.width * w.height for w in look.plan.windows[image])
            pixels += area * (scale / share) ** 2
    return pixels * A_PIXEL


@pytest.fixture
def pictures(tmp_path):
    squares = {image: [(20, 24, 36, 40)] for image in range(1, 12)}
    path = write_squares(tmp_path, squares)
    return load_pictures([path], [tmp_path / "images"], degradation=None, limit=None)


def test_larger_pictures_are_arms_in_three_forms():
    arms = ["larger", "larger:sr", "larger@1.5", "big=larger:bicubic", "sr=srresnet_small_x4"]
    specs = parse_arms(arms, "native")
    assert list(specs) == ["larger", "larger in sr time", "larger 1.5", "big", "sr", "bicubic"]
    larger = [spec for spec in specs.values() if is_larger(spec)]
    assert [timed_by(spec) for spec in larger] == [None, "sr", None, "bicubic"]
    assert [given_factor(spec) for spec in larger] == [None, None, 1.5, None]
    assert all(is_control(spec) and not has_windows(spec) for spec in larger)
    assert not any(is_one_file(spec) for spec in larger)
    assert [open_arm(spec, 2, bf16=False) for spec in larger] == [None] * 4
    assert trainings("larger:a,b") == ["larger:a,b"]
    assert not is_larger("larger.safetensors")


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (["larger:sr"], r"takes as long as arm 'sr', and there is none .* choose from bicubic"),
        (["none", "larger:none"], "none of that name with windows"),
        (["larger", "larger:larger"], "none of that name with windows"),
        (["larger@0"], "a factor above 0"),
        (["larger@two"], "neither a file nor one of none, larger"),
    ],
)
def test_a_larger_picture_that_takes_as_long_as_nothing_is_refused(arms, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        parse_arms(arms, "native")


@pytest.mark.parametrize(("overhead", "arm"), [(0.0, 0.8), (0.05, 0.8), (0.3, 0.32), (0.01, 0.02)])
def test_the_factor_is_found_at_which_both_take_as_long(overhead, arm):
    asked = []

    def times(factor):
        asked.append(factor)
        return arm, overhead + 0.04 * factor**2

    factor, wanted, seconds = same_time(times, start=2.0, most=30)
    assert wanted == arm
    assert seconds == pytest.approx(arm, rel=CLOSE)
    assert factor == pytest.approx(math.sqrt((arm - overhead) / 0.04), rel=0.05)
    assert len(asked) <= 5


def test_a_clock_that_errs_leads_to_the_best_of_what_was_tried():
    errors = iter([1.3, 0.8, 1.2, 0.85, 1.1, 0.9])
    tried = {}

    def times(factor):
        tried[factor] = 1.0, 0.25 * factor**2 * next(errors)
        return tried[factor]

    factor, wanted, seconds = same_time(times, start=5.0, most=30)
    assert (wanted, seconds) == tried[factor]
    assert abs(math.log(seconds)) == min(abs(math.log(whole)) for _, whole in tried.values())
    assert 1.6 < factor < 2.5


def test_a_picture_is_enlarged_no_further_than_a_detector_has_memory_for():
    factor, _, seconds = same_time(lambda z: (100.0, 0.01 * z**2), start=2.0, most=7.5)
    assert (factor, seconds) == (7.5, 0.01 * 7.5**2)


def test_windows_and_the_first_look_are_what_the_larger_picture_has_the_time_of(
    pictures, tmp_path, monkeypatch
):
    """Pictures differ in windows, and those that are timed are not the average."""
    monkeypatch.setattr("pipeline.larger.seconds_of", by_pixels)
    grid = plan_windows(pictures, Windows(size=48, overlap=0.0), {})
    uneven = {image: rows[: image % 5] for image, rows in grid.windows.items()}
    split = Split(pictures, WindowPlan(uneven), Full({}, 0.0))
    specs = {"larger": "larger", "as bicubic": "larger:bicubic", "bicubic": "bicubic"}
    upscalers = {**dict.fromkeys(specs), "bicubic": open_upscaler("bicubic", scale=4)}
    for join in (Join(), Join(full=True)):
        timed = Timed(split, join, 4, find_bright)
        found = zooms(specs, upscalers, timed, scale=4, folder=tmp_path, key={})
        assert found["larger"].arm == ""
        wanted = equal_pixels(split, join, 4)
        assert found["larger"].factor == wanted
        assert found["as bicubic"].factor == pytest.approx(wanted, abs=0.005)
        assert found["as bicubic"].wanted == pytest.approx(wanted**2 * SIDE**2 * A_PIXEL)
        assert found["as bicubic"].pictures == 4


def test_the_larger_picture_has_as_many_pixels_as_the_windows_and_the_first_look(pictures):
    split = Split(
        pictures, plan_windows(pictures, Windows(size=48, overlap=0.0), {}), Full({}, 0.0)
    )
    assert equal_pixels(split, Join(), 4) == pytest.approx(4.0)
    assert equal_pixels(split, Join(full=True), 4) == pytest.approx(17**0.5)


def test_the_larger_picture_of_a_huge_one_stays_small_enough(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.larger.seconds_of", by_pixels)
    monkeypatch.setattr("pipeline.larger.MOST_PIXELS", 4 * SIDE**2)
    split = Split(pictures, plan_windows(pictures, Windows(size=48), {}), Full({}, 0.0))
    specs = {"as bicubic": "larger:bicubic", "bicubic": "bicubic"}
    upscalers = {"bicubic": open_upscaler("bicubic", scale=8)}
    timed = Timed(split, Join(), 4, find_bright)
    found = zooms(specs, upscalers, timed, scale=8, folder=tmp_path, key={})["as bicubic"]
    assert found.factor == 2.0
    assert found.seconds < found.wanted


def test_where_no_window_was_laid_there_is_nothing_to_time(pictures, tmp_path):
    split = Split(pictures, WindowPlan({p.id: () for p in pictures.truth.images}), Full({}, 0.0))
    specs = {"as bicubic": "larger:bicubic", "bicubic": "bicubic"}
    timed = Timed(split, Join(), 4, find_bright)
    found = zooms(specs, {"bicubic": None}, timed, scale=4, folder=tmp_path, key={})
    assert (found["as bicubic"].factor, found["as bicubic"].pictures) == (1.0, 0)


def test_time_is_that_of_enlarging_and_detecting_after_all_sizes_were_met_once(pictures):
    calls = []

    def find(given):
        calls.append(len(given))
        return find_bright(given)

    look = Look(pictures, None, 1)
    assert 0 < seconds_of(look, (1, 2, 3), (find, None)) < 60
    assert calls[0] == 1
    assert sum(calls[1:]) == 3


def test_a_moment_in_which_something_else_ran_does_not_change_the_factor(
    pictures, tmp_path, monkeypatch
):
    split = Split(pictures, plan_windows(pictures, Windows(size=48), {}), Full({}, 0.0))
    specs = {"big": "larger:bicubic", "bicubic": "bicubic"}
    upscalers = {"bicubic": open_upscaler("bicubic", scale=4)}
    timed = Timed(split, Join(), 4, find_bright)
    calls = []

    def disturbed(*given):
        calls.append(1)
        return by_pixels(*given) * (5 if len(calls) % 7 == 2 else 1)

    monkeypatch.setattr("pipeline.larger.seconds_of", disturbed)
    found = zooms(specs, upscalers, timed, scale=4, folder=tmp_path, key={})["big"]
    assert found.factor == pytest.approx(equal_pixels(split, Join(), 4), abs=0.005)


@pytest.mark.parametrize(("seconds", "warned"), [(0.45, False), (0.9, True), (0.2, True)])
def test_times_that_were_not_equal_in_the_study_are_warned_of(seconds, warned):
    times = {"big": seconds, "sr": 0.5, "larger": 3.0}
    chosen = {"big": Zoom(1.83, "sr", 0.05, 0.051, 4), "larger": Zoom(2.0)}
    said = unequal_times(chosen, times)
    assert bool(said) == warned
    assert all(f"big took {1000 * seconds:.0f} ms a picture and sr 500" in each for each in said)


def same_study(folder, *more):
    arms = ("--arms", "none", "larger:bicubic", f"sr={folder / 'sr.safetensors'}")
    return cli.main(words(folder, *arms, *more))


def test_a_factor_chosen_by_time_is_kept_with_the_study_and_not_chosen_again(scene, monkeypatch):
    timings = []

    def timed(look, images, eyes):
        timings.append(look.zoom)
        # another day, another clock
        return by_pixels(look, images, eyes) * (1.5 if look.plan else 1)

    monkeypatch.setattr("pipeline.larger.seconds_of", timed)
    assert same_study(scene) == 0
    out, name = scene / "study", "larger in bicubic time"
    first = json.loads((out / "study.json").read_text())
    zoom = first["larger"][name]
    assert zoom["arm"] == "bicubic"
    assert zoom["factor"] == pytest.approx(4 * math.sqrt(1.5), abs=0.01)
    found = (out / "detections_larger_in_bicubic_time.json").read_bytes()
    assert timings
    monkeypatch.setattr("pipeline.larger.seconds_of", lambda *_: 1 / 0)
    assert same_study(scene) == 0
    again = json.loads((out / "study.json").read_text())
    assert again["larger"] == first["larger"]
    assert (out / "detections_larger_in_bicubic_time.json").read_bytes() == found


@pytest.mark.parametrize("change", ["windows", "detector", "network", "first look"])
def test_what_changes_the_time_of_an_arm_is_timed_anew(pictures, tmp_path, monkeypatch, change):
    monkeypatch.setattr("pipeline.larger.seconds_of", by_pixels)
    split = Split(pictures, plan_windows(pictures, Windows(size=48), {}), Full({}, 0.0))
    specs = {"big": "larger:sr", "sr": "lanczos"}
    upscalers = {"sr": open_upscaler("bicubic", scale=4)}
    timed = Timed(split, Join(), 4, find_bright)
    first = zooms(specs, upscalers, timed, scale=4, folder=tmp_path, key={"detector": "a"})
    calls = []
    monkeypatch.setattr(
        "pipeline.larger.seconds_of", lambda *given: calls.append(1) or 2 * by_pixels(*given)
    )
    again = zooms(specs, upscalers, timed, scale=4, folder=tmp_path, key={"detector": "a"})
    assert (again, calls) == (first, [])
    if change == "windows":
        other = replace(split, plan=plan_windows(pictures, Windows(size=32), {}))
        timed = replace(timed, split=other)
    if change == "first look":
        timed = replace(timed, join=Join(full=True))
    if change == "network":
        specs = {**specs, "sr": "nearest"}
    key = {"detector": "b" if change == "detector" else "a"}
    zooms(specs, upscalers, timed, scale=4, folder=tmp_path, key=key)
    assert calls


def test_the_report_sets_an_arm_against_the_larger_picture_of_its_time(scene, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.larger.seconds_of", by_pixels)
    arms = ("--arms", "larger", "larger@1.5", "larger:sr", f"sr={scene / 'sr.safetensors'}")
    assert cli.main(words(scene, *arms)) == 0
    numbers = json.loads((scene / "study" / "study.json").read_text())
    rows = {(g["arm"], g["reference"], g["metric"]) for g in numbers["same_time"]}
    assert rows == {("sr", "larger in sr time", metric) for metric in ("AP", "AP_small")}
    assert numbers["larger"]["larger 1.5"]["factor"] == 1.5
    page = (scene / "study" / "report.html").read_text()
    assert "The whole picture at larger input" in page
    assert "larger in sr time" in page
    said = " ".join(capsys.readouterr().out.split())
    assert "Against the whole picture, enlarged by bicubic to take as long: sr" in said


def test_gains_over_the_larger_picture_are_paired_and_shown_beside_both_times(pictures):
    truth = pictures.truth
    every = truth_as_detections(truth)
    nothing = {image: found.select(found.scores > 2) for image, found in every.items()}
    arms = [
        ArmResult(name, spec, found, evaluate(truth, found), 0.011, seconds, 1.0)
        for name, spec, found, seconds in (
            ("bicubic", "bicubic", nothing, 0.22), ("sr", "srresnet_small_x4", every, 0.44),
            ("big", "larger:sr", nothing, 0.55), ("alone", "larger:gone", nothing, 0.1),
        )
    ]  # fmt: skip
    quick = Statistics(resamples=20, permutations=0)
    measures = measure_arms(truth, arms, reference="bicubic", statistics=quick)
    over = {gain.metric: gain for gain in measures.same_time}
    assert set(over) == {"AP", "AP_small"}
    assert (over["AP"].arm, over["AP"].reference) == ("sr", "big")
    assert over["AP"].difference == pytest.approx(1.0)
    chosen = {"big": Zoom(1.83, "sr", 0.05, 0.051, 4), "alone": Zoom(2.0)}
    big, alone = larger_table(arms, measures, chosen).rows
    assert big[:5] == ("big", "× 1.83", "sr", "50 and 51", "51 and 41")
    assert big[6].startswith("+100.0 (")
    assert alone[1:] == ("× 2", "–", "–", "10.1", "0.0", "–", "–")
