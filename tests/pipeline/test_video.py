"""Videos: what goes in comes out, with its times and sound, and what is bad is said."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.video import VideoError, VideoReader
from pipeline.video_writer import WRITTEN, VideoWriter

av = pytest.importorskip("av", reason='videos need PyAV: pip install "srdet[video]"')


def film(
    path: Path,
    *,
    frames: int = 12,
    size: tuple[int, int] = (48, 32),
    sound: bool = True,
    times: list[int] | None = None,
    codec: str = "libx264",
) -> Path:
    """A video at 25 frames a second whose brightness grows; with a tone where asked."""
    width, height = size
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"crf": "5"}
        tone = out.add_stream("aac", rate=44_100) if sound else None
        for n in range(frames):
            pixels = np.full((height, width, 3), 40 + 10 * n % 200, np.uint8)
            pixels[: height // 2, : width // 2] = (200, 30, 30)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (times[n] if times else n), Fraction(1, 25)
            out.mux(video.encode(frame))
        if tone is not None:
            for n in range(frames * 44_100 // 25 // 1024 + 1):
                wave = np.sin(np.arange(1024) / 20 + n)[None].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44_100, n * 1024
                out.mux(tone.encode(frame))
            out.mux(tone.encode(None))
        out.mux(video.encode(None))
    return path


def doubled(source: Path, place: Path) -> None:
    """Every pixel becomes four."""
    with (
        VideoReader(source) as reader,
        VideoWriter(place, WRITTEN[place.suffix], reader, quality=5) as writer,
    ):
        for frame in reader:
            big = frame.picture.repeat_interleave(2, 1).repeat_interleave(2, 2)
            writer.put(big, frame.pts)


def sound_packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as opened:
        packets = opened.demux(opened.streams.audio[0])
        return [(round(float(p.pts * p.time_base), 3), bytes(p)) for p in packets if p.size]


def shown(path: Path) -> list[Fraction]:
    with VideoReader(path) as reader:
        return [frame.pts * reader.time_base for frame in reader]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_an_enlarged_video_keeps_pictures_times_and_sound(tmp_path: Path, suffix: str):
    source, place = film(tmp_path / f"in{suffix}"), tmp_path / f"out{suffix}"
    doubled(source, place)
    assert shown(place) == shown(source)
    assert sound_packets(place) == sound_packets(source)
    with VideoReader(source) as old, VideoReader(place) as new:
        for before, after in zip(old, new, strict=True):
            assert after.picture.shape == (3, 64, 96)
            small = after.picture[:, ::2, ::2].float()
            assert (small - before.picture.float()).abs().mean() < 3


def corner(path: Path) -> torch.Tensor:
    with VideoReader(path) as reader:
        return next(iter(reader)).picture[:, :8, :8].float()


@pytest.mark.parametrize("height", [64, 720])
def test_colours_survive_in_standard_and_in_high_definition(tmp_path: Path, height: int):
    source = film(tmp_path / "in.mp4", frames=1, size=(96, height), sound=False)
    doubled(source, tmp_path / "out.mp4")
    assert (corner(tmp_path / "out.mp4") - corner(source)).abs().max() < 6
    if height == 64:  # the maker of this video uses BT.601 and does not say so
        red = torch.tensor([200, 30, 30.0]).view(3, 1, 1)
        assert (corner(source) - red).abs().max() < 6


def test_a_silent_video_stays_silent(tmp_path: Path):
    source = film(tmp_path / "in.mp4", sound=False)
    with VideoReader(source) as reader:
        writer = VideoWriter(tmp_path / "out.mp4", "mp4", reader, quality=5)
        with writer:
            for frame in reader:
                writer.put(frame.picture, frame.pts)
        assert writer.silent
    assert len(shown(tmp_path / "out.mp4")) == 12


def test_dropped_frames_are_counted_and_their_gap_stays(tmp_path: Path):
    times = [0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14]
    source = film(tmp_path / "in.mkv", times=times, sound=False)
    with VideoReader(source) as reader:
        follows = [frame.follows for frame in reader]
        assert follows == [n != 4 for n in range(12)]
        assert any(
            "3 frames are missing" in said or "2 frames" in said for said in reader.remarks()
        )
    doubled(source, tmp_path / "out.mkv")
    assert shown(tmp_path / "out.mkv") == shown(source)


def test_a_video_that_breaks_off_gives_what_it_has_and_says_so(tmp_path: Path):
    source = film(tmp_path / "whole.mkv", frames=200, size=(128, 96), sound=False)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with VideoReader(cut) as reader:
        given = sum(1 for _ in reader)
        assert 0 < given < 200
        assert any("breaks off after" in said for said in reader.remarks())


def test_damage_inside_is_passed_over_and_counted(tmp_path: Path):
    source = film(tmp_path / "in.mkv", frames=60, size=(128, 96), sound=False)
    damaged = bytearray(source.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 300] = bytes(300)
    (tmp_path / "bad.mkv").write_bytes(damaged)
    with VideoReader(tmp_path / "bad.mkv") as reader:
        assert sum(1 for _ in reader) > 10
        assert reader.remarks()


def test_frames_of_another_size_end_it_with_their_number(tmp_path: Path):
    first = film(tmp_path / "a.ts", frames=5, sound=False, codec="mpeg2video")
    other = film(tmp_path / "b.ts", frames=5, size=(64, 48), sound=False, codec="mpeg2video")
    (tmp_path / "both.ts").write_bytes(first.read_bytes() + other.read_bytes())
    with (
        VideoReader(tmp_path / "both.ts") as reader,
        pytest.raises(VideoError, match=r"frame \d is 64 x 48 pixels, those before are 48 x 32"),
    ):
        list(reader)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"x.mp4 is damaged or no video"):
        VideoReader(tmp_path / "x.mp4")
    with pytest.raises(FileNotFoundError, match="no such file"):
        VideoReader(tmp_path / "none.mp4")


def test_sound_alone_is_no_video(tmp_path: Path):
    with av.open(str(tmp_path / "x.mp4"), "w") as out:
        tone = out.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44_100
        out.mux(tone.encode(frame))
        out.mux(tone.encode(None))
    with pytest.raises(VideoError, match="has no pictures, only sound"):
        VideoReader(tmp_path / "x.mp4")


def test_a_frame_above_the_limit_is_refused_before_it_is_decoded(tmp_path: Path):
    with pytest.raises(ValueError, match="more than the limit"):
        VideoReader(film(tmp_path / "in.mp4", frames=1), max_pixels=1000)


def test_odd_sides_are_kept(tmp_path: Path):
    source = film(tmp_path / "in.mp4", frames=3, sound=False)
    with (
        VideoReader(source) as reader,
        VideoWriter(tmp_path / "out.mp4", "mp4", reader, quality=5) as writer,
    ):
        for frame in reader:
            writer.put(frame.picture[:, :31, :47], frame.pts)
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert next(iter(reader)).picture.shape == (3, 31, 47)
