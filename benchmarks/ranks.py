"""Two ranks of one thread beside one process of one thread: SRResNet 64 x 16, gloo on one machine.

Run it with: python -m benchmarks.ranks. Two processes that train alone at the same time, without a
word to each other, show what the machine itself gives two; what DDP costs is the rest.
"""

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator

BATCH, CROP, STEPS, ROUNDS = 16, 96, 10, 2
WORLDS = {
    "one process": ("alone", 1),
    "two processes, each alone": ("alone", 2),
    "two ranks together": ("ddp", 2),
}


def run() -> Iterator[tuple[str, str]]:
    """Images a second, and the share of as many times one process's as there are processes."""
    rates: dict[str, list[float]] = {name: [] for name in WORLDS}
    for _ in range(ROUNDS):
        for name, (together, processes) in WORLDS.items():
            rates[name].append(_rate(together, processes))
    one = statistics.median(rates["one process"])
    for name, (_, processes) in WORLDS.items():
        rate = statistics.median(rates[name])
        yield name, f"{rate:6.2f} images/s   {100 * rate / (processes * one):3.0f} %"


def _rate(together: str, processes: int) -> float:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    words += ["--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0"]
    words += ["-m", "benchmarks.ranks_srdet", together, str(BATCH), str(CROP), str(STEPS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    seconds = [float(found) for found in re.findall(r"seconds (\S+)", done.stdout)]
    assert len(seconds) == processes, done.stdout + done.stderr
    return sum(BATCH / each for each in seconds)


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<30} {figure}", flush=True)
