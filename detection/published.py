"""Weights that torchvision publishes for its detectors, fetched once or read from a file."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor, hub
from torchvision.models import WeightsEnum, get_model_weights

from detection.families import TORCHVISION


def check_published(name: str) -> None:
    """Refuses a detector that nobody has published weights of."""
    if name not in TORCHVISION:
        raise ValueError(
            f"'{name}' has no published weights; load its file of save_detector by path instead"
        )


def published_weights(name: str, weights: str | Path) -> dict[str, Tensor]:
    """State of a family's published weights, from a local file or by their torchvision name.

    Raises:
        FileNotFoundError: neither such a file nor such a name.
        ConnectionError: they cannot be fetched; what else serves is named.
        ValueError: what was fetched once is damaged.
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
    if path.suffix == ".safetensors":
        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
