"""Curves over the JPEG quality of low resolution: what is given, what is measured, what is left."""

import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from detection.detectors import save_detector
from detection.families import build_model
from pipeline.cli import main
from pipeline.jpeg import Detecting, jpeg
from pipeline.jpeg_points import CLEAN, Point
from pipeline.pictures import read_picture, to_float, write_picture
from pipeline.study_settings import Join, Statistics, Windows
from sr_module import build, load_net, save_net, upscale
from sr_module.degrade import Degradation
from sr_module.metrics import matlab_y, psnr

SIDE = 96
QUALITIES = [10, 60]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures with soft blobs, in which JPEG's blocks stand out."""
    generator = torch.Generator().manual_seed(0)
    for number in (1, 2):
        coarse = torch.rand(1, 3, 12, 12, generator=generator)
        picture = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")[0]
        write_picture(picture.clamp(0, 1), tmp_path / "Blobs" / f"{number}.png")
    return tmp_path / "Blobs"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_net(
        build("msrresnet", 2, features=4, blocks=1), tmp_path / "net.safetensors", provenance={}
    )
    return tmp_path / "net.safetensors"


@pytest.fixture
def measured(pictures: Path, net: Path, tmp_path: Path, store: str) -> list[Point]:
    models = ["bicubic", f"ours={net}"]
    return jpeg(models, hr=[str(pictures)], quality=QUALITIES, out=tmp_path / "out", device="cpu")


def test_a_network_is_given_the_jpeg_of_the_low_resolution(measured, pictures, net):
    found = {(p.model, p.quality): p.scores["psnr_y"] for p in measured}
    assert len(found) == 2 * 3
    for quality in (*QUALITIES, CLEAN):
        degrade = Degradation(2, jpeg_quality=None if quality == CLEAN else quality)
        scores = []
        for path in sorted(pictures.iterdir()):
            hr = to_float(read_picture(path))[None]
            scores.append(float(psnr(upscale(load_net(net), degrade(hr)), hr, matlab_y(2))))
        assert found["ours", quality] == pytest.approx(sum(scores) / 2, abs=1e-3)


def test_lower_quality_scores_less_and_shows_its_blocks(measured):
    for model in ("bicubic", "ours"):
        points = sorted((p for p in measured if p.model == model), key=lambda p: p.quality)
        assert [p.quality for p in points] == [*QUALITIES, CLEAN]
        fidelity = [p.scores["psnr_y"] for p in points]
        assert fidelity == sorted(fidelity)
        assert points[0].scores["blockiness"] > points[-1].scores["blockiness"]


def test_curves_pictures_tables_and_numbers_are_left_on_disk_and_in_the_run(
    measured, tmp_path, store
):
    out = tmp_path / "out"
    for name in ("curves.png", "pictures.png"):
        assert read_picture(out / name).shape[0] == 3
    kept = [Point(**point) for point in json.loads((out / "points.json").read_text())]
    assert kept == measured
    table = (out / "table.md").read_text()
    assert "| PSNR-Y dB | 10 | 60 | clean |" in table
    assert "| Blobs, ours |" in table
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("srdet jpeg")
    (run,) = client.search_runs([experiment.experiment_id], max_results=1)
    history = client.get_metric_history(run.info.run_id, "Blobs/ours/psnr_y")
    ours = {p.quality: p.scores["psnr_y"] for p in measured if p.model == "ours"}
    assert {point.step: point.value for point in history} == pytest.approx(ours)


def test_a_detector_is_shown_the_same_damage(net, tmp_path, store, monkeypatch, boxed_pictures):
    category = {"id": 1, "name": "thing"}
    coco = boxed_pictures(tmp_path, count=2, side=SIDE, category=category, box=[8, 8, 20, 14])
    points = jpeg(
        ["bicubic", f"ours={net}"],
        hr=[str(tmp_path / "images")],
        quality=[10, 60],
        detect=Detecting(
            coco, tmp_path / "images", str(detector(tmp_path)), qualities=[10],
            windows=Windows(size=48), join=Join(),
            statistics=Statistics(resamples=20, permutations=20),
        ),
        out=tmp_path / "out",
        device="cpu",
    )  # fmt: skip
    ap = {(p.model, p.quality) for p in points if "AP" in p.scores}
    assert ap == {(model, q) for model in ("bicubic", "ours") for q in (10, CLEAN)}
    settings = [
        json.loads((tmp_path / "out" / f"detect_{q}" / "study.json").read_text())["settings"]
        for q in (10, CLEAN)
    ]
    assert [each["degradation"]["jpeg_quality"] for each in settings] == [10, None]
    digests = {each["windows digest"] for each in settings}
    assert len(digests) == 1  # the same windows for every quality


def detector(folder: Path) -> Path:
    torch.manual_seed(0)
    save_detector(
        build_model("small_fcos", num_classes=2), folder / "det.safetensors",
        architecture="small_fcos", categories={1: "thing"}, provenance={},
    )  # fmt: skip
    return folder / "det.safetensors"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quality", "0", "50"], "JPEG quality must be 1 to 100, got 0"),
        (["--shown", "101"], "JPEG quality must be 1 to 100, got 101"),
        (["--detect.coco", "boxes.json"], "--detect.images and --detect.detector"),
        (["--metrics", "psnrr"], "did you mean 'psnr'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_scored(words, said, pictures, capsys):
    command = ["jpeg", "--model", "bicubic", "--scale", "2", "--hr", str(pictures), *words]
    assert main(command) == 2
    assert said in capsys.readouterr().err
