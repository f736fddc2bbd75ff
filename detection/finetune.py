"""Training a detector on pictures and boxes: random crops, one cycle of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.ops import FrozenBatchNorm2d

from detection.boxes import areas, clip

Target = dict[str, Tensor]
Sample = tuple[Tensor, Target]


class DetectionCrops(Dataset[Sample]):
    """Random crops of pictures with their boxes, for training a detector.

    Sample ``i`` depends on ``seed`` and ``i`` alone, whichever worker makes it.

    Args:
        pictures: ``(3, H, W)`` uint8, or float in [0, 1].
        boxes: per picture ``(N, 4)`` corners in its pixels.
        labels: per picture ``(N,)`` labels from 1, see ``detectors.training_labels``.
        crop: side of the square crops; smaller pictures are padded with black at the right and
            bottom.
        samples: length of the data set: steps times batch size.
        seed: of the crops and flips.
        visible: a box is kept when at least this share of its area is inside the crop.
    """

    def __init__(
        self,
        pictures: Sequence[Tensor],
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        crop: int,
        samples: int,
        seed: int = 0,
        visible: float = 0.5,
    ) -> None:
        if not len(pictures) == len(boxes) == len(labels) or not pictures:
            raise ValueError(
                f"pictures, boxes and labels must be equally many and at least one, got "
                f"{len(pictures)}, {len(boxes)} and {len(labels)}"
            )
        self.pictures, self.boxes, self.labels = pictures, boxes, labels
        self.crop, self.samples, self.seed, self.visible = crop, samples, seed, visible

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.samples:
            raise IndexError(index)
        # A product keeps the streams of neighbouring seeds apart.
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        chosen = _draw(len(self.pictures), random)
        picture = self.pictures[chosen]
        height, width = picture.shape[-2:]
        x = _draw(max(1, width - self.crop + 1), random)
        y = _draw(max(1, height - self.crop + 1), random)
        boxes, kept = crop_boxes(self.boxes[chosen], x, y, self.crop, visible=self.visible)
        crop = _cut(picture, x, y, self.crop)
        if _draw(2, random):
            crop, boxes = _flip_horizontally(crop, boxes)
        if _draw(2, random):
            crop, boxes = _flip_vertically(crop, boxes)
        return crop, {"boxes": boxes, "labels": self.labels[chosen][kept]}


def collate(samples: list[Sample]) -> tuple[list[Tensor], list[Target]]:
    """Samples to the two lists that torchvision's detectors take."""
    return [picture for picture, _ in samples], [target for _, target in samples]


def crop_boxes(
    boxes: Tensor, x: int, y: int, crop: int, *, visible: float
) -> tuple[Tensor, Tensor]:
    """Boxes of a crop in its own pixels, and the mask ``(N,)`` of those that are visible enough."""
    moved = boxes - boxes.new_tensor([x, y, x, y])
    inside = clip(moved, crop, crop)
    kept = areas(inside) >= visible * areas(moved)
    kept &= areas(inside) > 0
    return inside[kept], kept


class DetectorTraining(pl.LightningModule):
    """Trains a torchvision-style detector: ``model(pictures, targets)`` gives a dict of losses.

    AdamW with one cycle of the learning rate over the whole run (Smith & Topin 2017,
    arXiv:1708.07120).

    Args:
        model: from ``families.build_model``.
        learning_rate: at its peak.
        weight_decay: of AdamW.
        warmup: share of the steps in which the learning rate rises.
        gradient_clip: greatest norm of the gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        gradient_clip: float = 10.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.save_hyperparameters(ignore=["model"])

    def training_step(self, batch: tuple[list[Tensor], list[Target]], batch_index: int) -> Tensor:
        """Sum of the model's losses, each logged by its name."""
        del batch_index
        pictures, targets = batch
        losses: dict[str, Tensor] = self.model(pictures, targets)
        total = torch.stack(list(losses.values())).sum()
        self.log("train/loss", total, prog_bar=True, batch_size=len(pictures))
        self.log_dict({f"train/{k}": v for k, v in losses.items()}, batch_size=len(pictures))
        return total

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by this module's own setting, so that it travels with the checkpoint."""
        del gradient_clip_val, gradient_clip_algorithm
        self.clip_gradients(optimizer, self.hparams["gradient_clip"], "norm")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, its learning rate set anew at every step."""
        settings = self.hparams
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=settings["learning_rate"],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=settings["warmup"],
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def frozen_batchnorm(model: nn.Module) -> None:
    """Replace every batch normalisation by fixed statistics, in place.

    For fine-tuning with one or two pictures per batch, whose statistics would be noise.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
                frozen.load_state_dict(child.state_dict(), strict=False)
                setattr(module, name, frozen)


def _draw(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random))


def _cut(picture: Tensor, x: int, y: int, crop: int) -> Tensor:
    part = picture[:, y : y + crop, x : x + crop]
    values = part / 255 if part.dtype == torch.uint8 else part
    missing = (0, crop - part.shape[2], 0, crop - part.shape[1])
    return nn.functional.pad(values, missing)


def _flip_horizontally(crop: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    width = crop.shape[2]
    x1, y1, x2, y2 = boxes.unbind(1)
    return crop.flip(2), torch.stack([width - x2, y1, width - x1, y2], dim=1)


def _flip_vertically(crop: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    height = crop.shape[1]
    x1, y1, x2, y2 = boxes.unbind(1)
    return crop.flip(1), torch.stack([x1, height - y2, x2, height - y1], dim=1)
