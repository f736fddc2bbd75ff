"""A work in a process of its own, timed round by round: another interpreter, and memory apart."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


def serve(work: Callable[[], object]) -> None:
    """In the process: does the work for each line that comes in, and answers with its seconds."""
    for _ in sys.stdin:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        # not ru_maxrss: a child begins with the peak of the process that forked it
        peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        print("answer " + json.dumps({"seconds": seconds, "peak_mb": int(peak) / 1024}), flush=True)


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

    def round(self) -> float:
        """Seconds of one round, by the process's own clock.

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
                return float(answer["seconds"])
        said = self._process.communicate()[1].strip().splitlines()[-1:]
        raise RuntimeError(f"{' '.join(map(str, self._process.args))} failed: {said}")
