"""A detector's training begun from weights that are on disk, in place of random ones."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from detection.detectors import read_metadata
from detection.families import TORCHVISION
from detection.published import published_weights

LEAST = 0.5
"""Share of the values that must fit: below, it is another architecture."""


def start_from(model: nn.Module, architecture: str, path: Path) -> list[str]:
    """Copy into a model what fits of a file, by name and shape.

    What tells other categories apart does not fit and stays random, as it should.

    Args:
        model: made by ``families.build_model``.
        architecture: its name.
        path: a file of ``save_detector``, or published weights of a torchvision family (.pth,
            .safetensors).

    Returns:
        Names of the tensors that stay random.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another architecture, or there are no published weights of this one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights {path}; give a file that is on this disk")
    given = _state(architecture, path)
    own = model.state_dict()
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    share = sum(v.numel() for v in fitting.values()) / sum(v.numel() for v in own.values())
    if share < LEAST:
        raise ValueError(
            f"{path} has {100 * share:.0f} % of the weights of {architecture}: it is of another "
            f"architecture; name it with --architecture"
        )
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def _state(architecture: str, path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            read_metadata(path)
        except ValueError:
            if architecture not in TORCHVISION:
                raise
        else:
            return load_file(path)
    if architecture not in TORCHVISION:
        raise ValueError(
            f"{architecture} has no published weights; start from a file of `srdet detect train`"
        )
    return published_weights(architecture, path)
