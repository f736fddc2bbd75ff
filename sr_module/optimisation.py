"""Optimiser, learning-rate schedule and clipping as settings."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sr_module.choice import unknown


@dataclass(frozen=True)
class Optimisation:
    """Adam or SGD with one of the two schedules of the field's papers; the unit is the step.

    Attributes:
        learning_rate: at the start.
        betas: Adam's decay rates of the two moments.
        schedule: "steps" multiplies the rate by ``gamma`` at each milestone, and without milestones
            leaves it as it is; "cosine" falls to ``learning_rate_min`` in ``period`` steps and
            starts again (Loshchilov and Hutter 2017, arXiv:1608.03983, section 3).
        milestones: steps, for "steps".
        gamma: factor, for "steps".
        period: steps, for "cosine".
        learning_rate_min: for "cosine".
        weight_decay: L2 term.
        optimizer: "adam" or "sgd".
        momentum: of SGD.
        layer_factors: the learning rate of a part of the network is multiplied by its factor; parts
            are named by the first words of their parameters' names, such as ``{"conv3": 0.1}``, the
            longest fitting name counts.
        warmup: the rate grows linearly over the first so many steps (Goyal et al. 2017,
            arXiv:1706.02677, section 2.2).
    """

    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.5
    period: int = 250_000
    learning_rate_min: float = 1e-7
    weight_decay: float = 0.0
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.9
    layer_factors: dict[str, float] = field(default_factory=dict)
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise unknown("optimizer", self.optimizer, ("adam", "sgd"))
        if self.schedule not in ("steps", "cosine"):
            raise unknown("schedule", self.schedule, ("steps", "cosine"))
        rates = {"learning_rate": self.learning_rate}
        rates |= {f"layer_factors: {part}": value for part, value in self.layer_factors.items()}
        for name, value in rates.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value!r}")
        if self.warmup < 0:
            raise ValueError(f"warmup must be 0 steps or more, got {self.warmup}")

    def build(self, module: nn.Module) -> tuple[Optimizer, LambdaLR]:
        """The optimiser over the trainable parameters of ``module``, and its schedule.

        Raises:
            ValueError: ``layer_factors`` names a part that ``module`` has not.
        """
        optimizer = self._optimizer(self._groups(module))
        return optimizer, LambdaLR(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by in the step after ``step`` others."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "steps":
            return float(warm * self.gamma ** bisect_right(sorted(self.milestones), step))
        least = self.learning_rate_min / self.learning_rate
        wave = (1 + math.cos(math.pi * (step % self.period) / self.period)) / 2
        return warm * (least + (1 - least) * wave)

    def _groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Parameters by the factor on their rate, those without one first."""
        groups: dict[str, list[nn.Parameter]] = {
            "": [],
            **{part: [] for part in self.layer_factors},
        }
        for name, parameter in module.named_parameters():
            part = _part_of(name, self.layer_factors)
            if parameter.requires_grad:
                groups[part].append(parameter)
        for part in self.layer_factors:
            if not groups[part]:
                raise unknown("layer in layer_factors:", part, _parts(module))
        factors = {"": 1.0, **self.layer_factors}
        return [
            {"params": parameters, "lr": self.learning_rate * factors[part]}
            for part, parameters in groups.items()
            if parameters
        ]

    def _optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam(
                groups, self.learning_rate, self.betas, weight_decay=self.weight_decay, fused=True
            )
        sgd = torch.optim.SGD(
            groups, self.learning_rate, self.momentum, weight_decay=self.weight_decay, fused=True
        )
        # Fused SGD allocates momentum without filling it, and leaves it so when the first step is
        # refused. From zero, the first step is the gradient all the same.
        if self.momentum:
            for group in sgd.param_groups:
                for parameter in group["params"]:
                    sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd


def clip_by_rate(optimizer: Optimizer, bound: float) -> None:
    """Clips each gradient's elements to ``bound / rate`` either way, with the rate now in force.

    A step then moves no weight by more than ``bound``, whatever the rate. Source: Kim et al. 2016,
    arXiv:1511.04587, section 3.2, "adjustable gradient clipping".
    """
    for group in optimizer.param_groups:
        torch.nn.utils.clip_grad_value_(group["params"], bound / group["lr"])


def clip(optimizer: Optimizer, bound: float, kind: str | None = "norm") -> None:
    """Scales all gradients down to a norm of ``bound``, or cuts each off there (kind "value").

    Lightning's own clipping refuses fused optimisers under any mixed precision; only where
    gradients are scaled does it have to.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if kind == "value":
        torch.nn.utils.clip_grad_value_(weights, bound)
    else:
        torch.nn.utils.clip_grad_norm_(weights, bound)


def _part_of(name: str, parts: Sequence[str] | dict[str, float]) -> str:
    """The longest of ``parts`` that the parameter's name begins with, or nothing."""
    fitting = [part for part in parts if name == part or name.startswith(f"{part}.")]
    return max(fitting, key=len, default="")


def _parts(module: nn.Module) -> list[str]:
    """The first words of the trainable parameters' names, in their order."""
    trainable = (name for name, parameter in module.named_parameters() if parameter.requires_grad)
    return list(dict.fromkeys(name.split(".")[0] for name in trainable))
