"""The self-ensemble undoes each of its turns, and its result favours no orientation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.archs import build
from sr_module.ensemble import self_ensemble
from sr_module.resize import imresize
from sr_module.upscale import upscale

TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "a mirror": lambda image: image.flip(-1),
    "upside down": lambda image: image.flip(-2),
    "a quarter turn": lambda image: torch.rot90(image, 1, (-2, -1)),
    "half a turn": lambda image: torch.rot90(image, 2, (-2, -1)),
    "the diagonal": lambda image: image.mT,
}


@pytest.fixture(scope="module")
def network() -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    net = build("msrresnet", 2, features=8, blocks=1)
    return lambda lr: upscale(net, lr)


def shifted(lr: Tensor) -> Tensor:
    """Enlarges twice, a pixel too far to the right and down: no orientation looks the same."""
    return F.interpolate(lr, scale_factor=2).roll((1, 1), (-2, -1))


@pytest.mark.parametrize("size", [(9, 14), (14, 9), (1, 5), (8, 8)])
def test_what_treats_every_orientation_alike_is_unchanged(size):
    lr = torch.rand(2, 3, *size)
    for run in (
        lambda x: F.interpolate(x, scale_factor=3),
        lambda x: imresize(x, 2, quantize=False),
    ):
        torch.testing.assert_close(self_ensemble(run)(lr), run(lr), rtol=0, atol=1e-6)


def test_another_function_gives_the_mean_of_its_eight_results_turned_back():
    lr = torch.zeros(1, 1, 3, 4)
    lr[..., 1, 2] = 8
    big = self_ensemble(shifted)(lr)
    # The 2 x 2 block is moved by one pixel along both diagonals, each way by two of the eight.
    expected = torch.zeros(1, 1, 6, 8)
    for down in (-1, 1):
        for right in (-1, 1):
            expected[..., 2 + down : 4 + down, 4 + right : 6 + right] += 2
    assert torch.equal(big, expected)
    assert not torch.equal(big, shifted(lr))


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_the_result_of_a_turned_picture_is_the_turned_result(network, turn):
    lr = torch.rand(1, 3, 9, 14)
    ensembled = self_ensemble(network)
    difference = (ensembled(turn(lr)) - turn(ensembled(lr))).abs().max()
    assert difference < 1e-6
    assert (network(turn(lr)) - turn(network(lr))).abs().max() > 1e-4
