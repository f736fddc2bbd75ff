"""What a sweep can judge trials by besides PSNR and SSIM: LPIPS, and a detection study's gain."""

import functools
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from detection.coco import Evaluation
from detection.detectors import load_detector
from detection.gain import Gain, paired_gains
from pipeline.arm_runs import Rules, run_arm
from pipeline.arms import REFERENCE, open_arm
from pipeline.plans import plan_windows
from pipeline.study import Pictures, Split, find_in_full, load_pictures
from pipeline.sweeps.checks import LPIPS as LPIPS_KEY
from pipeline.sweeps.checks import STUDIED
from pipeline.sweeps.settings import GainStudy, Lpips
from pipeline.upscalers import as_upscaler
from pipeline.world import best_device, best_precision
from sr_module.degrade import Degradation
from sr_module.lpips import LPIPS
from sr_module.training import Batch, SRTraining

ARM = "sr"


class LpipsScore(pl.Callback):
    """Logs ``val/lpips``, the mean over the validation pictures of all ranks."""

    def __init__(self, settings: Lpips) -> None:
        self.metric = LPIPS(
            settings.backbone, weights=settings.weights, heads=settings.heads,
            convention=settings.convention,
        )  # fmt: skip

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the sum over pictures and their count."""
        self.metric.to(pl_module.device)
        self._sums = torch.zeros(2, dtype=torch.float64, device=pl_module.device)

    @torch.inference_mode()
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds the pictures of a batch."""
        lr, hr = batch
        distances = self.metric(pl_module(lr), hr)
        self._sums += torch.stack([distances.sum(), distances.new_tensor(len(hr))])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs the mean."""
        total, count = trainer.strategy.reduce(self._sums, reduce_op="sum")
        pl_module.log(LPIPS_KEY, (total / count).float())


class GainScore(pl.Callback):
    """Logs the mAP gain over bicubic and its interval, from a detection study at each validation.

    The rank zero makes it; the others wait and log the same.
    """

    def __init__(self, settings: GainStudy, scale: int) -> None:
        self.settings, self.scale = settings, scale

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures the averaged network."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, SRTraining)
        first = trainer.is_global_zero
        gain: Any = _measure(self.settings, self.scale, pl_module) if first else None
        gain = trainer.strategy.broadcast(gain)
        values = (gain.low, gain.difference, gain.high, gain.value)
        pl_module.log_dict(dict(zip(STUDIED, values, strict=True)))


def _measure(settings: GainStudy, scale: int, module: SRTraining) -> Gain:
    bench = _bench(settings, scale)
    upscaler = as_upscaler(
        module.averaged, ARM, precision="bf16" if _bf16() else "fp32",
        device=str(module.device), onto=str(module.device),
    )  # fmt: skip
    arm = run_arm(ARM, ARM, split=bench.split, rules=bench.rules, upscaler=upscaler)
    evaluations = {REFERENCE: bench.reference, ARM: arm.evaluation}
    return paired_gains(
        evaluations, reference=REFERENCE, metrics=["AP"], resamples=settings.resamples
    )[0]


@dataclass(frozen=True)
class _Bench:
    """What is the same in every study of a sweep, made once in a process."""

    split: Split
    rules: Rules
    reference: Evaluation


@functools.lru_cache(maxsize=1)
def _bench(settings: GainStudy, scale: int) -> _Bench:
    pictures = study_pictures(settings, scale)
    detector = load_detector(
        settings.detector, categories=pictures.truth.categories,
        weights=settings.detector_weights,
        device=best_device(), bf16=_bf16(),
    )  # fmt: skip
    full = find_in_full(pictures, detector)
    split = Split(pictures, plan_windows(pictures, settings.windows, full.found), full)
    rules = Rules(detector, settings.join, settings.merge, settings.batch_size)
    upscaler = open_arm(REFERENCE, scale, bf16=_bf16())
    reference = run_arm(REFERENCE, REFERENCE, split=split, rules=rules, upscaler=upscaler)
    return _Bench(split, rules, reference.evaluation)


def _bf16() -> bool:
    return best_precision("auto").startswith("bf16")


def study_pictures(settings: GainStudy, scale: int) -> Pictures:
    """The pictures of the study, reduced as the networks will enlarge them.

    Raises:
        ValueError: windows that do not divide by the scale.
        OSError: a file cannot be read.
    """
    if rest := settings.windows.size % scale:
        raise ValueError(
            f"detection.windows.size {settings.windows.size} is not a multiple of the scale "
            f"{scale}; choose {settings.windows.size - rest}"
        )
    return load_pictures(
        [settings.coco], [settings.images], degradation=Degradation(scale), limit=settings.limit
    )
