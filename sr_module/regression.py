"""Training towards the mean: one network, one pixel loss (SRCNN to EDSR and RRDB-PSNR)."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from sr_module.degrade import sharpen
from sr_module.guard import guarded
from sr_module.losses import pixel_loss, with_total_variation
from sr_module.optimisation import Optimisation, clip, clip_by_rate
from sr_module.training import Batch, SRTraining


class Regression(SRTraining):
    """Minimises a pixel loss; the PSNR stage of every network here.

    Args:
        arch: a name in ``sr_module.archs.ARCHS``.
        scale: enlargement factor.
        arch_args: arguments of the architecture besides the scale.
        init_from: checkpoint file to start from (EDSR section 3.2 trains x4 from x2).
        ema_decay: of the averaged weights per step.
        max_skipped: batches in a row that may be skipped because they are not finite; one more ends
            the training.
        loss: "l1", "l2", "charbonnier", "euclidean" or "ssim".
        tv_weight: factor of the result's total variation, which is added to the loss; 0 leaves it
            out.
        clip_norm: gradients are scaled down to this norm; null leaves them.
        clip_adjustable: bound on each weight's step: gradients are clipped to this divided by the
            learning rate now in force (VDSR, arXiv:1511.04587, section 3.2); null leaves them.
        sharpen_targets: whether ``hr`` is sharpened before it is compared with (Real-ESRNet).
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
        max_skipped: int = 10,
        loss: str = "l1",
        tv_weight: float = 0.0,
        clip_norm: float | None = None,
        clip_adjustable: float | None = None,
        sharpen_targets: bool = False,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(
            arch,
            scale=scale,
            arch_args=arch_args,
            init_from=init_from,
            ema_decay=ema_decay,
            max_skipped=max_skipped,
        )
        if clip_norm is not None and clip_adjustable is not None:
            raise ValueError("clip_norm and clip_adjustable exclude each other; leave one out")
        for name, bound in (("clip_norm", clip_norm), ("clip_adjustable", clip_adjustable)):
            if bound is not None and bound <= 0:
                raise ValueError(f"{name} must be positive, or null for no clipping; got {bound}")
        self.criterion = with_total_variation(pixel_loss(loss), tv_weight)
        self.clip_norm, self.clip_adjustable = clip_norm, clip_adjustable
        self.sharpen_targets = sharpen_targets
        self.optimisation = optimisation

    @property
    def whole_steps(self) -> bool:
        """Unless the network rests in parts."""
        return not self.net.rests

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimiser whose schedule advances every step."""
        optimizer, schedule = self.optimisation.build(self.net)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """After the backward passes of the step, before clipping."""
        self.judge(optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as this module's settings say, else as the trainer's do.

        Raises:
            ValueError: the precision scales gradients, so that a bound on them has no meaning.
        """
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        bounds = (self.clip_norm, self.clip_adjustable, gradient_clip_val)
        if scaled and any(bound is not None for bound in bounds):
            raise ValueError(
                "clip_norm, clip_adjustable and trainer.gradient_clip_val bound true gradients, "
                "which trainer.precision 16-mixed scales; choose bf16-mixed or 32-true"
            )
        if self.clip_adjustable is not None:
            clip_by_rate(optimizer, self.clip_adjustable)
        elif self.clip_norm is not None:
            clip(optimizer, self.clip_norm)
        elif gradient_clip_val:
            clip(optimizer, gradient_clip_val, gradient_clip_algorithm)

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
        hr = sharpen(hr) if self.sharpen_targets else hr
        loss = guarded(self.net.loss(lr, hr, self.criterion))
        self.log("train/loss", loss, prog_bar=True)
        return loss
