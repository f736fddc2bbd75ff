from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import vgg19

from sr_module.vgg import VGGFeatures

SHAPES = {0: (64, 3), 2: (64, 64), 5: (128, 64)}  # conv1_1, conv1_2, conv2_1 in vgg19().features


def shallow_weights(path: Path, *, prefix: str = "") -> Path:
    """Random weights of the first three convolutions."""
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for index, (outputs, inputs) in SHAPES.items():
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
        tensors[f"{prefix}{index}.weight"] = weight
        tensors[f"{prefix}{index}.bias"] = torch.randn(outputs, generator=generator)
    save_file(tensors, path)
    return path


def random_vgg19(path: Path) -> torch.nn.Sequential:
    """Torchvision's layers with random weights, which are written to ``path``.

    They are built without the classifier's half gigabyte of weights.
    """
    with torch.device("meta"):
        layers = vgg19().features
    reference = layers.to_empty(device="cpu").eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_file(reference.state_dict(), path)
    return reference


def normalised(image: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (image - mean) / std


def test_features_are_those_of_torchvisions_network(tmp_path: Path):
    """Before its ReLU conv5_4 is ``features[:35]``."""
    reference = random_vgg19(tmp_path / "vgg.safetensors")
    names = {"conv1_1": 0, "conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        for before in (True, False):
            found = VGGFeatures(
                list(names), before_activation=before, weights=tmp_path / "vgg.safetensors"
            )(image)
            for name, index in names.items():
                # torchvision's ReLUs work in place: stop before one to see what enters it
                part = reference[: index + 1 if before else index + 2]
                assert torch.allclose(found[name], part(normalised(image)), atol=1e-5), name


def test_keys_with_the_prefix_of_torchvision_are_read_too(tmp_path: Path):
    plain = shallow_weights(tmp_path / "a.safetensors")
    prefixed = shallow_weights(tmp_path / "b.safetensors", prefix="features.")
    image = torch.rand(1, 3, 8, 8)
    one, other = (
        VGGFeatures(["conv2_1"], before_activation=True, weights=path)(image)["conv2_1"]
        for path in (plain, prefixed)
    )
    assert torch.equal(one, other)


def test_only_the_layers_down_to_the_deepest_are_built(tmp_path: Path):
    weights = shallow_weights(tmp_path / "vgg.safetensors")
    features = VGGFeatures(["conv1_2"], before_activation=True, weights=weights)
    assert list(features.convs) == ["conv1_1", "conv1_2"]


def test_weights_are_frozen_and_stay_out_of_checkpoints(tmp_path: Path):
    weights = shallow_weights(tmp_path / "vgg.safetensors")
    features = VGGFeatures(["conv1_2"], before_activation=True, weights=weights)
    kept = [p.clone() for p in features.parameters()]
    assert not any(p.requires_grad for p in features.parameters())
    assert features.state_dict() == {}
    features.load_state_dict({})
    assert all(torch.equal(a, b) for a, b in zip(kept, features.parameters(), strict=True))


def test_what_is_not_vgg_is_refused_with_the_file_named(tmp_path: Path):
    weights = shallow_weights(tmp_path / "vgg.safetensors")
    with pytest.raises(ValueError, match=r"vgg\.safetensors.*7\.weight.*missing"):
        VGGFeatures(["conv2_2"], before_activation=True, weights=weights)
    with pytest.raises(FileNotFoundError, match="absent"):
        VGGFeatures(["conv1_1"], before_activation=True, weights=tmp_path / "absent")
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(ValueError, match=r"text\.safetensors.*not a readable"):
        VGGFeatures(["conv1_1"], before_activation=True, weights=tmp_path / "text.safetensors")


def test_an_unknown_layer_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match="unknown VGG19 layer 'conv5_5'; did you mean 'conv"):
        VGGFeatures(["conv5_5"], before_activation=True, weights="x")
    with pytest.raises(ValueError, match="no VGG19 layer"):
        VGGFeatures([], before_activation=True, weights="x")


@pytest.mark.real_data
def test_published_weights_load(data: Path):
    weights = data / "weights/vgg19_features.safetensors"
    features = VGGFeatures(["conv5_4"], before_activation=False, weights=weights)
    found = features(torch.rand(1, 3, 32, 32))["conv5_4"]
    assert found.shape == (1, 512, 2, 2)
    assert found.min() == 0
