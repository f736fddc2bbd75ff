"""The index of a set of shards: what ``index.json`` holds, and where it is read from."""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.transfer import ONCE, Retry, is_remote, open_place, read_place

logger = logging.getLogger(__name__)

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


def load_index(shards: str, *, retry: Retry = ONCE, most: float = 0.0) -> Index:
    """The index of a folder or address of shards; local shards are checked for their size.

    Args:
        shards: folder or address.
        retry: how long a server may be away.
        most: share of a split's samples that local shards may lack, which is warned of.

    Raises:
        FileNotFoundError: no index.
        ConnectionError: the server is away for longer than ``retry`` allows.
        ValueError: not an index, or more than ``most`` is missing or cut off, or a shard is longer
            than it was: that is another one.
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
        _check_sizes(index, Path(shards), most)
    return index


CURE = "copy it again or write the set again with: srdet shards"


def _check_sizes(index: Index, folder: Path, most: float) -> None:
    for name, split in index.splits.items():
        found = (_missing(folder / shard.name, shard) for shard in split.shards)
        lacking = [(samples, said) for samples, said in found if said]
        missing = sum(samples for samples, _ in lacking)
        if missing > most * split.samples:
            raise ValueError(
                f"{lacking[0][1]}; {len(lacking)} of the {len(split.shards)} {name} shards lack "
                f"{missing} of {split.samples} samples, more than data.max_bad_share {most:g} "
                f"allows: {CURE}"
            )
        for samples, said in lacking:
            logger.warning("%s: about %d samples are missing; %s", said, samples, CURE)


def _missing(path: Path, shard: Shard) -> tuple[int, str]:
    """About how many samples a file lacks, and what is to be said of it."""
    size = path.stat().st_size if path.exists() else 0
    if size > shard.bytes:
        raise ValueError(
            f"shard {path} has {size} bytes, the index says {shard.bytes}: it was changed; {CURE}"
        )
    samples = math.ceil(shard.samples * (1 - size / shard.bytes)) if shard.bytes else 0
    if not path.exists():
        return samples, f"shard {path} is missing"
    if size < shard.bytes:
        return (
            samples,
            f"shard {path} has {size} bytes, the index says {shard.bytes}: it is cut short",
        )
    return 0, ""
