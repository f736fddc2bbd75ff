import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection.families import build_model
from pipeline import cli
from pipeline.pictures import read_picture, to_float
from pipeline.raster import open_raster, vips
from pipeline.upscale import upscale
from pipeline.upscalers import Precision, open_upscaler
from sr_module.archs import build
from sr_module.archs.quantised import can_quantise
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


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
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


def network(folder: Path, arch: str = "msrresnet", scale: int = 2, **args: object) -> str:
    torch.manual_seed(0)
    path = folder / f"{arch}.safetensors"
    args = args or {"features": 8, "blocks": 1}
    save_net(build(arch, scale, **args), path, provenance={})
    return str(path)


def whole(path: Path) -> np.ndarray:
    """All values of a file, by libvips."""
    image = vips().Image.new_from_file(str(path))
    return np.asarray(image.numpy()).astype(int)


@pytest.mark.parametrize(
    ("arch", "args"),
    [
        ("msrresnet", {"features": 8, "blocks": 2}),
        ("compact", {"features": 8, "convs": 2}),
        ("rrdbnet", {"features": 8, "growth": 4, "blocks": 1}),
    ],
)
def test_bands_of_pieces_give_what_the_whole_picture_gives(tmp_path, paint_noise, arch, args):
    path = paint_noise(tmp_path / "a.png", width=40, height=50)
    model = network(tmp_path, arch, 4, **args)
    for tile in (7, 32, 1000):
        out = tmp_path / str(tile)
        assert upscale(model, [path], out, tile=tile, precision="fp32") == 1
        expected = open_upscaler(model)(to_float(read_picture(path))[None])[0]
        made = to_float(read_picture(out / "a.png"))
        assert made.shape == (3, 200, 160)
        assert float((made - expected).abs().max()) <= 0.502 / 255


def test_a_grey_picture_stays_grey_and_is_the_mean_of_the_networks_colours(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (9, 11), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    model = network(tmp_path)
    upscale(model, [tmp_path / "a.png"], tmp_path / "out", precision="fp32")
    lr = to_float(read_picture(tmp_path / "a.png"))[None]
    expected = open_upscaler(model)(lr)[0].mean(0) * 255
    made = whole(tmp_path / "out" / "a.png")
    assert made.shape == (18, 22)
    assert np.abs(made - expected.numpy()).max() <= 0.51


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_come_back_finer_than_eight(tmp_path, suffix):
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11, 3)).astype(np.uint16)
    vips().Image.new_from_array(deep, interpretation="rgb16").write_to_file(
        str(tmp_path / f"a.{suffix}")
    )
    model = network(tmp_path)
    upscale(model, [tmp_path / f"a.{suffix}"], tmp_path / "out")  # auto: fp32 for such pictures
    lr = torch.from_numpy(deep.astype(np.float32) / 65535).permute(2, 0, 1)[None]
    expected = open_upscaler(model, precision="fp32")(lr)[0].permute(1, 2, 0).numpy() * 65535
    made = whole(tmp_path / "out" / f"a.{suffix}")
    assert np.abs(made - expected).max() <= 2


def test_transparency_is_enlarged_bicubically_and_edges_do_not_darken(tmp_path):
    rgba = np.zeros((24, 24, 4), np.uint8)
    rgba[6:18, 6:18] = (200, 150, 100, 255)  # invisible: black
    Image.fromarray(rgba).save(tmp_path / "a.png")
    upscale("bicubic", [tmp_path / "a.png"], tmp_path / "out", scale=3, tile=8)
    made = whole(tmp_path / "out" / "a.png")
    alpha = torch.from_numpy(rgba[None, None, ..., 3] / 255).float()
    expected = imresize(alpha, 3, quantize=False).clamp(0, 1)[0, 0].numpy() * 255
    assert np.abs(made[..., 3] - expected).max() <= 0.51
    seen = made[..., 3] > 0
    assert np.abs(made[seen][:, :3] - (200, 150, 100)).max() <= 1


