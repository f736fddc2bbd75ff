"""A sweep of 8 trials under ASHA on two cores, against the same 8 to the end one after another.

    python -m benchmarks.sweep sweep [STEPS of a trial]
    python -m benchmarks.sweep alone [STEPS of a trial]

The sweep is timed as a person starts it, from the first import to the last line. The trials one
after another are timed in one process that has imported everything, with both cores to each, which
is less than eight times `srdet train` takes.

*busy*: processor time of all the sweep's processes over twice the wall time, from when two trials
train until the last one ends. *wanted*: the share of that time in which the training processes ran
or waited for a core that something else held; it says how much of both cores the sweep can use
where nothing else runs.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import yaml
from PIL import Image

from pipeline.shards import shards
from pipeline.sweeps.space import parse_space
from pipeline.sweeps.words import words_of

CORES, TRIALS, STEPS, VALIDATIONS = 2, 8, 640, 16
SPACE = {
    "model.init_args.optimisation.learning_rate": {"loguniform": [1.0e-5, 1.0e-2]},
    "model.init_args.loss": {"choice": ["l1", "l2"]},
}
RECIPE = "conf/experiment/srresnet_small.yaml"
ROOT = Path(__file__).parents[1]


def fixed(steps: int) -> dict[str, object]:
    """A trial of some seconds, all of whose work is its own core's."""
    return {
        "model.init_args.arch_args": {"features": 16, "blocks": 4},
        "model.init_args.ema_decay": 0.9, "data.batch_size": 8, "data.crop": 64,
        "data.workers": 0, "data.steps_per_epoch": max(1, steps // VALIDATIONS),
        "data.val_limit": 4, "trainer.max_steps": steps, "run.pictures": 1, "run.log_every": 10,
    }  # fmt: skip


def write_shards(folder: Path) -> Path:
    """Twenty-four soft pictures."""
    (folder / "pictures").mkdir()
    for seed in range(24):
        coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC)
        picture.save(folder / "pictures" / f"{seed}.png")
    shards([folder / "pictures"], folder / "shards", cut=0, val=0.2)
    return folder / "shards"


class Meter:
    """Processor time of a process and all below it, and how long the trials' ones wanted a core."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.used: dict[int, float] = {}
        self.asked: dict[int, float] = {}
        self.wanted, self.looked = 0.0, time.perf_counter()

    def look(self) -> tuple[float, float]:
        """Seconds used and wanted so far; processes that ended keep what they had."""
        now = time.perf_counter()
        passed, self.looked = now - self.looked, now
        try:
            processes = [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            processes = []
        for process in processes:
            self._look_at(process, passed)
        return sum(self.used.values()), self.wanted

    def _look_at(self, process: psutil.Process, passed: float) -> None:
        ran = stood = 0
        try:
            trains = process.cmdline()[0].startswith("ray::")
            times = process.cpu_times()  # of threads that have ended, too
            for thread in Path(f"/proc/{process.pid}/task").iterdir():
                each, waited, _ = map(int, (thread / "schedstat").read_text().split())
                ran, stood = ran + each, stood + waited
        except (OSError, ValueError, IndexError, psutil.Error):
            return
        self.used[process.pid] = times.user + times.system
        asked = (ran + stood) / 1e9
        if trains:  # a trial has one core: what more its threads ask for is no use of the other
            self.wanted += min(passed, max(0.0, asked - self.asked.get(process.pid, asked)))
        self.asked[process.pid] = asked


def run_sweep(folder: Path, shard_folder: Path, steps: int) -> tuple[float, float, float]:
    """Wall seconds, and shares busy and wanted once two trials train."""
    out = folder / "sweep"
    settings = {
        "train": [RECIPE], "space": SPACE, "fixed": fixed(steps), "trials": TRIALS,
        "shards": str(shard_folder), "scheduler": {"kind": "asha", "grace": 2, "reduction": 4.0},
        "out": str(out),
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(settings))
    command = ["-m", "pipeline", "tune", "--config", str(folder / "sweep.yaml")]
    began = time.perf_counter()
    sweep = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    meter = Meter(sweep.pid)
    start: tuple[float, float, float] | None = None
    end = (0.0, 0.0, 0.0)
    while sweep.poll() is None:
        now = (time.perf_counter(), *meter.look())
        if start is None and len(list(out.glob("trial-*/last.ckpt"))) >= CORES:
            start = now
        if not (out / "trials.json").exists():
            end = now
        time.sleep(0.25)
    assert sweep.returncode == 0, "the sweep failed"
    assert start is not None, "two trials never trained at once"
    wall = time.perf_counter() - began
    seconds, used, wanted = (b - a for a, b in zip(start, end, strict=True))
    return wall, used / (CORES * seconds), wanted / (CORES * seconds)


def run_one_after_another(folder: Path, shard_folder: Path, steps: int) -> float:
    """Wall seconds of the same trials as training runs of their own, to the end."""
    from pipeline.train import configured, fit

    began = time.perf_counter()
    for number, point in enumerate(parse_space(SPACE).random(TRIALS, seed=0)):
        words = words_of({**fixed(steps), **point, "data.shards": str(shard_folder)})
        words.append(f"--run.out={folder / f'alone-{number}'}")
        fit(configured(["--config", str(ROOT / RECIPE), *words]))
    return time.perf_counter() - began


def main(part: str, steps: int) -> None:
    """Prints the figures of one part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        data = write_shards(folder)
        print(f"{TRIALS} trials of {steps} steps, {CORES} cores, load {os.getloadavg()[0]:.1f}")
        if part == "alone":
            print(f"one after another {run_one_after_another(folder, data, steps):.0f} s")
            return
        swept, busy, wanted = run_sweep(folder, data, steps)
    print(f"sweep {swept:.0f} s")
    print(f"both cores busy {100 * busy:.0f} % of the time, wanted {100 * wanted:.0f} %")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else STEPS)
