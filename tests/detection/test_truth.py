import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.truth import CocoSet, read_coco

CAR = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 10]}
Write = Callable[..., Path]


def test_a_plain_set_is_read_as_it_is_written(write_coco: Write) -> None:
    rows = [{**CAR, "area": 123.5, "iscrowd": 1}, {**CAR, "id": 2, "category_id": 2}]
    truth = read_coco(write_coco(images=2, annotations=rows))
    assert [(p.id, p.file_name, p.width, p.height) for p in truth.images] == [
        (1, "1.png", 100, 80),
        (2, "2.png", 100, 80),
    ]
    assert truth.categories == {1: "car", 2: "boat"}
    objects = truth.objects[1]
    assert objects.boxes.tolist() == [[10.0, 20, 40, 30], [10, 20, 40, 30]]
    assert objects.labels.tolist() == [1, 2]
    assert objects.areas.tolist() == [123.5, 300.0]  # a missing area is width times height
    assert objects.crowds.tolist() == [True, False]
    assert len(truth.objects[2]) == 0
    assert truth.skipped == []


def test_boxes_leave_crowd_regions_out_and_name_every_image(write_coco: Write) -> None:
    rows = [{**CAR, "iscrowd": 1}, {**CAR, "id": 2}]
    boxes = read_coco(write_coco(images=2, annotations=rows)).boxes
    assert {image: len(found) for image, found in boxes.items()} == {1: 1, 2: 0}


def test_extra_keys_are_ignored(write_coco: Write) -> None:
    row = {**CAR, "segmentation": [[1, 2, 3]], "attributes": {"truncated": 1}}
    truth = read_coco(write_coco(annotations=[row], info={"year": 2024}, licenses=[]))
    assert len(truth.objects[1]) == 1


def test_a_box_that_sticks_out_is_cut_and_told(write_coco: Write) -> None:
    truth = read_coco(write_coco(annotations=[{**CAR, "bbox": [90, -10, 20, 30]}]))
    assert truth.objects[1].boxes.tolist() == [[90.0, 0, 100, 20]]
    assert truth.objects[1].areas.tolist() == [200.0]
    assert len(truth.skipped) == 1
    assert "annotation id 1" in truth.skipped[0]
    assert "cut at the 100x80 picture" in truth.skipped[0]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([10, 10, 0, 5], "no extent"),
        ([10, 10, 5, -5], "no extent"),
        ([100, 10, 5, 5], "lies outside the picture of 100x80"),
        ([-9, -9, 5, 5], "lies outside the picture of 100x80"),
    ],
)
def test_a_box_of_which_nothing_is_left_is_left_out_and_told(
    write_coco: Write, box: list[float], reason: str
) -> None:
    truth = read_coco(write_coco(annotations=[CAR, {**CAR, "id": 7, "bbox": box}]))
    assert len(truth.objects[1]) == 1
    assert len(truth.skipped) == 1
    assert "annotation id 7: left out" in truth.skipped[0]
    assert reason in truth.skipped[0]


def test_an_object_annotated_twice_alike_counts_once_and_is_told(write_coco: Write) -> None:
    rows = [CAR, {**CAR, "id": 2}, {**CAR, "id": 3, "category_id": 2}]
    truth = read_coco(write_coco(annotations=rows))
    assert truth.objects[1].labels.tolist() == [1, 2]
    assert len(truth.skipped) == 1
    assert "annotation id 2: left out, the same box and category" in truth.skipped[0]


def test_two_objects_of_one_id_are_both_kept_and_told(write_coco: Write) -> None:
    truth = read_coco(write_coco(annotations=[CAR, {**CAR, "bbox": [50, 50, 4, 4]}]))
    assert len(truth.objects[1]) == 2
    assert "annotation id 1 is used twice; both objects are kept" in truth.skipped[0]


@pytest.mark.parametrize("area", [0, 0.0, 20 * 30 * 16])
def test_an_area_that_no_object_in_its_box_has_is_replaced_and_told(
    write_coco: Write, area: float
) -> None:
    row = {**CAR, "bbox": [10, 10, 20, 30], "area": area}
    truth = read_coco(write_coco(annotations=[row]))
    assert truth.objects[1].areas.tolist() == [600.0]
    assert f"area {area} is not that of an object in a box of 20 x 30" in truth.skipped[0]


def test_the_area_of_a_mask_is_kept_also_where_the_box_is_rounded(write_coco: Write) -> None:
    rows = [{**CAR, "id": i, "bbox": [i, 10, 4, 4], "area": a} for i, a in enumerate((3.5, 17.2))]
    truth = read_coco(write_coco(annotations=rows))
    assert truth.objects[1].areas.tolist() == [3.5, 17.2]
    assert truth.skipped == []


@pytest.mark.parametrize("crowd", ["0", "1", 2, [], "no"])
def test_a_crowd_that_is_neither_0_nor_1_is_refused(write_coco: Write, crowd: object) -> None:
    with pytest.raises(ValueError, match="annotation id 1: iscrowd must be 0 or 1, got"):
        read_coco(write_coco(annotations=[{**CAR, "iscrowd": crowd}]))


def test_annotation_ids_may_start_at_zero_and_be_any_size(write_coco: Write) -> None:
    rows = [{**CAR, "id": 0}, {**CAR, "id": 900000000123, "bbox": [1, 2, 3, 4]}]
    assert len(read_coco(write_coco(annotations=rows)).objects[1]) == 2


