"""Refuses the optimiser steps that would put NaN or infinity into a network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


class DivergenceError(ValueError):
    """More batches in a row than allowed had a loss or gradients that are not finite."""


class Guard:
    """Refuses the steps of batches whose loss or gradients are not finite, and counts them.

    A refused step leaves weights, optimiser state and buffers (BatchNorm's statistics, spectral
    norm's vectors) as they were before it. Nothing is read back from the device until ``check``.

    Args:
        modules: those whose buffers training changes; their present state is taken as sound.
        max_skipped: refused steps in a row that are put up with.
        skipped: steps refused before, in the part of the run that is resumed.
    """

    def __init__(self, modules: Sequence[nn.Module], *, max_skipped: int, skipped: int = 0) -> None:
        self.max_skipped = max_skipped
        self._buffers = [buffer for module in modules for buffer in module.buffers()]
        self._sound_buffers = [buffer.clone() for buffer in self._buffers]
        device = next(modules[0].parameters()).device
        self.refused = torch.tensor(False, device=device)
        """Whether the last step was refused."""
        self.skipped = torch.tensor(skipped, device=device)
        """Steps refused so far."""
        self._in_a_row = torch.tensor(0, device=device)
        self._given_up_at = torch.tensor(-1, device=device)

    @torch.no_grad()
    def judge(self, *optimizers: Optimizer, step: int) -> None:
        """Has all ``optimizers`` refuse their next step where any of their gradients is not finite.

        To be called between the backward passes, with gradients exchanged between processes, and
        clipping, which may turn an infinite gradient into a finite one.

        Args:
            optimizers: fused ones.
            step: number of the step, for the message.
        """
        gradients = [_gradients(optimizer) for optimizer in optimizers]
        sound = get_total_norm([g for of_one in gradients for g in of_one]).isfinite()
        self.refused = sound.logical_not()
        for optimizer, of_one in zip(optimizers, gradients, strict=True):
            optimizer.found_inf = self.refused.float()  # type: ignore[attr-defined]
            # The gradient scaler of precision 16-mixed overwrites found_inf with its own verdict on
            # this optimiser alone.
            for gradient in of_one[:1]:
                gradient.masked_fill_(self.refused, torch.nan)
        for buffer, was in zip(self._buffers, self._sound_buffers, strict=True):
            torch.where(sound, buffer, was, out=buffer)
        if self._buffers:
            torch._foreach_copy_(self._sound_buffers, self._buffers)
        self._count(step)

    def _count(self, step: int) -> None:
        self.skipped += self.refused
        self._in_a_row = (self._in_a_row + 1) * self.refused
        gives_up = (self._in_a_row > self.max_skipped) & (self._given_up_at < 0)
        self._given_up_at.masked_fill_(gives_up, step)

    def check(self) -> None:
        """Waits for the device and reads the counters.

        Raises:
            DivergenceError: too many steps were refused in a row.
        """
        step = int(self._given_up_at)
        if step >= 0:
            raise DivergenceError(
                f"step {step}: more than {self.max_skipped} batches in a row (max_skipped) had a "
                f"loss or gradients that are not finite, {int(self.skipped)} in the whole run. None"
                " of them touched the weights, and the last checkpoint is sound. Lower the "
                "learning rate, train with trainer.precision 32-true, or look for broken training "
                "pictures"
            )


def guarded(loss: Tensor) -> Tensor:
    """``loss``, with gradients that are NaN where it is not finite itself.

    L1 has gradient 0 where a picture is NaN. Gradients, unlike losses, are exchanged between
    processes, so that all of them come to the same verdict.
    """
    finite = loss.detach().isfinite()
    loss.register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: torch.where(finite, gradient, torch.nan)
    )
    return loss


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
