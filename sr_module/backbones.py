"""Convolutional features of ImageNet-trained networks, by which LPIPS and DISTS judge pictures.

The networks are torchvision's AlexNet, VGG16 and SqueezeNet 1.1; only what lies before their
classifiers is built.
"""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from sr_module.choice import unknown

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

Backbone = Literal["alex", "vgg", "squeeze"]
"""AlexNet (Krizhevsky 2014, arXiv:1404.5997), VGG16 (Simonyan and Zisserman 2014,
arXiv:1409.1556) and SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360)."""

Convention = Literal["torchvision", "caffe"]
"""What the first convolution was trained to see: ``torchvision`` RGB in [0, 1] less ImageNet's mean
over its deviation, ``caffe`` BGR in 0..255 less the mean."""

_TORCHVISION: dict[Backbone, tuple[str, str]] = {
    "alex": ("alexnet", "AlexNet_Weights"),
    "vgg": ("vgg16", "VGG16_Weights"),
    "squeeze": ("squeezenet1_1", "SqueezeNet1_1_Weights"),
}


class Normalise(nn.Module):
    """``(B, 3, H, W)`` RGB in [0, 1] -> what a network of the convention was trained to see."""

    mean: Tensor
    std: Tensor

    def __init__(self, convention: Convention = "torchvision") -> None:
        super().__init__()
        if convention not in get_args(Convention):
            raise unknown("input convention", convention, get_args(Convention))
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        if convention == "caffe":
            mean, std = (123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255)
        self.bgr = convention == "caffe"
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Scales the channels and puts them in order."""
        image = (image - self.mean) / self.std
        return image.flip(1) if self.bgr else image


def backbone_layers(name: Backbone, weights: str | Path | None) -> nn.Sequential:
    """The layers of torchvision's ``features``, frozen.

    Their weights are buffers that stay out of state dicts: published, unchanging, and up to 60 MB
    that no training checkpoint need carry.

    Args:
        name: one of the backbones.
        weights: file of tensors, safetensors or ``.pth``, under torchvision's names with or without
            the prefix ``features.``; None takes torchvision's own, downloaded once.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown backbone, or a file that does not hold its tensors.
        ConnectionError: torchvision's file cannot be downloaded.
    """
    import torchvision.models

    if name not in _TORCHVISION:
        raise unknown("backbone", name, _TORCHVISION)
    builder, published = _TORCHVISION[name]
    with torch.device("meta"):  # the classifier, most of the parameters, is never allocated
        layers: nn.Sequential = getattr(torchvision.models, builder)().features
    if weights is None:
        tensors = downloaded(getattr(torchvision.models, published).IMAGENET1K_V1)
    else:
        tensors = read_tensors(Path(weights))
    try:
        _adopt(layers, tensors)
    except ValueError as error:
        raise ValueError(
            f"{weights}: not {builder} in torchvision's convention: {error}; leave the path out to "
            "download it"
        ) from error
    return layers.eval()


def downloaded(published: "WeightsEnum") -> dict[str, Tensor]:
    """Torchvision's published weights, downloaded once and then read from this disk.

    Raises:
        ConnectionError: they cannot be had; the address is named.
        ValueError: what was downloaded once is damaged.
    """
    kept = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
    try:
        tensors: dict[str, Any] = dict(published.get_state_dict(progress=True, check_hash=True))
    except (OSError, HTTPException, RuntimeError, UnpicklingError, EOFError) as error:
        if kept.is_file():
            raise ValueError(
                f"{kept}: damaged ({error}); delete it, and it is downloaded again"
            ) from error
        raise ConnectionError(
            f"the published weights {published} could not be downloaded from {published.url} "
            f"({getattr(error, 'reason', error)}), and are not at {kept}, where a download is kept"
        ) from error
    return tensors


def read_tensors(path: Path, what: str = "weights") -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` or a ``.pth`` file; nothing else is unpickled.

    Args:
        path: of the file.
        what: should be in it, for the message where there is none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds anything but tensors by name.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path}: not a readable file of tensors ({error})") from error
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"{path}: holds more than tensors by name; save a state dict alone")
    return tensors


def _adopt(layers: nn.Sequential, tensors: Mapping[str, Tensor]) -> None:
    """Puts a buffer of that name in the place of every parameter."""
    tensors = {key.removeprefix("features."): value for key, value in tensors.items()}
    for path, layer in layers.named_modules():
        for kind, parameter in list(layer.named_parameters(recurse=False)):
            key = f"{path}.{kind}"
            found = tuple(tensors[key].shape) if key in tensors else "missing"
            if found != tuple(parameter.shape):
                raise ValueError(f"{key} should be {tuple(parameter.shape)}, is {found}")
            delattr(layer, kind)
            layer.register_buffer(kind, tensors[key].float(), persistent=False)
