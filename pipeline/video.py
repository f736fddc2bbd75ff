"""Videos: their frames, one at a time; the only door to PyAV.

PyAV rather than torchcodec: its wheels bring FFmpeg with them, and it copies sound from file to
file. It is an optional dependency (``pip install "srdet[video]"``), imported when a video is.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pipeline.picture_files import PictureError, check_size

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")

_HD = 720
"""Rows from which on a video that does not say so is taken to have BT.709's colours."""
_LONG = Fraction(3, 2)
"""Mean intervals between two frames from which on frames are taken to be missing between them."""


class VideoError(PictureError):
    """A video that cannot be read; the message names the file and the cure."""


@dataclass(frozen=True)
class Frame:
    """One frame, upright."""

    picture: Tensor
    """uint8 ``(3, H, W)``."""
    number: int
    pts: int
    """Time in units of the video's time base."""
    follows: bool = True
    """Whether it comes right after the one before; False where frames are missing."""
    source: Path | None = None
    """Its own file, of a folder of frames."""


class VideoReader:
    """The frames of a video, decoded as they are asked for.

    Args:
        path: the file.
        max_pixels: larger frames are refused; see ``check_size``.

    Raises:
        VideoError: not a video, damaged, or without pictures.
        FileNotFoundError: no such file.
    """

    def __init__(self, path: Path, *, max_pixels: int | None = None) -> None:
        self.path, self.max_pixels = path, max_pixels
        self.damaged = self.missing = self.given = 0
        self._av = pyav(path)
        self._container = opened(self._av, path)
        if not self._container.streams.video:
            self.close()
            raise VideoError(f"{path} has no pictures, only sound; give a video")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        context = self._stream.codec_context
        try:
            check_size(context.width, context.height, f"a frame of {path}", max_pixels)
        except PictureError:
            self.close()
            raise
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.time_base = Fraction(self._stream.time_base or 1 / self.rate)
        self.expected = self._promised()
        """How many frames the header promises, if it does."""
        self.colours = self.range = 0  # of the last frame, as FFmpeg counts them
        self.upright = (0, 0)
        """Height and width of the frames, known with the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._container.close()

    def _promised(self) -> int | None:
        told: int = self._stream.frames
        if told:
            return told
        duration = self._container.duration
        return round(duration / self._av.time_base * self.rate) if duration else None

    def __iter__(self) -> Iterator[Frame]:
        """Frames in the order in which they are shown; can be read once.

        Raises:
            VideoError: none can be read, or one has another size than those before.
        """
        last: int | None = None
        step = max(1, round(1 / self.rate / self.time_base))
        for raw in self._raw():
            picture = self._picture(raw)
            pts = raw.pts
            if pts is None or (last is not None and pts <= last):
                pts = 0 if last is None else last + step  # some containers keep no times
            gap = 0 if last is None else pts - last
            follows = gap * self.time_base <= _LONG / self.rate
            if not follows:
                self.missing += max(1, round(gap * self.time_base * self.rate) - 1)
            yield Frame(picture, self.given, pts, follows)
            self.given, last = self.given + 1, pts
        if not self.given:
            raise VideoError(f"no frame of {self.path} can be read; replace or remove it")

    def remarks(self) -> list[str]:
        """What was wrong with it, known when all is read."""
        said = []
        if self.damaged:
            said.append(f"{self.damaged} damaged pieces were passed over")
        if self.missing:
            said.append(f"{self.missing} frames are missing (gaps between the times of others)")
        if self.expected and self.given < 0.9 * self.expected - 1:
            said.append(f"it breaks off after {self.given} of about {self.expected} frames")
        return said

    def _raw(self) -> Iterator[Any]:
        """Decoded frames; a damaged packet is counted, not fatal."""
        errors = self._av.error
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except (errors.EOFError, errors.BlockingIOError):
                return
            except errors.FFmpegError:
                self.damaged += 1
                if self.damaged > 1000:
                    return
                continue
            for frame in frames:
                self.damaged += bool(frame.is_corrupt)
                yield frame

    def _picture(self, raw: Any) -> Tensor:  # noqa: ANN401
        """RGB by the frame's own matrix and range, turned upright."""
        self.colours = _matrix(raw)
        self.range = int(raw.color_range)
        as_rgb = raw.reformat(format="rgb24", src_colorspace=self.colours, dst_color_range=2)
        pixels = np.rot90(as_rgb.to_ndarray(), round(raw.rotation / 90) % 4)
        size = (pixels.shape[0], pixels.shape[1])
        if self.given and size != self.upright:
            raise VideoError(
                f"{self.path}: frame {self.given} is {size[1]} x {size[0]} pixels, those before "
                f"are {self.upright[1]} x {self.upright[0]}; give each size a file of its own"
            )
        self.upright = size
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def pyav(path: Path) -> ModuleType:
    """PyAV, asked for a file.

    Raises:
        VideoError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError(
            f'{path}: videos need PyAV; install it with: pip install "srdet[video]"'
        ) from error
    import av.error

    av.logging.set_level(av.logging.PANIC)  # what matters is counted and told
    return av


def opened(av: ModuleType, path: Path) -> Any:  # noqa: ANN401
    """A container to read from.

    Raises:
        VideoError: it is damaged, or no video.
        FileNotFoundError: no such file.
    """
    try:
        return av.open(str(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {path}") from None
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{path} is damaged or no video ({error.strerror}); replace or remove it"
        ) from error


def _matrix(raw: Any) -> int:  # noqa: ANN401
    """FFmpeg's number of the matrix between RGB and YCbCr; by the size where none is told."""
    told = int(raw.colorspace)
    bt709, bt601, unknown = 1, 5, 2
    if told != unknown:
        return told
    return bt709 if raw.height >= _HD else bt601
