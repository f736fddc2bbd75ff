"""A Ray to work with, embedded or a cluster that is there, and what is said if there is none.

Whatever is spread over Ray (a training, the trials of a sweep, the pictures of a study) is opened
here, so that one address, one set of Ray's own settings and one error serve all of them.
"""

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

ANSWER_S = 5.0
EMBEDDED = "local"
"""Ray's word for one that begins and ends with the process."""
OWN = ("auto", EMBEDDED)
"""Words that Ray takes for an address."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15, workers stand still while anything else runs
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as future versions do, and without a warning
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in the settings are the user's
}
TRIES = {"RAY_NUM_REDIS_GET_RETRIES": "3"}
"""Environment of who talks to a Ray that is there: it is asked so often, a second apart."""
STORE = 256 * 2**20
"""Bytes of an embedded Ray's shared memory: what is passed there is small, the rest are files."""


@contextlib.contextmanager
def ray_session(
    address: str | None,
    *,
    cores: int | None = None,
    environment: Mapping[str, str] | None = None,
    show_workers: bool = False,
) -> Iterator[Any]:
    """A Ray to work with, without its own chatter. One that is connected already is shared.

    Args:
        address: of one that runs, such as "auto" or "host:6379"; without it RAY_ADDRESS, and
            without that an embedded one, whatever else runs on this machine; that ends with the
            block.
        cores: that an embedded one counts; this machine's without it.
        environment: of this process and the workers, beside ``ENVIRONMENT``; what the user has set
            goes before.
        show_workers: whether what workers print is printed here.

    Yields:
        The package ``ray``.

    Raises:
        ConnectionError: Ray does not start, or nothing answers at the address.
    """
    address = _resolved(address)
    check_address(address)
    embedded = address == EMBEDDED
    for name, value in {
        **ENVIRONMENT, **(environment or {}), **({} if embedded else TRIES),
    }.items():  # fmt: skip
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {}
    if embedded:
        own = {"num_cpus": cores or os.cpu_count(), "object_store_memory": STORE}
        own["include_dashboard"] = False
    for noisy in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=show_workers, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConnectionError(unreachable(address, error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_address(address: str | None) -> None:
    """Whether anything answers where a session would look for a Ray; Ray itself tries for minutes.

    Raises:
        ConnectionError: nothing does.
    """
    address = _resolved(address)
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_S):
            return
    except (OSError, ValueError) as error:
        raise ConnectionError(unreachable(address, error)) from error


def _resolved(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or EMBEDDED


def unreachable(address: str | None, error: BaseException) -> str:
    """Why there is no Ray to work with, and what to do."""
    where = "the embedded Ray" if address in (None, *OWN) else address
    if _wants_a_token(error):
        return (
            f"the Ray at {where} asks for a token, as one does that `ray start` began where a file "
            "~/.ray/auth_token was; set RAY_AUTH_MODE=token, and have the same file, or its "
            "content in RAY_AUTH_TOKEN, on this machine"
        )
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"no Ray answers at {where} ({said}); start one there with `ray start --head`, or leave "
        "the address out for an embedded one"
    )


def _wants_a_token(error: BaseException | None) -> bool:
    """Ray wraps what its server said into errors of other kinds."""
    while error is not None:
        if type(error).__name__ == "AuthenticationError" or "AuthToken" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
