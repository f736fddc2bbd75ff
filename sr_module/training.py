"""What regression and adversarial training share: network, running average, guard, validation."""

import copy
import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from sr_module.archs import build
from sr_module.checkpoint import load_weights, save_net
from sr_module.guard import Guard
from sr_module.metrics import matlab_y, psnr, ssim
from sr_module.net import SRNet
from sr_module.resize import imresize

Batch = tuple[Tensor, Tensor]
"""``(lr, hr)``: ``(B, C, H, W)``, or ``(B, frames, C, H, W)`` for a network of several frames, and
``(B, C, scale * H, scale * W)``, which is the middle frame; float32 in [0, 1]."""


class SRTraining(pl.LightningModule):
    """A network in training, with an exponential moving average of its weights and buffers.

    Validation, checkpoints for use and everything else that leaves the run take the average.

    A batch whose loss or gradients are not finite is skipped: weights, average, optimiser state and
    BatchNorm's statistics stay as they were, ``train/skipped`` counts it, and the schedule goes on.

    Args:
        arch: a name in ``sr_module.archs.ARCHS``.
        scale: enlargement factor.
        arch_args: arguments of the architecture besides the scale.
        init_from: weights that training starts from: ours or published ones, same architecture.
        ema_decay: of the average per step, at step n no more than ``(1 + n) / (10 + n)``; with 0
            the average is the network itself.
        max_skipped: batches in a row that may be skipped; one more ends the training.
    """

    net: SRNet
    averaged: SRNet
    guard: Guard
    scores = ("val/psnr_y", "val/ssim_y", "val/psnr_y_bicubic")
    """What every validation reports."""

    def __init__(
        self,
        arch: str,
        *,
        scale: int = 4,
        arch_args: dict[str, Any] | None = None,
        init_from: str | None = None,
        ema_decay: float = 0.999,
        max_skipped: int = 10,
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay {ema_decay}: from 0 (no averaging) to below 1")
        if max_skipped < 0:
            raise ValueError(f"max_skipped must be 0 batches or more, got {max_skipped}")
        self.net = build(arch, scale, **(arch_args or {}))
        if init_from:
            load_weights(self.net, init_from)
        # cuDNN and oneDNN both run convolutions faster on NHWC memory.
        self.net.to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.ema_decay = ema_decay
        self.max_skipped = max_skipped
        self._skipped_before = 0  # in the part of the run that is resumed
        self.protocol = matlab_y(scale)
        self.validated_at = -1  # step of the last validation

    def move_average(self, step: int) -> None:
        """Moves the average after the ``step``-th step, BatchNorm's statistics included.

        Part of the step, not of a hook after it: checkpoints are written before such hooks.
        """
        # With a fixed decay the random first weights would stay visible for thousands of steps.
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        keep = torch.where(self.guard.refused, 1.0, decay)  # a refused step moves nothing
        with torch.no_grad():
            moved = torch._foreach_mul(_floating(self.net), 1 - keep)
            average = _floating(self.averaged)
            torch._foreach_mul_(average, keep)
            torch._foreach_add_(average, moved)
            for mine, counter in zip(_counters(self.averaged), _counters(self.net), strict=True):
                mine.copy_(counter)

    @property
    def whole_steps(self) -> bool:
        """Whether every step gives every parameter a gradient: then ranks need not look which."""
        return False

    def changing(self) -> list[nn.Module]:
        """The modules whose buffers a training step changes."""
        return [self.net]

    def judge(self, *optimizers: Optimizer) -> None:
        """Has the optimisers refuse their next step if one of their gradients is not finite."""
        self.guard.judge(*optimizers, step=self.global_step + 1)

    def on_train_start(self) -> None:
        """Takes the state from which training starts or goes on as sound."""
        self.guard = Guard(
            self.changing(), max_skipped=self.max_skipped, skipped=self._skipped_before
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Lets a network grow that grows while it trains."""
        self.net.advance(self.global_step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Counts skipped batches, and gives up after too many.

        An accelerator is asked only when a point of the curves is due, and waits for it anyway.
        """
        self.log("train/skipped", self.guard.skipped.float())
        every: int = self.trainer.log_every_n_steps or 50  # type: ignore[attr-defined]
        if self.device.type == "cpu" or self.global_step % every == 0:
            self.guard.check()

    def on_train_end(self) -> None:
        """Looks at the steps since the last point of the curves."""
        self.guard.check()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the count of skipped batches."""
        guard = getattr(self, "guard", None)
        checkpoint["skipped"] = int(guard.skipped) if guard else self._skipped_before

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on counting."""
        self._skipped_before = checkpoint.get("skipped", 0)

    def on_fit_start(self) -> None:
        """Remembers the seed of the run."""
        self._seed = torch.initial_seed()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Seeds each training batch by its number and rank.

        What is random in a step, such as the noise of ``degrade``, is then the same after a resume.
        """
        if self.trainer.training:
            place = f"{self._seed}/{self.batches_done()}/{self.global_rank}"
            torch.manual_seed(random.Random(place).getrandbits(32))
        return batch

    def batches_done(self) -> int:
        """Training batches of this rank over all epochs, kept over a resume.

        In ``training_step`` the present one is among them, before it is not.
        """
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def train(self, mode: bool = True) -> "SRTraining":
        """The average stays in evaluation mode: it is never trained."""
        super().train(mode)
        self.averaged.eval()
        return self

    def forward(self, lr: Tensor) -> Tensor:
        """The averaged network's picture, ``(B, C, scale * H, scale * W)`` in [0, 1]."""
        return self.averaged(lr).float().clamp(0, 1)

    def on_validation_epoch_start(self) -> None:
        """Opens the sums over pictures: psnr, ssim, psnr of bicubic, the network's own, count."""
        count = 4 + len(self.net.score_names)
        self._sums = torch.zeros(count, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """PSNR and SSIM by the papers' protocol, beside bicubic on the same pictures."""
        lr, hr = batch
        sr, bicubic = self(lr), imresize(self.net.middle(lr), self.net.scale)
        quality, likeness = psnr(sr, hr, self.protocol), ssim(sr, hr, self.protocol)
        baseline = psnr(bicubic, hr, self.protocol)
        own = self.averaged.scores(lr, hr).to(quality)
        fidelity = torch.stack([quality, likeness, baseline])
        self._sums += torch.cat([fidelity, own, torch.ones_like(quality)[None]]).sum(1)

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the pictures of all ranks; a rank may have had none."""
        sums: Tensor = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        means = (sums[:-1] / sums[-1]).float()
        own = (f"val/{name}" for name in self.net.score_names)
        self.log_dict(dict(zip((*self.scores, *own), means, strict=True)))
        self.validated_at = self.global_step

    def export(self, path: Path, *, provenance: Mapping[str, object]) -> None:
        """Writes the averaged network as a checkpoint for use."""
        save_net(self.averaged, path, provenance=provenance)


def uncounted(optimizer: LightningOptimizer) -> LightningOptimizer:
    """A second optimiser whose steps do not count: one batch is one step.

    Lightning counts every optimiser's step in ``global_step``, in the hooks that are silenced here.
    """
    optimizer._on_before_step = optimizer._on_after_step = _quiet
    return optimizer


def _quiet() -> None:
    """A step that is not counted."""


def _tensors(net: SRNet) -> Iterator[Tensor]:
    return itertools.chain(net.parameters(), net.buffers())


def _floating(net: SRNet) -> list[Tensor]:
    return [tensor for tensor in _tensors(net) if tensor.is_floating_point()]


def _counters(net: SRNet) -> list[Tensor]:
    """BatchNorm counts its steps."""
    return [tensor for tensor in _tensors(net) if not tensor.is_floating_point()]
