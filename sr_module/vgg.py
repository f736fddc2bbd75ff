"""VGG19's convolutional features, which perceptual losses compare.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv:1409.1556, configuration E, trained on ImageNet.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.backbones import downloaded
from sr_module.choice import unknown

# Convolutions per stage; a 2x2 max-pool follows each stage (table 1, E).
_VGG19_STAGES = (2, 2, 4, 4, 4)
_VGG19_WIDTHS = (64, 128, 256, 512, 512)
_VGG19_LAYERS = tuple(
    f"conv{stage}_{i}" for stage, n in enumerate(_VGG19_STAGES, 1) for i in range(1, n + 1)
)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class _PublishedConv(nn.Conv2d):
    """A frozen convolution that stays out of state dicts, hence out of training checkpoints.

    Its 80 MB are published and never change; a checkpoint every few minutes need not carry them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.requires_grad_(False)

    def _save_to_state_dict(self, *_: object) -> None: ...

    def _load_from_state_dict(self, *_: object) -> None: ...


class VGGFeatures(nn.Module):
    """Activations of ImageNet-trained VGG19 at the named convolutions, for comparing pictures.

    Layers are called as in the paper, ``conv1_1`` to ``conv5_4``. Only the layers up to the deepest
    one named are built. Weights are frozen.

    Args:
        layers: names of the wanted convolutions.
        before_activation: take them before their ReLU (ESRGAN) instead of after it (SRGAN).
        weights: safetensors file in the convention of torchvision's ``vgg19().features``, keys with
            or without the prefix ``features.``; None takes torchvision's own file, which is
            downloaded once.

    Raises:
        ConnectionError: that file cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, layers: list[str], *, before_activation: bool, weights: str | Path | None
    ) -> None:
        super().__init__()
        for name in layers:
            if name not in _VGG19_LAYERS:
                raise unknown("VGG19 layer", name, _VGG19_LAYERS)
        if not layers:
            raise ValueError(f"no VGG19 layer named; choose from: {', '.join(_VGG19_LAYERS)}")
        depth = max(_VGG19_LAYERS.index(name) for name in layers)
        self.wanted = frozenset(layers)
        self.before_activation = before_activation
        self.convs = nn.ModuleDict(_vgg19_convs(depth + 1))
        _load_vgg19(self.convs, weights)
        for name, values in (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``(B, 3, H, W)`` in [0, 1] -> activations ``(B, C, h, w)`` by layer name."""
        x = (image - self.mean) / self.std
        features = {}
        for name, conv in self.convs.items():
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            before = conv(x)
            x = F.relu(before)
            if name in self.wanted:
                features[name] = before if self.before_activation else x
        return features


def _vgg19_convs(count: int) -> dict[str, nn.Module]:
    convs: dict[str, nn.Module] = {}
    inputs = 3
    for name in _VGG19_LAYERS[:count]:
        outputs = _VGG19_WIDTHS[int(name[4]) - 1]
        convs[name] = _PublishedConv(inputs, outputs)
        inputs = outputs
    return convs


def _vgg19_index(name: str) -> int:
    """Position of a convolution in torchvision's ``vgg19().features``: ReLUs and pools count."""
    return 2 * _VGG19_LAYERS.index(name) + int(name[4]) - 1


@torch.no_grad()
def _load_vgg19(convs: nn.ModuleDict, weights: str | Path | None) -> None:
    tensors = _vgg19_tensors(weights)
    for name, conv in convs.items():
        for kind, parameter in conv.named_parameters():
            key = f"{_vgg19_index(name)}.{kind}"
            if key not in tensors or tensors[key].shape != parameter.shape:
                found = tuple(tensors[key].shape) if key in tensors else "missing"
                raise ValueError(
                    f"{weights}: not VGG19 features in torchvision's convention: {key} should be "
                    f"{tuple(parameter.shape)}, is {found}; leave the path out to download them"
                )
            parameter.copy_(tensors[key])


def _vgg19_tensors(weights: str | Path | None) -> dict[str, Tensor]:
    if weights is None:
        from torchvision.models import VGG19_Weights

        tensors = downloaded(VGG19_Weights.IMAGENET1K_V1)
    else:
        tensors = _read_safetensors(Path(weights))
    return {key.removeprefix("features."): value for key, value in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"no VGG19 weights at {path}; leave the path out to download them")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
