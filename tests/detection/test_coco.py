import contextlib
import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detection import Detections
from detection.boxes import xywh_to_xyxy
from detection.coco import bin_name, check_categories, evaluate, read_coco, truth_as_detections
from detection.truth import CocoSet

MakeSet = Callable[..., CocoSet]


def random_set(make_set: MakeSet, *, images: int = 12, seed: int = 0) -> CocoSet:
    random = torch.Generator().manual_seed(seed)
    rows = []
    for image in range(1, images):  # the last one stays empty
        for _ in range(int(torch.randint(1, 9, (), generator=random))):
            x, y = (torch.rand(2, generator=random) * torch.tensor([240.0, 200.0])).tolist()
            width, height = (4 + torch.rand(2, generator=random) * 120).tolist()
            category = int(torch.randint(1, 4, (), generator=random))
            rows.append((image, [x, y, width, height], category))
    names = {1: "car", 2: "boat", 3: "aircraft"}
    return make_set(rows, images=images, size=(400, 400), categories=names)


def shaken(truth: CocoSet, *, pixels: float, seed: int = 1) -> dict[int, Detections]:
    """The truth with moved corners and random scores."""
    random = torch.Generator().manual_seed(seed)
    moved = {}
    for image, found in truth_as_detections(truth).items():
        noise = pixels * torch.randn(len(found), 4, generator=random)
        scores = torch.rand(len(found), generator=random)
        moved[image] = Detections(found.boxes + noise, scores, found.labels)
    return moved


def scaled_set(truth: CocoSet, scale: float) -> CocoSet:
    objects = {
        image: type(found)(found.boxes * scale, found.labels, found.areas * scale**2, found.crowds)
        for image, found in truth.objects.items()
    }
    return CocoSet(truth.path, truth.images, truth.categories, objects, [])


def test_the_truth_as_detections_has_an_average_precision_of_one(make_set: MakeSet) -> None:
    truth = random_set(make_set)
    metrics = evaluate(truth, truth_as_detections(truth)).metrics
    assert {name: value for name, value in metrics.items() if not math.isnan(value)} == (
        pytest.approx({name: 1.0 for name, value in metrics.items() if not math.isnan(value)})
    )
    assert not math.isnan(metrics["AP_small"])


def test_the_figures_are_those_of_pycocotools_own_summary(
    make_set: MakeSet, tmp_path: Path
) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = random_set(make_set)
    found = shaken(truth, pixels=4)
    rows = [
        {"image_id": i, "category_id": c, "bbox": [x, y, X - x, Y - y], "score": s}
        for i, d in found.items()
        for (x, y, X, Y), s, c in zip(
            d.boxes.double().tolist(), d.scores.tolist(), d.labels.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        real = COCO(str(truth.path))
        run = COCOeval(real, real.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    ours = evaluate(truth, found).metrics
    names = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
    assert [ours[name] for name in names] == pytest.approx(list(run.stats[:6]), abs=1e-9)
    assert ours["AR"] == pytest.approx(run.stats[8], abs=1e-9)
    assert 0.1 < ours["AP"] < 0.9


def test_three_hundred_objects_in_a_picture_all_count(make_set: MakeSet) -> None:
    # pycocotools' usual limit of 100 would give 0.337.
    grid = [(1, [12.0 * (i % 20), 12.0 * (i // 20), 8, 8], 1) for i in range(300)]
    truth = make_set(grid, size=(300, 300))
    perfect = truth_as_detections(truth)
    assert evaluate(truth, perfect).metrics["AP"] == pytest.approx(1.0)
    assert evaluate(truth, perfect, max_detections=100).metrics["AP"] == pytest.approx(
        0.337, abs=1e-3
    )


def test_the_limit_on_detections_counts_all_categories_together(make_set: MakeSet) -> None:
    grid = [(1, [12.0 * (i % 20), 12.0 * (i // 20), 8, 8], i % 2 + 1) for i in range(100)]
    truth = make_set(grid, size=(300, 300))
    found = truth_as_detections(truth)
    found[1] = Detections(found[1].boxes, torch.linspace(1, 0.5, 100), found[1].labels)
    assert evaluate(truth, found, max_detections=50).metrics["AR"] == pytest.approx(0.5)


def test_no_detections_at_all_give_zero(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 10, 10], 1)])
    for nothing in ({}, {1: Detections.empty()}):
        metrics = evaluate(truth, nothing).metrics
        assert metrics["AP"] == 0
        assert metrics["AP50"] == 0
        assert metrics["AR"] == 0


def test_sizes_without_objects_are_not_a_number(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 10, 10], 1)])
    metrics = evaluate(truth, truth_as_detections(truth)).metrics
    assert math.isnan(metrics["AP_large"])
    assert math.isnan(metrics["AP_48_96"])
    assert metrics["AP_8_16"] == pytest.approx(1.0)


def test_images_without_detections_count(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 10, 10], 1), (2, [0, 0, 10, 10], 1)], images=2)
    half = {1: truth_as_detections(truth)[1]}
    assert evaluate(truth, half).metrics["AR"] == pytest.approx(0.5)


def test_measuring_in_enlarged_pixels_would_empty_the_small_sizes(make_set: MakeSet) -> None:
    truth = make_set([(1, [5, 5, 12, 12], 1), (1, [30, 30, 20, 20], 1)])
    found = truth_as_detections(truth)
    enlarged = {image: detections.affine(4.0, 0, 0) for image, detections in found.items()}
    right = evaluate(truth, found).metrics
    wrong = evaluate(scaled_set(truth, 4), enlarged).metrics
    assert right["AP"] == wrong["AP"] == pytest.approx(1.0)
    assert right["AP_small"] == pytest.approx(1.0)
    assert math.isnan(wrong["AP_small"])


def test_the_annotated_area_decides_the_size_not_the_box(
    make_set: MakeSet, write_coco: Callable[..., Path]
) -> None:
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 500}
    truth = read_coco(write_coco(annotations=[row]))
    assert evaluate(truth, truth_as_detections(truth)).objects["small"] == 1


def test_a_bin_leaves_its_upper_end_to_the_next(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 8, 8], 1), (1, [20, 20, 16, 16], 1), (1, [50, 50, 4, 4], 1)])
    objects = evaluate(truth, truth_as_detections(truth)).objects
    assert [objects[name] for name in ("0_8", "8_16", "16_24")] == [1, 1, 1]


