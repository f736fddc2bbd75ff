"""The command against published tables and numbers worked out by hand; every error by its words."""

import json
import math
import re
import struct
import zlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from torch import Tensor
from torchvision.models import squeezenet1_1

import pipeline.world
from pipeline import cli
from pipeline.evaluate import evaluate
from pipeline.pictures import read_picture, to_float, to_uint8, write_picture
from pipeline.scoring import Evaluated
from sr_module.archs import build
from sr_module.checkpoint import save_net
from sr_module.ensemble import self_ensemble
from sr_module.lpips import LPIPS
from sr_module.metrics import (
    consistency,
    luma,
    matlab_y,
    ntire_rgb,
    ntire_y,
    pirm,
    psnr,
    rmse,
    ssim,
)
from sr_module.net import SRNet
from sr_module.resize import imresize
from sr_module.upscale import upscale


@pytest.fixture
def hr(tmp_path, paint_noise) -> Path:
    paint_noise(tmp_path / "hr" / "img1.png", width=42, height=49)
    paint_noise(tmp_path / "hr" / "img10.png", width=40, height=40)
    return tmp_path / "hr"


@pytest.fixture
def net(tmp_path) -> SRNet:
    torch.manual_seed(0)
    net = build("msrresnet", 2, features=8, blocks=1).eval()
    save_net(net, tmp_path / "mine.safetensors", provenance={})
    return net


@pytest.fixture
def niqe_parameters(tmp_path) -> Path:
    path = tmp_path / "niqe.npz"
    np.savez(path, mu_pris_param=np.ones((1, 36)), cov_pris_param=np.eye(36))
    return path


@pytest.fixture
def huge(tmp_path) -> Path:
    """A small file that claims 2500 megapixels."""
    path = tmp_path / "bomb.png"
    Image.new("RGB", (1, 1)).save(path)
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    return path


def command(*words: str | Path, out: Path) -> dict:
    told = [str(word) for word in words]
    assert cli.main(["evaluate", *told, "--json", str(out), "--track", "false"]) == 0
    return json.loads(out.read_text())


def means(result: dict, *, row: int = 0, data_set: int = 0) -> dict[str, float]:
    return result["models"][row]["sets"][data_set]["mean"]


def truth_of(path: Path, scale: int) -> Tensor:
    truth = to_float(read_picture(path))[None]
    height, width = truth.shape[-2:]
    return truth[..., : height - height % scale, : width - width % scale]


@pytest.mark.real_data
def test_bicubic_scores_what_the_papers_say_at_x4(real_data, tmp_path):
    sets = [f"Set5={real_data}/sr/Set5/HR", real_data / "sr" / "Set14"]
    result = command("--model", "bicubic", "--scale", 4, "--hr", *sets, out=tmp_path / "o.json")
    assert [each["data_set"] for each in result["models"][0]["sets"]] == ["Set5", "Set14"]
    # Table 2 of Lim et al. 2017, arXiv:1707.02921: 28.42 / 0.8104 and 26.00 / 0.7027.
    assert round(means(result)["psnr_y"], 3) == 28.421
    assert round(means(result)["ssim_y"], 4) == 0.8104
    assert means(result, data_set=1)["psnr_y"] == pytest.approx(26.00, abs=0.005)
    assert means(result, data_set=1)["ssim_y"] == pytest.approx(0.7027, abs=0.001)


@pytest.mark.real_data
@pytest.mark.parametrize(("scale", "expected"), [(3, (30.39, 0.8682)), (2, (33.66, 0.9299))])
def test_bicubic_scores_what_the_papers_say(real_data, tmp_path, scale, expected):
    words = ["--model", "bicubic", "--scale", scale, "--hr", real_data / "sr" / "Set5" / "HR"]
    mean = means(command(*words, out=tmp_path / "o.json"))
    assert (round(mean["psnr_y"], 2), round(mean["ssim_y"], 4)) == expected


