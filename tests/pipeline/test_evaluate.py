import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from pipeline import cli
from pipeline.evaluate import Evaluated, evaluate
from pipeline.pictures import read_picture, to_float, to_uint8, write_picture
from sr_module.archs import build
from sr_module.checkpoint import save_net
from sr_module.metrics import luma, matlab_y, psnr, ssim
from sr_module.resize import imresize
from sr_module.upscale import upscale


@pytest.fixture
def hr(tmp_path, paint_noise) -> Path:
    paint_noise(tmp_path / "hr" / "img1.png", width=42, height=49)
    paint_noise(tmp_path / "hr" / "img10.png", width=40, height=40)
    return tmp_path / "hr"


def command(*words: str, out: Path) -> dict:
    assert cli.main(["evaluate", *words, "--json", str(out), "--track", "false"]) == 0
    return json.loads(out.read_text())


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "scale", "expected"),
    [
        ("Set5/HR", 4, (28.42, 0.8104)),  # the bicubic rows of the papers' tables, such as
        ("Set14", 4, (26.00, 0.7027)),  # table 2 of Lim et al. 2017, arXiv:1707.02921
        ("Set5/HR", 3, (30.39, 0.8682)),
        ("Set5/HR", 2, (33.66, 0.9299)),
    ],
)
def test_bicubic_scores_what_the_papers_say(real_data, tmp_path, folder, scale, expected):
    words = ["--model", "bicubic", "--scale", str(scale), "--hr", str(real_data / "sr" / folder)]
    result = command(*words, out=tmp_path / "scores.json")
    assert (round(result["psnr"], 2), round(result["ssim"], 4)) == pytest.approx(
        expected, abs=0.0051 if folder == "Set14" else 0.0001
    )


@pytest.mark.real_data
@pytest.mark.parametrize(("scale", "expected"), [(3, 34.742), (4, 32.634)])
def test_published_rcan_pictures_score_what_was_published(real_data, tmp_path, scale, expected):
    set5 = real_data / "sr" / "Set5"
    words = ["--sr", str(set5 / f"published_RCAN_x{scale}"), "--scale", str(scale)]
    result = command(*words, "--hr", str(set5 / "HR"), out=tmp_path / "scores.json")
    assert round(result["psnr"], 3) == expected


def test_pictures_made_by_anyone_are_scored_by_the_protocol(hr, tmp_path):
    rows = []
    for path in sorted(hr.iterdir()):
        truth = to_float(read_picture(path))[:, :48, :40]
        made = (truth + 0.1 * torch.rand_like(truth)).clamp(0, 1)
        write_picture(made, tmp_path / "sr" / f"{path.stem}_x4.png")
        made = to_float(to_uint8(made))
        pair = (made[None], truth[None], matlab_y(4))
        rows.append((path.stem, float(psnr(*pair)), float(ssim(*pair))))
    result = command("--sr", str(tmp_path / "sr"), "--scale", "4", "--hr", str(hr), out=hr / "o")
    found = [(s["picture"], s["psnr"], s["ssim"]) for s in result["scores"]]
    assert [row[0] for row in found] == ["img1", "img10"]
    for row, expected in zip(found, rows, strict=True):
        assert row[1:] == pytest.approx(expected[1:])
    assert result["psnr"] == pytest.approx(sum(row[1] for row in rows) / 2)
    assert "4 px shaved" in result["protocol"]


def test_a_network_is_scored_on_8_bit_low_resolution_in_colour(hr, tmp_path):
    net = build("msrresnet", 2, features=8, blocks=1).eval()
    save_net(net, tmp_path / "net.safetensors", provenance={})
    result = command(
        "--model", str(tmp_path / "net.safetensors"), "--hr", str(hr), out=tmp_path / "o.json"
    )
    truth = to_float(read_picture(hr / "img1.png"))[None, :, :48, :42]
    sr = upscale(net, imresize(truth, 0.5))
    assert result["scores"][0]["psnr"] == pytest.approx(float(psnr(sr, truth, matlab_y(2))))
    assert result["scale"] == 2
    assert result["parameters"] == sum(p.numel() for p in net.parameters())
    assert result["scores"][0]["seconds_per_megapixel"] > 0


