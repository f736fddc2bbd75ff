"""What regression and adversarial training share: the network, its running average, validation."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from sr_module.archs import build
from sr_module.checkpoint import load_weights, save_net
from sr_module.metrics import matlab_y, psnr, ssim
from sr_module.net import SRNet
from sr_module.resize import imresize

Batch = tuple[Tensor, Tensor]
"""``(lr, hr)``: ``(B, C, H, W)`` and ``(B, C, scale * H, scale * W)``, float32 in [0, 1]."""


class SRTraining(pl.LightningModule):
    """A network in training, with an exponential moving average of its weights and buffers.

    Validation, checkpoints for use and everything else that leaves the run take the average.

    Args:
        arch: a name in ``sr_module.archs.ARCHS``.
        scale: enlargement factor.
        arch_args: arguments of the architecture besides the scale.
        init_from: weights that training starts from: ours or published ones, same architecture.
        ema_decay: of the average per step, at step n no more than ``(1 + n) / (10 + n)``; with 0
            the average is the network itself.
    """

    net: SRNet
    averaged: SRNet

    def __init__(
        self,
        arch: str,
        *,
        scale: int = 4,
        arch_args: dict[str, Any] | None = None,
        init_from: str | None = None,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay {ema_decay}: from 0 (no averaging) to below 1")
        self.net = build(arch, scale, **(arch_args or {}))
        if init_from:
            load_weights(self.net, init_from)
        # cuDNN and oneDNN both run convolutions faster on NHWC memory.
        self.net.to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.ema_decay = ema_decay
        self.protocol = matlab_y(scale)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Moves the average by one step, buffers such as BatchNorm's statistics included."""
        step = self.global_step
        # With a fixed decay the random first weights would stay visible for thousands of steps.
        weight = 1 - min(self.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            pairs = zip(_tensors(self.averaged), _tensors(self.net), strict=True)
            for average, current in pairs:
                if average.is_floating_point():
                    average.lerp_(current, weight)
                else:  # BatchNorm's step counter
                    average.copy_(current)

    def train(self, mode: bool = True) -> "SRTraining":
        """The average stays in evaluation mode: it is never trained."""
        super().train(mode)
        self.averaged.eval()
        return self

    def forward(self, lr: Tensor) -> Tensor:
        """The averaged network's picture, ``(B, C, scale * H, scale * W)`` in [0, 1]."""
        return self.averaged(lr).float().clamp(0, 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """PSNR and SSIM by the papers' protocol, beside bicubic on the same pictures."""
        lr, hr = batch
        sr = self(lr)
        scores = {
            "val/psnr_y": psnr(sr, hr, self.protocol),
            "val/ssim_y": ssim(sr, hr, self.protocol),
            "val/psnr_y_bicubic": psnr(imresize(lr, self.net.scale), hr, self.protocol),
        }
        means = {name: score.mean().float() for name, score in scores.items()}
        self.log_dict(means, on_epoch=True, sync_dist=True, batch_size=len(hr))

    def export(self, path: Path, *, provenance: Mapping[str, object]) -> None:
        """Writes the averaged network as a checkpoint for use."""
        save_net(self.averaged, path, provenance=provenance)


def _tensors(net: SRNet) -> Iterator[Tensor]:
    return itertools.chain(net.parameters(), net.buffers())
