import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from pipeline.cli import main
from pipeline.columns import Perceptual
from pipeline.interpolate import ALPHAS, interpolate
from sr_module.archs import build
from sr_module.checkpoint import load_net, read_provenance, save_net


@pytest.fixture
def sisters(tmp_path: Path) -> tuple[str, str]:
    """Files of a network and of its sister, which is brighter by a tenth."""
    net = build("msrresnet", 2, features=4, blocks=1)
    save_net(net, tmp_path / "psnr.safetensors", provenance={"steps": 1})
    with torch.no_grad():
        net.conv_last.bias.add_(0.1)
    save_net(net, tmp_path / "gan.safetensors", provenance={"steps": 2})
    return str(tmp_path / "psnr.safetensors"), str(tmp_path / "gan.safetensors")


@pytest.fixture
def pictures(tmp_path: Path, paint_noise) -> Path:
    for name in ("one", "two"):
        paint_noise(tmp_path / "Noise" / f"{name}.png", width=192, height=96)
    return tmp_path / "Noise"


@pytest.fixture
def niqe(tmp_path) -> Perceptual:
    path = tmp_path / "niqe.npz"
    np.savez(path, mu_pris_param=np.ones((1, 36)), cov_pris_param=np.eye(36))
    return Perceptual(niqe_parameters=path)


def test_one_share_is_one_file_that_knows_its_parents(sisters, tmp_path, capsys):
    out = tmp_path / "between.safetensors"
    words = ["--psnr", sisters[0], "--gan", sisters[1], "--alpha", "0.25", "--out", str(out)]
    assert main(["interpolate", *words]) == 0
    biases = [load_net(path).conv_last.bias for path in (*sisters, out)]
    torch.testing.assert_close(biases[2], biases[0] + 0.25 * 0.1)
    parents = {"alpha": 0.25, "psnr": {"steps": 1}, "gan": {"steps": 2}}
    assert read_provenance(out) == {"interpolated": parents}
    assert "1 network written" in capsys.readouterr().err


def test_a_folder_gets_the_whole_way(sisters, tmp_path):
    written = interpolate(*sisters, tmp_path / "way").files
    assert [path.name for path in written] == [f"alpha_{a:g}.safetensors" for a in ALPHAS]
    assert all(path.is_file() for path in written)


@pytest.fixture
def curve(sisters, pictures, niqe, tmp_path, store):
    return interpolate(
        *sisters,
        tmp_path / "curve",
        alpha=[1, 0, 0.5],
        hr=[str(pictures)],
        how=["networks", "pictures"],
        perceptual=niqe,
        device="cpu",
        crop=24,
    )


def test_the_curve_is_measured_and_drawn(curve, tmp_path, store):
    assert [path.name for path in curve.files] == [
        "curve.json", "detail.png", "curve.png", "curve.svg",
    ]  # fmt: skip
    names = ["alpha 0", "alpha 0.5", "alpha 1", "pictures 0", "pictures 0.5", "pictures 1"]
    assert [row.model for row in curve.scores.models] == ["bicubic", *names]
    means = {row.model: row.sets[0].mean for row in curve.scores.models}
    assert set(means["alpha 0"]) == {"psnr_y", "ssim_y", "niqe"}
    assert [row.precision for row in curve.scores.models] == [None, *["fp32"] * 6]
    assert means["alpha 0"]["psnr_y"] > means["alpha 0.5"]["psnr_y"] > means["alpha 1"]["psnr_y"]
    for share in ("0", "1"):
        assert means[f"alpha {share}"] == pytest.approx(means[f"pictures {share}"])
    numbers = json.loads((tmp_path / "curve" / "curve.json").read_text())
    assert numbers["steps"][1] == {"how": "networks", "alpha": 0.5}
    assert numbers["models"][2]["sets"][0]["mean"] == means["alpha 0.5"]
    assert "0.5" in (tmp_path / "curve" / "curve.svg").read_text()
    with Image.open(tmp_path / "curve" / "detail.png") as detail:
        assert detail.width > 2 * detail.height > 800  # LR, bicubic, six mixtures, HR: two rows

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("srdet interpolate")
    run = client.search_runs([experiment.experiment_id])[0]
    history = client.get_metric_history(run.info.run_id, "networks/Noise/psnr_y")
    assert sorted((point.step, point.value) for point in history) == [
        (0, means["alpha 0"]["psnr_y"]),
        (50, means["alpha 0.5"]["psnr_y"]),
        (100, means["alpha 1"]["psnr_y"]),
    ]
    kept = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"curve.png", "curve.svg", "detail.png", "scores.json"} <= kept


@pytest.mark.parametrize("metrics", [None, ["psnr", "consistency"]])
def test_without_a_metric_of_perception_there_are_numbers_and_pictures_but_no_curve(
    sisters, pictures, tmp_path, capsys, metrics
):
    out = tmp_path / "curve"
    settings = {"hr": [str(pictures)], "metrics": metrics, "device": "cpu", "track": False}
    written = interpolate(*sisters, out, alpha=[0, 1], crop=24, **settings)
    assert {path.name for path in written.files} == {path.name for path in out.iterdir()}
    assert {path.name for path in written.files} == {"curve.json", "detail.png"}
    assert written.scores.models[1].sets[0].mean["psnr_y"] > 0
    said = capsys.readouterr().err
    assert "no curve: nothing here measures perception; add --perceptual.niqe_parameters" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpha": [0.5, 1.2]}, "--alpha takes shares from 0 to 1, got 1.2"),
        ({"out": "a.safetensors"}, "11 networks do not fit into a.safetensors: add --alpha"),
        ({"out": "a.png", "hr": ["x"]}, "a curve is several files: give --out a folder"),
        ({"hr": ["x"], "metrics": ["consistency"]}, "distortion is one of psnr, ssim, rmse: add"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(sisters, settings, said):
    settings = {"out": Path(settings.pop("out", "way")), **settings}
    with pytest.raises(ValueError, match=said):
        interpolate(*sisters, **settings)


@pytest.mark.parametrize("place", [0, 1])
def test_a_kernel_is_no_network_to_mix(sisters, tmp_path, place):
    models = list(sisters)
    models[place] = "bicubic"
    with pytest.raises(ValueError, match="bicubic is a kernel; only networks are mixed"):
        interpolate(*models, tmp_path / "out")


def test_networks_that_are_no_sisters_and_unknown_pictures_are_refused(sisters, pictures, tmp_path):
    other = tmp_path / "other.safetensors"
    save_net(build("msrresnet", 2, features=8, blocks=1), other, provenance={})
    with pytest.raises(ValueError, match="these differ in features: 4 and 8"):
        interpolate(sisters[0], str(other), tmp_path / "way")
    with pytest.raises(ValueError, match="unknown picture 'twoo'; did you mean 'two'"):
        interpolate(
            *sisters, tmp_path / "way", alpha=[0], hr=[str(pictures)], picture="twoo", track=False
        )
