"""Pictures come out of their PNG exactly, whole or in part, by either decoder, or as damaged."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.samples import DamagedPNGError, decode_png, png_size


def _png(height: int, width: int, mode: str = "RGB", **settings) -> tuple[bytes, torch.Tensor]:
    rng = np.random.default_rng([height, width])
    coarse = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height)).convert(mode)
    written = io.BytesIO()
    picture.save(written, "PNG", **settings)
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy())
    return written.getvalue(), pixels.permute(2, 0, 1)


@pytest.fixture(params=["pyspng", "torchvision"])
def decoder(request, monkeypatch) -> str:
    """Both decoders; the second is there where the first is not installed."""
    if request.param == "pyspng":
        pytest.importorskip("pyspng", reason="the faster decoder is not installed")
    else:
        monkeypatch.setattr("pipeline.samples.load_png", None)
    return request.param


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 64), (64, 37)])
def test_a_picture_is_decoded_exactly(decoder, height, width, mode):
    png, pixels = _png(height, width, mode)
    assert png_size(png) == (height, width)
    decoded = decode_png(png)
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, pixels)


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("rows", [1, 2, 36, 37, 100])
def test_the_first_rows_are_those_of_the_whole(decoder, rows, level, capfd):
    png, pixels = _png(37, 64, compress_level=level)
    assert torch.equal(decode_png(png, rows=rows), pixels[:, :rows])
    assert capfd.readouterr().err == ""  # libpng would complain of the rows that are left


def test_damage_is_found_wherever_it_lies(decoder):
    png, _ = _png(37, 64)
    rng = random.Random(0)
    for at in [*range(8, 60), *(rng.randrange(len(png)) for _ in range(200))]:
        if at < 8:
            continue
        harmed = png[:at] + bytes([png[at] ^ 0xFF]) + png[at + 1 :]
        for rows in (None, 1):
            with pytest.raises(DamagedPNGError, match="its PNG is damaged"):
                decode_png(harmed, rows=rows)


@pytest.mark.parametrize("length", [0, 4, 8, 12, 20, 33, 40, 500])
def test_a_png_that_is_cut_short_is_damaged(decoder, length):
    png, _ = _png(37, 64)
    with pytest.raises(DamagedPNGError):
        decode_png(png[:length])
    assert png_size(png[:length]) == ((37, 64) if length >= 33 else (0, 0))


def test_what_has_good_checksums_and_no_pixels_is_damaged(decoder):
    png, _ = _png(37, 64)
    start = png.index(b"IDAT") - 4
    length = int.from_bytes(png[start : start + 4]) + 12
    with pytest.raises(DamagedPNGError):
        decode_png(png[:start] + png[start + length :])


def test_an_interlaced_png_is_decoded_whole_and_then_cut(decoder):
    picture = torch.arange(3 * 3, dtype=torch.uint8).view(3, 3, 1)
    rows = [picture[:, r].T.contiguous().numpy().tobytes() for r in range(3)]
    png = _interlaced(rows)
    assert torch.equal(decode_png(png), picture)
    assert torch.equal(decode_png(png, rows=2), picture[:, :2])


def _interlaced(rows: list[bytes]) -> bytes:
    """A PNG of 1 x 3 pixels in Adam7's order: row 0 in pass 1, row 2 in pass 5, row 1 in pass 7."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = struct.pack(">IIBBBBB", 1, 3, 8, 2, 0, 0, 1)
    lines = b"".join(b"\0" + rows[r] for r in (0, 2, 1))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
