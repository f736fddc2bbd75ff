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

ROUNDS = 3
ROOT = Path(__file__).parents[1]
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
        Path(os.environ["MARKS"], name).write_text(str(time.time()))


def run() -> Iterator[tuple[str, str]]:
    """Seconds since the start, medians."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_shards(root)
        taken: dict[str, list[dict[str, float]]] = {"a new store": [], "a store": []}
        for number in range(ROUNDS + 1):
            (root / "mlflow.db").unlink(missing_ok=True)
            for store, starts in taken.items():
                out = root / f"{number}-{len(store)}"
                seconds = _start(root, out)
                starts += [seconds] if number else []
        for store, starts in taken.items():
            for name, said in MARKS.items():
                seconds = statistics.median(start[name] for start in starts)
                yield f"{store}: {said}", f"{seconds:5.1f} s"


def _write_shards(root: Path) -> None:
    rng = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for number in range(24):
        coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((192, 192), Image.Resampling.BICUBIC)
        picture.save(root / "pictures" / f"{number}.png")
    words = ["shards", "--images", "pictures", "--out", "shards", "--val", "0.2"]
    subprocess.run([_srdet(), *words], cwd=root, check=True, capture_output=True)


def _start(root: Path, out: Path) -> dict[str, float]:
    marks = out.with_suffix(".marks")
    marks.mkdir()
    words = ["train", "--config", str(ROOT / "conf/experiment/srresnet.yaml")]
    words += ["--data.shards", "shards", "--run.out", str(out), "--trainer.max_steps", "1"]
    words += ["--trainer.callbacks+=benchmarks.start_up.Marks"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(ROOT), "MARKS": str(marks)}
    began = time.time()
    subprocess.run([_srdet(), *words], cwd=root, env=environment, check=True, capture_output=True)
    return {name: float((marks / name).read_text()) - began for name in MARKS}


def _srdet() -> str:
    return str(Path(sys.executable).with_name("srdet"))


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<64} {figure}", flush=True)
