"""LPIPS against torchmetrics' copy of the authors' code, with equal weights of a seed."""

from pathlib import Path

import pytest
import torch
import torchmetrics.functional.image.lpips as reference
from torch import Tensor, nn

from sr_module.lpips import LPIPS

BUILDERS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


def random_features(backbone: str) -> nn.Sequential:
    """torchvision's layers without the classifier's half gigabyte."""
    import torchvision.models

    with torch.device("meta"):
        layers = getattr(torchvision.models, BUILDERS[backbone])().features
    layers = layers.to_empty(device="cpu")
    for parameter in layers.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, std=0.05)
    return layers


@pytest.fixture
def squeeze(tmp_path: Path) -> LPIPS:
    torch.save(random_features("squeeze").state_dict(), tmp_path / "w.pth")
    return LPIPS("squeeze", weights=tmp_path / "w.pth")


def pairs(batch: int = 3) -> tuple[Tensor, Tensor]:
    """Unlike pictures, but for the first, which is a noisy copy."""
    hr = torch.rand(batch, 3, 48, 40)
    sr = torch.rand(batch, 3, 48, 40)
    sr[0] = (hr[0] + 0.05 * torch.randn_like(hr[0])).clamp(0, 1)
    return sr, hr


@pytest.mark.parametrize("backbone", BUILDERS)
def test_distances_are_those_of_the_authors_code(tmp_path: Path, monkeypatch, backbone):
    layers = random_features(backbone)
    torch.save(layers.state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda *_: layers)
    theirs = reference._NoTrainLpips(net=backbone)
    sr, hr = pairs()
    found = LPIPS(backbone, weights=tmp_path / "w.pth")(sr, hr)
    expected = theirs(sr, hr, normalize=True).flatten()
    assert expected.min() > 1e-4
    assert torch.allclose(found, expected, atol=1e-6)


def test_identical_pictures_are_no_distance_apart(squeeze: LPIPS):
    image = torch.rand(2, 3, 40, 40)
    assert squeeze(image, image).tolist() == [0, 0]


def test_a_noisy_copy_is_nearer_than_another_picture(squeeze: LPIPS):
    noisy, other, _ = squeeze(*pairs()).tolist()
    assert 0 < noisy < other / 2


def test_gradients_reach_the_picture_and_stay_finite_where_nothing_is_seen(squeeze: LPIPS):
    sr = torch.rand(1, 3, 40, 40, requires_grad=True)
    squeeze(sr, torch.rand(1, 3, 40, 40)).sum().backward()
    assert sr.grad is not None
    assert sr.grad.abs().max() > 0
    black = torch.zeros(1, 3, 40, 40, requires_grad=True)
    squeeze(black, torch.rand(1, 3, 40, 40)).sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


def test_it_stays_out_of_training_checkpoints(squeeze: LPIPS):
    assert squeeze.state_dict() == {}
    assert list(squeeze.parameters()) == []


def test_given_heads_are_used(squeeze: LPIPS, tmp_path: Path):
    heads = {f"lin{i}.model.1.weight": squeeze.get_buffer(f"head{i}") * 2 for i in range(7)}
    torch.save(heads, tmp_path / "heads.pth")
    doubled = LPIPS("squeeze", weights=tmp_path / "w.pth", heads=tmp_path / "heads.pth")
    sr, hr = pairs()
    assert torch.allclose(doubled(sr, hr), 2 * squeeze(sr, hr))
    del heads["lin6.model.1.weight"]
    torch.save(heads, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"short\.pth: not the 7 linear heads"):
        LPIPS("squeeze", weights=tmp_path / "w.pth", heads=tmp_path / "short.pth")


def test_heads_that_are_nowhere_are_named_with_what_to_do(tmp_path: Path, monkeypatch):
    torch.save(random_features("squeeze").state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr("sr_module.lpips.find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="pip install torchmetrics"):
        LPIPS("squeeze", weights=tmp_path / "w.pth")


@pytest.mark.parametrize("backbone", BUILDERS)
def test_the_smallest_picture_is_still_measured_and_a_smaller_one_refused(tmp_path: Path, backbone):
    torch.save(random_features(backbone).state_dict(), tmp_path / "w.pth")
    lpips = LPIPS(backbone, weights=tmp_path / "w.pth")
    side = lpips.smallest
    assert lpips(torch.rand(1, 3, side, side), torch.rand(1, 3, side, side)).item() > 0
    with pytest.raises(ValueError, match=f"{side} pixels a side"):
        lpips(torch.rand(1, 3, side - 1, 64), torch.rand(1, 3, side - 1, 64))


@pytest.mark.parametrize(
    ("sr", "hr"),
    [
        (torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 41)),
        (torch.rand(1, 1, 40, 40), torch.rand(1, 1, 40, 40)),
        (torch.rand(3, 40, 40), torch.rand(3, 40, 40)),
        (torch.ones(1, 3, 40, 40).byte(), torch.ones(1, 3, 40, 40).byte()),
    ],
)
def test_unfit_pictures_are_refused(squeeze: LPIPS, sr: Tensor, hr: Tensor):
    with pytest.raises(ValueError, match="pictures to compare"):
        squeeze(sr, hr)


@pytest.mark.real_data
def test_caffes_squeezenet_ranks_pictures(data: Path):
    """Its numbers are not those of published LPIPS, but worse is farther."""
    from torchvision.io import ImageReadMode, read_image

    weights = data / "weights/squeezenet1_1_features_caffe.pth"
    lpips = LPIPS("squeeze", weights=weights, convention="caffe")
    hr = read_image(str(data / "sr/Set5/HR/butterfly.png"), ImageReadMode.RGB)[None] / 255
    blurred = [nn.functional.avg_pool2d(hr, k, stride=1, padding=k // 2) for k in (3, 5, 9)]
    distances = [lpips(sr, hr).item() for sr in (hr, *blurred)]
    assert distances == sorted(distances)
    assert distances[0] == 0
    assert distances[-1] > 0.2
