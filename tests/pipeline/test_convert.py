"""Annotations of other kinds become COCO in the right pixels, or the wrong line is named."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detection.truth import read_coco
from pipeline import cli
from pipeline.pictures import read_picture

WIDTH, HEIGHT = 200, 100


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one of them in a folder of its own; a square of known pixels in the first."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[20:30, 40:60] = 255
    for name in ("a.png", "more/b.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path


def label(folder, name, text):
    path = folder / "labels" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def convert(folder, kind, *more, out="out.json"):
    words = ["convert", "--kind", kind, "--images", str(folder / "images")]
    words += ["--labels", str(folder / "labels"), "--out", str(folder / out), *more]
    return cli.main(words)


VOC = """<annotation>
  <size><width>200</width><height>100</height><depth>3</depth></size>
  <object>
    <name>square</name><difficult>0</difficult>
    <bndbox><xmin>41</xmin><ymin>21</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>
  </object>
  <object>
    <name>circle</name><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>1</xmax><ymax>2</ymax></bndbox>
  </object>
</annotation>
"""


def yolo(folder, text):
    label(folder, "a.txt", text)
    (folder / "data.yaml").write_text("names: {0: circle, 1: square}\n")
    return convert(folder, "yolo", "--names", str(folder / "data.yaml"))


def visdrone(folder, text):
    label(folder, "a.txt", text)
    return convert(folder, "visdrone")


def voc(folder, text):
    label(folder, "a.xml", text)
    return convert(folder, "voc")


def test_yolos_shares_become_the_pixels_of_the_square(folder, capsys):
    assert yolo(folder, "1 0.25 0.25 0.1 0.1\n\n0 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3\n") == 0
    truth = read_coco(folder / "out.json", images=folder / "images")
    assert [p.file_name for p in truth.images] == ["a.png", "more/b.png"]
    assert truth.categories == {1: "circle", 2: "square"}
    assert truth.objects[1].boxes.tolist() == [[40, 20, 60, 30], [20, 10, 40, 30]]
    assert truth.objects[1].labels.tolist() == [2, 1]
    assert len(truth.objects[2]) == 0
    assert "1 pictures have no label file" in capsys.readouterr().err


def test_vocs_pixels_count_from_one_and_its_difficult_objects_become_crowds(folder):
    assert voc(folder, VOC) == 0
    truth = read_coco(folder / "out.json")
    assert truth.categories == {1: "circle", 2: "square"}
    assert truth.objects[1].boxes.tolist() == [[40, 20, 60, 30], [0, 0, 1, 2]]
    assert truth.objects[1].crowds.tolist() == [False, True]


def test_corners_that_count_from_zero_can_be_told_so(folder):
    label(folder, "a.xml", VOC)
    assert convert(folder, "voc", "--origin", "0") == 2  # a box from 1 to 1 would be empty
    label(folder, "a.xml", VOC.replace("<xmax>1</xmax>", "<xmax>3</xmax>"))
    assert convert(folder, "voc", "--origin", "0") == 0
    assert read_coco(folder / "out.json").objects[1].boxes[0].tolist() == [41, 21, 60, 30]


def test_visdrones_regions_keep_their_name_and_others_are_left_out(folder):
    text = "40,20,20,10,1,4,0,0\n0,0,50,50,0,0,0,0,\n5,5,9,9,1,11,0,0\n7,7,8,8,0,1,0,0\n"
    assert visdrone(folder, text) == 0
    truth = read_coco(folder / "out.json")
    assert truth.categories[0] == "ignored regions"
    assert truth.categories[10] == "motor"
    assert truth.objects[1].labels.tolist() == [4, 0, 0]
    assert truth.objects[1].boxes[0].tolist() == [40, 20, 60, 30]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (yolo, "1 0.5 0.5 0.1\n", "a.txt, line 1: 4 numbers"),
        (yolo, "1 0.5 0.5 0.1 0.1 0.9\n", "file of predictions"),
        (yolo, "\n1 50 20 10 10\n", "a.txt, line 2: the box 45 15 55 25 leaves the picture"),
        (yolo, "1 0.5 nan 0.1 0.1\n", "'nan' is no number"),
        (yolo, "2 0.5 0.5 0.1 0.1\n", "line 1: class 2; classes are whole numbers from 0 to 1"),
        (visdrone, "1,2,3,4\n", "line 1: 4 numbers; a line has eight"),
        (visdrone, "1,2,3,4,1,12,0,0\n", "category 12; categories are 0 to 11"),
        (visdrone, "\n1,2,3,x,1,2,0,0\n", "line 2: 'x' is no number"),
        (voc, VOC.replace("<width>200", "<width>100"), "a.xml, line 2: the size is 100x100"),
        (voc, VOC.replace("<xmax>60", "<xmax>30"), "line 5: the box ends before it begins"),
        (voc, VOC.replace("<ymin>21</ymin>", ""), "line 5: <bndbox> without <ymin>"),
        (voc, VOC.replace("<name>circle</name>", ""), "line 7: an object without a <name>"),
        (voc, VOC.replace("</object>", "", 1), "no well-formed XML"),
        (voc, "<svg/>", "the file holds <svg>"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(folder, capsys, kind, text, said):
    assert kind(folder, text) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "out.json").exists()


def test_labels_elsewhere_and_missing_names_are_told(folder, capsys):
    label(folder, "x.txt", "0 0.5 0.5 0.1 0.1")
    assert convert(folder, "yolo") == 2
    assert "--names data.yaml" in capsys.readouterr().err
    (folder / "names.txt").write_text("thing\n")
    assert convert(folder, "yolo", "--names", str(folder / "names.txt")) == 2
    assert "none of 2 pictures has a label file, the first should be" in capsys.readouterr().err
    label(folder, "a.xml", VOC)
    (folder / "names.txt").write_text("circle\nsquares\n")
    assert convert(folder, "voc", "--names", str(folder / "names.txt")) == 2
    assert "category 'square' is none of" in capsys.readouterr().err
    assert convert(folder, "coco") == 2
    assert "--slice 512" in capsys.readouterr().err


def test_what_is_there_is_kept_unless_told_otherwise(folder, capsys):
    assert voc(folder, VOC) == 0
    assert voc(folder, VOC) == 2
    assert "--overwrite true" in capsys.readouterr().err
    assert convert(folder, "voc", "--overwrite", "true") == 0


def test_slices_hold_the_pixels_and_the_objects_of_their_place(folder):
    assert yolo(folder, "1 0.25 0.25 0.1 0.1\n") == 0
    words = ["--slice", "60", "--overlap", "0.2", "--empty", "0", "--labels"]
    assert convert(folder, "coco", *words, str(folder / "out.json"), out="sliced") == 0
    sliced = folder / "sliced"
    truth = read_coco(sliced / "annotations.json", images=sliced / "images")
    assert {p.file_name for p in truth.images} == {"a_0_0.png", "a_48_0.png"}
    for picture in truth.images:
        x0, y0, x1, y1 = truth.objects[picture.id].boxes[0].int().tolist()
        pixels = read_picture(sliced / "images" / picture.file_name)
        assert torch.all(pixels[:, y0:y1, x0:x1] == 255)
        assert pixels.sum() == 255 * 3 * (x1 - x0) * 10
        assert x1 - x0 == (20 if picture.file_name == "a_0_0.png" else 12)


def test_what_is_mostly_outside_a_slice_is_a_crowd_region_there(folder):
    assert yolo(folder, "1 0.25 0.25 0.1 0.1\n") == 0
    labels = ("--labels", str(folder / "out.json"))
    assert convert(folder, "coco", "--slice", "55", "--overlap", "0", *labels, out="sliced") == 0
    truth = read_coco(folder / "sliced" / "annotations.json")
    by_name = {p.file_name: truth.objects[p.id] for p in truth.images}
    assert len(by_name) == 2 * 4 * 2
    whole, part = by_name["a_0_0.png"], by_name["a_55_0.png"]
    assert (whole.boxes.tolist(), whole.crowds.tolist()) == ([[40, 20, 55, 30]], [False])
    assert whole.areas.tolist() == [150]
    assert (part.boxes.tolist(), part.crowds.tolist()) == ([[0, 20, 5, 30]], [True])


def test_what_is_wrong_with_a_coco_set_is_said_before_it_is_sliced(folder, capsys):
    yolo(folder, "1 0.25 0.25 0.1 0.1\n")
    path = folder / "out.json"
    coco = json.loads(path.read_text())
    coco["annotations"][0]["bbox"][2] = 0
    path.write_text(json.dumps(coco))
    words = ["--slice", "60", "--labels", str(path)]
    assert convert(folder, "coco", *words, out="sliced") == 0
    assert "has no extent" in " ".join(capsys.readouterr().err.split())  # lines end anywhere
    coco["images"][0]["width"] *= 2
    path.write_text(json.dumps(coco))
    assert convert(folder, "coco", *words, out="again") != 0
    assert "its boxes would be wrong" in capsys.readouterr().err
    del coco["annotations"][0]["bbox"]
    path.write_text(json.dumps(coco))
    assert convert(folder, "coco", *words, out="again") != 0
    assert "bbox must be four finite numbers" in capsys.readouterr().err


def test_a_set_of_another_kind_is_sliced_in_one_go(folder):
    label(folder, "a.xml", VOC)
    assert convert(folder, "voc", "--slice", "100", out="sliced") == 0
    coco = json.loads((folder / "sliced" / "annotations.json").read_text())
    assert {row["source"] for row in coco["annotations"]} == {1, 2}
    assert all(row["width"] == row["height"] == 100 for row in coco["images"])
