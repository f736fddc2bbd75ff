"""Pictures too large for memory: a piece of one is what the whole picture has there."""

import itertools

import numpy as np
import pytest
import pyvips
import torch

from detection.boxes import Detections
from pipeline import vast
from pipeline.look import Look, Looking, look_at_all
from pipeline.picture_files import PictureError
from pipeline.plans import plan_windows
from pipeline.study import find_in_full, load_pictures
from pipeline.study_settings import Windows
from pipeline.upscalers import open_upscaler
from sr_module.degrade import Degradation
from tests.pipeline.test_study import SIDE, find_bright, write_squares


@pytest.fixture
def annotations(tmp_path):
    return write_squares(tmp_path)


def load(annotations, degradation):
    folder = annotations.parent / "images"
    return load_pictures([annotations], [folder], degradation=degradation, limit=None)


@pytest.mark.parametrize(
    "degradation", [None, Degradation(4), Degradation(3), Degradation(4, blur_sigma=2.5)]
)
def test_every_piece_is_what_the_whole_picture_has_there(annotations, monkeypatch, degradation):
    pictures = load(annotations, degradation)
    whole = [(pictures.given(i), pictures.original(i)) for i in (1, 2)]
    monkeypatch.setattr(vast, "PIXELS", 100)
    for image, forms in zip((1, 2), whole, strict=True):
        given, original = pictures.given(image), pictures.original(image)
        assert isinstance(given, vast.Vast)
        for pieces, tensor in zip((given, original), forms, strict=True):
            assert pieces.shape == tensor.shape
            height, width = tensor.shape[1:]
            for top, left in itertools.product((0, 5, height - 9), (0, 7, width - 9)):
                rows, columns = slice(top, top + 9), slice(left, left + 9)
                assert torch.equal(pieces[:, rows, columns], tensor[:, rows, columns])


def test_windows_of_a_vast_picture_show_what_those_of_the_whole_one_show(annotations, monkeypatch):
    pictures = load(annotations, Degradation(4))
    plan = plan_windows(pictures, Windows(size=SIDE // 2), {})
    look, eyes = Look(pictures, plan, 2), (find_bright, open_upscaler("bicubic", scale=4))
    whole = look_at_all(look, eyes, Looking(), title="arm")
    monkeypatch.setattr(vast, "PIXELS", 100)
    pieces = look_at_all(look, eyes, Looking(), title="arm")
    assert sum(len(seen.found) for seen in whole.seen.values()) > 0
    for image, seen in whole.seen.items():
        assert torch.equal(seen.found.boxes, pieces.seen[image].found.boxes)
        assert (seen.width, seen.height) == (pieces.seen[image].width, pieces.seen[image].height)


def test_the_first_look_at_a_vast_picture_is_made_in_sheets(annotations, monkeypatch):
    pictures = load(annotations, None)
    monkeypatch.setattr(vast, "PIXELS", 100)
    monkeypatch.setattr("pipeline.look.SHEET", 64)
    sizes = []

    def find(sheets):
        sizes.extend(tuple(sheet.shape) for sheet in sheets)
        box = Detections(torch.tensor([[10.0, 12, 20, 20]]), torch.ones(1), torch.tensor([7]))
        return [box] * len(sheets)

    found = find_in_full(pictures, find).found
    assert list(found) == [1, 2, 3]
    assert sizes == [(3, 64, 64)] * 4 * 3  # of a side of 96, from 0 and from 32
    places = {tuple(box) for box in found[1].boxes.tolist()}
    assert places == {(10, 12, 20, 20), (42, 12, 52, 20), (10, 44, 20, 52), (42, 44, 52, 52)}


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("depth", ["uchar", "ushort"])
def test_tiled_tiffs_of_any_bands_and_depth_are_read_as_rgb(tmp_path, bands, depth):
    top = 65535 if depth == "ushort" else 255
    picture = pyvips.Image.black(300, 200, bands=bands) + [top * b // bands for b in range(bands)]
    kind = {1: "b-w", 3: "srgb", 4: "srgb"}[bands]
    if depth == "ushort":
        kind = "grey16" if bands == 1 else "rgb16"
    path = tmp_path / "picture.tif"
    picture.cast(depth).copy(interpretation=kind).tiffsave(str(path), tile=True, bigtiff=True)
    piece = vast.open_vast(path, 1, None)[:, 100:110, 290:300]
    assert piece.shape == (3, 10, 10)
    colours = [0.0] * 3 if bands == 1 else [b / bands for b in range(3)]
    assert torch.allclose(piece[:, 0, 0], torch.tensor(colours), atol=1 / 255)


def test_noise_of_a_vast_picture_is_refused(annotations, monkeypatch):
    pictures = load(annotations, Degradation(4, noise_sigma=5))
    monkeypatch.setattr(vast, "PIXELS", 100)
    with pytest.raises(
        ValueError, match="noise and JPEG, like all that is drawn, are of whole pictures"
    ):
        pictures.given(1)


def test_a_vast_picture_of_which_eight_bits_keep_hardly_anything_is_refused(tmp_path):
    values = np.random.default_rng(0).integers(0, 2048, (700, 900, 3)).astype(np.uint16)
    picture = pyvips.Image.new_from_array(values, interpretation="rgb16")
    picture.tiffsave(str(tmp_path / "a.tif"), tile=True)
    with pytest.raises(PictureError, match=r"a\.tif has 16-bit values from 2 to 2046"):
        vast.open_vast(tmp_path / "a.tif", 1, None)
