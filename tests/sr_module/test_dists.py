"""DISTS against its definition, written out channel by channel, with weights of a seed."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sr_module.dists import DISTS

COUNTS = [3, 64, 128, 256, 512, 512]


def random_vgg() -> nn.Sequential:
    from torchvision.models import vgg16

    with torch.device("meta"):
        layers = vgg16().features
    layers = layers.to_empty(device="cpu")
    for parameter in layers.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, std=0.05)
    return layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Factors and a backbone, shared: 60 MB need not be written for every test."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dists")
    factors = {name: torch.rand(1, sum(COUNTS), 1, 1) for name in ("alpha", "beta")}
    torch.save(factors, path / "factors.pt")
    torch.save(random_vgg().state_dict(), path / "vgg.pth")
    return path


@pytest.fixture
def dists(folder: Path) -> DISTS:
    return DISTS(folder / "factors.pt", backbone_weights=folder / "vgg.pth")


def pooled(x: Tensor) -> Tensor:
    """Every second place: root of the mean square, weighted by Hanning's window of five."""
    line = torch.hann_window(5, periodic=False)[1:-1]
    window = torch.outer(line, line) / torch.outer(line, line).sum()
    patches = nn.functional.unfold(x.square().transpose(0, 1), 3, padding=1, stride=2)
    half = [(side + 1) // 2 for side in x.shape[-2:]]
    return (window.flatten() @ patches + 1e-12).sqrt().view(1, x.shape[1], *half)


def features(layers: nn.Sequential, image: Tensor) -> list[Tensor]:
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    found, x = [image], (image - mean) / std
    for i, layer in enumerate(layers):
        x = pooled(x) if isinstance(layer, nn.MaxPool2d) else layer(x)
        if i in (3, 8, 15, 22, 29):
            found.append(x.clone())
    return found


@torch.no_grad()
def test_the_number_is_that_of_the_definition(dists: DISTS, folder: Path):
    layers = random_vgg()
    layers.load_state_dict(torch.load(folder / "vgg.pth"))
    factors = {name: f.flatten() for name, f in torch.load(folder / "factors.pt").items()}
    sr, hr = torch.rand(1, 3, 40, 32), torch.rand(1, 3, 40, 32)
    likeness, channel = 0.0, 0
    for a, b in zip(features(layers, sr), features(layers, hr), strict=True):
        for x, y in zip(a[0].flatten(1), b[0].flatten(1), strict=True):
            texture = (2 * x.mean() * y.mean() + 1e-6) / (x.mean() ** 2 + y.mean() ** 2 + 1e-6)
            covariance = ((x - x.mean()) * (y - y.mean())).mean()
            spread = x.var(correction=0) + y.var(correction=0)
            structure = (2 * covariance + 1e-6) / (spread + 1e-6)
            likeness += factors["alpha"][channel] * texture + factors["beta"][channel] * structure
            channel += 1
    expected = 1 - likeness / (factors["alpha"].sum() + factors["beta"].sum())
    assert channel == sum(COUNTS)
    assert dists(sr, hr).item() == pytest.approx(float(expected), abs=1e-5)


def test_identical_pictures_do_not_differ_and_each_pair_counts_alone(dists: DISTS):
    hr = torch.rand(2, 3, 32, 32)
    assert dists(hr, hr).tolist() == pytest.approx([0, 0], abs=1e-5)
    sr = torch.rand(2, 3, 32, 32)
    alone = torch.cat([dists(sr[i : i + 1], hr[i : i + 1]) for i in range(2)])
    assert torch.allclose(dists(sr, hr), alone, atol=1e-5)
    assert alone.min() > 0.01


def test_gradients_reach_the_picture_and_checkpoints_stay_small(dists: DISTS):
    sr = torch.rand(1, 3, 32, 32, requires_grad=True)
    dists(sr, torch.rand(1, 3, 32, 32)).sum().backward()
    assert sr.grad is not None
    assert sr.grad.isfinite().all()
    assert sr.grad.abs().max() > 0
    assert dists.state_dict() == {}


def test_factors_are_found_in_the_authors_package_or_asked_for(
    folder: Path, tmp_path: Path, monkeypatch
):
    package = tmp_path / "DISTS_pytorch"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('only its data is wanted')")
    (package / "weights.pt").write_bytes((folder / "factors.pt").read_bytes())
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    given = DISTS(folder / "factors.pt", backbone_weights=folder / "vgg.pth")
    assert torch.equal(DISTS(backbone_weights=folder / "vgg.pth").alpha, given.alpha)
    monkeypatch.setattr("sr_module.dists.find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r'pip install "srdet\[dists\]"'):
        DISTS(backbone_weights=folder / "vgg.pth")


def test_what_is_unfit_is_refused(dists: DISTS, folder: Path, tmp_path: Path):
    torch.save({"alpha": torch.ones(3)}, tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=r"wrong\.pt: DISTS needs alpha and beta of 1475"):
        DISTS(tmp_path / "wrong.pt", backbone_weights=folder / "vgg.pth")
    with pytest.raises(ValueError, match="16 pixels a side"):
        dists(torch.rand(1, 3, 15, 40), torch.rand(1, 3, 15, 40))
