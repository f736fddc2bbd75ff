from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from detection.families import build_model
from pipeline import cli
from pipeline.pictures import read_picture, to_float
from pipeline.upscale import upscale
from sr_module.archs import build
from sr_module.checkpoint import save_net
from sr_module.resize import imresize


@pytest.fixture
def photos(tmp_path: Path, paint_noise: Callable[..., Path]) -> Path:
    """Two pictures, one of them in a sub-folder."""
    paint_noise(tmp_path / "photos" / "a.png", width=10, height=8)
    paint_noise(tmp_path / "photos" / "deep" / "b.png", width=6, height=12)
    return tmp_path / "photos"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What the command told, in one line."""
    return " ".join(capsys.readouterr().err.split())


def test_pictures_keep_their_names_and_folders(photos, tmp_path, capsys):
    words = ["--model", "bicubic", "--scale", "3", "--pictures", str(photos)]
    assert cli.main(["upscale", *words, "--out", str(tmp_path / "out")]) == 0
    found = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*"))
    assert found == [Path("a.png"), Path("deep/b.png")]
    lr = read_picture(photos / "a.png")
    expected = imresize(to_float(lr)[None], 3, quantize=False)[0].clamp(0, 1)
    made = to_float(read_picture(tmp_path / "out" / "a.png"))
    assert float((made - expected).abs().max()) <= 0.501 / 255
    assert "2 of 2 pictures written to" in said(capsys)


def test_a_network_enlarges_files_named_one_by_one(photos, tmp_path):
    network = tmp_path / "net.safetensors"
    save_net(build("msrresnet", 2, features=8, blocks=1), network, provenance={})
    count = upscale(str(network), [photos / "a.png", photos / "deep" / "b.png"], tmp_path / "out")
    assert count == 2
    assert read_picture(tmp_path / "out" / "a.png").shape == (3, 16, 20)
    assert read_picture(tmp_path / "out" / "b.png").shape == (3, 24, 12)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_the_format_can_be_another(photos, tmp_path, suffix):
    upscale("nearest", [photos / "a.png"], tmp_path / "out", scale=2, suffix=suffix)
    with Image.open(tmp_path / "out" / f"a.{suffix}") as made:
        assert made.size == (20, 16)


def test_what_cannot_be_read_or_is_too_large_is_skipped_and_counted(
    photos, tmp_path, capsys, caplog
):
    (photos / "broken.png").write_bytes(b"no picture")
    words = ["--model", "nearest", "--scale", "2", "--max_pixels", "75"]
    words += ["--pictures", str(photos), "--out", str(tmp_path / "out")]
    assert cli.main(["upscale", *words]) == 0
    assert "1 of 3 pictures written" in said(capsys)  # a.png has 80 pixels
    assert "broken.png is not a picture" in caplog.text
    assert "a.png has 10 x 8" in caplog.text
    assert not (tmp_path / "out" / "broken.png").exists()


def test_nothing_readable_is_an_error(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_bytes(b"")
    words = ["--model", "nearest", "--scale", "2", "--pictures", str(tmp_path / "in")]
    assert cli.main(["upscale", *words, "--out", str(tmp_path / "out")]) == 2
    assert "none of 1 pictures could be read; nothing was written" in said(capsys)


def test_no_result_is_written_over_another_or_over_its_source(photos, tmp_path, paint_noise):
    twin = paint_noise(tmp_path / "other" / "a.png")
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"other/a\.png would be written over .*photos/a\.png"):
        upscale("nearest", [photos, twin.parent], out, scale=2)
    paint_noise(photos / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.png would be written over .*a\.jpg"):
        upscale("nearest", [photos], out, scale=2, suffix="png")
    with pytest.raises(ValueError, match="would be written over itself"):
        upscale("nearest", [photos], photos, scale=2)
    assert not out.exists()
    assert read_picture(photos / "a.png").shape == (3, 8, 10)


def test_a_picture_named_twice_is_enlarged_once(photos, tmp_path):
    assert upscale("nearest", [photos, photos / "deep"], tmp_path / "out", scale=2) == 2


def detector_file(folder: Path) -> Path:
    from detection.detectors import save_detector

    path = folder / "detector.safetensors"
    model = build_model("small_fcos", num_classes=2)
    save_detector(model, path, architecture="small_fcos", categories={1: "car"}, provenance={})
    return path


def training_checkpoint(folder: Path) -> Path:
    path = folder / "last.ckpt"
    torch.save({"state_dict": {}}, path)
    return path


def damaged(folder: Path) -> Path:
    path = folder / "net.safetensors"
    save_net(build("msrresnet", 2, features=8, blocks=1), path, provenance={})
    path.write_bytes(path.read_bytes()[:-100])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (detector_file, "neither srdet nor spandrel knows"),
        (training_checkpoint, "a training checkpoint, which resumes a training"),
        (damaged, "damaged, or not a file of weights"),
    ],
)
def test_a_file_of_another_kind_is_one_clear_error(photos, tmp_path, capsys, make, message):
    path = make(tmp_path)
    words = ["--model", str(path), "--pictures", str(photos), "--out", str(tmp_path / "out")]
    assert cli.main(["upscale", *words]) == 2
    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1
    assert str(path) in told
    assert message in told
