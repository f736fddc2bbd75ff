"""A work in a process of its own, timed round by round: another interpreter, and memory apart."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Taken:
    """What a round took: by the clock, and of the processor, which other work hardly changes."""

    seconds: float
    processor: float


def serve(work: Callable[[], object], *, settle: Callable[[], object] = int) -> None:
    """In the process: does the work for each line that comes in, and answers with its seconds.

    Args:
        work: one round.
        settle: waits for what an accelerator has yet to do.
    """
    for _ in sys.stdin:
        with answering(settle):
            work()


@contextlib.contextmanager
def answering(settle: Callable[[], object] = int) -> Iterator[None]:
    """Times what is done inside, and answers."""
    settle()
    began, spent = time.perf_counter(), time.process_time()
    yield
    settle()
    seconds, processor = time.perf_counter() - began, time.process_time() - spent
    # not ru_maxrss: a child begins with the peak of the process that forked it
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    answer = {"seconds": seconds, "processor": processor, "peak_mb": int(peak) / 1024}
    print("answer " + json.dumps({**answer, **_device_peak()}), flush=True)


def _device_peak() -> dict[str, float]:
    """Memory of the accelerator, where there is one, in place of the process's own."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"peak_mb": torch.cuda.max_memory_allocated() / 2**20}


class Served:
    """The process, seen from outside."""

    def __init__(self, python: str, words: Sequence[str], *, threads: int) -> None:
        """Starts it with so many threads for torch, OpenCV and libvips alike."""
        count = str(threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VIPS_CONCURRENCY")
        environment = {**os.environ, **dict.fromkeys(names, count)}
        self.peak_mb = 0.0
        self._process = subprocess.Popen(
            [python, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[1],
        )

    def __enter__(self) -> Self:
        """The process."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()

    def round(self) -> Taken:
        """What one round took.

        Raises:
            RuntimeError: the process failed; with what it said last.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its output, below, says why
        for line in self._process.stdout:
            if line.startswith("answer "):
                answer = json.loads(line.removeprefix("answer "))
                self.peak_mb = answer["peak_mb"]
                return Taken(answer["seconds"], answer["processor"])
        said = self._process.communicate()[1].strip().splitlines()[-1:]
        raise RuntimeError(f"{' '.join(map(str, self._process.args))} failed: {said}")


def interleaved(works: Mapping[str, Served], *, rounds: int) -> dict[str, Taken]:
    """Median of each work over rounds in turn, after one to warm up."""
    taken = [{name: work.round() for name, work in works.items()} for _ in range(rounds + 1)][1:]
    return {
        name: Taken(
            statistics.median(each[name].seconds for each in taken),
            statistics.median(each[name].processor for each in taken),
        )
        for name in works
    }
