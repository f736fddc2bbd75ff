"""Optimiser and learning-rate schedule as settings."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler, MultiStepLR


@dataclass(frozen=True)
class Optimisation:
    """Adam with one of the two schedules of the field's papers; the unit is the step.

    Attributes:
        learning_rate: at the start.
        betas: Adam's decay rates of the two moments.
        schedule: "steps" multiplies the rate by ``gamma`` at each milestone; "cosine" falls to
            ``learning_rate_min`` in ``period`` steps and starts again (Loshchilov and Hutter 2017,
            arXiv:1608.03983, section 3).
        milestones: steps, for "steps".
        gamma: factor, for "steps".
        period: steps, for "cosine".
        learning_rate_min: for "cosine".
        weight_decay: Adam's L2 term.
    """

    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.5
    period: int = 250_000
    learning_rate_min: float = 1e-7
    weight_decay: float = 0.0

    def build(self, module: nn.Module) -> tuple[Optimizer, LRScheduler]:
        """The optimiser over the trainable parameters of ``module``, and its schedule."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(
            parameters, self.learning_rate, self.betas, weight_decay=self.weight_decay, fused=True
        )
        if self.schedule == "cosine":
            return optimizer, CosineAnnealingWarmRestarts(
                optimizer, self.period, eta_min=self.learning_rate_min
            )
        return optimizer, MultiStepLR(optimizer, list(self.milestones), self.gamma)
