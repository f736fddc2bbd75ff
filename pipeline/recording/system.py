"""What the machine does during a run: processor, memory, network, accelerators."""

import contextlib
import time
from typing import Any

from pipeline.files import NoSpaceError
from pipeline.recording.journal import Journal

EVERY_S = 10.0
PREFIX = "system/"
"""MLflow's own: the UI has a page for what begins with it."""


class Gauges:
    """Writes MLflow's system metrics to a journal, every ten seconds of a run's life.

    Args:
        journal: of the run; its last reading is counted on from.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._next = time.monotonic() + EVERY_S
        self._step = 1 + max(
            (step for key, step in journal.steps.items() if key.startswith(PREFIX)), default=-1
        )
        self._monitors: list[Any] | None = None

    def read(self) -> None:
        """Reads where it is due; a short run has nothing to tell."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        if self._monitors is None:
            self._monitors = _monitors()
            for monitor in self._monitors:
                monitor.collect_metrics()  # the load of a processor is that since the last look
                monitor.clear_metrics()
            return
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= {PREFIX + key: float(v) for key, v in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        now = int(time.time() * 1000)
        with contextlib.suppress(NoSpaceError):  # the run itself says so, where it needs room
            told = {"metrics": values, "step": self._step, "time": now}
            # The store may be waited for at the end: who reads the journal finds the end last.
            self._journal.append(told, in_life=True)
        self._step += 1


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no such GPU
        monitors.append(GPUMonitor())
    return monitors
