import json
from pathlib import Path

import pytest

from detection.truth import CocoSet, Picture
from pipeline.calibrating import set_aside
from pipeline.groups import scene_groups

NAMES = ("0_a_1.png", "0_a_2.png", "1_b_1.png", "1_c_1.png")


@pytest.fixture
def coco(tmp_path) -> Path:
    images = [
        {"id": i, "file_name": name, "width": 8, "height": 8, "video_id": i // 2}
        for i, name in enumerate(NAMES)
    ]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images}))
    return tmp_path / "coco.json"


@pytest.fixture
def truth(coco) -> CocoSet:
    images = tuple(Picture(10 + i, name, 8, 8) for i, name in enumerate(NAMES))
    return CocoSet(coco, images, {1: "thing"}, {}, [])


def test_scenes_come_from_a_field_of_the_annotation_file(truth, coco):
    groups = scene_groups("video_id", truth, [coco])
    assert groups == {10: "0", 11: "0", 12: "1", 13: "1"}


def test_scenes_come_from_a_pattern_in_the_file_name(truth, coco):
    groups = scene_groups(r"^(\d)_(\w)_", truth, [coco])
    assert groups == {10: "0/a", 11: "0/a", 12: "1/b", 13: "1/c"}


@pytest.mark.parametrize("form", ["csv", "json"])
def test_scenes_come_from_a_file_of_names(truth, coco, form):
    path = coco.parent / f"scenes.{form}"
    scenes = dict(zip(NAMES, ("x", "x", "y", "y"), strict=True))
    rows = "".join(f"{name},{scene}\n" for name, scene in scenes.items())
    path.write_text(rows if form == "csv" else json.dumps(scenes))
    assert set(scene_groups(str(path), truth, [coco]).values()) == {"x", "y"}


@pytest.mark.parametrize(
    ("how", "says"),
    [("scene", "no field of the images"), (r"^(7)", "names no group for 0_a_1.png"),
     ("(", "is no pattern"), ("(png)", "all 4 pictures into one group")],
)  # fmt: skip
def test_what_names_no_scenes_is_refused_with_what_is_allowed(truth, coco, how, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        scene_groups(how, truth, [coco])


def test_without_groups_each_picture_stands_for_itself(truth, coco):
    assert scene_groups(None, truth, [coco]) == {}


@pytest.mark.parametrize("seed", range(5))
def test_frames_of_a_scene_are_set_aside_together(seed):
    groups = {image: str(image // 3) for image in range(12)}
    kept, held = set_aside(list(groups), 0.25, seed=seed, groups=groups)
    assert len(held) == 3
    assert not {groups[i] for i in kept} & {groups[i] for i in held}


def test_one_scene_cannot_be_divided():
    with pytest.raises(ValueError, match="no group on one side"):
        set_aside([1, 2, 3, 4], 0.25, seed=0, groups=dict.fromkeys((1, 2, 3, 4), "all"))