def test_bins_can_be_chosen(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 6, 6], 1)])
    metrics = evaluate(truth, truth_as_detections(truth), bins=[(2, 8), (8, math.inf)]).metrics
    assert metrics[f"AP_{bin_name(2, 8)}"] == pytest.approx(1.0)
    assert math.isnan(metrics["AP_8_inf"])


@pytest.mark.parametrize("offset", [-1, 1])
def test_category_ids_off_by_one_are_refused(make_set: MakeSet, offset: int) -> None:
    truth = random_set(make_set)
    found = {
        image: Detections(d.boxes, d.scores, d.labels + offset)
        for image, d in truth_as_detections(truth).items()
    }
    with pytest.raises(ValueError, match=r"category ids \[[04]\].*positions of its own list"):
        check_categories(truth, found)
    with pytest.raises(ValueError, match="category ids"):
        evaluate(truth, found)


def test_detections_of_an_unknown_image_are_refused(make_set: MakeSet) -> None:
    truth = make_set([(1, [0, 0, 6, 6], 1)])
    with pytest.raises(ValueError, match="image id 5"):
        evaluate(truth, {5: Detections.empty()})


def test_annotation_ids_from_zero_are_found_as_well(write_coco: Callable[..., Path]) -> None:
    # pycocotools takes a match with object 0 for no match.
    row = {"id": 0, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40]}
    truth = read_coco(write_coco(annotations=[row]))
    assert evaluate(truth, truth_as_detections(truth)).metrics["AP"] == pytest.approx(1.0)


def test_detections_in_a_crowd_region_count_neither_way(write_coco: Callable[..., Path]) -> None:
    rows = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [40, 40, 40, 40], "iscrowd": 1},
    ]
    truth = read_coco(write_coco(annotations=rows))
    inside = torch.tensor([[42.0, 42, 50, 50], [0.0, 0, 10, 10]])
    labels = torch.tensor([1, 1])
    found = {1: Detections(inside, torch.tensor([0.9, 0.5]), labels)}
    assert evaluate(truth, found).metrics["AP"] == pytest.approx(1.0)


def test_evaluation_prints_nothing(make_set: MakeSet, capsys: pytest.CaptureFixture[str]) -> None:
    truth = make_set([(1, [0, 0, 6, 6], 1)])
    evaluate(truth, truth_as_detections(truth))
    assert capsys.readouterr() == ("", "")


def test_a_detector_blind_to_small_objects_gains_by_enlargement(make_set: MakeSet) -> None:
    rows = [(1, [20.0 * (i % 5), 20.0 * (i // 5), 4 + i, 4 + i], 1) for i in range(12)]
    truth = make_set(rows, size=(400, 400))
    objects = truth_as_detections(truth)[1]

    def blind(scale: float) -> Detections:
        seen = objects.affine(scale, 0, 0)
        return seen.select(seen.sides() >= 12).affine(1 / scale, 0, 0)

    plain, enlarged = (evaluate(truth, {1: blind(scale)}).metrics for scale in (1.0, 4.0))
    assert plain["AP_0_8"] == 0
    assert enlarged["AP_0_8"] == pytest.approx(1.0)
    assert plain["AP_8_16"] < enlarged["AP_8_16"] == pytest.approx(1.0)


def test_boxes_are_xywh_for_pycocotools(make_set: MakeSet) -> None:
    truth = make_set([(1, [30, 40, 10, 20], 1)])
    found = {
        1: Detections(
            xywh_to_xyxy(torch.tensor([[30.0, 40, 10, 20]])),
            torch.ones(1),
            torch.ones(1, dtype=torch.int64),
        )
    }
    assert evaluate(truth, found).metrics["AP"] == pytest.approx(1.0)
