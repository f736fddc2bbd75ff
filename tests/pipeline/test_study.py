import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from detection.boxes import Detections
from detection.gain import paired_gains
from detection.group import Merge
from detection.windows import WindowPlan
from pipeline.arm_runs import Rules, run_arm
from pipeline.arms import CROPS, LARGER, NONE, ORIGINAL
from pipeline.calibrating import calibrated, chosen_merge
from pipeline.pictures import write_picture
from pipeline.plans import plan_windows
from pipeline.study import Full, Split, find_in_full, load_pictures
from pipeline.study_settings import Join, Windows
from pipeline.upscalers import open_upscaler
from sr_module.degrade import Degradation

SIDE = 96
SQUARES = {1: [(20, 24, 36, 40)], 2: [(52, 40, 60, 48), (12, 60, 28, 76)], 3: []}


def write_squares(folder: Path, squares=SQUARES) -> Path:
    """A COCO set of bright squares on grey; returns the annotation file."""
    images, annotations = [], []
    for image, boxes in squares.items():
        picture = torch.full((3, SIDE, SIDE), 60, dtype=torch.uint8)
        for x0, y0, x1, y1 in boxes:
            picture[:, y0:y1, x0:x1] = 220
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": 7, "bbox": box}
            )
        write_picture(picture, folder / "images" / f"{image}.png")
        name = {"file_name": f"{image}.png", "width": SIDE, "height": SIDE}
        images.append({"id": image, **name})
    coco = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "square"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(coco))
    return path


def with_sizes(path: Path, times: float) -> Path:
    """The same annotations for pictures so many times as large."""
    coco = json.loads(path.read_text())
    for image in coco["images"]:
        image["width"], image["height"] = round(SIDE * times), round(SIDE * times)
    for row in coco["annotations"]:
        row["bbox"] = [side * times for side in row["bbox"]]
    path.write_text(json.dumps(coco))
    return path


@pytest.mark.parametrize("times", [0.5, 2])
def test_boxes_of_a_larger_or_smaller_copy_are_refused_before_anything_is_measured(tmp_path, times):
    path = with_sizes(write_squares(tmp_path), times)
    with pytest.raises(ValueError, match=r"its boxes would be wrong.*3 of 3 pictures"):
        load_pictures([path], [tmp_path / "images"], degradation=None, limit=None)


