"""Weights that torchvision publishes for its detectors, fetched once or read from a file."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, hub, nn
from torchvision.models import WeightsEnum, get_model_weights

from detection.families import TORCHVISION, coco_names


def check_published(name: str) -> None:
    """Refuses a detector that nobody has published weights of."""
    if name not in TORCHVISION:
        raise ValueError(
            f"'{name}' has no published weights; give the path of a file of `srdet detect train` "
            "instead"
        )


def published_weights(name: str, weights: str | Path) -> dict[str, Tensor]:
    """State of a family's published weights, from a local file or by their torchvision name.

    Raises:
        FileNotFoundError: neither such a file nor such a name.
        ConnectionError: they cannot be fetched; what else serves is named.
        ValueError: what was fetched once is damaged, or the file holds no tensors by name.
    """
    choices = get_model_weights(name)
    if str(weights) == "DEFAULT" or str(weights) in choices.__members__:
        state = _fetched(name, choices[str(weights)])
    else:
        state = _read_state(Path(weights), list(choices.__members__))
    if name in ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"):
        # published for batch norms with eps = 0, ours have 1e-5: take it off the variance
        state = {k: v - 1e-5 if k.endswith("running_var") else v for k, v in state.items()}
    return state


def load_published(model: nn.Module, name: str, weights: str | Path) -> None:
    """Puts a family's published weights into a model of it.

    Raises:
        ValueError: they are another family's; besides, the errors of ``published_weights``.
    """
    try:
        model.load_state_dict(published_weights(name, weights))
    except RuntimeError as error:
        raise ValueError(
            f"{weights}: its tensors are not those of {name} with COCO's {len(coco_names())} "
            "labels; name the family that they are of with --detector"
        ) from error


def _fetched(name: str, choice: WeightsEnum) -> dict[str, Tensor]:
    kept = Path(hub.get_dir(), "checkpoints", Path(choice.url).name)
    try:
        state: dict[str, Tensor] = choice.get_state_dict(check_hash=True)
    except (OSError, HTTPException, RuntimeError, UnpicklingError, EOFError) as error:
        if kept.is_file():
            raise ValueError(
                f"{kept}: damaged ({error}); delete it, and it is downloaded again"
            ) from error
        raise ConnectionError(
            f"the published weights {name} {choice.name} could not be downloaded from "
            f"{choice.url} ({getattr(error, 'reason', error)}); copy that file to {kept}, where a "
            "download is kept, or give it as --detector_weights FILE"
        ) from error
    return state


def _read_state(path: Path, names: list[str]) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights {path}: give a file, or one of torchvision's names {', '.join(names)}"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path}: no readable file of tensors, or more than tensors") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(
            f"{path}: more than tensors by name, as a training's checkpoint is; give published "
            f"weights ({', '.join(names)}), or save its state dict alone"
        )
    return state
