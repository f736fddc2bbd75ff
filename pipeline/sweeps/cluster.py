"""Ray for a sweep: an embedded one, or a cluster that is there; without its own chatter."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.ray_address import TRIES, unreachable
from pipeline.sweeps.settings import Resources

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15, trials stand still while anything else runs
    "RAY_AIR_NEW_OUTPUT": "0",  # its table of settings, even where it should say nothing
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in the configs are the user's
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard beside MLflow
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a stopped trial closes its run; then its process
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # as tracebacks; a sweep tells why each trial failed
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
STORE = 256 * 2**20
"""Bytes of Ray's shared memory: trials pass files, not objects."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray to work with; an embedded one ends with the block.

    Args:
        address: of one that runs; None starts one, whatever else runs on this machine.

    Raises:
        ConnectionError: Ray does not start, or nothing answers at the address.
    """
    for name, value in (ENVIRONMENT | (TRIES if address else {})).items():
        os.environ.setdefault(name, value)
    import ray

    for noisy in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\.")
    own = {} if address else {"num_cpus": os.cpu_count(), "object_store_memory": STORE}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address=address or "local", include_dashboard=None if address else False,
                log_to_driver=False, logging_level="ERROR", **own,
            )  # fmt: skip
    except (ConnectionError, RuntimeError) as error:
        raise ConnectionError(unreachable(address, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Room:
    """What a cluster has for trials.

    Attributes:
        gpus: of each process.
        trials: that several processes train, at once; None where Ray itself counts.
    """

    gpus: float
    trials: int | None


def room_for(resources: Resources, there: Mapping[str, float]) -> Room:
    """What a trial gets of ``there``; where the settings do not say, a GPU where there is any.

    Raises:
        ValueError: the cluster has less of something than one trial asks for.
    """
    given, workers = resources.gpus, resources.workers
    gpus = given if given is not None else min(1.0, there.get("GPU", 0.0))
    asked = {"CPU": workers * resources.cpus, "GPU": workers * gpus}
    for name, wanted in asked.items():
        if wanted > (most := there.get(name, 0.0)):
            raise ValueError(
                f"resources: a trial asks for {wanted:g} {name}s and the cluster has {most:g} in "
                "all; it would wait for ever: ask for less"
            )
    if workers == 1:
        return Room(gpus, None)
    # Ray Train reserves the group by itself, when the trial has begun: were there more of them than
    # groups fit, each could hold a part of what the others wait for.
    fit = min(int(there[name] // wanted) for name, wanted in asked.items() if wanted)
    return Room(gpus, fit)


def resources_there() -> dict[str, float]:
    """All that the cluster has: CPU, GPU, ..."""
    import ray

    there: dict[str, float] = ray.cluster_resources()
    return there
