"""Training without gradients: sums over the pictures, then one solution (RAISR).

A network that can be trained so has ``accumulate(lr, hr)``, which adds a batch to buffers,
``sums``, the names of these buffers, and ``solve()``, which makes its filters of them and says in
numbers how that went. Sums of several processes are added, so that any number of them gives the
same network.
"""

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from sr_module.archs import ARCHS
from sr_module.training import Batch, SRTraining


class Solvable(Protocol):
    """What a network offers that is solved for."""

    sums: tuple[str, ...]

    def accumulate(self, lr: Tensor, hr: Tensor) -> None:
        """Adds a batch to the sums."""

    def solve(self) -> dict[str, float]:
        """Makes the network of the sums."""


_OFFERED = ("sums", "accumulate", "solve")


class ClosedForm(SRTraining):
    """Adds every batch to the network's sums, and solves them before each validation.

    Args:
        arch: a name in ``sr_module.archs.ARCHS`` whose network can be solved for.
        scale: enlargement factor.
        arch_args: arguments of the architecture besides the scale.

    Raises:
        ValueError: the architecture learns by gradients only.
    """

    def __init__(
        self, arch: str, *, scale: int = 4, arch_args: dict[str, Any] | None = None
    ) -> None:
        super().__init__(arch, scale=scale, arch_args=arch_args, ema_decay=0.0)
        if not _solvable(type(self.net)):
            names = ", ".join(name for name, kind in ARCHS.items() if _solvable(kind))
            raise ValueError(
                f"{arch} is not solved in closed form, it learns by gradients: take the class "
                f"Regression or Adversarial for it; ClosedForm is for: {names}"
            )
        # Lightning counts steps by an optimiser's, and DDP refuses a module without a parameter.
        self.counter = nn.Parameter(torch.zeros(()))
        # DDP sends the first process's buffers to all before each step: what the others have
        # summed up would be lost.
        self._ddp_params_and_buffers_to_ignore = [
            f"{net}.{name}" for net in ("net", "averaged") for name in self._sums_of().sums
        ]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One that moves nothing."""
        return torch.optim.SGD([self.counter], lr=0.0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Adds a batch to the sums."""
        with torch.autocast(self.device.type, enabled=False):
            self._sums_of().accumulate(*batch)
        return self.counter * 0

    def on_train_start(self) -> None:
        """No step can break weights here, so nothing is guarded."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Nothing was skipped."""

    def on_train_end(self) -> None:
        """Nothing is open."""

    def on_validation_epoch_start(self) -> None:
        """Solves what was summed up so far, over all processes."""
        super().on_validation_epoch_start()
        sums = self._total()
        if not any(total.any() for total in sums.values()):
            return  # weights of a file
        for name, total in sums.items():
            getattr(self.averaged, name).copy_(total)
        for name, value in cast(Solvable, self.averaged).solve().items():
            self.log(f"solve/{name}", value)
        self.net.load_state_dict(self.averaged.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of all processes; every one of them comes here."""
        checkpoint["sums"] = self._total()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them up again, on one process."""
        first = self.trainer.global_rank == 0
        sums: Mapping[str, Tensor] = checkpoint["sums"]
        for name, total in sums.items():
            mine: Tensor = getattr(self.net, name)
            mine.copy_(total) if first else mine.zero_()

    def _sums_of(self) -> Solvable:
        return cast(Solvable, self.net)

    def _total(self) -> dict[str, Tensor]:
        """Over all processes."""
        reduce = self.trainer.strategy.reduce
        return {
            name: reduce(getattr(self.net, name).clone(), reduce_op="sum")
            for name in self._sums_of().sums
        }


def _solvable(kind: type[nn.Module]) -> bool:
    return all(hasattr(kind, name) for name in _OFFERED)
