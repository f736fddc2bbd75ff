"""Training a network for what another network sees in its pictures: task-driven super-resolution.

Kim et al. 2024, "Beyond Image Super-Resolution for Image Recognition with Task-Driven Perceptual
Loss", arXiv:2404.01692 (SR4IR). Each batch first moves the super-resolution network, by its pixel
loss, the distance between the task network's features of ``sr`` and ``hr``, and the task's own
loss; then the task network, on pictures that are ``sr``, ``hr`` and a patchwork of both. The first
steps know the pixel loss only: features of bad pictures lead astray.

Departures: the task's own loss may join the first half (Haris et al. 2018, arXiv:1803.11316); the
task network sees one of the three kinds of picture a step and picture, not all three; it may also
stay as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sr_module.guard import guarded
from sr_module.losses import pixel_loss
from sr_module.optimisation import Optimisation
from sr_module.training import SRTraining, uncounted

Truth = Any
"""What is true of a batch of pictures, as the task knows it."""

TaskBatch = tuple[Tensor, Tensor, Truth]
"""``(lr, hr, truth)``; pictures as in ``training.Batch``."""

TASK_CLIP = 10.0
"""Greatest norm of the task network's gradient."""

CELLS = 8
"""A patchwork has so many cells a side (SR4IR, section 3.4)."""


@dataclass(frozen=True)
class Task:
    """A network that does something with pictures, as functions of them.

    Attributes:
        network: holds what the functions compute with; its state, buffers aside from the trained
            weights, must not change when they are called.
        features: pictures ``(B, 3, H, W)`` in [0, 1] to feature maps.
        look: pictures and what is true of them to feature maps and the task's loss; gradients flow
            to the pictures.
    """

    network: nn.Module
    features: Callable[[Tensor], Sequence[Tensor]]
    look: Callable[[Tensor, Truth], tuple[Sequence[Tensor], Tensor]]