@pytest.mark.real_data
@pytest.mark.parametrize(("scale", "expected"), [(3, 34.742), (4, 32.634)])
def test_published_rcan_pictures_score_what_was_published(real_data, tmp_path, scale, expected):
    set5 = real_data / "sr" / "Set5"
    words = ["--sr", set5 / f"published_RCAN_x{scale}", "--scale", scale, "--hr", set5 / "HR"]
    assert round(means(command(*words, out=tmp_path / "o.json"))["psnr_y"], 3) == expected


def test_pictures_made_by_anyone_are_scored_by_the_protocol(hr, tmp_path):
    rows = []
    for path in sorted(hr.iterdir()):
        truth = truth_of(path, 4)
        made = to_uint8((truth + 0.1 * torch.rand_like(truth)).clamp(0, 1))
        write_picture(made[0], tmp_path / "sr" / f"{path.stem}_x4.png")
        pair = (to_float(made), truth, matlab_y(4))
        rows.append({"psnr_y": float(psnr(*pair)), "ssim_y": float(ssim(*pair))})
    words = ["--sr", f"theirs={tmp_path / 'sr'}", "--scale", 4, "--hr", f"noise={hr}"]
    result = command(*words, out=tmp_path / "o.json")
    model = result["models"][0]
    assert (model["model"], model["parameters"]) == ("theirs", None)
    found = model["sets"][0]
    assert found["data_set"] == "noise"
    assert [scores["picture"] for scores in found["pictures"]] == ["img1", "img10"]
    for scores, expected in zip(found["pictures"], rows, strict=True):
        assert scores["scores"] == pytest.approx(expected)
    assert found["mean"]["psnr_y"] == pytest.approx(sum(row["psnr_y"] for row in rows) / 2)
    assert found["seconds_per_megapixel"] is None
    assert "4 px shaved" in result["protocols"]["psnr_y"]


def test_a_network_is_scored_on_8_bit_low_resolution_in_colour(hr, net, tmp_path):
    result = command("--model", tmp_path / "mine.safetensors", "--hr", hr, out=tmp_path / "o.json")
    truth = truth_of(hr / "img1.png", 2)
    sr = upscale(net, imresize(truth, 0.5))
    row = result["models"][0]
    scored = row["sets"][0]["pictures"][0]
    assert scored["scores"]["psnr_y"] == pytest.approx(float(psnr(sr, truth, matlab_y(2))))
    assert result["scale"] == 2
    assert row["parameters"] == sum(p.numel() for p in net.parameters())
    assert scored["seconds_per_megapixel"] > 0
    times = [scores["seconds_per_megapixel"] for scores in row["sets"][0]["pictures"]]
    assert row["sets"][0]["seconds_per_megapixel"] == pytest.approx(sum(times) / 2)


def test_networks_kernels_and_made_pictures_stand_in_one_table(hr, net, tmp_path, capsys):
    low = tmp_path / "sr"
    for path in hr.iterdir():
        write_picture(truth_of(path, 2)[0], low / path.name)
    result = command(
        *["--model", "bicubic", f"ours={tmp_path / 'mine.safetensors'}"],
        *["--sr", f"itself={low}", "--hr", f"A={hr}", f"B={hr / 'img10.png'}"],
        *["--markdown", tmp_path / "table.md", "--per_picture", "true"],
        out=tmp_path / "o.json",
    )
    assert [row["model"] for row in result["models"]] == ["bicubic", "ours", "itself"]
    assert [row["parameters"] for row in result["models"]][::2] == [0, None]
    for row in range(3):
        one = result["models"][row]["sets"][0]["pictures"][1]["scores"]
        assert means(result, row=row, data_set=1) == one
    assert means(result, row=2) == {"psnr_y": None, "ssim_y": 1.0}  # infinite
    shown = capsys.readouterr().out
    for text in ("A x2", "B x2", "means, x2", "img10", "itself", "2 px shaved", "unrounded luma"):
        assert text in shown
    table = (tmp_path / "table.md").read_text()
    assert "| model | parameters | A PSNR-Y dB | A SSIM-Y | A s per megapixel | B PSNR" in table
    assert "| itself | - | **inf** | **1.0000** | - |" in table
    assert "2 px shaved" in table


