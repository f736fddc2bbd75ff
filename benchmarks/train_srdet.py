"""Takes training steps as ``srdet train`` does, so many for a line of its input.

See ``training.py``. Run by this project's interpreter.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.served import answering
from pipeline.heap import keep_freed_memory
from pipeline.watch import quiet_lightning
from pipeline.world import best_device
from sr_module.adversarial import Adversarial, Perceptual
from sr_module.regression import Regression
from sr_module.training import SRTraining

SCALE, ENDLESS = 4, 10**9


class Rounds(IterableDataset[tuple[Tensor, Tensor]]):
    """The same batch for every step; the time between two questions is that of a round's steps."""

    def __init__(self, batch: int, crop: int, steps: int) -> None:
        device = best_device()
        self.hr = torch.rand(batch, 3, crop, crop, device=device)
        self.lr = torch.rand(batch, 3, crop // SCALE, crop // SCALE, device=device)
        self.steps = steps

    def __len__(self) -> int:
        return ENDLESS  # where it is known, Lightning fetches no batch ahead

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in sys.stdin:
            with answering(_settle):
                for _ in range(self.steps):
                    yield self.lr, self.hr


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _module(kind: str, folder: Path, *, crop: int, recompute: bool) -> SRTraining:
    if kind == "srresnet":
        return Regression("msrresnet")
    name, _, blocks = kind.partition("-")
    network: dict[str, Any] = {
        "arch": "rrdbnet",
        "arch_args": {"blocks": int(blocks), "recompute": recompute},
    }
    if name == "rrdb":
        return Regression(**network)
    weights = folder / "vgg19.safetensors"
    save_file(_vgg19(), weights)
    perceptual = Perceptual(weights=str(weights))
    discriminator = {"discriminator": "vgg128", "discriminator_args": {"crop": crop}}
    return Adversarial(**network, **discriminator, perceptual=perceptual)


def _vgg19() -> dict[str, Tensor]:
    """Fresh weights: they do not matter for the time, and the published ones are 80 MB."""
    from torchvision.models import vgg19

    tensors: dict[str, Tensor] = vgg19(weights=None).features.state_dict()
    return tensors


def main(kind: str, precision: str, folder: str, batch: str, crop: str, steps: str) -> None:
    """Serves rounds of ``steps`` steps."""
    quiet_lightning()
    keep_freed_memory()
    torch.manual_seed(0)
    kind, _, recompute = kind.partition("+")
    module = _module(kind, Path(folder), crop=int(crop), recompute=bool(recompute))
    trainer = pl.Trainer(
        devices=1, precision=precision, max_steps=-1, max_epochs=1, logger=False,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        benchmark=True,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Rounds(int(batch), int(crop), int(steps)), batch_size=None))


if __name__ == "__main__":
    main(*sys.argv[1:])
