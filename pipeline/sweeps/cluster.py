"""What a sweep asks of Ray, and how many trials fit into what is there."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.sweeps.settings import Resources

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # its table of settings, even where it should say nothing
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard beside MLflow
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a stopped trial closes its run; then its process
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # as tracebacks; a sweep tells why each trial failed
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Of Ray Tune, beside what every Ray here has."""


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
