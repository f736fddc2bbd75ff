import json
from dataclasses import replace

import pytest
import torch

from detection.boxes import Detections
from detection.coco import truth_as_detections
from pipeline import cli
from pipeline.compare import compare
from pipeline.study import load_pictures
from pipeline.study_files import load_detections, load_truth, save_detections, save_truth
from pipeline.study_settings import Statistics
from tests.pipeline.test_study import write_squares

QUICK = Statistics(resamples=50, permutations=200)
SQUARES = {image: [(20, 24, 36, 40), (50, 50, 56, 56)] for image in range(1, 9)}


@pytest.fixture
def truth(tmp_path):
    path = write_squares(tmp_path / "set", SQUARES)
    return load_pictures(
        [path], [path.parent / "images"], degradation=None, limit=None
    ).truth  # fmt: skip


@pytest.fixture
def studies(tmp_path, truth):
    """A study whose arm finds every other object, and one whose arm finds all."""
    every = truth_as_detections(truth)
    half = {image: found.select(torch.tensor([0])) for image, found in every.items()}
    for name, found in (("half", half), ("all", every)):
        (tmp_path / name).mkdir()
        save_truth(truth, tmp_path / name)
        save_detections(found, tmp_path / name, "sr x4")
    return [tmp_path / "half", tmp_path / "all"]


def test_what_a_study_found_is_read_back_to_the_last_bit(tmp_path, truth):
    boxes = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) * 40
    boxes[:, 2:] += boxes[:, :2]
    found = {1: Detections(boxes, torch.rand(5), torch.full((5,), 7))}
    save_detections(found, tmp_path, "sr")
    again = load_detections(tmp_path, "sr", truth)
    assert torch.equal(again[1].boxes, boxes)
    assert torch.equal(again[1].scores, found[1].scores)
    assert len(again[2]) == 0


def test_the_truth_is_read_back_with_areas_and_ids(tmp_path, truth):
    save_truth(truth, tmp_path)
    again = load_truth(tmp_path)
    assert again.images == truth.images
    assert again.categories == truth.categories
    assert torch.equal(again.objects[3].areas, truth.objects[3].areas)


def test_two_studies_of_the_same_pictures_are_compared_in_pairs(studies, capsys, tmp_path):
    gains = {
        gain.metric: gain
        for gain in compare(studies, arm="sr x4", statistics=QUICK, out=tmp_path / "gain.json")
    }
    assert gains["AP_0_8"].objects == 8
    assert gains["AP_0_8"].difference == pytest.approx(1.0)
    assert gains["AP_16_24"].difference == 0
    assert gains["AP"].verdict == "helps"
    assert "AP_large" not in gains
    printed = capsys.readouterr().out
    assert "AP +49.5 points" in printed
    stored = json.loads((tmp_path / "gain.json").read_text())
    assert {test["metric"] for test in stored["tests"]} == {"AP", "AP_small"}


def test_two_arms_of_one_study_can_be_compared_but_no_arm_with_itself(studies):
    save_detections(load_detections(studies[0], "sr x4", load_truth(studies[0])), studies[0], "b")
    both = [studies[0], studies[0]]
    gain = compare(both, arm="b", reference_arm="sr x4", statistics=QUICK)[0]
    assert (gain.difference, gain.low, gain.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="compared with itself"):
        compare(both, arm="b", statistics=QUICK)


def test_studies_of_other_pictures_are_refused(studies, tmp_path):
    path = write_squares(tmp_path / "other", SQUARES | {1: [(1, 1, 9, 9)]})
    other = load_pictures([path], [path.parent / "images"], degradation=None, limit=None).truth
    save_truth(other, studies[1])
    with pytest.raises(ValueError, match="different pictures or objects"):
        compare(studies, arm="sr x4", statistics=QUICK)


def test_the_command_takes_two_folders_and_says_what_is_missing(studies, capsys):
    folders = [str(folder) for folder in studies]
    assert cli.main(["detect", "compare", *folders, "--arm", "esrgan"]) == 2
    assert "no arm 'esrgan'; it has sr_x4" in capsys.readouterr().err
    assert cli.main(["detect", "compare", folders[0], "--arm", "sr x4"]) == 2
    assert "two studies, got 1" in capsys.readouterr().err
    assert cli.main(["detect", "compare", folders[0], "nowhere", "--arm", "sr x4"]) == 2
    assert "finished study" in capsys.readouterr().err


def test_without_an_arm_every_arm_that_both_have_is_compared(studies, capsys):
    truth = load_truth(studies[0])
    found = load_detections(studies[0], "sr x4", truth)
    for folder, names in zip(studies, (("bicubic", "old"), ("bicubic", "new")), strict=True):
        for name in names:
            save_detections(found, folder, name)
    gains = compare(studies, statistics=QUICK)
    compared = {gain.arm.split(" of ")[0] for gain in gains}
    assert compared == {"bicubic", "sr_x4"}
    for gain in gains:
        if gain.arm.startswith("bicubic"):
            assert gain.difference == 0
    for path in studies[1].glob("detections_*"):
        path.unlink()
    with pytest.raises(ValueError, match="has the arms bicubic, old, sr_x4"):
        compare(studies, statistics=QUICK)


def told(folder, **settings):
    (folder / "study.json").write_text(json.dumps({"settings": settings}))


@pytest.mark.parametrize(
    ("key", "values"), [("protocol", ("native", "synthetic")), ("max_detections", (100, 500))]
)
def test_studies_of_other_rules_are_no_comparison(studies, key, values):
    for folder, value in zip(studies, values, strict=True):
        told(folder, **{key: value})
    with pytest.raises(ValueError, match=f"measured with {key} {values[0]} and .* {values[1]}"):
        compare(studies, arm="sr x4", statistics=QUICK)


def test_the_limit_of_the_studies_is_that_of_the_comparison(studies):
    for folder in studies:
        told(folder, protocol="native", max_detections=1)
    gain = compare(studies, arm="sr x4", statistics=QUICK)[0]
    assert (gain.metric, gain.value) == ("AP", gain.reference_value)  # one of two counts in both


def test_scenes_that_a_study_drew_are_drawn_again(studies, truth):
    arms = {"arm": "sr x4", "statistics": QUICK}
    assert compare(studies, **arms)[0].units == 8
    scenes = {picture.id: str(picture.id % 2) for picture in truth.images}
    for folder in studies:
        save_truth(truth, folder, scenes=scenes)
    assert compare(studies, **arms)[0].units == 2
    named = replace(QUICK, groups=r"^([1-3])|^([4-8])")
    assert compare(studies, arm="sr x4", statistics=named)[0].units == 8