def test_the_self_ensemble_is_a_row_with_a_plus(hr, net, tmp_path):
    words = ["--model", "nearest", tmp_path / "mine.safetensors", "--hr", hr / "img1.png"]
    result = command(*words, "--ensemble", "true", out=tmp_path / "o.json")
    assert [row["model"] for row in result["models"]] == ["nearest", "mine+"]
    truth = truth_of(hr / "img1.png", 2)
    run = self_ensemble(lambda lr: upscale(net, lr))
    expected = float(psnr(run(imresize(truth, 0.5)), truth, matlab_y(2)))
    assert means(result, row=1)["psnr_y"] == pytest.approx(expected)
    assert any("flips and turns" in remark for remark in result["remarks"])


def test_low_resolution_can_be_given(hr, tmp_path):
    for path in hr.iterdir():
        write_picture(imresize(truth_of(path, 4), 0.25)[0], tmp_path / "lr" / path.name)
    words = ["--model", "bicubic", "--scale", 4, "--hr", hr, "--lr", tmp_path / "lr"]
    given = command(*words, out=tmp_path / "o.json")
    low = to_float(read_picture(tmp_path / "lr" / "img10.png"))[None]
    made = imresize(low, 4, quantize=False)
    expected = float(psnr(made, truth_of(hr / "img10.png", 4), matlab_y(4)))
    picture = given["models"][0]["sets"][0]["pictures"][1]
    assert picture["scores"]["psnr_y"] == pytest.approx(expected)
    assert "low resolution: read from lr" in given["remarks"]