def test_a_turned_picture_comes_out_upright_with_a_spent_tag(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274], exif[271] = 6, "a camera"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif, dpi=(300, 300))
    upscale("nearest", [tmp_path / "a.png"], tmp_path / "out", scale=2)
    with Image.open(tmp_path / "out" / "a.png") as made:
        assert made.size == (16, 24)
        assert (made.getexif()[274], made.getexif()[271]) == (1, "a camera")
        assert made.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert (np.asarray(made)[::2, ::2] == np.rot90(pixels, -1)).all()


def test_one_pixel_is_a_picture(tmp_path, paint_noise):
    path = paint_noise(tmp_path / "a.png", width=1, height=1)
    model = network(tmp_path, "compact", 4, features=8, convs=2)
    assert upscale(model, [path], tmp_path / "out") == 1
    assert read_picture(tmp_path / "out" / "a.png").shape == (3, 4, 4)


def test_what_a_result_lacks_is_said_once(photos, tmp_path, caplog):
    pixels = np.zeros((6, 6, 4), np.uint8)
    for name in ("c.png", "d.png"):
        Image.fromarray(pixels).save(photos / name)
    with Image.open(photos / "a.png") as frame:
        frame.save(photos / "film.webp", save_all=True, append_images=[frame.rotate(180)])
    deep = vips().Image.black(5, 5).copy(interpretation="grey16").cast("ushort")
    deep.write_to_file(str(photos / "deep.tif"))
    assert upscale("nearest", [photos], tmp_path / "out", scale=2, suffix="jpg") == 6
    messages = [record.message for record in caplog.records]
    assert len(messages) == 3
    assert any("c.png and 1 more: laid on white, as .jpg holds no" in said for said in messages)
    assert any("film.webp: several frames; the first is enlarged" in said for said in messages)
    assert any("deep.tif: 16 bits become 8" in said for said in messages)


@pytest.mark.parametrize(
    ("suffix", "said"),
    [("webp", "grey becomes RGB, as .webp holds no grey"), ("bmp", ".bmp holds no EXIF data")],
)
def test_a_format_that_holds_less_is_named(tmp_path, caplog, suffix, said):
    exif = Image.Exif()
    exif[271] = "a maker"
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / "a.png", exif=exif)
    upscale("nearest", [tmp_path / "a.png"], tmp_path / "out", scale=2, suffix=suffix)
    assert [said in record.message for record in caplog.records] == [True]


def test_one_piece_is_called_one(tmp_path, paint_noise, capsys):
    path = paint_noise(tmp_path / "a.png", width=8, height=8)
    upscale("nearest", [path], tmp_path / "out", scale=2)
    assert "1 pieces" not in said(capsys)


