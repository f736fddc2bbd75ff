"""Does bf16 cost quality? The loss of a small SRResNet in bf16 beside fp32, and beside a seed.

Run it with: python -m benchmarks.loss_curves SHARDS [--steps 2000]. Three trainings, one after
another: fp32, bf16 from the same seed (the same weights, crops and order), and fp32 from another
seed, whose distance is the noise that any two trainings have between them.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline.train import CONF, configured, fit

WINDOW = 100
"""Steps whose losses are averaged: single ones say more of their crops than of the network."""
RUNS = {"fp32": ("32-true", 0), "bf16": ("bf16-mixed", 0), "fp32, another seed": ("32-true", 1)}


class Losses(pl.Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.of_steps: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """One more."""
        self.of_steps.append(float(trainer.callback_metrics["train/loss"]))


def run(shards: str, *, steps: int, more: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Losses and scores at the end, and how far the smoothed curves are apart."""
    curves: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (precision, seed) in RUNS.items():
            losses = Losses()
            words = _words(shards, Path(folder, name), steps, precision, seed)
            trained = fit(configured([*words, *more]), watching=[losses])
            assert trained is not None
            curves[name] = torch.tensor(losses.of_steps)[: steps // WINDOW * WINDOW]
            last = float(curves[name][-5 * WINDOW :].mean())
            score = trained.metrics["val/psnr_y"]
            yield (
                name,
                f"loss of the last {5 * WINDOW} steps {last:.5f}   {score:.3f} dB at the end",
            )
    smooth = {name: curve.view(-1, WINDOW).mean(1) for name, curve in curves.items()}
    reference = smooth["fp32"]
    for name in list(RUNS)[1:]:
        apart = 100 * (smooth[name] - reference) / reference
        largest, spread = float(apart.abs().max()), float(apart.square().mean().sqrt())
        said = f"largest {largest:.2f} %   root mean square {spread:.2f} %"
        yield f"{name} - fp32, windows of {WINDOW} steps", f"{said}   mean {apart.mean():+.2f} %"


def _words(shards: str, out: Path, steps: int, precision: str, seed: int) -> list[str]:
    words = ["--config", str(CONF / "experiment" / "srresnet_small.yaml")]
    words += ["--data.shards", shards, "--run.out", str(out)]
    words += ["--data.batch_size", "8", "--data.crop", "48", "--data.workers", "1"]
    words += ["--data.steps_per_epoch", str(steps), "--trainer.max_steps", str(steps)]
    words += ["--model.init_args.optimisation.period", str(steps), "--run.pictures", "0"]
    words += ["--trainer.precision", precision]
    return [*words, "--seed_everything", str(seed), "--data.seed", str(seed)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards")
    parser.add_argument("--steps", type=int, default=2000)
    given = parser.parse_args()
    for name, figure in run(given.shards, steps=given.steps):
        print(f"{name:<48} {figure}", flush=True)
