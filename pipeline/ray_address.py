"""Addresses of Ray: whether anything answers there, and what a person is told if not."""

import socket

ANSWER_S = 5.0
OWN = ("auto", "local")
"""Words that Ray takes for an address."""


TRIES = {"RAY_NUM_REDIS_GET_RETRIES": "3"}
"""Environment of who talks to a Ray that is there: it is asked so often, a second apart."""


def check_address(address: str | None) -> None:
    """Whether anything answers there; Ray itself would try for minutes.

    Raises:
        ConnectionError: nothing does.
    """
    host, colon, port = (address or "local").removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_S):
            return
    except (OSError, ValueError) as error:
        raise ConnectionError(unreachable(address, error)) from error


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
