"""Rows of one scale: kernels follow the networks beside them."""

from pathlib import Path

import pytest
import torch

from pipeline.candidates import ensembled, in_colour, is_kernel, on_luma, open_models
from pipeline.truth import Truth, open_sets, truth_reader
from sr_module.archs import build
from sr_module.checkpoint import save_net
from sr_module.metrics import luma
from sr_module.resize import imresize


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("networks")
    paths = {scale: folder / f"times{scale}.safetensors" for scale in (2, 3)}
    for scale, path in paths.items():
        save_net(build("msrresnet", scale, features=4, blocks=1), path, provenance={})
    return paths


@pytest.fixture
def truth(tmp_path, paint_noise) -> Truth:
    path = paint_noise(tmp_path / "set" / "a.png", width=40, height=32)
    (data_set,) = open_sets([str(path)])
    return truth_reader(data_set, 2)("a")


def test_kernels_take_the_scale_of_the_networks_and_the_order_stays(networks):
    words = ["bicubic", f"mine={networks[3]}", "near=nearest"]
    opened = open_models(words, scale=None)
    assert [(each.name, each.scale) for each in opened] == [
        ("bicubic", 3),
        ("mine", 3),
        ("near", 3),
    ]
    assert [is_kernel(word) for word in words] == [True, False, True]


def test_networks_of_two_scales_are_refused(networks):
    with pytest.raises(ValueError, match=r"one table has one scale.*times2 x2, times3 x3"):
        open_models([str(networks[2]), "bicubic", str(networks[3])], scale=None)


def test_a_row_is_timed_and_warm_work_is_that_of_a_corner(truth, networks):
    (network,) = open_models([str(networks[2])], scale=None)
    made = in_colour(network).make(truth.corner(8))
    assert made.sr.shape == (1, 3, 16, 16)
    assert made.seconds is not None
    assert made.seconds > 0


def test_a_kernel_on_luma_has_its_colour_picture_too(truth):
    (kernel,) = open_models(["bicubic"], scale=2)
    made = on_luma(kernel).make(truth)
    assert torch.equal(made.sr, in_colour(kernel).make(truth).sr)
    assert made.on_luma is not None
    grey = luma(truth.hr.double())
    assert torch.equal(made.on_luma[1], grey)
    again = imresize(imresize(grey, 0.5, quantize=False), 2, quantize=False).clamp(0, 1)
    torch.testing.assert_close(made.on_luma[0], again)


def test_the_ensemble_of_a_network_has_its_parameters_and_a_plus(truth, networks):
    (network,) = open_models([str(networks[2])], scale=None)
    row = ensembled(network)
    assert (row.name, row.parameters) == ("times2+", network.parameters)
    turned = ensembled(network).make(
        Truth("set", "a", truth.path, truth.hr.flip(-1), truth.lr.flip(-1), 2)
    )
    torch.testing.assert_close(turned.sr.flip(-1), row.make(truth).sr, rtol=0, atol=1e-6)
