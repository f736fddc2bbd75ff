"""Built-in scenes: repeatable, correctly boxed, camera-like, and written whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torchvision.ops import box_iou

from pipeline.pictures import read_picture
from pipeline.scenery.canvas import Sun, powerlaw_noise, swept
from pipeline.scenery.objects import KINDS
from pipeline.scenery.sprite import draw_sprite
from pipeline.scenes import CATEGORIES, Scene, render_scene, write_scenes

SUN = Sun(azimuth=0.7, elevation=0.8)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(seed) for seed in range(20)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, again, other = render_scene(5), render_scene(5), render_scene(6)
    assert torch.equal(first.picture, again.picture)
    assert torch.equal(first.boxes, again.boxes)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.picture, other.picture)


def test_another_process_draws_the_same_bytes():
    code = (
        "import hashlib; from pipeline.scenes import render_scene;"
        "print(hashlib.sha256(render_scene(5, size=160).picture.numpy().tobytes()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(digests) == 1


def test_a_scene_is_an_rgb_byte_picture_with_one_label_per_box(scenes):
    for scene in scenes:
        assert scene.picture.shape == (3, 320, 320)
        assert scene.picture.dtype == torch.uint8
        assert scene.boxes.dtype == torch.float32
        assert scene.labels.dtype == torch.int64
        assert scene.boxes.shape == (len(scene.labels), 4)


def test_every_picture_holds_8_to_25_objects_and_twenty_pictures_hold_every_class(scenes):
    assert all(8 <= len(scene.labels) <= 25 for scene in scenes)
    assert set(torch.cat([scene.labels for scene in scenes]).tolist()) == set(CATEGORIES)


def test_objects_are_6_to_40_pixels_long_and_most_are_small(scenes):
    boxes = torch.cat([scene.boxes for scene in scenes])
    longest = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    assert longest.min() >= 6
    assert longest.max() <= 40.5
    assert longest.median() < 20


def test_boxes_lie_inside_the_picture(scenes):
    for scene in scenes:
        assert scene.boxes.min() >= 0
        assert scene.boxes.max() <= 320


def test_boxes_of_neighbours_may_touch_but_hardly_overlap(scenes):
    for scene in scenes:
        overlap = box_iou(scene.boxes, scene.boxes).fill_diagonal_(0)
        assert overlap.max() < 0.45  # two long objects side by side at 45 degrees


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("heading", [0.0, 0.6, 2.5])
def test_a_box_is_tight_around_the_drawn_object_and_leaves_the_shadow_out(name, heading):
    rng = np.random.default_rng(3)
    body = KINDS[name].draw(rng, KINDS[name].longest)
    sprite = draw_sprite(body, np.array([50.3, 60.8]), heading=heading, metre=2.6, sun=SUN)
    rows = np.flatnonzero(sprite.cover[..., 0].any(axis=1)) + sprite.top
    columns = np.flatnonzero(sprite.cover[..., 0].any(axis=0)) + sprite.left
    left, top, right, bottom = sprite.box
    assert columns[0] <= left < columns[0] + 1
    assert columns[-1] < right <= columns[-1] + 1
    assert rows[0] <= top < rows[0] + 1
    assert rows[-1] < bottom <= rows[-1] + 1
    assert (sprite.shadow[sprite.cover == 0] > 0.5).any()  # there is a shadow, and it is elsewhere


@pytest.mark.parametrize("name", KINDS)
def test_the_edges_of_an_object_are_averaged_over_the_pixel(name):
    body = KINDS[name].draw(np.random.default_rng(0), KINDS[name].longest)
    sprite = draw_sprite(body, np.array([40.0, 40.0]), heading=0.4, metre=2.6, sun=SUN)
    partly = (sprite.cover > 0) & (sprite.cover < 0.999)
    assert partly.sum() > 0.1 * (sprite.cover > 0.999).sum()
    assert len(np.unique(sprite.cover)) > 12


def test_the_object_at_a_box_stands_out_from_the_ground_around_it(scenes):
    outstanding = []
    for scene in scenes:
        picture = scene.picture.float().mean(dim=0)
        for left, top, right, bottom in scene.boxes.round().int().tolist():
            inside = picture[top:bottom, left:right]
            ring = picture[max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3]
            outstanding.append(bool(inside.std() > 6 or (inside.mean() - ring.mean()).abs() > 3))
    assert np.mean(outstanding) > 0.95


def test_pictures_have_fine_detail_that_a_fourfold_reduction_loses(scenes):
    """Bicubic must leave an error for super-resolution to mend."""
    psnrs = []
    for scene in scenes:
        hr = scene.picture[None].float() / 255
        lr = torch.nn.functional.interpolate(hr, scale_factor=0.25, mode="bicubic", antialias=True)
        sr = torch.nn.functional.interpolate(lr, scale_factor=4, mode="bicubic")
        psnrs.append(float(-10 * torch.log10((hr - sr).square().mean())))
    assert 18 < np.mean(psnrs) < 30


def test_shadows_fall_away_from_the_sun():
    assert SUN.shadow(2.0) @ SUN.towards < 0
    assert np.linalg.norm(SUN.shadow(2.0)) == pytest.approx(2.0 / np.tan(0.8))


def test_a_swept_outline_reaches_from_its_foot_to_its_shifted_top():
    square = np.array([(0.0, 0.0), (1, 0), (1, 1), (0, 1)])
    points = np.concatenate(swept(square, np.array([3.0, 0.0])))
    assert points.min(axis=0).tolist() == [0, 0]
    assert points.max(axis=0).tolist() == [4, 1]


def test_noise_falls_with_frequency_as_asked():
    noise = powerlaw_noise(np.random.default_rng(0), 256, 1.0)
    power = np.abs(np.fft.fft2(noise)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    low, high = (power[np.abs(radius - f) < 0.01].mean() for f in (0.05, 0.4))
    assert low / high == pytest.approx((0.4 / 0.05) ** 2, rel=0.2)


def test_a_size_without_room_for_a_street_is_refused():
    with pytest.raises(ValueError, match=r"at least 128 pixels.*size=100"):
        render_scene(0, size=100)


def test_smaller_pictures_hold_fewer_objects():
    assert 1 <= len(render_scene(0, size=160).labels) <= 7


def test_written_scenes_are_a_valid_coco_set_of_the_rendered_pictures(tmp_path):
    steps: list[int] = []
    path = write_scenes(tmp_path / "set", count=3, size=160, seed=4, progress=steps.append)
    assert path == tmp_path / "set" / "annotations.json"
    assert steps == [1, 1, 1]
    coco = COCO(str(path))
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == CATEGORIES
    assert len(coco.getImgIds()) == 3
    assert coco.dataset["info"]["license"].startswith("CC0")
    for image in coco.loadImgs(coco.getImgIds()):
        picture = read_picture(path.parent / "images" / image["file_name"])
        assert picture.shape == (3, image["height"], image["width"])
        for row in coco.loadAnns(coco.getAnnIds(image["id"])):
            assert row["area"] == pytest.approx(row["bbox"][2] * row["bbox"][3])
            assert row["bbox"][0] + row["bbox"][2] <= image["width"]


def test_sets_of_neighbouring_seeds_share_no_picture(tmp_path):
    sets = [write_scenes(tmp_path / str(s), count=3, size=128, seed=s).parent for s in (0, 1)]
    bytes_of = [{p.read_bytes() for p in (folder / "images").iterdir()} for folder in sets]
    assert len(bytes_of[0] | bytes_of[1]) == 6


def test_interrupted_writing_leaves_nothing_half_written(tmp_path):
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "set", count=2, size=128, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_rewrite_keeps_the_old_set(tmp_path):
    path = write_scenes(tmp_path / "set", count=1, size=128)
    before = path.read_bytes()

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "set", count=2, size=128, seed=1, overwrite=True, progress=stop)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert len(json.loads(before)["images"]) == 1


def test_a_folder_with_content_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not empty"):
        write_scenes(tmp_path, count=1, size=128)


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="count=0"):
        write_scenes(tmp_path / "set", count=0)
