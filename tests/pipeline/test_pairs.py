"""``(lr, hr)`` of pictures that were read."""

import random

import pytest
import torch
from torch import Tensor

from pipeline.pairs import pair
from sr_module.degrade import Degradation


@pytest.fixture
def pictures() -> Tensor:
    """No two neighbourhoods alike."""
    return torch.randint(256, (3, 3, 40, 40), generator=torch.manual_seed(0)).to(torch.uint8)


def places(hr: Tensor, pictures: Tensor) -> list[tuple[int, int]]:
    """Where each crop was cut: the one place whose pixels are the crop's."""
    found = []
    side = hr.shape[-1]
    for crop, picture in zip((hr * 255).round().to(torch.uint8), pictures, strict=True):
        windows = picture.unfold(1, side, 1).unfold(2, side, 1)  # (3, y, x, side, side)
        same = (windows == crop[:, None, None]).all(-1).all(-1).all(0)
        assert int(same.sum()) == 1
        found.append(tuple(same.nonzero()[0].tolist()))
    return found


def test_crops_are_cut_after_the_degradation_at_places_of_their_own(pictures):
    degradation = Degradation(4)
    whole = degradation(pictures.float() / 255)
    seen = set()
    for seed in range(20):
        lr, hr = pair(pictures, degradation, frames=1, rng=random.Random(seed), crop=32)
        assert (lr.shape, hr.shape) == ((3, 3, 8, 8), (3, 3, 32, 32))
        for n, (y, x) in enumerate(places(hr, pictures)):
            seen.add((y, x))
            assert torch.equal(lr[n], whole[n, :, y // 4 : y // 4 + 8, x // 4 : x // 4 + 8])
    assert seen == {(y, x) for y in (0, 4, 8) for x in (0, 4, 8)}


def test_sides_that_are_no_multiple_of_the_scale_are_cut(pictures):
    lr, hr = pair(pictures, Degradation(3), frames=1, rng=random.Random(0))
    assert (lr.shape, hr.shape) == ((3, 3, 13, 13), (3, 3, 39, 39))
    assert float(hr.max()) == float(pictures[..., :39, :39].max()) / 255


def test_stills_are_repeated_and_of_clips_the_middle_frame_is_to_be_made(pictures):
    still, hr = pair(pictures, Degradation(4), frames=5, rng=random.Random(0))
    assert still.shape == (3, 5, 3, 10, 10)
    assert all(torch.equal(frame, still[:, 0]) for frame in still.unbind(1))
    assert torch.equal(hr, pictures.float() / 255)
    clip, middle = pair(pictures[None], Degradation(4), frames=3, rng=random.Random(0))
    assert torch.equal(clip[0], still[:, 0])
    assert torch.equal(middle[0], hr[1])


def test_noise_follows_the_generator_alone(pictures):
    noisy = Degradation(4, noise_sigma=20)
    first, second, other = (
        pair(pictures, noisy, frames=1, rng=random.Random(seed))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
