"""JPEG as arithmetic beside libjpeg: the same tables, the same chroma, the same pictures."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.io import encode_jpeg

from sr_module.degrade.codecs import through_jpeg
from sr_module.degrade.jpeg import differentiable_jpeg, quantisation_tables

ZIGZAG = sorted(
    range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8))
)


def scene(height: int = 72, width: int = 88) -> torch.Tensor:
    """Coloured blobs with texture, ``(3, height, width)``."""
    source = torch.Generator().manual_seed(4)
    coarse = torch.rand(1, 3, 9, 11, generator=source)
    picture = F.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    return (picture + 0.1 * torch.rand(3, height, width, generator=source)).clamp(0, 1)


def segments(file: bytes, marker: int) -> list[bytes]:
    """The contents of a JPEG file's segments of one kind."""
    found, at = [], 2
    while file[at + 1] != 0xDA:
        length = int.from_bytes(file[at + 2 : at + 4])
        if file[at + 1] == marker:
            found.append(file[at + 4 : at + 2 + length])
        at += 2 + length
    return found


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 75, 95, 100])
def test_the_tables_are_those_in_libjpegs_files(quality: int):
    levels = (scene() * 255).to(torch.uint8)
    file = encode_jpeg(levels, quality).numpy().tobytes()
    written = [list(table[1:]) for table in segments(file, 0xDB)]
    ours = [table.flatten()[ZIGZAG].tolist() for table in quantisation_tables(quality)]
    assert written == ours


def test_libjpegs_files_halve_chroma_as_ours_does():
    file = encode_jpeg((scene() * 255).to(torch.uint8), 60).numpy().tobytes()
    (frame,) = segments(file, 0xC0)
    assert [frame[6 + 3 * place + 1] for place in range(3)] == [0x22, 0x11, 0x11]
    stripes = torch.full((1, 3, 32, 32), 0.4)
    stripes[:, 0, :, ::2] = 0.6  # redder and greyer, column by column: only luma can carry it
    made = differentiable_jpeg(stripes, [100])[0]
    chroma = made[0] - made[1]
    assert chroma[:, 8:24].diff(dim=1).abs().max() < 0.05


@pytest.mark.parametrize("size", [(72, 88), (64, 64), (61, 67), (40, 57), (5, 5), (33, 6)])
def test_pictures_equal_libjpegs_to_the_last_bit(size: tuple):
    picture = scene(*size)
    qualities = [1, 5, 10, 30, 40, 49, 50, 75, 95, 100]
    ours = differentiable_jpeg(picture.expand(len(qualities), -1, -1, -1), qualities)
    theirs = torch.stack([through_jpeg(picture, quality) for quality in qualities])
    assert torch.equal((ours * 255).round(), (theirs * 255).round())


def test_hard_pictures_equal_libjpegs_too():
    source = torch.Generator().manual_seed(1)
    noise = torch.rand(3, 32, 64, generator=source).round()  # full contrast from pixel to pixel
    ties = torch.randint(0, 256, (3, 48, 48), generator=source) / 255 + 0.5 / 255
    for picture in (noise, ties.clamp(0, 1), torch.zeros(3, 16, 16), torch.ones(3, 9, 40)):
        for quality in (1, 20, 60, 90, 100):
            ours = differentiable_jpeg(picture[None], [quality])[0]
            theirs = through_jpeg(picture, quality)
            assert torch.equal((ours * 255).round(), (theirs * 255).round()), quality


def test_each_picture_of_a_batch_has_its_own_quality():
    pictures = torch.stack([scene(), scene().flip(-1)])
    both = differentiable_jpeg(pictures, [15, 90])
    alone = [differentiable_jpeg(pictures[i : i + 1], [q])[0] for i, q in enumerate([15, 90])]
    assert torch.allclose(both, torch.stack(alone), atol=1e-6)


def test_a_gradient_passes():
    picture = scene(32, 32)[None].requires_grad_()
    target = scene(32, 32).roll(3, -1)[None]
    before = (differentiable_jpeg(picture, [50]) - target).square().mean()
    before.backward()
    with torch.no_grad():
        moved = picture - 100 * picture.grad
        after = (differentiable_jpeg(moved, [50]) - target).square().mean()
    assert after < 0.9 * before


def test_a_quality_that_libjpeg_does_not_have_is_refused():
    with pytest.raises(ValueError, match="JPEG quality must be 1 to 100, got 0"):
        differentiable_jpeg(torch.zeros(1, 3, 16, 16), [0])
