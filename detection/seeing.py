"""A detector as a function that other networks learn from: its features and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detection.finetune import Target, frozen_batchnorm


class Eye:
    """What a torchvision-style detector sees, differentiable in the pictures.

    Args:
        model: from ``families.build_model``, with a ``transform`` and a ``backbone``. Its batch
            normalisations are frozen: looking must not change it.
    """

    def __init__(self, model: nn.Module) -> None:
        frozen_batchnorm(model)
        self.model = model
        self._transform: Any = model.transform  # torchvision publishes no types
        self._backbone: Any = model.backbone

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Feature maps of pictures ``(B, 3, H, W)`` in [0, 1], the finest first."""
        batch, _ = self._transform(list(pictures))
        maps: dict[str, Tensor] = self._backbone(batch.tensors)
        return list(maps.values())

    def look(self, pictures: Tensor, targets: Sequence[Target]) -> tuple[list[Tensor], Tensor]:
        """The same feature maps, and the sum of the detector's losses; one pass for both.

        Args:
            pictures: ``(B, 3, H, W)`` in [0, 1].
            targets: ``boxes`` and ``labels`` of each picture, see ``finetune.DetectionCrops``.
        """
        caught: list[dict[str, Tensor]] = []
        self.model.train()  # only then do torchvision's detectors tell their losses
        hook = self._backbone.register_forward_hook(lambda _, __, maps: caught.append(maps))
        try:
            losses: dict[str, Tensor] = self.model(list(pictures), list(targets))
        finally:
            hook.remove()
        return list(caught[0].values()), torch.stack(list(losses.values())).sum()