def test_whole_numbers_written_as_floats_are_ids(write_coco: Write) -> None:
    truth = read_coco(write_coco(annotations=[{**CAR, "image_id": 1.0, "category_id": 2.0}]))
    assert truth.objects[1].labels.tolist() == [2]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*truth\.json"):
        read_coco(tmp_path / "truth.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("\x00\x01", "is not JSON"),
        ("[1, 2]", "holds a list"),
        ("{}", r"no list 'images' \(it has nothing\)"),
        ('{"images": [], "categories": []}', "no list 'annotations'"),
        ('{"images": {}, "annotations": [], "categories": []}', "no list 'images'"),
        ('{"images": [], "annotations": [], "categories": []}', "empty list 'categories'"),
    ],
)
def test_a_file_that_is_not_coco_is_refused_by_name(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"truth\.json.*{message}"):
        read_coco(path)


@pytest.mark.parametrize("name", ["labels", "a.txt", "a.xml", "data.yaml"])
def test_labels_of_other_kinds_are_refused_with_the_command_that_converts_them(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError, match=rf"{name} is no COCO file.*srdet convert --kind yolo"):
        read_coco(tmp_path / name)


def test_a_binary_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"truth\.json is not JSON"):
        read_coco(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "annotation id 1: image_id 9 is not in the list 'images'"),
        ({"category_id": 9}, r"annotation id 1: category_id 9 is none of 1 \(car\), 2 \(boat\)"),
        ({"image_id": "1"}, "annotation id 1: 'image_id' must be a whole number, got '1'"),
        ({"category_id": None}, "annotation id 1: 'category_id' must be a whole number, got None"),
        ({"category_id": True}, "annotation id 1: 'category_id' must be a whole number, got True"),
        ({"id": "x"}, r"annotations\[0\]: 'id' must be a whole number, got 'x'"),
        ({"bbox": [1, 2, 3]}, "annotation id 1: bbox must be four finite numbers"),
        ({"bbox": None}, "annotation id 1: bbox must be four finite numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "annotation id 1: bbox must be four finite numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, "annotation id 1: bbox must be four finite numbers"),
        ({"bbox": [1, float("inf"), 3, 4]}, "annotation id 1: bbox must be four finite numbers"),
        ({"area": "big"}, "annotation id 1: area must be a number of square pixels, got 'big'"),
        ({"area": -3}, "annotation id 1: area must be a number of square pixels, got -3"),
    ],
)
def test_an_annotation_that_cannot_be_meant_is_refused_by_its_id(
    write_coco: Write, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"annotations\.json: {message}"):
        read_coco(write_coco(annotations=[{**CAR, **change}]))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"images": [{"id": 3, "file_name": "a", "width": 9, "height": 9}] * 2},
            r"images\[1\]: image id 3 is used twice",
        ),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, r"categories\[1\]: category id 1 is used"),
        ({"categories": [{"id": 1}]}, r"categories\[0\]: 'name' must be a text, got None"),
        ({"categories": ["car"]}, r"categories\[0\]: 'id' must be a whole number"),
        (
            {"images": [{"id": 1, "file_name": "a"}]},
            r"images\[0\]: 'width' must be a whole number, got None; write .* upright",
        ),
        (
            {"images": [{"id": 1, "file_name": "a", "width": 0, "height": 9}]},
            r"images\[0\]: image id 1 measures 0x9 pixels",
        ),
        (
            {"images": [{"id": 1, "width": 9, "height": 9}]},
            r"images\[0\]: 'file_name' must be a text",
        ),
        ({"images": []}, "empty list 'images'"),
    ],
)
def test_a_list_with_a_wrong_entry_is_refused_by_its_place(
    write_coco: Write, replaced: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {"annotations": [CAR], **replaced}
    path = write_coco(annotations=settings.pop("annotations"))
    content = json.loads(path.read_text()) | settings
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_coco(path)


def test_a_set_without_objects_is_refused_unless_it_is_meant(write_coco: Write) -> None:
    path = write_coco(annotations=[{**CAR, "bbox": [200, 200, 5, 5]}])
    with pytest.raises(ValueError, match=r"no usable annotation \(1 were left out\)"):
        read_coco(path)
    assert len(read_coco(path, allow_empty=True).objects[1]) == 0


def test_missing_pictures_are_counted_and_the_first_is_named(
    write_coco: Write, tmp_path: Path
) -> None:
    path = write_coco(images=3, annotations=[CAR])
    (tmp_path / "1.png").touch()
    with pytest.raises(FileNotFoundError, match=r"2 of 3 pictures .* the first is 2\.png"):
        read_coco(path, images=tmp_path)
    for name in ("2.png", "3.png"):
        (tmp_path / name).touch()
    assert len(read_coco(path, images=tmp_path).images) == 3


def test_a_subset_keeps_pictures_and_objects_together(make_set: Callable[..., CocoSet]) -> None:
    truth = make_set([(1, [0, 0, 5, 5], 1), (2, [0, 0, 6, 6], 2)], images=3)
    part = truth.subset([2, 3])
    assert [picture.id for picture in part.images] == [2, 3]
    assert torch.equal(part.objects[2].boxes, truth.objects[2].boxes)
    assert part.objects.keys() == {2, 3}
    with pytest.raises(ValueError, match="no image id 8"):
        truth.subset([2, 8])
