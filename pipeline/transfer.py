"""Files from a disk, a web server or an object store; a transfer that breaks off goes on.

A path is opened as it is; ``http://`` and ``https://`` need nothing besides Python; every other
``scheme://`` (``s3``, ``gs``, ``az``, ``hf``, ...) is fsspec's, with the package that it names.
"""

import http.client
import io
import logging
import random
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

TIMEOUT_S = 30
"""A server that sends nothing for so long has dropped the connection."""
CHUNK = 1 << 18

OF_THE_MOMENT = {408, 425, 429}
"""Answers of the 4xx class that say nothing about the file (RFC 9110, 8470, 6585)."""


class RefusedError(OSError):
    """The server answers, and asking again will not change what it says."""


LASTING = (FileNotFoundError, IsADirectoryError, PermissionError, RefusedError)
"""Errors that asking again does not cure."""


@dataclass(frozen=True)
class Retry:
    """How long a place may be away.

    Attributes:
        total_s: seconds without a new byte after which it is given up; 0 asks once.
        first_s: seconds until the second attempt; each further pause is twice as long.
        most_s: the longest pause.
        sleep: waits so many seconds.
        clock: the time in seconds.
    """

    total_s: float = 300.0
    first_s: float = 1.0
    most_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


ONCE = Retry(total_s=0.0)


def is_remote(place: str) -> bool:
    """Whether a place is read over the network rather than from disk."""
    return "://" in place


def open_place(place: str, *, size: int, retry: Retry = ONCE) -> IO[bytes]:
    """Opens a file for reading from its beginning to its end, whatever the network does.

    Args:
        place: path or address.
        size: of the file in bytes; a transfer that ends earlier has broken off.
        retry: how long the network may be away.

    Raises:
        FileNotFoundError: nothing there; says where it looked.
        ConnectionError: also on reading: the place was away for longer than ``retry`` allows.
        OSError: also on reading: the server refuses.
        ValueError: the scheme is unknown, or its package is not installed.
    """
    if not is_remote(place):
        return Path(place).open("rb")
    return io.BufferedReader(_PatientFile(place, size, retry), CHUNK)


def read_place(place: str, *, retry: Retry = ONCE) -> bytes:
    """The content of a small file of unknown size.

    Raises:
        OSError, ValueError: as ``open_place``.
    """
    if not is_remote(place):
        return Path(place).read_bytes()
    outage = _Outage(place, retry)
    while True:
        try:
            with _open_at(place, 0) as opened:
                return opened.read()
        except LASTING:
            raise
        except _passing_errors() as error:
            outage.wait(error)


def _passing_errors() -> tuple[type[Exception], ...]:
    """Those of sockets, and those of loaded object stores' clients that are no OSError."""
    roots = {
        "botocore.exceptions": "BotoCoreError",
        "aiohttp": "ClientError",
        "gcsfs.retry": "HttpError",
        "azure.core.exceptions": "AzureError",
    }
    loaded = (
        getattr(sys.modules[name], root) for name, root in roots.items() if name in sys.modules
    )
    return (OSError, http.client.HTTPException, *loaded)


class _Outage:
    """Counts the failures since the last byte came, and waits between them."""

    def __init__(self, place: str, retry: Retry) -> None:
        self.place, self.retry = place, retry
        self.failures, self.since = 0, 0.0

    def over(self) -> None:
        if self.failures:
            logger.info("%s answers again after %d failures", self.place, self.failures)
        self.failures = 0

    def wait(self, error: Exception) -> None:
        """Pauses before the next attempt, or gives up."""
        now = self.retry.clock()
        self.since = self.since if self.failures else now
        self.failures += 1
        longest = min(self.retry.first_s * 2 ** (self.failures - 1), self.retry.most_s)
        # Readers that were dropped together come back apart.
        pause = longest * random.SystemRandom().uniform(0.5, 1.0)
        if now + pause - self.since > self.retry.total_s:
            raise ConnectionError(self._given_up(error, now - self.since)) from error
        if self.failures == 1:
            limit = self.retry.total_s
            logger.warning("%s; trying again for up to %.0f s", self._said(error), limit)
        self.retry.sleep(pause)

    def _given_up(self, error: Exception, seconds: float) -> str:
        if not self.retry.total_s:
            return self._said(error)
        return (
            f"{self._said(error)}; given up after {self.failures} attempts in {seconds:.0f} s; "
            "check address, network and credentials and run the command again (a training goes on "
            "from its last checkpoint), or allow longer outages with data.retry_s"
        )

    def _said(self, error: Exception) -> str:
        said = str(error) or type(error).__name__
        return said if self.place in said else f"{self.place}: {said}"