def test_other_pictures_of_the_same_name_in_two_sets_are_not_dropped_unsaid(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    both = [write_squares(folder) for folder in folders]
    images = [folder / "images" for folder in folders]
    joined = load_pictures(both, images, degradation=None, limit=None)
    assert len(joined.truth.images) == 3  # the same pictures twice count once
    shade = torch.linspace(0, 255, SIDE).to(torch.uint8).expand(3, SIDE, SIDE)
    write_picture(shade, images[1] / "2.png")
    with pytest.raises(ValueError, match=r"b/images/2\.png are different pictures of one name"):
        load_pictures(both, images, degradation=None, limit=None)


def test_a_picture_with_two_entries_does_not_lose_the_objects_of_one(tmp_path):
    path = write_squares(tmp_path)
    coco = json.loads(path.read_text())
    coco["images"].append({**coco["images"][0], "id": 9})
    coco["annotations"][0]["image_id"] = 9
    path.write_text(json.dumps(coco))
    with pytest.raises(ValueError, match=r"names the picture 1\.png 2 times; give each file one"):
        load_pictures([path], [tmp_path / "images"], degradation=None, limit=None)


def turn(folder: Path, orientation: int) -> None:
    """Rewrites every picture as a camera held so would have stored it."""
    exif = Image.Exif()
    exif[274] = orientation
    for file in folder.glob("*.png"):
        with Image.open(file) as opened:
            opened.resize((SIDE, 80)).save(file, exif=exif)


def test_boxes_of_the_stored_picture_are_refused_where_exif_turns_it(tmp_path):
    path = write_squares(tmp_path)
    turn(tmp_path / "images", 6)
    coco = json.loads(path.read_text())
    for image in coco["images"]:
        image["height"] = 80
    path.write_text(json.dumps(coco))
    with pytest.raises(ValueError, match="its EXIF data may turn it by 90 degrees: take the tag"):
        load_pictures([path], [tmp_path / "images"], degradation=None, limit=None)
    for image in coco["images"]:
        image["width"], image["height"] = 80, SIDE
    path.write_text(json.dumps(coco))
    load_pictures([path], [tmp_path / "images"], degradation=None, limit=None)


def test_a_half_turn_that_no_size_tells_is_told(tmp_path, caplog):
    path = write_squares(tmp_path)
    load_pictures([path], [tmp_path / "images"], degradation=None, limit=None)
    assert not caplog.records
    exif = Image.Exif()
    exif[274] = 3
    with Image.open(tmp_path / "images" / "2.png") as opened:
        opened.save(tmp_path / "images" / "2.png", exif=exif)
    load_pictures([path], [tmp_path / "images"], degradation=None, limit=None)
    assert "1 of 3 pictures are turned by 180 degrees" in caplog.text


def find_bright(pictures):
    """A detector that needs no training: boxes of rows and columns where a picture is bright."""
    found = []
    for picture in pictures:
        bright = picture.mean(0) > 0.55
        parts = [
            _box(half, x)
            for x, half in (
                (0, bright[:, : bright.shape[1] // 2]),
                (bright.shape[1] // 2, bright[:, bright.shape[1] // 2 :]),
            )
        ]
        boxes = torch.tensor([part for part in parts if part], dtype=torch.float32).reshape(-1, 4)
        found.append(
            Detections(
                boxes, torch.ones(len(boxes)), torch.full((len(boxes),), 7, dtype=torch.int64)
            )
        )
    return found


def _box(mask, left):
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    if not len(rows):
        return None
    x0, x1 = int(columns[0]) + left, int(columns[-1]) + 1 + left
    return [x0, int(rows[0]), x1, int(rows[-1]) + 1]


@pytest.fixture
def pictures(tmp_path):
    annotations = write_squares(tmp_path)
    return load_pictures(
        [annotations], [tmp_path / "images"], degradation=Degradation(4), limit=None
    )


WHOLE = Windows(size=SIDE)


def split(pictures, windows=WHOLE):
    full = find_in_full(pictures, find_bright)
    return Split(pictures, plan_windows(pictures, windows, full.found), full)


def arm(pictures, spec, *, name="", windows=WHOLE, held=None):
    upscaler = None if spec in (NONE, ORIGINAL, CROPS) else open_upscaler(spec, scale=4)
    return run_arm(
        name or spec, spec, split=split(pictures, windows), held=held,
        rules=Rules(find_bright, Join(), Merge(), batch_size=2), upscaler=upscaler,
    )  # fmt: skip


def test_a_perfect_detector_on_the_original_pictures_scores_one(pictures):
    assert arm(pictures, ORIGINAL).evaluation.metrics["AP"] == pytest.approx(1.0)


def test_enlarged_windows_find_large_squares_where_they_are_in_original_pixels(pictures):
    found = arm(pictures, "bicubic").found[1]
    assert len(found) == 1
    assert torch.allclose(found.boxes[0], torch.tensor([20.0, 24.0, 36.0, 40.0]), atol=1.0)


def test_the_arm_without_windows_sees_only_the_reduced_picture(pictures):
    result = arm(pictures, NONE)
    assert result.megapixels == 0
    assert torch.equal(result.found[1].boxes % 4, torch.zeros(1, 4))  # whole reduced pixels


def test_windows_that_are_not_enlarged_see_the_reduced_pixels(pictures):
    result = arm(pictures, CROPS)
    assert torch.equal(result.found[1].boxes, arm(pictures, NONE).found[1].boxes)


def test_scores_are_calibrated_on_pictures_set_aside_and_told_raw_and_calibrated(pictures):
    held = split(pictures.only([1]))
    result = arm(pictures.only([2, 3]), "bicubic", held=held)
    assert set(result.found) == {2, 3}
    assert result.calibration.fallbacks  # one object is far too little to learn from
    raw, calibrated = result.trust["windows"]
    assert raw.count == calibrated.count == (*[0] * 14, 2)
    assert raw.ece == calibrated.ece == 0
    assert torch.equal(result.found[2].scores, torch.ones(2))


def test_enlarged_pixels_are_counted(pictures):
    assert arm(pictures, "bicubic").megapixels == pytest.approx(3 * SIDE**2 / 1e6)


def test_two_equal_arms_differ_by_exactly_nothing(pictures):
    evaluations = {
        name: arm(pictures, "bicubic", name=name).evaluation for name in ("bicubic", "twin")
    }
    gains = paired_gains(evaluations, reference="bicubic", resamples=50, metrics=("AP", "AP50"))
    assert [(gain.arm, gain.metric) for gain in gains] == [("twin", "AP"), ("twin", "AP50")]
    for gain in gains:
        assert (gain.difference, gain.low, gain.high) == (0, 0, 0)
        assert gain.verdict == "inconclusive"


def test_windows_lie_on_whole_given_pixels_and_inside_the_picture(pictures):
    plan = plan_windows(pictures, Windows(size=48, overlap=0.3), {})
    assert isinstance(plan, WindowPlan)
    for windows in plan.windows.values():
        assert len(windows) == 9
        for window in windows:
            assert window.x % 4 == window.y % 4 == window.width % 4 == 0
            assert window.x + window.width <= SIDE


def test_guided_windows_look_where_the_whole_picture_pass_is_in_doubt(pictures):
    doubtful = Detections(
        torch.tensor([[52.0, 40.0, 60.0, 48.0]]), torch.tensor([0.4]), torch.tensor([7])
    )
    full = {1: Detections.empty(), 2: doubtful, 3: Detections.empty()}
    plan = plan_windows(pictures, Windows("guided", size=32), full)
    assert [len(plan.windows[image]) for image in (1, 2, 3)] == [0, 1, 0]
    (window,) = plan.windows[2]
    assert window.x <= 52
    assert window.x + window.width >= 60


def test_noise_of_a_picture_is_the_same_in_every_arm(tmp_path):
    annotations = write_squares(tmp_path)
    noisy = load_pictures(
        [annotations], [tmp_path / "images"],
        degradation=Degradation(4, noise_sigma=8.0), limit=None,
    )  # fmt: skip
    assert torch.equal(noisy.given(1), noisy.given(1))
    assert not torch.equal(noisy.given(1)[:, :4, :4], noisy.given(2)[:, :4, :4])


def test_a_native_study_gives_the_pictures_as_they_are(tmp_path):
    annotations = write_squares(tmp_path)
    native = load_pictures([annotations], [tmp_path / "images"], degradation=None, limit=None)
    assert native.reduction == 1
    assert torch.equal(native.given(2), native.original(2))


def test_two_annotation_files_become_one_set_and_a_shared_picture_counts_once(tmp_path):
    first = write_squares(tmp_path / "a")
    second = write_squares(tmp_path / "b", {5: [(4, 4, 20, 20)], 1: [(20, 24, 36, 40)]})
    joined = load_pictures(
        [first, second], [first.parent / "images", second.parent / "images"],
        degradation=None, limit=None,
    )  # fmt: skip
    assert [picture.file_name for picture in joined.truth.images] == [
        "1.png", "2.png", "3.png", "5.png",
    ]  # fmt: skip
    assert joined.paths[4].parent.parent.name == "b"
    assert joined.truth.objects[4].boxes.tolist() == [[4, 4, 20, 20]]


def test_files_with_different_categories_are_refused(tmp_path):
    first, second = write_squares(tmp_path / "a"), write_squares(tmp_path / "b")
    second.write_text(second.read_text().replace('"square"', '"circle"'))
    with pytest.raises(ValueError, match="different categories"):
        load_pictures(
            [first, second], [first.parent / "images", second.parent / "images"],
            degradation=None, limit=None,
        )  # fmt: skip


def test_every_annotation_file_needs_its_folder(tmp_path):
    with pytest.raises(ValueError, match="one folder for each file"):
        load_pictures([write_squares(tmp_path)], [], degradation=None, limit=None)


def test_a_limit_takes_the_first_pictures(tmp_path):
    annotations = write_squares(tmp_path)
    few = load_pictures([annotations], [tmp_path / "images"], degradation=None, limit=2)
    assert [picture.id for picture in few.truth.images] == [1, 2]


def test_what_lies_in_a_region_without_annotations_counts_in_no_arm(tmp_path):
    path = write_squares(tmp_path)
    coco = json.loads(path.read_text())
    coco["categories"].append({"id": 9, "name": "Ignored regions"})
    (taken,) = [a for a in coco["annotations"] if a["image_id"] == 1]
    taken |= {"category_id": 9, "bbox": [10, 10, 50, 50]}
    path.write_text(json.dumps(coco))
    folder = tmp_path / "images"
    pictures = load_pictures([path], [folder], degradation=Degradation(4), limit=None)
    assert pictures.truth.categories == {7: "square"}
    assert len(pictures.truth.objects[1]) == 0
    for spec in ("bicubic", NONE, ORIGINAL):
        result = arm(pictures, spec)
        assert len(result.found[1]) == 0  # the square that lies there is no false detection
        assert len(result.found[2])
    assert arm(pictures, ORIGINAL).evaluation.metrics["AP"] == pytest.approx(1.0)
    plain = load_pictures([path], [folder], degradation=Degradation(4), limit=None, ignored=[])
    assert set(plain.truth.categories) == {7, 9}


def test_what_lies_in_a_region_takes_no_place_among_the_best_of_a_picture(pictures):
    boxes = torch.tensor([[4.0, 4, 12, 12], [60, 60, 70, 70]])
    sure = Detections(boxes, torch.tensor([0.9, 0.5]), torch.tensor([7, 7]))
    within = replace(pictures, regions={1: torch.tensor([[0.0, 0, 20, 20]])})
    laid = replace(split(within), full=Full(dict.fromkeys((1, 2, 3), sure), 0.0))
    rules = Rules(find_bright, Join(), Merge(), max_detections=1)
    found = run_arm("none", NONE, split=laid, rules=rules, upscaler=None).found
    assert found[1].boxes.tolist() == boxes[1:].tolist()
    assert found[2].boxes.tolist() == boxes[:1].tolist()


def test_what_lies_in_a_region_teaches_nothing_about_scores(pictures, monkeypatch):
    boxes = torch.tensor([[52.0, 40, 60, 48], [12, 60, 28, 76], [80, 80, 90, 90]])
    seen = Detections(boxes, torch.full((3,), 0.5), torch.full((3,), 7))
    regions = {2: torch.tensor([[78.0, 78, 96, 96]])}
    shown, tried = [], []

    def one(pictures):
        return replace(split(pictures), full=Full({2: seen}, 0.0))

    def recording(calls, function):
        return lambda *given: calls.append(given[1]) or function(*given)

    monkeypatch.setattr("pipeline.arm_runs.calibrated", recording(shown, calibrated))
    monkeypatch.setattr("pipeline.arm_runs.chosen_merge", recording(tried, chosen_merge))
    alone = replace(pictures.only([2]), regions=regions)
    rules = Rules(find_bright, Join(), Merge(), tune=True)
    result = run_arm("none", NONE, split=one(alone), rules=rules, upscaler=None, held=one(alone))
    assert len(shown[0]["whole picture"][2]) == len(tried[0][2]) == 2
    raw, _ = result.trust["whole picture"]
    assert sum(raw.count) == 2


@pytest.mark.parametrize("zoom", [3.0, 1.55, 0.83])
def test_the_larger_picture_finds_what_it_shows_where_it_is_in_original_pixels(pictures, zoom):
    rules = Rules(find_bright, Join(), Merge(), batch_size=2, zooms={LARGER: zoom})
    result = run_arm(LARGER, LARGER, split=split(pictures), rules=rules, upscaler=None)
    (box,) = result.found[1].boxes
    # a box ends on whole pixels of the enlarged picture, which are 4 / zoom of the original's
    assert torch.allclose(box, torch.tensor([20.0, 24.0, 36.0, 40.0]), atol=0.51 * 4 / zoom)
    assert result.megapixels == pytest.approx(3 * math.ceil(zoom * SIDE / 4) ** 2 / 1e6)


def test_an_arms_merge_is_tuned_on_the_pictures_set_aside(pictures):
    rules = Rules(find_bright, Join(), Merge("wbf"), calibrate=False, tune=True)
    result = run_arm(
        "bicubic", "bicubic", split=split(pictures.only([2, 3])), rules=rules,
        upscaler=open_upscaler("bicubic", scale=4), held=split(pictures.only([1])),
    )  # fmt: skip
    assert result.merge.best == result.merge.candidates[0]  # all are equally good: the first
    assert len(result.merge.values) == 14
    assert result.calibration is None
