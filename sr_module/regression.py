"""Training towards the mean: one network, one pixel loss (SRCNN to EDSR and RRDB-PSNR)."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from sr_module.losses import pixel_loss
from sr_module.optimisation import Optimisation
from sr_module.training import Batch, SRTraining


class Regression(SRTraining):
    """Minimises a pixel loss; the PSNR stage of every network here.

    Args:
        arch: a name in ``sr_module.archs.ARCHS``.
        scale: enlargement factor.
        arch_args: arguments of the architecture besides the scale.
        init_from: checkpoint file to start from (EDSR section 3.2 trains x4 from x2).
        ema_decay: of the averaged weights per step.
        loss: "l1", "l2" or "charbonnier".
        optimisation: optimiser and schedule.
    """

    def __init__(
        self,
        arch: str,
        *,
        scale: int = 4,
        arch_args: dict[str, Any] | None = None,
        init_from: str | None = None,
        ema_decay: float = 0.999,
        loss: str = "l1",
        optimisation: Optimisation = Optimisation(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(
            arch, scale=scale, arch_args=arch_args, init_from=init_from, ema_decay=ema_decay
        )
        self.criterion = pixel_loss(loss)
        self.optimisation = optimisation

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimiser whose schedule advances every step."""
        optimizer, schedule = self.optimisation.build(self.net)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """The optimiser's step, and the average's with it."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.move_average(self.global_step + 1)  # Lightning counts the step when this returns

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The pixel loss of one batch."""
        lr, hr = batch
        loss = self.net.loss(lr, hr, self.criterion)
        self.log("train/loss", loss, prog_bar=True)
        return loss
