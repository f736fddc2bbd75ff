"""What was seen is kept: a crash loses one run of pictures, and nothing is looked at twice."""

import os
from dataclasses import replace
from functools import partial

import pytest
import torch

from pipeline.look import Look, Looking, look_at_all
from pipeline.plans import plan_windows
from pipeline.spread import RaySpread
from pipeline.study import load_pictures
from pipeline.study_settings import Windows
from pipeline.upscalers import open_upscaler
from tests.pipeline.test_study import SIDE, find_bright, write_squares

SQUARES = {
    1: [(20, 24, 36, 40)], 2: [(52, 40, 60, 48), (12, 60, 28, 76)], 3: [],
    4: [(10, 10, 30, 30)], 5: [(40, 8, 60, 30)],
}  # fmt: skip


@pytest.fixture
def looks(tmp_path):
    path = write_squares(tmp_path, SQUARES)
    pictures = load_pictures([path], [tmp_path / "images"], degradation=None, limit=None)
    plan = plan_windows(pictures, Windows(size=SIDE // 2), {})
    return Look(pictures, plan, batch_size=3)


def eyes():
    return find_bright, open_upscaler("bicubic", scale=2)


class BlindError(Exception):
    """The detector dies."""


def counting(calls, *, dies_at=None):
    def find(pictures):
        if dies_at is not None and len(calls) == dies_at:
            raise BlindError
        calls.append(len(pictures))
        return find_bright(pictures)

    return find, open_upscaler("bicubic", scale=2)


def same(one, other):
    assert list(one.seen) == list(other.seen)
    for image, seen in one.seen.items():
        twin = other.seen[image]
        assert torch.equal(seen.found.boxes, twin.found.boxes)
        assert torch.equal(seen.found.scores, twin.found.scores)
        assert torch.equal(seen.found.labels, twin.found.labels)
        assert torch.equal(seen.window, twin.window)
        assert (seen.windows, seen.width, seen.height) == (twin.windows, twin.width, twin.height)


def test_a_crash_loses_one_run_and_the_next_start_goes_on_to_the_same_boxes(looks, tmp_path):
    how = Looking(at_once=2, folder=tmp_path / "seen")
    once, died, rest = [], [], []
    whole = look_at_all(looks, counting(once), Looking(at_once=2), title="arm")
    with pytest.raises(BlindError):
        look_at_all(looks, counting(died, dies_at=len(once) // 2), how, title="arm")
    done = len(list((tmp_path / "seen").rglob("*.safetensors")))
    assert 0 < done < len(looks.runs(2))
    again = look_at_all(looks, counting(rest), how, title="arm")
    assert sum(rest) < sum(once)
    same(whole, again)
    assert again.pixels == whole.pixels
    nothing = []
    same(whole, look_at_all(looks, counting(nothing), how, title="arm"))
    assert nothing == []


@pytest.mark.parametrize("change", ["windows", "detector", "spec", "pictures"])
def test_what_was_seen_otherwise_is_looked_at_again_and_the_old_goes(looks, tmp_path, change):
    folder = tmp_path / "seen"
    how = Looking(folder=folder, key={"detector": "a"})
    look_at_all(looks, eyes(), how, title="arm", spec="one")
    spec = "other" if change == "spec" else "one"
    if change == "windows":
        looks = replace(looks, plan=plan_windows(looks.pictures, Windows(size=SIDE), {}))
    if change == "detector":
        how = replace(how, key={"detector": "b"})
    if change == "pictures":
        looks.pictures.paths[1].write_bytes(looks.pictures.paths[2].read_bytes())
    calls = []
    look_at_all(looks, counting(calls), how, title="arm", spec=spec)
    assert calls
    assert len(list(folder.glob("*/*"))) == 1


def test_a_damaged_file_of_what_was_seen_is_looked_at_again(looks, tmp_path):
    how = Looking(at_once=2, folder=tmp_path / "seen")
    whole = look_at_all(looks, eyes(), how, title="arm")
    file = min((tmp_path / "seen").rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:40])
    calls = []
    same(whole, look_at_all(looks, counting(calls), how, title="arm"))
    assert calls


def test_whole_pictures_are_kept_too(looks, tmp_path):
    how = Looking(at_once=2, folder=tmp_path / "seen")
    whole = replace(looks, plan=None)
    calls = []
    first = look_at_all(whole, eyes(), how, title="whole pictures")
    same(first, look_at_all(whole, counting(calls), how, title="whole pictures"))
    assert calls == []


def dying_once(marker):
    """Eyes of which the first to look, in whatever process, end that process."""

    def find(pictures):
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return find_bright(pictures)
        os._exit(1)

    return find, open_upscaler("bicubic", scale=2)


@pytest.mark.slow
def test_workers_of_ray_find_the_same_boxes_to_the_last_bit_even_if_one_dies(looks, tmp_path):
    alone = look_at_all(looks, eyes(), Looking(at_once=1), title="arm")
    how = Looking(at_once=1, folder=tmp_path / "seen", spread=RaySpread(2))
    marker = tmp_path / "died"
    shared = look_at_all(looks, eyes(), how, title="arm", again=partial(dying_once, marker))
    assert marker.exists()
    same(alone, shared)
    assert shared.pixels == alone.pixels
    nothing = []
    same(alone, look_at_all(looks, counting(nothing), how, title="arm"))
    assert nothing == []