class TaskDriven(SRTraining):
    """Alternates a step of the super-resolution network and one of the task network.

    Args:
        arch: a name in ``sr_module.archs.ARCHS``.
        task: what the pictures are for.
        scale: enlargement factor.
        arch_args: arguments of the architecture besides the scale.
        init_from: the PSNR-trained weights to start from.
        ema_decay: of the averaged weights per step.
        max_skipped: batches in a row that may be skipped because they are not finite; one more ends
            the training.
        loss: pixel loss, by its name.
        pixel_weight: factor of the pixel loss.
        feature_weight: factor of the mean absolute difference of features.
        task_weight: factor of the task's own loss in the step of the super-resolution network.
        warmup_steps: first steps with the pixel loss only, in which the task network stays.
        optimisation: of the super-resolution network.
        task_optimisation: of the task network; null leaves it as it is.
    """

    def __init__(
        self,
        arch: str,
        *,
        task: Task,
        scale: int = 4,
        arch_args: dict[str, Any] | None = None,
        init_from: str | None = None,
        ema_decay: float = 0.99,
        max_skipped: int = 10,
        loss: str = "l1",
        pixel_weight: float = 1.0,
        feature_weight: float = 0.1,
        task_weight: float = 0.01,
        warmup_steps: int = 0,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 (frozen)
        task_optimisation: Optimisation | None = None,
    ) -> None:
        super().__init__(
            arch,
            scale=scale,
            arch_args=arch_args,
            init_from=init_from,
            ema_decay=ema_decay,
            max_skipped=max_skipped,
        )
        weights = {"pixel": pixel_weight, "feature": feature_weight, "task": task_weight}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"weights of losses are 0 or more and not all 0, got {weights}")
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, got {warmup_steps}")
        self.automatic_optimization = False
        self.task, self.task_network = task, task.network
        self.criterion = pixel_loss(loss)
        self.pixel_weight, self.feature_weight = pixel_weight, feature_weight
        self.task_weight, self.warmup_steps = task_weight, warmup_steps
        self.optimisation, self.task_optimisation = optimisation, task_optimisation
        if task_optimisation is None:
            self.task_network.requires_grad_(False)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """The network's optimiser and, where it learns, the task network's."""
        built = [self.optimisation.build(self.net)]
        if self.task_optimisation is not None:
            built.append(self.task_optimisation.build(self.task_network))
        return [optimizer for optimizer, _ in built], [schedule for _, schedule in built]

    def training_step(self, batch: TaskBatch, batch_idx: int) -> None:
        """One step of the network, and one of the task network on what it has made."""
        lr, hr, truth = batch
        optimizers = self.optimizers()
        ours, *theirs = optimizers if isinstance(optimizers, list) else [optimizers]
        assert isinstance(ours, LightningOptimizer)
        warm = self.global_step < self.warmup_steps
        with ours.toggle_model():
            sr = self.net(lr).float()
            self.manual_backward(guarded(self.network_loss(sr, hr, truth, warm=warm)))
        self.judge(ours.optimizer)
        ours.step()
        ours.zero_grad()
        for other in theirs if not warm else ():
            assert isinstance(other, LightningOptimizer)
            self._teach(uncounted(other), sr.detach().clamp(0, 1), hr, truth)
        self.move_average(self.global_step)
        schedules = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            assert isinstance(schedule, LRScheduler)
            schedule.step()

    def network_loss(self, sr: Tensor, hr: Tensor, truth: Truth, *, warm: bool) -> Tensor:
        """What the super-resolution network minimises; ``warm`` leaves the task out."""
        parts = {"train/pixel": self.criterion(sr, hr)}
        total = self.pixel_weight * parts["train/pixel"]
        if not warm:
            found, parts["train/task"] = self.task.look(sr.clamp(0, 1), truth)
            with torch.no_grad():
                wanted = self.task.features(hr)
            parts["train/feature"] = feature_distance(found, wanted)
            total = total + self.feature_weight * parts["train/feature"]
            total = total + self.task_weight * parts["train/task"]
        self.log_dict({name: part.detach() for name, part in parts.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def _teach(self, optimizer: LightningOptimizer, sr: Tensor, hr: Tensor, truth: Truth) -> None:
        """One step of the task network on enlarged, original and mixed pictures."""
        with optimizer.toggle_model():
            loss = self.task.look(by_turns(sr, hr), truth)[1]
            self.manual_backward(loss)
        self.log("train/task_network", loss.detach())
        if bool(loss.isfinite()):
            nn.utils.clip_grad_norm_(self.task_network.parameters(), TASK_CLIP)
            optimizer.step()
        optimizer.zero_grad()

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """PSNR, SSIM and the task's loss of a ``TaskBatch``."""
        lr, hr, truth = batch
        super().validation_step((lr, hr), batch_idx)
        loss = self.task.look(self(lr), truth)[1]
        self.log("val/task", loss, on_epoch=True, batch_size=len(lr), sync_dist=True)


def feature_distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of each pair of feature maps, averaged over the pairs."""
    pairs = zip(found, wanted, strict=True)
    return torch.stack([F.l1_loss(ours.float(), theirs.float()) for ours, theirs in pairs]).mean()


def by_turns(sr: Tensor, hr: Tensor) -> Tensor:
    """Of each picture in a batch the enlarged one, the original, or a patchwork, one third each.

    A detector that learns from them knows enlarged pictures and does not forget true ones.
    """
    kind = torch.randint(3, (len(sr), 1, 1, 1), device=sr.device)
    mixed = torch.where(kind == 0, sr, hr)
    return torch.where(kind == 2, patchwork(sr, hr), mixed)


def patchwork(sr: Tensor, hr: Tensor) -> Tensor:
    """Pictures ``(B, C, H, W)`` whose cells are at random of the one or the other."""
    cells = torch.randint(2, (len(sr), 1, CELLS, CELLS), device=sr.device).float()
    ours = F.interpolate(cells, size=sr.shape[-2:], mode="nearest") > 0
    return torch.where(ours, sr, hr)
