"""Videos of enlarged frames, with the times, colours and sound of those they were made of."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from pipeline.video import VideoError, VideoReader, opened, pyav

WRITTEN = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffixes that videos are written with; others become .mkv, which holds sound of any kind."""


class VideoWriter:
    """A video of enlarged frames with the times, colours and sound of another.

    H.264 of constant quality; sound is copied, not encoded again, packet by packet as the pictures
    come, so that memory does not grow with the length.

    Args:
        path: the file as written, of any name.
        form: FFmpeg's name of the container, a value of ``WRITTEN``.
        source: whose times, colours and sound it gets.
        quality: x264's constant rate factor, 0 (lossless) to 51.

    Raises:
        VideoError: the container does not hold this kind of sound.
    """

    def __init__(self, path: Path, form: str, source: VideoReader, *, quality: int) -> None:
        self.source, self.quality = source, quality
        self._av = pyav(path)
        self._out = self._av.open(str(path), "w", format=form)
        self._in = opened(self._av, source.path)
        self._form = form
        self._encoder: Any = None
        self._sounds: dict[Any, Any] = {}
        self._packets: Iterator[Any] = iter(())
        self._ahead: Any = None  # a packet that was read too early

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._in.close()
            self._out.close()

    @property
    def silent(self) -> bool:
        """Whether there is no sound to copy."""
        return not self._in.streams.audio

    def put(self, picture: Tensor, pts: int) -> None:
        """Adds a frame.

        Args:
            picture: uint8 ``(3, H, W)``, of one size throughout.
            pts: its time, in units of the source's time base.
        """
        if self._encoder is None:
            self._encoder = self._start(picture)
        self._copy_sound(until=pts * self.source.time_base)
        pixels = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format=self._encoder.codec_context.pix_fmt,
            dst_colorspace=self.source.colours,
            src_color_range=2,
            dst_color_range=self.source.range or 1,
        )
        frame.pts, frame.time_base = pts, self.source.time_base
        self._out.mux(self._encoder.encode(frame))

    def _start(self, picture: Tensor) -> Any:  # noqa: ANN401
        height, width = picture.shape[-2:]
        stream = self._out.add_stream("libx264", rate=self.source.rate)
        stream.width, stream.height = width, height
        # Halved chroma needs even sides; it is what every player shows.
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        stream.options = {"crf": str(self.quality)}
        context = stream.codec_context
        context.time_base = self.source.time_base
        context.colorspace, context.color_range = self.source.colours, self.source.range or 1
        self._add_sound()
        return stream

    def _add_sound(self) -> None:
        """Gives each sound stream of the source a copy in the new file."""
        for stream in self._in.streams.audio:
            try:
                self._sounds[stream] = self._out.add_stream_from_template(stream)
            except ValueError as error:
                raise VideoError(
                    f"{self.source.path}: {self._form} does not hold its sound "
                    f"({stream.codec_context.name}); put it into an .mkv file first"
                ) from error
        if self._sounds:
            self._packets = self._in.demux(*self._sounds)

    def _copy_sound(self, *, until: Fraction | None) -> None:
        """Copies packets up to a time in seconds, or all that are left."""
        while True:
            packet, self._ahead = self._ahead or next(self._packets, None), None
            if packet is None:
                return
            if packet.dts is None:  # the end of a stream
                continue
            if until is not None and packet.dts * packet.time_base > until:
                self._ahead = packet
                return
            packet.stream = self._sounds[packet.stream]
            self._out.mux(packet)

    def _finish(self) -> None:
        if self._encoder is not None:
            self._out.mux(self._encoder.encode(None))
        self._copy_sound(until=None)