def test_low_resolution_can_be_given(hr, tmp_path):
    for path in hr.iterdir():
        truth = to_float(read_picture(path))[None, :, :48, :40]
        write_picture(imresize(truth, 0.25)[0], tmp_path / "lr" / f"{path.stem}.png")
    words = ["--model", "bicubic", "--scale", "4", "--hr", str(hr)]
    given = command(*words, "--lr", str(tmp_path / "lr"), out=tmp_path / "o.json")
    truth = to_float(read_picture(hr / "img10.png"))[None]
    low = to_float(read_picture(tmp_path / "lr" / "img10.png"))[None]
    expected = float(psnr(imresize(low, 4, quantize=False), truth, matlab_y(4)))
    assert given["scores"][1]["psnr"] == pytest.approx(expected)


def test_a_grey_picture_is_compared_as_it_is(tmp_path):
    side = torch.arange(48)
    grey = ((side[:, None] * 5 + side * 3) % 256).to(torch.uint8)
    (tmp_path / "hr").mkdir()
    Image.fromarray(grey.numpy()).save(tmp_path / "hr" / "grey.png")
    truth = to_float(grey)[None, None].double()
    result = evaluate([tmp_path / "hr"], model="bicubic", scale=2, track=False)
    made = imresize(imresize(truth, 0.5, quantize=False), 2, quantize=False).clamp(0, 1)
    assert result.psnr == pytest.approx(float(psnr(made, truth, matlab_y(2))))
    net = build("msrresnet", 2, features=8, blocks=1).eval()
    save_net(net, tmp_path / "net.safetensors", provenance={})
    by_net = evaluate([tmp_path / "hr"], model=str(tmp_path / "net.safetensors"), track=False)
    low = imresize(truth.float(), 0.5).expand(-1, 3, -1, -1)
    sr = upscale(net, low).mean(1, keepdim=True)
    assert by_net.psnr == pytest.approx(float(psnr(sr, truth.float(), matlab_y(2))))


def test_bicubic_is_made_on_the_luma_without_rounding(hr):
    result = evaluate([hr / "img10.png"], model="bicubic", scale=4, track=False)
    grey = luma(to_float(read_picture(hr / "img10.png"))[None].double())
    made = imresize(imresize(grey, 0.25, quantize=False), 4, quantize=False).clamp(0, 1)
    assert result.psnr == pytest.approx(float(psnr(made, grey, matlab_y(4))))


def test_the_table_and_its_scores_are_recorded(hr, store, capsys):
    words = ["--model", "bicubic", "--scale", "2", "--hr", str(hr)]
    assert cli.main(["evaluate", *words]) == 0
    shown = capsys.readouterr().out
    assert "img10" in shown
    assert "mean" in shown
    assert "2 px shaved" in " ".join(shown.split())
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("srdet evaluate")
    run = client.search_runs([experiment.experiment_id], max_results=1)[0]
    assert run.info.run_name == "bicubic x2"
    assert run.data.metrics["psnr_y"] > 0
    table = client.download_artifacts(run.info.run_id, "scores.json")
    assert len(json.loads(Path(table).read_text())["data"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to score: either --model NAME_OR_FILE or --sr FOLDER"),
        (["--model", "bicubic", "--sr", "x"], "say what to score: either --model"),
        (["--sr", "x"], "--sr needs the --scale its pictures were made for"),
        (["--model", "bicubic"], "bicubic needs a scale of 1 or more"),
        (["--model", "nothing", "--scale", "2"], "'nothing' is neither a file nor one of"),
        (["--sr", "nowhere", "--scale", "2"], "no such file or folder: nowhere"),
    ],
)
def test_wrong_words_are_one_clear_error(hr, capsys, words, message):
    assert cli.main(["evaluate", "--hr", str(hr), *words]) == 2
    assert message in capsys.readouterr().err


def scored(hr: Path, sr: Path) -> Evaluated:
    return evaluate([hr], sr=sr, scale=4, track=False)


def test_a_picture_of_another_size_or_none_at_all_is_named(hr, tmp_path, paint_noise):
    paint_noise(tmp_path / "sr" / "img10.png", width=40, height=40)
    with pytest.raises(FileNotFoundError, match=r"0 pictures in .*sr belong to img1\.png"):
        scored(hr, tmp_path / "sr")
    paint_noise(tmp_path / "sr" / "img1_x4.png", width=41, height=48)
    with pytest.raises(ValueError, match=r"img1: the picture to score is 41 x 48.* 40 x 48"):
        scored(hr, tmp_path / "sr")
    paint_noise(tmp_path / "sr" / "img1_other.png")
    with pytest.raises(FileNotFoundError, match=r"2 pictures in .*sr belong to img1\.png"):
        scored(hr, tmp_path / "sr")
