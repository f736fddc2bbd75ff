"""imresize against exact rational arithmetic, hand-made kernels and MATLAB's published pictures."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, read_image

from sr_module.resize import crop_to_multiple, imresize

SCALES = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(2, 3), Fraction(2), Fraction(3)]

EXACT = (Fraction(1, 2), Fraction(1, 4), Fraction(2))  # their weights are binary fractions


def cubic(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x <= 2:
        return Fraction(-1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def exact_line(line: list[Fraction], scale: Fraction) -> list[Fraction]:
    """One resized row in rational numbers, from MATLAB's definition with one-based positions."""
    n, stretch = len(line), min(scale, Fraction(1))
    resized = []
    for x in range(1, math.ceil(scale * n) + 1):
        centre = x / scale + Fraction(1, 2) * (1 - 1 / scale)
        sources = range(math.floor(centre - 2 / stretch), math.ceil(centre + 2 / stretch) + 1)
        weights = [stretch * cubic(stretch * (centre - k)) for k in sources]
        mirrored = [*range(n), *reversed(range(n))]
        values = [line[mirrored[(k - 1) % (2 * n)]] for k in sources]
        total = sum(w * v for w, v in zip(weights, values, strict=True))
        resized.append(total / sum(weights))
    return resized


def exact(image: Tensor, scale: Fraction) -> Tensor:
    """uint8 ``(H, W)``: rows first, rounding half upwards and clamping after each pass."""
    for _ in range(2):
        lines = [[Fraction(int(v)) for v in line] for line in image.T]
        passed = [
            [min(255, max(0, math.floor(v + Fraction(1, 2)))) for v in exact_line(line, scale)]
            for line in lines
        ]
        image = torch.tensor(passed, dtype=torch.uint8)
    return image


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_uint8_equals_exact_rational_arithmetic(scale: Fraction):
    image = torch.randint(0, 256, (13, 10), dtype=torch.uint8)
    assert torch.equal(imresize(image, scale), exact(image, scale))


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_float32_equals_uint8_up_to_ties(scale: Fraction):
    image = torch.randint(0, 256, (2, 3, 24, 36), dtype=torch.uint8)
    found = (imresize(image.float() / 255, scale) * 255).round()
    difference = (found - imresize(image, scale).float()).abs()
    assert difference.max() <= (0 if scale in EXACT else 1)
    assert difference.mean() < 5e-3


def test_halving_has_the_kernel_worked_out_by_hand():
    line = torch.zeros(1, 16)
    line[0, 8] = 1.0
    response = imresize(line.expand(2, -1), 0.5, quantize=False)[0]
    # the stretched cubic at 7/2, 5/2, 3/2, 1/2 old pixels from the new centre
    expected = torch.tensor([0.0, 0.0, -3, 29, 111, -9, 0, 0]) / 256
    assert torch.allclose(response, expected, atol=1e-7)


def test_doubling_has_the_kernel_worked_out_by_hand():
    line = torch.zeros(1, 8)
    line[0, 4] = 1.0
    response = imresize(line, 2, quantize=False)[0]
    expected = torch.tensor([0.0] * 5 + [-3, -9, 29, 111, 111, 29, -9, -3] + [0.0] * 3) / 128
    assert torch.allclose(response, expected, atol=1e-7)


def test_a_flat_picture_stays_flat_to_the_border():
    image = torch.full((1, 3, 12, 8), 77, dtype=torch.uint8)
    for scale in SCALES:
        assert imresize(image, scale).unique().tolist() == [77]


def test_unquantised_resizing_is_differentiable_also_after_inference():
    with torch.inference_mode():
        imresize(torch.rand(1, 9, 9), 1 / 3, quantize=False)
    image = torch.rand(1, 9, 9, requires_grad=True)
    imresize(image, 1 / 3, quantize=False).sum().backward()
    assert image.grad is not None
    assert torch.isclose(image.grad.sum(), torch.tensor(9.0))  # each of 9 results has weights of 1


@pytest.mark.parametrize(("side", "scale", "new"), [(9, 1 / 3, 3), (10, 0.25, 3), (7, 1.5, 11)])
def test_new_sides_are_rounded_up(side: int, scale: float, new: int):
    assert imresize(torch.rand(3, side, side), scale).shape == (3, new, new)


@pytest.mark.parametrize(
    ("image", "scale"),
    [
        (torch.zeros(4, 4, dtype=torch.int32), 0.5),
        (torch.zeros(3, 0, 4), 0.5),
        (torch.zeros(4), 0.5),
        (torch.zeros(4, 4), 0.0),
        (torch.zeros(4, 4), math.inf),
        (torch.zeros(4, 4), math.nan),
    ],
)
def test_unfit_input_is_refused(image: Tensor, scale: float):
    with pytest.raises(ValueError, match="imresize"):
        imresize(image, scale)


def test_cropping_keeps_the_top_left_and_refuses_a_picture_below_one_multiple():
    image = torch.arange(35).view(5, 7)
    assert torch.equal(crop_to_multiple(image, 3), image[:3, :6])
    with pytest.raises(ValueError, match="5x7"):
        crop_to_multiple(image, 6)


@pytest.mark.real_data
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5_is_reduced_bit_for_bit_as_by_matlab(data, scale: int):
    pictures = sorted((data / "sr/Set5/HR").glob("*.png"))
    assert len(pictures) == 5
    for path in pictures:
        hr = crop_to_multiple(read_image(str(path), ImageReadMode.RGB), scale)
        published = data / f"sr/Set5/LR_matlab_x{scale}/{path.stem}x{scale}.png"
        lr = read_image(str(published), ImageReadMode.RGB)
        assert torch.equal(imresize(hr, Fraction(1, scale)), lr), path.name
        assert torch.equal(imresize(hr / 255, 1 / scale).mul(255).round().byte(), lr), path.name


def test_halving_by_lanczos_has_the_kernel_worked_out_by_hand():
    line = torch.zeros(1, 32, dtype=torch.float64)
    line[0, 16] = 1.0
    response = imresize(line.expand(2, -1), 0.5, quantize=False, kernel="lanczos3")[0]

    def lanczos(x: float) -> float:
        return 3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2

    # new centres lie a quarter, three quarters, ... of a new pixel from the old one
    taps = [lanczos(k + 0.25) if abs(k + 0.25) < 3 else 0 for k in range(-4, 4)]
    taps_of_one = sum(lanczos(k / 2 + 0.25) for k in range(-6, 6))
    expected = torch.tensor(taps, dtype=torch.float64) / taps_of_one
    assert torch.allclose(response[4:12], expected, atol=1e-12)
    assert float(response.sum()) == pytest.approx(0.5, abs=1e-9)


def test_lanczos_keeps_a_flat_picture_and_enlarges_a_fine_wave_better_than_cubic():
    flat = torch.full((1, 7, 9), 77, dtype=torch.uint8)
    for scale in SCALES:
        assert imresize(flat, scale, kernel="lanczos3").unique().tolist() == [77]
    fine = torch.arange(-8, 128, dtype=torch.float64).add(0.5).div(2).sub(0.5)
    wave = torch.cos(0.6 * math.pi * torch.arange(-4, 64)).expand(2, -1).double()
    truth = torch.cos(0.6 * math.pi * fine)
    errors = [
        (imresize(wave, 2, quantize=False, kernel=kernel)[0] - truth)[12:-12].square().mean()
        for kernel in ("cubic", "lanczos3")
    ]
    assert errors[1] < errors[0] / 2


def test_another_kernel_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown kernel of imresize: 'lanczos'; did you mean"):
        imresize(torch.rand(4, 4), 2, kernel="lanczos")
