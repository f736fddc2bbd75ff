"""Two ranks of one thread beside one process of one thread: SRResNet 64 x 16, gloo on one machine.

Run it with: python -m benchmarks.ranks. Two processes that train alone at the same time, without a
word to each other, show what the machine itself gives two; what DDP costs is the rest. Processor
time leaves out what waiting costs, and what other work on the machine does to the clock.
"""

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator

BATCH, CROP, STEPS, ROUNDS = 16, 96, 10, 2
Step = tuple[float, float]
WORLDS = {
    "one process": ("alone", 1),
    "two processes, each alone": ("alone", 2),
    "two ranks together": ("ddp", 2),
}


def run() -> Iterator[tuple[str, str]]:
    """Images a second, and the share of as many times one process's as there are processes."""
    steps: dict[str, list[Step]] = {name: [] for name in WORLDS}
    for _ in range(ROUNDS):
        for name, (together, processes) in WORLDS.items():
            steps[name].append(_step(together, processes))
    taken = {name: [statistics.median(each) for each in zip(*of, strict=True)]
             for name, of in steps.items()}  # fmt: skip
    clock, processor = taken["one process"]
    for name, (_, processes) in WORLDS.items():
        step, spent = taken[name]
        told = f"{processes * BATCH / step:6.2f} images/s   {100 * clock / step:3.0f} %"
        yield name, f"{told}   by processor time {100 * processor / spent:3.0f} %"


def _step(together: str, processes: int) -> Step:
    """Seconds of a step by the clock and of each process's processor."""
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    words += ["--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0"]
    words += ["-m", "benchmarks.ranks_srdet", together, str(BATCH), str(CROP), str(STEPS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    told = re.findall(r"seconds (\S+) (\S+)", done.stdout)
    assert len(told) == processes, done.stdout + done.stderr
    clock, processor = zip(*told, strict=True)
    return statistics.mean(map(float, clock)), statistics.mean(map(float, processor))


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<30} {figure}", flush=True)
