"""Training towards the natural: generator against discriminator (SRGAN, ESRGAN and Real-ESRGAN).

Which of the papers it is, is settings: network, discriminator, GAN loss, perceptual layers and the
weights of the losses.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sr_module.archs import build_discriminator
from sr_module.degrade import sharpen
from sr_module.gan_losses import gan_loss
from sr_module.guard import guarded
from sr_module.losses import PerceptualLoss, pixel_loss, total_variation
from sr_module.optimisation import Optimisation, clip
from sr_module.training import Batch, SRTraining, uncounted


@dataclass(frozen=True)
class Perceptual:
    """The VGG19 feature loss.

    Attributes:
        layers: weight of each layer, such as ``{"conv5_4": 1.0}``.
        before_activation: features before the ReLU (ESRGAN section 3.3) or after it (SRGAN 2.2.1).
        criterion: "l1" or "l2" between the features.
        feature_scale: the features are multiplied by this (SRGAN: 1 / 12.75).
        weights: safetensors of torchvision's ``vgg19().features``; null lets torchvision fetch
            them.
    """

    layers: dict[str, float] = field(default_factory=lambda: {"conv5_4": 1.0})
    before_activation: bool = True
    criterion: str = "l1"
    feature_scale: float = 1.0
    weights: str | None = None


class Adversarial(SRTraining):
    """Alternates one generator and one discriminator step on each batch, or every few batches.

    The generator minimises the weighted sum of its pixel, VGG, GAN and total-variation losses. Both
    gradients come from the networks as they were before the batch, and where one of them is not
    finite, neither network moves.

    Args:
        arch: a name in ``sr_module.archs.ARCHS``.
        scale: enlargement factor.
        arch_args: arguments of the architecture besides the scale.
        init_from: the PSNR-trained weights to start from; from scratch, GAN training rarely
            settles.
        ema_decay: of the averaged weights per step.
        max_skipped: batches in a row that may be skipped because they are not finite; one more ends
            the training.
        loss: pixel loss, "l1", "l2", "charbonnier", "euclidean" or "ssim".
        discriminator: a name in ``sr_module.archs.DISCRIMINATORS``.
        discriminator_args: its arguments.
        gan: "vanilla" (SRGAN, Real-ESRGAN), "ragan" (ESRGAN), "lsgan" or "hinge".
        perceptual: the VGG loss; null leaves it out.
        pixel_weight: factor of the pixel loss.
        perceptual_weight: factor of the VGG loss.
        gan_weight: factor of the GAN loss.
        tv_weight: factor of the result's total variation (SRResNet-VGG22: 2e-8); 0 leaves it out.
        sharpen_targets: whether the pixel and VGG losses compare with ``hr`` sharpened
            (Real-ESRGAN); the discriminator sees ``hr`` as it is.
        warmup_steps: first steps in which the generator sees no GAN loss while the discriminator
            learns.
        clip_norm: gradients are scaled down to this norm; null leaves them.
        accumulate: batches whose gradients make one step of both networks. A relativistic mean is
            that of each batch. Lightning's own accumulate_grad_batches knows one optimiser only.
        optimisation: of the generator.
        discriminator_optimisation: of the discriminator.
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
        discriminator: str = "unet",
        discriminator_args: dict[str, Any] | None = None,
        gan: str = "ragan",
        perceptual: Perceptual | None = None,
        pixel_weight: float = 1e-2,
        perceptual_weight: float = 1.0,
        gan_weight: float = 5e-3,
        tv_weight: float = 0.0,
        sharpen_targets: bool = False,
        warmup_steps: int = 0,
        clip_norm: float | None = None,
        accumulate: int = 1,
        optimisation: Optimisation = Optimisation(),  # noqa: B008 (frozen)
        discriminator_optimisation: Optimisation = Optimisation(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(
            arch,
            scale=scale,
            arch_args=arch_args,
            init_from=init_from,
            ema_decay=ema_decay,
            max_skipped=max_skipped,
        )
        if accumulate < 1:
            raise ValueError(f"accumulate must be 1 batch or more, got {accumulate}")
        self.automatic_optimization = False
        self.criterion = pixel_loss(loss)
        self.discriminator = build_discriminator(discriminator, **(discriminator_args or {}))
        self.discriminator.to(memory_format=torch.channels_last)
        self.gan = gan_loss(gan)
        self.perceptual = _perceptual_loss(perceptual)
        self.pixel_weight, self.gan_weight = pixel_weight, gan_weight
        self.perceptual_weight, self.tv_weight = perceptual_weight, tv_weight
        self.sharpen_targets = sharpen_targets
        self.warmup_steps, self.clip_norm = warmup_steps, clip_norm
        self.accumulate = accumulate
        self.generator_steps = self.discriminator_steps = 0
        self.optimisation = optimisation
        self.discriminator_optimisation = discriminator_optimisation

    def changing(self) -> list[nn.Module]:
        """BatchNorm and spectral norm live in both networks."""
        return [self.net, self.discriminator]

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """Generator's and discriminator's optimiser, each with its schedule."""
        built = [
            self.optimisation.build(self.net),
            self.discriminator_optimisation.build(self.discriminator),
        ]
        return [optimizer for optimizer, _ in built], [schedule for _, schedule in built]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch towards a step of the generator and one of the discriminator."""
        lr, hr = batch[0], self.net.target(batch[1])
        generator, discriminator = self._optimizers()
        last = self.batches_done() % self.accumulate == 0  # this one is counted already
        with generator.toggle_model():
            sr = self.net(lr)
        # All pictures are judged once, for both losses: neither network moves in between.
        made = sr.detach().requires_grad_()
        with discriminator.toggle_model():
            real, fake = self.discriminator(hr).float(), self.discriminator(made).float()
        gan = self._gan(sr, made, real.detach(), fake)
        # Processes exchange gradients once a step: those of the batches before are in the sum.
        with generator.toggle_model(sync_grad=last):
            loss = guarded(self._generator_loss(sr, hr, gan))
            self.manual_backward(loss / self.accumulate)
        with discriminator.toggle_model(sync_grad=last):
            loss = guarded(self._discriminator_loss(real, fake))
            self.manual_backward(loss / self.accumulate)
        if last:
            self._step_both(generator, discriminator)

    def _step_both(self, generator: LightningOptimizer, discriminator: LightningOptimizer) -> None:
        self.judge(generator.optimizer, discriminator.optimizer)
        self._step(generator)
        self.generator_steps += 1
        self._step(discriminator)
        self.discriminator_steps += 1
        # tensors on the host: numbers would be copied to the device, which waits for it
        self.log("train/generator_steps", torch.tensor(float(self.generator_steps)))
        self.log("train/discriminator_steps", torch.tensor(float(self.discriminator_steps)))
        self.move_average(self.global_step)
        schedules = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            assert isinstance(schedule, LRScheduler)
            schedule.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps each network's own count of steps, too; Lightning's counts the generator's."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["steps"] = (self.generator_steps, self.discriminator_steps)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on counting."""
        super().on_load_checkpoint(checkpoint)
        both = checkpoint.get("steps", (checkpoint["global_step"],) * 2)
        self.generator_steps, self.discriminator_steps = both

    def _gan(self, sr: Tensor, made: Tensor, real: Tensor, fake: Tensor) -> Tensor | None:
        """The generator's GAN loss as a function of ``sr``; None while the generator warms up.

        Its gradient is taken as far as ``made``, which is ``sr`` cut off from the generator, so
        that nothing reaches the discriminator's weights, and DDP, which looks for the weights that
        a loss depends on, finds the generator's alone.
        """
        if self.global_step < self.warmup_steps:
            return None
        loss = self.gan.generator(real, fake)
        # float16's gradients would vanish unless scaled up; Lightning does that to whole losses
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = loss.new_ones(()) if scaler is None else scaler.scale(loss.new_ones(()))
        (gradient,) = torch.autograd.grad(loss * scale, made, retain_graph=True)
        return loss.detach() + ((sr - sr.detach()).float() * (gradient.float() / scale)).sum()

    def _generator_loss(self, sr: Tensor, hr: Tensor, gan: Tensor | None) -> Tensor:
        target = sharpen(hr) if self.sharpen_targets else hr
        parts = {"train/pixel": self.criterion(sr.float(), target)}
        total = self.pixel_weight * parts["train/pixel"]
        if self.perceptual is not None:
            parts["train/perceptual"] = self.perceptual(sr, target)
            total = total + self.perceptual_weight * parts["train/perceptual"]
        if self.tv_weight:
            parts["train/tv"] = total_variation(sr)
            total = total + self.tv_weight * parts["train/tv"]
        if gan is not None:
            parts["train/gan"] = gan
            total = total + self.gan_weight * gan
        self.log_dict({name: part.detach() for name, part in parts.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = self.gan.discriminator(real, fake)
        means = {"train/real": real.detach().mean(), "train/fake": fake.detach().mean()}
        self.log_dict({"train/loss_d": loss.detach(), **means})
        return loss

    def _step(self, optimizer: LightningOptimizer) -> None:
        if self.clip_norm is not None:
            clip(optimizer.optimizer, self.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    def _optimizers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        generator, discriminator = optimizers
        assert isinstance(generator, LightningOptimizer)
        assert isinstance(discriminator, LightningOptimizer)
        return generator, uncounted(discriminator)


def _perceptual_loss(settings: Perceptual | None) -> PerceptualLoss | None:
    if settings is None:
        return None
    try:
        return PerceptualLoss(
            settings.layers,
            before_activation=settings.before_activation,
            weights=settings.weights,
            criterion=settings.criterion,
            feature_scale=settings.feature_scale,
        )
    except ConnectionError as error:
        raise ConnectionError(
            f"the perceptual loss compares VGG19's features, and {error}; name a file of them in "
            "--model.init_args.perceptual.weights"
        ) from error