def test_the_help_names_all_that_enlarges_and_the_exit_status(capsys):
    with pytest.raises(SystemExit):
        cli.main(["upscale", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for word in (
        ".onnx",
        "models:/NAME@ALIAS",
        "mix:PSNR+GAN@ALPHA",
        "exit status is 0 if any result",
    ):
        assert word in told


def test_standing_results_are_an_error_unless_they_are_kept_or_replaced(photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["upscale", "--model", "nearest", "--scale", "2", "--pictures", str(photos)]
    words += ["--out", str(out)]
    assert cli.main(words) == 0
    (out / "a.png").write_bytes(b"mine")
    assert cli.main(words) == 2
    assert "2 of 2 results exist already" in said(capsys)
    assert cli.main([*words, "--existing", "skip"]) == 0
    assert "all 2 results exist" in said(capsys)
    (out / "deep" / "b.png").unlink()
    assert cli.main([*words, "--existing", "skip"]) == 0
    assert "1 of 1 pictures written" in said(capsys)
    assert (out / "a.png").read_bytes() == b"mine"
    assert cli.main([*words, "--existing", "overwrite"]) == 0
    assert read_picture(out / "a.png").shape == (3, 16, 20)


def test_a_result_too_large_for_its_format_is_refused_before_the_work(photos, tmp_path):
    Image.new("L", (9000, 1)).save(photos / "wide.png")
    with pytest.raises(ValueError, match=r"wide\.png would become 18000 x 2 .*WebP.*--suffix png"):
        upscale("nearest", [photos], tmp_path / "out", scale=2, suffix="webp")
    assert not (tmp_path / "out").exists()
    assert upscale("nearest", [photos], tmp_path / "out", scale=2) == 3


def test_a_network_that_gives_no_numbers_names_itself_and_the_picture(photos, tmp_path):
    net = build("msrresnet", 2, features=8, blocks=1)
    net.conv_last.bias.data.fill_(torch.nan)
    save_net(net, tmp_path / "broken.safetensors", provenance={})
    with pytest.raises(ValueError, match=r"broken fails on .*a\.png: .*not a number"):
        upscale(str(tmp_path / "broken.safetensors"), [photos], tmp_path / "out")
    assert list((tmp_path / "out").rglob("*")) == []


def test_a_full_disk_stops_the_work_and_leaves_no_half_picture(small_disk, tmp_path, paint_noise):
    for number in range(4):
        paint_noise(tmp_path / "in" / f"{number}.png", width=60 + 100 * number, height=100)
    with pytest.raises(OSError, match="no room on disk while writing"):
        upscale("nearest", [tmp_path / "in"], small_disk / "out", scale=2)
    for made in (small_disk / "out").rglob("*.*"):
        open_raster(made, max_pixels=10**9).decode()
    gc.collect()  # the error's frames hold the file open, and the disk cannot be taken away


def test_many_pictures_keep_their_own_pixels(tmp_path, paint_noise):
    for number in range(12):
        paint_noise(tmp_path / "in" / f"{number}.png", width=10 + number, number=number)
    assert upscale("nearest", [tmp_path / "in"], tmp_path / "out", scale=2, tile=16) == 12
    for number in range(12):
        made = read_picture(tmp_path / "out" / f"{number}.png")
        assert torch.equal(made[:, ::2, ::2], read_picture(tmp_path / "in" / f"{number}.png"))


@pytest.mark.parametrize("tile", [0, -5])
def test_a_tile_is_at_least_a_pixel(photos, tmp_path, tile):
    with pytest.raises(ValueError, match="--tile must be at least 1"):
        upscale("nearest", [photos], tmp_path / "out", scale=2, tile=tile)


@pytest.mark.real_data
def test_bf16_is_within_a_fiftieth_of_fp32_and_a_tenth_of_a_decibel(real_data):
    check_closeness(str(real_data / "weights/realesr-animevideov3.pth"), "bf16", 0.02, real_data)


@pytest.mark.real_data
@pytest.mark.skipif(not can_quantise(), reason="this CPU or torch has no 8-bit products")
@pytest.mark.parametrize(("model", "most"), [("srcnn_x4", 0.025), ("espcn_x4", 0.02)])
def test_int8_is_close_to_fp32_and_within_a_tenth_of_a_decibel(real_data, model, most):
    check_closeness(model, "int8", most, real_data)


def check_closeness(model: str, precision: Precision, most: float, data: Path) -> None:
    """On Set5: no value is ``most`` or more from fp32's, and PSNR no 0.1 dB."""
    from sr_module.metrics import matlab_y, psnr

    low, high = data / "sr/Set5/LR_matlab_x4", data / "sr/Set5/HR"
    lrs = [to_float(read_picture(path))[None] for path in sorted(low.iterdir())]
    hrs = [to_float(read_picture(path))[None] for path in sorted(high.iterdir())]
    exact, rough = (open_upscaler(model, precision=p, device="cpu") for p in ("fp32", precision))
    gaps = []
    for lr, hr in zip(lrs, hrs, strict=True):
        made = exact(lr), rough(lr)
        assert float((made[0] - made[1]).abs().max()) < most
        truth = hr[..., : made[0].shape[-2], : made[0].shape[-1]]
        scores = [float(psnr(sr, truth, matlab_y(4))) for sr in made]
        gaps.append(scores[0] - scores[1])
    assert abs(float(np.mean(gaps))) < 0.1


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
        (training_checkpoint, "a checkpoint, from which a training goes on, and no network"),
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