def test_a_grey_picture_is_compared_as_it_is(net, tmp_path):
    side = torch.arange(48)
    grey = ((side[:, None] * 5 + side * 3) % 256).to(torch.uint8)
    (tmp_path / "hr").mkdir()
    Image.fromarray(grey.numpy()).save(tmp_path / "hr" / "grey.png")
    truth = to_float(grey)[None, None]
    model = ["bicubic", str(tmp_path / "mine.safetensors")]
    result = evaluate([str(tmp_path / "hr")], model=model, track=False)
    low = imresize(truth.double(), 0.5, quantize=False)
    made = imresize(low, 2, quantize=False).clamp(0, 1)
    sr = upscale(net, imresize(truth, 0.5).expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    for row, picture in zip(result.models, (made, sr), strict=True):
        expected = float(psnr(picture, truth.to(picture.dtype), matlab_y(2)))
        assert row.sets[0].mean["psnr_y"] == pytest.approx(expected)


def test_bicubic_is_made_on_the_luma_without_rounding(hr):
    result = evaluate([str(hr / "img10.png")], model=["bicubic"], scale=4, track=False)
    grey = luma(truth_of(hr / "img10.png", 4).double())
    made = imresize(imresize(grey, 0.25, quantize=False), 4, quantize=False).clamp(0, 1)
    expected = float(psnr(made, grey, matlab_y(4)))
    assert result.models[0].sets[0].mean["psnr_y"] == pytest.approx(expected)


def test_ntire_has_both_colour_spaces_and_bicubic_in_rgb(hr, tmp_path):
    words = ["--model", "bicubic", "--scale", 2, "--hr", hr / "img1.png", "--protocol", "ntire"]
    result = command(*words, out=tmp_path / "o.json")
    truth = truth_of(hr / "img1.png", 2)
    made = imresize(imresize(truth, 0.5), 2, quantize=False).clamp(0, 1)
    expected = {
        f"{name}_{by.channels}": float(function(made, truth, by))
        for by in (ntire_rgb(2), ntire_y(2))
        for name, function in (("psnr", psnr), ("ssim", ssim))
    }
    assert list(means(result)) == ["psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"]
    assert means(result) == pytest.approx(expected)
    assert "RGB, 8 px shaved" in result["protocols"]["psnr_rgb"]


def test_pirm_has_the_error_of_the_whole_set_its_region_and_niqe(
    tmp_path, paint_noise, niqe_parameters, capsys
):
    squares = []
    for name, offset in (("a", 6), ("b", 18)):
        path = paint_noise(tmp_path / "hr" / f"{name}.png", width=200, height=104, number=9)
        picture = read_picture(path).clamp(40, 200)
        write_picture(picture, path)
        write_picture(picture + offset, tmp_path / "sr" / f"{name}.png")
        made = to_float(picture + offset)[None]
        squares.append(float(rmse(made, to_float(picture)[None], pirm())) ** 2)
    words = ["--sr", tmp_path / "sr", "--scale", 4, "--hr", tmp_path / "hr", "--protocol", "pirm"]
    words += ["--perceptual.niqe_parameters", niqe_parameters]
    result = command(*words, out=tmp_path / "o.json")
    mean = means(result)
    assert mean["rmse_y"] == pytest.approx(math.sqrt(sum(squares) / 2))
    assert 11.5 < mean["rmse_y"] < 12.5
    assert result["models"][0]["sets"][0]["notes"] == {"rmse_y": "region 2"}
    assert mean["niqe"] > 0
    assert "root mean square" in result["protocols"]["rmse_y"]
    assert "4 px shaved" in result["protocols"]["niqe"]
    assert any("Ma et al." in remark for remark in result["remarks"])
    assert "region 2" in capsys.readouterr().out


def test_saved_pictures_score_as_what_was_made(hr, net, tmp_path):
    words = ["--hr", f"noise={hr}", "--protocol", "ntire"]
    words += ["--metrics", "psnr", "ssim", "rmse", "consistency"]
    models = ["--model", "bicubic", tmp_path / "mine.safetensors"]
    made = command(*models, *words, "--save", tmp_path / "made", out=tmp_path / "o.json")
    folders = [tmp_path / "made" / name for name in ("bicubic", "mine")]
    assert sorted(p.name for p in folders[1].rglob("*.png")) == ["img1.png", "img10.png"]
    read = command("--sr", *folders, "--scale", 2, *words, out=tmp_path / "o.json")
    for row in range(2):
        assert means(read, row=row) == pytest.approx(means(made, row=row), abs=1e-6)
        assert len(means(read, row=row)) == 7
    truth = truth_of(hr / "img1.png", 2)
    sr = to_float(read_picture(folders[1] / "noise" / "img1.png"))[None]
    found = read["models"][1]["sets"][0]["pictures"][0]["scores"]["consistency"]
    assert found == pytest.approx(float(consistency(sr, imresize(truth, 0.5), 2)), abs=1e-4)


def test_lpips_is_measured_on_pictures_as_they_are_saved(hr, tmp_path):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    torch.save(squeezenet1_1().features.state_dict(), tmp_path / "squeeze.pth")
    words = ["--model", "nearest", "--scale", 2, "--hr", hr / "img1.png", "--metrics", "lpips"]
    words += ["--perceptual.lpips_backbone", "squeeze"]
    words += ["--perceptual.lpips_weights", tmp_path / "squeeze.pth"]
    result = command(*words, out=tmp_path / "o.json")
    truth = truth_of(hr / "img1.png", 2)
    made = imresize(truth, 0.5).repeat_interleave(2, -1).repeat_interleave(2, -2)
    metric = LPIPS("squeeze", weights=tmp_path / "squeeze.pth")
    expected = float(metric(to_float(to_uint8(made)), truth))
    assert means(result) == {"lpips_squeeze": pytest.approx(expected, rel=1e-5)}
    assert expected > 0


def test_the_precision_that_was_decided_stands_beside_the_numbers(hr, net, tmp_path, monkeypatch):
    words = ["--model", "bicubic", tmp_path / "mine.safetensors", "--precision", "auto"]
    words += ["--hr", hr, "--device", "cpu"]
    for has_bf16, decided in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(pipeline.world, "cpu_has_bf16", lambda has_bf16=has_bf16: has_bf16)
        result = command(*words, out=tmp_path / "scores.json")
        assert [row["precision"] for row in result["models"]] == [None, decided]
        assert f"networks in {decided} on cpu; time is the median" in result["remarks"][-1]


def test_every_row_is_a_run_with_its_metrics_by_set(hr, net, store, tmp_path):
    model = ["--model", "bicubic", str(tmp_path / "mine.safetensors")]
    sets = ["--hr", f"Set A (x)={hr}", f"B={hr / 'img1.png'}"]
    assert cli.main(["evaluate", *model, *sets]) == 0
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("srdet evaluate")
    runs = client.search_runs([experiment.experiment_id], max_results=2)
    assert {run.info.run_name for run in runs} == {"bicubic x2", "mine x2"}
    for run in runs:
        logged = run.data.metrics
        assert logged["Set A _x_/psnr_y"] > 0
        assert logged["B/ssim_y"] > 0
        assert logged["B/seconds_per_megapixel"] > 0
        assert "2 px shaved" in run.data.params["protocol.psnr_y"]
        assert "8-bit" in run.data.params["remarks"]
        table = client.download_artifacts(run.info.run_id, "scores.json")
        assert len(json.loads(Path(table).read_text())["data"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to score: --model NAME_OR_FILE, or --sr FOLDER, or both"),
        (["--sr", "x"], "--sr needs the --scale its pictures were made for"),
        (["--model", "bicubic"], "bicubic needs a scale of 1 or more"),
        (["--model", "nothing", "--scale", "2"], "'nothing' is neither a file nor one of"),
        (["--sr", "nowhere", "--scale", "2"], "no such file or folder: nowhere"),
        (
            ["--model", "bicubic", "bicubic", "--scale", "2"],
            "two rows would be called 'bicubic'; name them, as in --model mine=FILE",
        ),
        (["--model", "bicubic", "--scale", "2", "--ensemble", "true"], "--ensemble needs a net"),
        (["--model", "bicubic", "--scale", "2", "--metrics", "psn"], "did you mean 'psnr'?"),
        (["--model", "bicubic", "--scale", "2", "--protocol", "y"], "protocol"),
        (["--model", "bicubic", "--scale", "2", "--lr", "nowhere"], "no such file or folder"),
        (
            ["--model", "bicubic", "--scale", "2", "--protocol", "pirm", "--metrics", "rmse"],
            "--protocol pirm is that of a challenge of x4 alone, these pictures are x2; take",
        ),
        (
            ["--model", "bicubic", "--scale", "4", "--protocol", "pirm"],
            "--perceptual.niqe_parameters FILE; BasicSR's package has them",
        ),
        (
            ["--model", "mix:espcn_x4+espcn_x4@1.5.2"],
            "'mix:espcn_x4+espcn_x4@1.5.2' is no mixture; write mix:PSNR+GAN@ALPHA",
        ),
    ],
)
def test_wrong_words_are_one_clear_error(hr, capsys, words, message):
    assert cli.main(["evaluate", "--hr", str(hr), *words, "--track", "false"]) == 2
    assert message in capsys.readouterr().err


def test_a_picture_above_the_limit_is_named_once_with_what_helps(tmp_path, capsys, huge):
    words = ["--model", "bicubic", "--scale", "4", "--hr", str(huge), "--track", "false"]
    assert cli.main(["evaluate", *words]) == 2
    told = capsys.readouterr().err
    assert told.count(huge.name) == 1
    assert told.rstrip().endswith("limit of 200; cut it into pieces")


def test_numbers_that_json_does_not_know_are_null(hr, tmp_path):
    """PSNR of equal pictures is infinite."""
    words = [
        "--sr",
        hr,
        "--scale",
        "2",
        "--hr",
        hr / "img10.png",
        "--metrics",
        "psnr",
        "--track",
        "false",
    ]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert cli.main(["evaluate", *map(str, words), "--json", str(tmp_path / "a.json")]) == 0
    told = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert told["models"][0]["sets"][0]["mean"] == {"psnr_y": None}


@pytest.mark.parametrize(
    ("metric", "option", "address"),
    [("lpips", "lpips_weights", "alexnet"), ("dists", "dists_backbone", "vgg16")],
)
def test_a_metric_whose_network_cannot_be_downloaded_names_the_option_for_its_file(
    hr, tmp_path, capsys, monkeypatch, metric, option, address
):
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    words = ["--model", "bicubic", "--scale", "2", "--hr", str(hr), "--metrics", metric]
    words += ["--track", "false"]
    if metric == "dists":
        factors = {"alpha": torch.ones(1, 1475, 1, 1), "beta": torch.ones(1, 1475, 1, 1)}
        torch.save(factors, tmp_path / "factors.pt")
        words += ["--perceptual.dists_weights", str(tmp_path / "factors.pt")]
    assert cli.main(["evaluate", *words]) == 2
    told = capsys.readouterr().err
    assert re.search(rf"downloaded from https://\S+/{address}\S+ \(no route to host\)", told)
    assert re.search(rf"files of your own go into .*--perceptual\.{option} \(", told)


SQUEEZE = ["lpips", "--perceptual.lpips_backbone", "squeeze",
           "--perceptual.lpips_weights", "FOLDER/squeeze.pth"]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["niqe"], r"add --perceptual\.niqe_parameters FILE"),
        (
            ["niqe", "--perceptual.niqe_parameters", "no.npz"],
            r"no NIQE parameters at no\.npz; .*pip download basicsr.*"
            r"into --perceptual\.niqe_parameters \(",
        ),
        (
            ["lpips", "--perceptual.lpips_weights", "no.pth"],
            r"no weights at no\.pth; .*--perceptual\.lpips_weights \(alex's features\)",
        ),
        (
            [*SQUEEZE, "--perceptual.lpips_heads", "no.pth"],
            r"no linear heads of LPIPS at no\.pth; .*--perceptual\.lpips_heads \(linear heads\)",
        ),
        (
            ["dists", "--perceptual.dists_weights", "no.pt"],
            r"no factors of DISTS at no\.pt; .*--perceptual\.dists_weights \(fitted factors\)",
        ),
        (
            ["dists"],
            r'pip install "srdet\[dists\]"; .*--perceptual\.dists_weights \(fitted factors\)',
        ),
        (
            SQUEEZE,
            r"pip install torchmetrics; .*--perceptual\.lpips_heads \(linear heads\)",
        ),
    ],
)
def test_a_missing_file_of_a_metric_is_told_before_any_picture_is_read_with_its_option(
    tmp_path, capsys, monkeypatch, words, message
):
    for package in ("lpips", "dists"):  # neither of those that carry such files is installed
        monkeypatch.setattr(f"sr_module.{package}.find_spec", lambda _: None)
    torch.save(squeezenet1_1().features.state_dict(), tmp_path / "squeeze.pth")
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG")
    call = ["--model", "bicubic", "--scale", "2", "--hr", str(tmp_path), "--metrics", *words]
    assert cli.main(["evaluate", *call]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_what_cannot_be_kept_is_told_before_the_work(hr, tmp_path):
    with pytest.raises(ValueError, match="--save keeps what models make; there is no --model"):
        evaluate([str(hr)], sr=[str(hr)], scale=2, save=tmp_path / "made", track=False)


def scored(hr: Path, sr: Path) -> Evaluated:
    return evaluate([str(hr)], sr=[str(sr)], scale=4, track=False)


def test_a_picture_of_another_size_is_named(hr, tmp_path, paint_noise):
    paint_noise(tmp_path / "sr" / "img10.png", width=40, height=40)
    paint_noise(tmp_path / "sr" / "img1_x4.png", width=41, height=48)
    with pytest.raises(ValueError, match=r"img1\.png, by sr: .* is 41 x 48.* 40 x 48"):
        scored(hr, tmp_path / "sr")


def test_a_picture_smaller_than_a_window_is_named(hr, tmp_path, paint_noise):
    paint_noise(tmp_path / "hr" / "small.png", width=16, height=40)
    with pytest.raises(ValueError, match=r"small\.png, by bicubic: SSIM needs 11 pixels a side"):
        evaluate([str(hr)], model=["bicubic"], scale=4, track=False)
    paint_noise(tmp_path / "hr" / "less.png", width=3, height=40)
    with pytest.raises(ValueError, match=r"less\.png: a picture of 40x3 has no multiple of 4"):
        evaluate([str(hr)], model=["bicubic"], scale=4, track=False)
