"""Writing the tar files of a set of shards."""

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any, Self

import webdataset
from PIL import Image
from torch import Tensor

from pipeline.index import Shard, Split


class ShardWriter:
    """Writes one split, shard after shard, with the digest of each.

    Args:
        folder: where to.
        name: of the split.
        limit: bytes past which a shard is closed.
    """

    def __init__(self, folder: Path, name: str, *, limit: int) -> None:
        self.folder, self.name, self.limit = folder, name, limit
        self.split = Split()
        self._buffer: io.BufferedWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Finishes the last shard; after an error it is only let go, the folder is thrown away."""
        if error is None:
            self._finish()
        elif self._buffer is not None:
            for opened in (self._tar, self._buffer):
                with contextlib.suppress(OSError):  # on a full disk, closing fails once more
                    opened.close()

    def write(self, key: str, picture: Tensor, meta: dict[str, Any]) -> None:
        """Adds a sample.

        Args:
            key: its name, without dots.
            picture: uint8 ``(3, H, W)``, or a clip ``(T, 3, H, W)``.
            meta: what its .json holds.
        """
        if self._buffer is None:
            self._path = self.folder / f"{self.name}-{len(self.split.shards):06d}.tar"
            self._buffer = self._path.open("wb")
            # A fixed time makes equal input give equal bytes, so that the digest names the data.
            self._tar = webdataset.TarWriter(self._buffer, mtime=0)
            self._samples = 0
        self._tar.write({"__key__": key, "png": _png(picture), "json": json.dumps(meta).encode()})
        self._samples += 1
        if self._buffer.tell() >= self.limit:
            self._finish()

    def _finish(self) -> None:
        if self._buffer is None:
            return
        self._tar.close()
        self._buffer.close()
        self._buffer = None
        with self._path.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        size = self._path.stat().st_size
        self.split.shards.append(Shard(self._path.name, self._samples, size, digest))
        self.split.samples += self._samples


def _png(picture: Tensor) -> bytes:
    """A picture, or the frames of a clip one below the other."""
    rows = picture.movedim(-3, -1).reshape(-1, picture.shape[-1], 3)
    encoded = io.BytesIO()
    # Level 1: a tenth larger than level 6 and several times faster to write.
    Image.fromarray(rows.numpy()).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()
