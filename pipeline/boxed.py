"""Pictures with boxes as training batches: a study's own reduction makes what an arm may see."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detection.finetune import DetectionCrops, Target, collate
from pipeline.pictures import read_picture
from pipeline.progress import bar
from pipeline.study import Pictures
from pipeline.tracking import Run
from pipeline.training_bar import show
from pipeline.watch import Recorder
from pipeline.world import best_precision

Boxed = tuple[Tensor, Tensor, list[Target]]
"""``(given, original, targets)``: what an arm sees, the picture as it was, its boxes there."""

Form = Callable[[Tensor, Tensor, list[Target]], Any]
"""Makes of ``given``, ``original`` and ``targets`` what a training module takes."""

VALIDATION_CROPS = 64


def as_it_is(given: Tensor, original: Tensor, targets: list[Target]) -> Boxed:
    """The batch of a module that takes all three."""
    return given, original, targets


class BoxedCrops(pl.LightningDataModule):
    """Random crops of original pictures with their boxes, reduced on the device as a study does.

    Args:
        pictures: to learn from; their degradation says what is given.
        labels: category id to the detector's label; objects of other categories are left out.
        crop: side in original pixels.
        batch_size: crops a step.
        steps: of the training.
        form: of the batches.
        val: share of the pictures, whole ones, that only validation sees; 0 validates nothing.
        workers: processes that cut crops.
        seed: of crops and noise.
    """

    def __init__(
        self,
        pictures: Pictures,
        labels: dict[int, int],
        *,
        crop: int,
        batch_size: int,
        steps: int,
        form: Form = as_it_is,
        val: float = 0.0,
        workers: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if crop % pictures.reduction:
            raise ValueError(
                f"crop {crop} is not a multiple of the reduction {pictures.reduction}; choose "
                f"{crop - crop % pictures.reduction}"
            )
        self.degradation, self.form = pictures.degradation, form
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        decoded, boxes, kept = _objects(pictures, labels)
        held = round(val * len(decoded))
        chosen = torch.randperm(len(decoded), generator=torch.Generator().manual_seed(seed))
        places = {"val": chosen[:held].tolist(), "train": chosen[held:].tolist()}
        samples = {"val": VALIDATION_CROPS, "train": steps * batch_size}
        self._crops = {
            name: DetectionCrops(
                [decoded[i] for i in some], [boxes[i] for i in some], [kept[i] for i in some],
                crop=crop, samples=samples[name], seed=seed,
            )
            for name, some in places.items()
            if some
        }  # fmt: skip
        self.pictures = decoded

    def train_dataloader(self) -> DataLoader[Any]:
        """Every sample once: the run is as long as its samples."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The same crops at every validation."""
        return self._loader("val") if "val" in self._crops else []

    def _loader(self, split: str) -> DataLoader[Any]:
        return DataLoader(
            self._crops[split], self.batch_size, num_workers=self.workers, collate_fn=collate
        )

    def on_after_batch_transfer(
        self, batch: tuple[list[Tensor], list[Target]], dataloader_idx: int
    ) -> Any:  # noqa: ANN401
        """Original crops to what the training module takes; a step's noise is its own."""
        crops, targets = batch
        original = torch.stack(crops)
        trainer = self.trainer
        step = trainer.global_step if trainer is not None and trainer.training else -1
        noise = torch.Generator(original.device).manual_seed(self.seed * 1_000_003 + step + 1)
        given = original if self.degradation is None else self.degradation(original, noise)
        return self.form(given, original, targets)


def _objects(
    pictures: Pictures, labels: dict[int, int]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Pictures in 8 bits, their boxes and the detector's labels of these; crowds are left out."""
    decoded, boxes, kept = [], [], []
    with bar("reading pictures", len(pictures.truth.images)) as advance:
        for picture in pictures.truth.images:
            objects = pictures.truth.objects[picture.id]
            known = torch.tensor([each in labels for each in objects.labels.tolist()])
            known = known.reshape(-1).bool() & ~objects.crowds
            decoded.append(read_picture(pictures.paths[picture.id]))
            boxes.append(objects.boxes[known])
            kept.append(
                torch.tensor(
                    [labels[each] for each in objects.labels[known].tolist()], dtype=torch.int64
                )
            )
            advance(1)
    return decoded, boxes, kept


def brief_trainer(run: Run, steps: int, what: str, **more: Any) -> pl.Trainer:  # noqa: ANN401
    """The trainer of a detector: one device, no checkpoints, its curves in the run.

    Args:
        run: in MLflow.
        steps: of the training.
        what: is said beside its progress.
        more: arguments of Lightning's Trainer.
    """
    trainer = pl.Trainer(
        max_steps=steps,
        devices=1,
        precision=best_precision("auto"),  # type: ignore[arg-type]
        logger=False,
        log_every_n_steps=20,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=show(what),
        **more,
    )
    trainer.logger = Recorder(run, trainer)
    return trainer
