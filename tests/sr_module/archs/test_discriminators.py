import pytest
import torch

from sr_module.archs import build_discriminator


@pytest.mark.parametrize(
    ("name", "count"), [("srgan", 23_565_505), ("vgg128", 14_499_401), ("unet", 4_376_897)]
)
def test_parameter_counts_are_those_of_the_papers(name: str, count: int):
    discriminator = build_discriminator(name)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == count


def test_srgans_count_is_for_its_crop_of_96_pixels():
    assert build_discriminator("srgan").crop == 96


def test_esrgans_parameters_have_the_published_names_and_shapes():
    state = build_discriminator("vgg128").state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    places = [f"{stage}_{half}" for stage in range(5) for half in (0, 1)]
    convs = {key for key in shapes if key.startswith("conv")}
    assert convs == {f"conv{place}.weight" for place in places} | {"conv0_0.bias"}
    assert {key.split(".")[0] for key in shapes if key.startswith("bn")} == {
        f"bn{place}" for place in places[1:]
    }
    outputs = [64, 64, 128, 128, 256, 256, 512, 512, 512, 512]
    assert [shapes[f"conv{place}.weight"][0] for place in places] == outputs
    assert [shapes[f"conv{place}.weight"][-1] for place in places] == [3, 4] * 5
    assert shapes["linear1.weight"] == (100, 512 * 4 * 4)
    assert shapes["linear2.weight"] == (1, 100)


@pytest.mark.parametrize("crop", [32, 96])
def test_esrgans_gives_one_logit_per_picture(crop: int):
    discriminator = build_discriminator("vgg128", crop=crop, features=4)
    assert discriminator(torch.rand(2, 3, crop, crop)).shape == (2, 1)


@pytest.mark.parametrize("crop", [32, 48])
def test_srgans_gives_one_logit_per_picture(crop: int):
    discriminator = build_discriminator("srgan", crop=crop, features=4)
    assert discriminator(torch.rand(2, 3, crop, crop)).shape == (2, 1)


def test_the_unet_gives_one_logit_per_pixel():
    discriminator = build_discriminator("unet", features=4)
    assert discriminator(torch.rand(2, 3, 24, 40)).shape == (2, 1, 24, 40)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("srgan", {"crop": 32, "features": 4}),
        ("vgg128", {"crop": 32, "features": 4}),
        ("unet", {"features": 4}),
    ],
)
def test_a_gradient_reaches_every_parameter(name: str, args: dict):
    discriminator = build_discriminator(name, **args).eval()
    discriminator(torch.rand(2, 3, 32, 32)).square().sum().backward()
    for key, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_spectral_norm_bounds_the_inner_convolutions():
    discriminator = build_discriminator("unet", features=4)
    discriminator.conv4.parametrizations.weight.original.data.mul_(50)
    for _ in range(20):  # the power iteration moves one step per forward pass in training
        discriminator(torch.rand(1, 3, 16, 16))
    weight = discriminator.conv4.weight.flatten(1)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.05)


def test_pictures_that_do_not_fit_are_refused_with_the_cure():
    with pytest.raises(ValueError, match="divisible by 16, got 100"):
        build_discriminator("srgan", crop=100)
    with pytest.raises(ValueError, match="crops of 32 pixels, got 48x48"):
        build_discriminator("srgan", crop=32, features=4)(torch.rand(1, 3, 48, 48))
    with pytest.raises(ValueError, match="divisible by 32, got 144"):
        build_discriminator("vgg128", crop=144)
    with pytest.raises(ValueError, match="crops of 32 pixels, got 64x32"):
        build_discriminator("vgg128", crop=32, features=4)(torch.rand(1, 3, 64, 32))
    with pytest.raises(ValueError, match="divisible by 8, got 20x24"):
        build_discriminator("unet", features=4)(torch.rand(1, 3, 20, 24))
