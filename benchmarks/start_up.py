"""From the return key to the end of the first step: ``srdet train`` on SRResNet 64 x 16.

Run it with: python -m benchmarks.start_up. Each start is a process of its own, in turn with a new
MLflow store (an empty folder) and with the one that the start before it has made; the first start
of all, which fills the disk cache, does not count.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from PIL import Image

ROUNDS = 2
ROOT = Path(__file__).parents[1]
Moment = tuple[float, float]
MARKS = {
    "read": "settings read, trainer, network and data made",
    "ready": "run begun, training begins",
    "stepped": "first step done",
}


class Marks(pl.Callback):
    """Writes down when the process has come how far."""

    def __init__(self) -> None:
        self._mark("read")

    def on_train_start(self, *_: object) -> None:
        """All is ready."""
        self._mark("ready")

    def on_train_batch_end(self, *_: object) -> None:
        """The step is done."""
        self._mark("stepped")

    def _mark(self, name: str) -> None:
        told = f"{time.time()} {time.process_time()}"
        Path(os.environ["MARKS"], name).write_text(told)


def run() -> Iterator[tuple[str, str]]:
    """Seconds since the start, by the clock and of the process's processor, medians."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_shards(root)
        taken: dict[str, list[dict[str, Moment]]] = {"a new store": [], "a store": []}
        for number in range(ROUNDS + 1):
            (root / "mlflow.db").unlink(missing_ok=True)
            for store, starts in taken.items():
                out = root / f"{number}-{len(store)}"
                seconds = _start(root, out)
                starts += [seconds] if number else []
        for store, starts in taken.items():
            for name, said in MARKS.items():
                clock, processor = (
                    statistics.median(start[name][which] for start in starts) for which in (0, 1)
                )
                yield f"{store}: {said}", f"{clock:5.1f} s   of the processor {processor:5.1f} s"


def _write_shards(root: Path) -> None:
    rng = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for number in range(24):
        coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((192, 192), Image.Resampling.BICUBIC)
        picture.save(root / "pictures" / f"{number}.png")
    words = ["shards", "--images", "pictures", "--out", "shards", "--val", "0.2"]
    subprocess.run([_srdet(), *words], cwd=root, check=True, capture_output=True)


def _start(root: Path, out: Path) -> dict[str, Moment]:
    marks = out.with_suffix(".marks")
    marks.mkdir()
    words = ["train", "--config", str(ROOT / "conf/experiment/srresnet.yaml")]
    words += ["--data.shards", "shards", "--run.out", str(out), "--trainer.max_steps", "1"]
    words += ["--trainer.callbacks+=benchmarks.start_up.Marks"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(ROOT), "MARKS": str(marks)}
    began = time.time()
    subprocess.run([_srdet(), *words], cwd=root, env=environment, check=True, capture_output=True)
    told = {name: map(float, (marks / name).read_text().split()) for name in MARKS}
    return {name: (clock - began, processor) for name, (clock, processor) in told.items()}


def _srdet() -> str:
    return str(Path(sys.executable).with_name("srdet"))


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<64} {figure}", flush=True)