class _PatientFile(io.RawIOBase):
    """A remote file of known size, read forward; after a failure it goes on where it stood."""

    def __init__(self, place: str, size: int, retry: Retry) -> None:
        super().__init__()
        self.place, self.size = place, size
        self._outage = _Outage(place, retry)
        self._at = 0
        self._opened: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        wanted = min(len(buffer), self.size - self._at)
        while wanted:
            try:
                got = self._pull(wanted)
            except LASTING:
                raise
            except _passing_errors() as error:
                self._drop()
                self._outage.wait(error)
                continue
            self._outage.over()
            self._at += len(got)
            buffer[: len(got)] = got
            return len(got)
        return 0

    def _pull(self, wanted: int) -> bytes:
        if self._opened is None:
            self._opened = _open_at(self.place, self._at)
        try:
            got = self._opened.read(wanted)
        except http.client.IncompleteRead as error:
            got = error.partial
        if not got:
            said = f"{self.place}: the transfer broke off after {self._at} of {self.size} bytes"
            raise ConnectionError(said)
        return got

    def _drop(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def close(self) -> None:
        self._drop()
        super().close()


def _open_at(place: str, start: int) -> IO[bytes]:
    """Opens a remote file ``start`` bytes behind its beginning; one attempt."""
    if place.startswith(("http://", "https://")):
        return _open_http(place, start)
    return _open_stored(place, start)


def _open_http(place: str, start: int) -> IO[bytes]:
    ranged = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(place, headers=ranged)
    try:
        opened = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise _http_error(place, error.code, error.reason) from error
    except urllib.error.URLError as error:
        said = f"{place}: cannot be reached ({error.reason})"
        untrusted = isinstance(error.reason, ssl.SSLCertVerificationError)
        raise (RefusedError(said) if untrusted else ConnectionError(said)) from error
    if start and opened.status != http.client.PARTIAL_CONTENT:
        _skip(opened, start)  # a server without ranges begins anew
    return opened  # type: ignore[no-any-return]


def _http_error(place: str, code: int, reason: str) -> OSError:
    said = f"{place}: the server answered {code} {reason}"
    if code in (http.client.NOT_FOUND, http.client.GONE):
        return FileNotFoundError(said)
    lasting = 400 <= code < 500 and code not in OF_THE_MOMENT
    return RefusedError(said) if lasting else ConnectionError(said)


def _skip(opened: IO[bytes], count: int) -> None:
    while count:
        passed = len(opened.read(min(CHUNK, count)))
        if not passed:
            raise ConnectionError("the transfer broke off before the place where it had stood")
        count -= passed


def _open_stored(place: str, start: int) -> IO[bytes]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{place} cannot be opened: {error}; {_cure(place)}") from error
    opened: IO[bytes] = system.open(path, "rb")
    opened.seek(start)
    return opened


def _cure(place: str) -> str:
    from fsspec.registry import known_implementations

    scheme = place.split("://")[0]
    known = known_implementations.get(scheme)
    if known is None:
        return f"{scheme}:// is none of the known schemes, such as http, https, s3, gs, az"
    return f"run: pip install {known['class'].split('.')[0]}"
