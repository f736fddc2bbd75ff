import math
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr_module.blockiness import blockiness
from sr_module.resize import imresize


def checkered(*, block: int, contrast: float = 10) -> Tensor:
    """Flat grey blocks, ``contrast`` levels apart, 64 pixels a side."""
    index = torch.arange(64) // block
    return ((index[:, None] + index) % 2 * contrast / 255)[None, None]


def jpeg(image: Tensor, quality: int) -> Tensor:
    pixels = image[0].mul(255).round().byte().permute(1, 2, 0).numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255


def photograph_like() -> Tensor:
    """Smooth colours with some grain."""
    torch.manual_seed(3)
    smooth = imresize(torch.rand(1, 3, 12, 12), 8, quantize=False)
    return (smooth + 0.01 * torch.randn_like(smooth)).clamp(0, 1)


def test_steps_at_the_edges_alone_count_in_full():
    """Ten levels at every edge and none elsewhere: 100, times log 8 over log 64."""
    assert blockiness(checkered(block=8)).item() == pytest.approx(100 * 3 / 6)
    assert blockiness(checkered(block=16), block=16).item() == pytest.approx(100 * 4 / 6)


def test_steps_elsewhere_are_no_blocks():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 4::8, :] = 1
    image[..., 5::8, :] = 1
    assert blockiness(image).item() == 0
    assert blockiness(torch.full((1, 3, 64, 64), 0.4)).item() == 0


def test_stronger_compression_is_blockier_and_stays_so_when_enlarged():
    image = photograph_like()
    scores = [blockiness(jpeg(image, quality)).item() for quality in (90, 50, 10)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 5
    enlarged = [blockiness(imresize(jpeg(image, q), 2), block=16).item() for q in (90, 10)]
    assert enlarged[1] > enlarged[0] + 2


def test_every_picture_of_a_batch_is_scored_by_itself():
    images = torch.cat([jpeg(photograph_like(), 10), photograph_like()])
    found = blockiness(images)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.cat([blockiness(image[None]) for image in images]))
    assert found[0] > found[1]


@pytest.mark.parametrize(
    ("image", "block", "said"),
    [
        (torch.rand(3, 64, 64), 8, "B, 3 or 1"),
        (torch.ones(1, 3, 64, 64).byte(), 8, "floating-point"),
        (torch.rand(1, 3, 8, 64), 8, "two blocks of 8"),
        (torch.rand(1, 3, 64, 64), 1, "two blocks of 1"),
    ],
)
def test_unfit_pictures_are_refused(image: Tensor, block: int, said: str):
    with pytest.raises(ValueError, match=said):
        blockiness(image, block=block)


def test_a_long_picture_is_weighed_by_its_shorter_side():
    long = checkered(block=8).repeat(1, 1, 1, 3)
    assert blockiness(long).item() == pytest.approx(100 * math.log(8) / math.log(64))
