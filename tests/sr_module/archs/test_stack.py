"""Stacks of convolutions, as they are trained and as they are prepared for inference."""

import pytest
import torch
from torch.nn import functional as F

from sr_module.archs.packed import Convolution
from sr_module.archs.stack import Stack, stack


def layers(factor: int, *, slopes: int = 0) -> list[Convolution]:
    """Two layers, 5 x 5 and 3 x 3; the first with a PReLU where it has slopes."""
    features = slopes or 8
    return [
        Convolution(
            torch.randn(features, 1, 5, 5) / 5,
            torch.randn(features),
            activation="none" if slopes else "tanh",
            slopes=torch.rand(features) if slopes else None,
        ),
        Convolution(torch.randn(factor**2, features, 3, 3) / 9, torch.randn(factor**2)),
    ]


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (8, 12), (9, 7)])
def test_blocks_of_pixels_are_what_the_plain_convolutions_make(factor: int, size: tuple[int, int]):
    plain, y = layers(factor), torch.rand(2, 1, *size)
    x = F.pad(y, [3] * 4, mode="replicate")
    for layer in plain:
        x = layer(x)
    expected = F.pixel_shuffle(x, factor)
    assert torch.allclose(stack(plain, factor=factor)(y), expected, atol=1e-6)


def test_gradients_pass_the_blocks_as_they_pass_the_plain_convolution():
    plain, y = layers(2), torch.rand(1, 1, 7, 6)
    weight = plain[-1].weight.requires_grad_()
    x = plain[1](plain[0](F.pad(y, [3] * 4, mode="replicate")))
    (expected,) = torch.autograd.grad(F.pixel_shuffle(x, 2).square().sum(), weight)
    (found,) = torch.autograd.grad(stack(plain, factor=2)(y).square().sum(), weight)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slopes", [0, 5, 12, 16])
def test_packed_layers_make_what_they_were_packed_from(slopes: int):
    made, y = stack(layers(2, slopes=slopes), factor=2), torch.rand(2, 1, 17, 22)
    with torch.inference_mode():
        exact = made(y)
        fast = made.packed(torch.float32)
        assert torch.allclose(fast(y), exact, atol=2e-6)
        narrow = y[..., :13]  # of another width, and back
        assert torch.allclose(fast(narrow), made(narrow), atol=2e-6)
        assert torch.allclose(fast(y), exact, atol=2e-6)
        rough = made.packed(torch.bfloat16)(y)
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


def test_packed_weights_outlive_what_they_were_packed_from():
    def made() -> tuple[Stack, torch.Tensor]:
        whole = stack(layers(1))
        return whole.packed(torch.float32), whole(y)

    y = torch.rand(1, 1, 20, 20)
    with torch.inference_mode():
        fast, expected = made()
        overwritten = [torch.full((64, 64, 8, 8), 7.0) for _ in range(20)]
        assert torch.allclose(fast(y), expected, atol=2e-6)
    assert overwritten
