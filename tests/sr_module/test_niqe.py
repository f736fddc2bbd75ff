"""NIQE against MATLAB's value, its definition, and pictures made worse on purpose."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, read_image

from sr_module.niqe import NIQE, _fit, _nearest_shape, _normalise


@pytest.fixture
def parameters(tmp_path: Path) -> Path:
    """A model of its own: any mean and any covariance of full rank will do."""
    generator = np.random.default_rng(0)
    root = generator.normal(size=(36, 36))
    path = tmp_path / "model.npz"
    np.savez(path, mu_pris_param=generator.normal(size=(1, 36)), cov_pris_param=root @ root.T)
    return path


def textured(batch: int = 1, *, height: int = 192, width: int = 288) -> Tensor:
    return torch.rand(batch, 3, height, width)


def test_each_picture_of_a_batch_is_judged_by_itself(parameters: Path):
    niqe = NIQE(parameters)
    images = textured(3)
    images[1] = images[1] * 0.3
    found = niqe(images)
    assert found.dtype == torch.float64
    assert found.unique().numel() == 3
    assert torch.allclose(found, torch.cat([niqe(image[None]) for image in images]))


def test_what_does_not_fill_a_block_and_what_is_shaved_do_not_count(parameters: Path):
    niqe = NIQE(parameters)
    whole = textured(height=192, width=192)
    wider = torch.cat([whole, torch.rand(1, 3, 192, 95)], 3)
    framed = torch.nn.functional.pad(whole, [4] * 4)
    assert torch.equal(niqe(whole), niqe(wider))
    assert torch.equal(niqe(whole), niqe(framed, shave=4))


def test_pictures_are_rounded_to_8_bits_and_clamped(parameters: Path):
    niqe = NIQE(parameters)
    saved = textured().mul(255).round()
    assert torch.equal(niqe(saved / 255), niqe((saved + 0.3) / 255))
    over = (saved / 255).masked_fill(saved > 250, 1.0)
    assert torch.equal(niqe(over), niqe(over.masked_fill(saved > 250, 1.7)))


def test_grey_pictures_are_taken_as_they_are(parameters: Path):
    """In full range, so the same grey stored three times, of fewer luma levels, differs."""
    grey = textured()[:, :1]
    assert torch.isfinite(NIQE(parameters)(grey)).all()
    assert not torch.equal(NIQE(parameters)(grey), NIQE(parameters)(grey.expand(-1, 3, -1, -1)))


def test_the_distance_is_mahalanobis(parameters: Path):
    """Unit covariances on both sides and means 3 apart are 3 apart."""
    niqe = NIQE(parameters)
    features = torch.randn(500, 36, dtype=torch.float64)
    features = features - features.mean(0)
    features = features @ torch.linalg.inv(torch.linalg.cholesky(features.T.cov())).T
    niqe.covariance = torch.eye(36, dtype=torch.float64)
    niqe.mean = torch.zeros(36, dtype=torch.float64)
    assert niqe._distance(features).item() == pytest.approx(0, abs=1e-7)
    niqe.mean[7] = 3
    assert niqe._distance(features).item() == pytest.approx(3)


def test_a_flat_picture_has_no_quality_and_flat_blocks_do_not_decide(parameters: Path):
    niqe = NIQE(parameters)
    assert math.isnan(niqe(torch.full((1, 3, 192, 192), 0.4)).item())
    image = textured()
    image[..., :96, :96] = 0.4
    assert torch.isfinite(niqe(image)).all()


def test_flat_areas_hold_nothing_not_even_rounding_errors():
    """Whose signs the fit would count: of some levels the blur is off by a last digit."""
    for level in range(256):
        flat = torch.full((1, 1, 16, 16), float(level), dtype=torch.float64)
        assert _normalise(flat).abs().max() == 0, level


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 5.0])
def test_the_fit_finds_the_shape_and_the_spreads_of_a_known_distribution(shape: float):
    """Generalised Gaussian by the gamma law of its power, wider on the right than on the left."""
    torch.manual_seed(1)
    size = (1, 1, 400, 1, 400)
    power = torch.distributions.Gamma(1 / shape, 1.0).sample(size).double() ** (1 / shape)
    right = torch.rand(size) < 3 / 5  # the mode is continuous when sides weigh as their spreads
    blocks = torch.where(right, 3 * power, -2 * power)
    found = [value.item() for value in _fit(blocks)]
    assert found == pytest.approx([shape, 2, 3], rel=0.1)


def test_the_shape_is_the_nearest_on_the_grid():
    shapes = torch.tensor([0.2, 0.777, 2.0, 10.0], dtype=torch.float64)
    gamma = torch.lgamma
    ratios = (2 * gamma(2 / shapes) - gamma(1 / shapes) - gamma(3 / shapes)).exp()
    assert torch.equal(_nearest_shape(ratios + 1e-9), shapes)
    ends = torch.tensor([0.0, 1.0, math.nan], dtype=torch.float64)
    assert _nearest_shape(ends).tolist() == [0.2, 10.0, 0.2]


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 192, 192),
        torch.rand(1, 2, 192, 192),
        torch.rand(1, 3, 96, 191),
        torch.rand(1, 3, 95, 500),
        torch.zeros(1, 3, 192, 192, dtype=torch.uint8),
    ],
)
def test_unfit_pictures_are_refused(parameters: Path, image: Tensor):
    with pytest.raises(ValueError, match="NIQE"):
        NIQE(parameters)(image)


def test_a_missing_or_wrong_file_is_named_with_what_to_do(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz.*pip download basicsr"):
        NIQE(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "other.npz", mean=np.zeros(36))
    np.savez(tmp_path / "small.npz", mu_pris_param=np.zeros(3), cov_pris_param=np.eye(3))
    np.save(tmp_path / "one.npy", np.zeros(36))
    for name in ("text.npz", "other.npz", "small.npz", "one.npy"):
        with pytest.raises(ValueError, match=rf"{name}.*pip download basicsr"):
            NIQE(tmp_path / name)


def read(data: Path, name: str) -> Tensor:
    return read_image(str(data / "sr" / name), ImageReadMode.RGB)[None] / 255


@pytest.mark.real_data
def test_baboon_scores_what_matlab_prints(data: Path):
    """5.7296 by the authors' release in MATLAB R2021a, as BasicSR records it."""
    niqe = NIQE(data / "weights/niqe_pris_params.npz")
    assert niqe(read(data, "Set14/baboon.png")).item() == pytest.approx(5.72957338, abs=1e-5)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "shave", "expected"),
    [("monarch", 0, 3.49850), ("monarch", 4, 3.46359), ("zebra", 0, 3.27590), ("man", 4, 3.66297),
     ("comic", 0, 4.13884), ("coastguard", 4, 5.88056), ("face", 0, 8.49300)],
)  # fmt: skip
def test_real_pictures_score_what_basicsr_prints(data, name: str, shave: int, expected: float):
    """Values of BasicSR 1.4.2, which computes in float32."""
    niqe = NIQE(data / "weights/niqe_pris_params.npz")
    found = niqe(read(data, f"Set14/{name}.png"), shave=shave).item()
    assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["monarch", "lenna", "zebra"])
def test_blur_and_noise_make_a_photograph_worse(data: Path, name: str):
    niqe = NIQE(data / "weights/niqe_pris_params.npz")
    image = read(data, f"Set14/{name}.png")
    blurred = torch.nn.functional.avg_pool2d(image, 5, stride=1, padding=2)
    noisy = image + 0.1 * torch.randn_like(image)
    sound, *worse = (niqe(picture).item() for picture in (image, blurred, noisy))
    assert all(score > sound + 0.5 for score in worse)
