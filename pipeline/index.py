"""The index of a set of shards: what ``index.json`` holds, and where it is read from."""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.transfer import ONCE, Retry, is_remote, open_place, read_place

INDEX = "index.json"
FORMAT = 1


@dataclass
class Shard:
    """One tar file of the set."""

    name: str
    samples: int
    bytes: int
    sha256: str


Opener = Callable[[str, Shard], IO[bytes]]
"""Opens the shard at a place for reading."""


@dataclass
class Split:
    """The shards of ``train`` or ``val``."""

    pictures: int = 0
    samples: int = 0
    shards: list[Shard] = field(default_factory=list)


@dataclass
class Index:
    """What ``index.json`` holds."""

    format: int
    source: str
    cut: dict[str, int]
    categories: dict[int, str]
    splits: dict[str, Split]
    skipped: list[dict[str, str]]
    fingerprints: list[str] = field(default_factory=list)
    """Of all pictures, see ``pipeline.fingerprints``; older sets have none."""
    frames: int = 1
    """Of each sample: one picture, or a clip."""

    def digest(self) -> str:
        """One sha256 over all shards: the data's name in a run's tags."""
        names = "".join(shard.sha256 for split in self.splits.values() for shard in split.shards)
        return hashlib.sha256(names.encode()).hexdigest()


def read_index(text: str, *, where: str) -> Index:
    """Parses an index.json.

    Raises:
        ValueError: not an index of this format; the message names ``where`` and the cure.
    """
    try:
        raw = json.loads(text)
        written = raw["format"]
        index = _parse(raw) if written == FORMAT else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where} is not a shard index ({type(error).__name__}: {error}); write one with: "
            "srdet shards"
        ) from error
    if index is None:
        raise ValueError(
            f"{where} has format {written}, this version reads {FORMAT}; write it again with: "
            "srdet shards"
        )
    return index


def _parse(raw: dict[str, Any]) -> Index:
    splits = {
        name: Split(s["pictures"], s["samples"], [Shard(**shard) for shard in s["shards"]])
        for name, s in raw["splits"].items()
    }
    categories = {int(key): value for key, value in raw["categories"].items()}
    return Index(
        raw["format"], raw["source"], raw["cut"], categories, splits, raw["skipped"],
        raw.get("fingerprints", []), raw.get("frames", 1),
    )  # fmt: skip


def open_shard(place: str, shard: Shard, *, retry: Retry = ONCE) -> IO[bytes]:
    """Opens a shard for reading from its beginning to its end.

    Raises:
        OSError: as ``pipeline.transfer.open_place``.
    """
    return open_place(place, size=shard.bytes, retry=retry)


def load_index(shards: str, *, retry: Retry = ONCE) -> Index:
    """The index of a folder or address of shards; local shards are checked for their size.

    Raises:
        FileNotFoundError: no index, or a shard that it names is missing.
        ConnectionError: the server is away for longer than ``retry`` allows.
        ValueError: not an index, or a shard is cut short.
    """
    place = f"{shards.rstrip('/')}/{INDEX}"
    try:
        text = read_place(place, retry=retry).decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError) as error:
        cure = (
            "give the address of the folder that holds it"
            if is_remote(shards)
            else f"write them with: srdet shards --images PICTURES --out {shards}"
        )
        raise FileNotFoundError(f"no shards in '{shards}' (looked for {place}); {cure}") from error
    index = read_index(text, where=place)
    if not is_remote(shards):
        _check_sizes(index, Path(shards))
    return index


def _check_sizes(index: Index, folder: Path) -> None:
    for shard in itertools.chain.from_iterable(split.shards for split in index.splits.values()):
        path = folder / shard.name
        if not path.exists():
            raise FileNotFoundError(
                f"shard {path} is missing; copy it again or write the set again with: srdet shards"
            )
        size = path.stat().st_size
        if size != shard.bytes:
            raise ValueError(
                f"shard {path} has {size} bytes, the index says {shard.bytes}: it is cut short or "
                "changed; copy it again or write the set again with: srdet shards"
            )
