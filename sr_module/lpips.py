"""LPIPS: the distance of two pictures in the features of a trained network, as people see it.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
arXiv:1801.03924: activations of five or seven layers, each pixel's vector scaled to unit length,
squared differences weighted per channel by heads fitted to human judgements (version 0.1), averaged
over the picture and summed over layers. The length is floored at 1e-4, as torchmetrics does, so
that gradients stay finite where a network sees nothing.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from sr_module.backbones import Backbone, Convention, Normalise, backbone_layers, read_tensors

_STAGES: dict[Backbone, tuple[int, ...]] = {  # torchvision's layers after which features are taken
    "alex": (2, 5, 8, 10, 12),
    "vgg": (4, 9, 16, 23, 30),
    "squeeze": (2, 5, 8, 10, 11, 12, 13),
}
_SMALLEST: dict[Backbone, int] = {"alex": 31, "vgg": 16, "squeeze": 17}  # pixels a side


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity: 0 for identical pictures, lower is better.

    ``alex`` is what papers print, ``vgg`` what they train with. Differentiable, frozen, and absent
    from state dicts.

    Args:
        backbone: whose features are compared.
        weights: file of the backbone's features under torchvision's names, ``.safetensors`` or
            ``.pth``; None takes torchvision's own, downloaded once (234 MB alex, 528 MB vgg, 5 MB
            squeeze).
        heads: ``.pth`` file of the version 0.1 linear heads; None takes those in the torchmetrics
            package (BSD-2, from the authors' release).
        convention: what the features in ``weights`` were trained to see. The heads were fitted to
            torchvision's features: with a network trained elsewhere, such as Caffe's SqueezeNet 1.1
            (another training, not another form of torchvision's), pictures are still ranked, but
            the numbers are not comparable with published LPIPS.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: an unknown name, or a file that does not hold the network or its heads.
    """

    def __init__(
        self,
        backbone: Backbone = "alex",
        *,
        weights: str | Path | None = None,
        heads: str | Path | None = None,
        convention: Convention = "torchvision",
    ) -> None:
        super().__init__()
        self.normalise = Normalise(convention)
        layers = backbone_layers(backbone, weights)
        ends = _STAGES[backbone]
        starts = (0, *ends[:-1])
        self.stages = nn.ModuleList(layers[a:b] for a, b in zip(starts, ends, strict=True))
        self.smallest = _SMALLEST[backbone]
        path = _torchmetrics_heads(backbone) if heads is None else Path(heads)
        for i, head in enumerate(_read_heads(path, len(ends))):
            self.register_buffer(f"head{i}", head, persistent=False)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            sr: ``(B, 3, H, W)`` in [0, 1]; neither rounded nor clamped here.
            hr: the true pictures, of the same shape.

        Returns:
            ``(B,)``.

        Raises:
            ValueError: unequal or unfit shapes.
        """
        check_pair(sr, hr, smallest=self.smallest)
        x = self.normalise(torch.cat([sr, hr]))
        distance: Tensor = x.new_zeros(len(sr))
        for i, stage in enumerate(self.stages):
            x = stage(x)
            length = (x.square().sum(1, keepdim=True) + 1e-8).sqrt()
            a, b = (x / length).chunk(2)
            weighted = (a - b).square() * self.get_buffer(f"head{i}")
            distance = distance + weighted.sum(1).mean((1, 2))
        return distance


def check_pair(sr: Tensor, hr: Tensor, *, smallest: int) -> None:
    """Refuses what cannot be compared by a network that needs ``smallest`` pixels a side."""
    if sr.shape != hr.shape or sr.ndim != 4 or sr.shape[1] != 3 or not sr.is_floating_point():
        raise ValueError(
            "pictures to compare must both be floating point (B, 3, H, W) of one shape, got sr "
            f"{sr.dtype} {tuple(sr.shape)} and hr {hr.dtype} {tuple(hr.shape)}; repeat the channel "
            "of grey ones three times"
        )
    if min(sr.shape[-2:]) < smallest:
        side = "x".join(map(str, sr.shape[-2:]))
        raise ValueError(f"this backbone needs {smallest} pixels a side, got {side}")


def _torchmetrics_heads(backbone: Backbone) -> Path:
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the linear heads of LPIPS come with torchmetrics, which is not installed: "
            "pip install torchmetrics"
        )
    return Path(spec.origin).parent / f"functional/image/lpips_models/{backbone}.pth"


def _read_heads(path: Path, count: int) -> list[Tensor]:
    """``count`` heads as ``(1, C, 1, 1)``, under the names of the authors' release."""
    tensors = read_tensors(path, "linear heads of LPIPS")
    wanted = [f"lin{i}.model.1.weight" for i in range(count)]
    if sorted(tensors) != wanted:
        raise ValueError(
            f"{path}: not the {count} linear heads of this backbone: it should hold "
            f"{', '.join(wanted)}, it holds {', '.join(sorted(tensors)) or 'nothing'}"
        )
    return [tensors[name].float() for name in wanted]
