"""Pixel-recursive super-resolution: what each pixel may see, its likelihood, and drawing."""

import math

import pytest
import torch

from sr_module.archs import build
from sr_module.archs.pixel_recursive import PixelRecursive
from sr_module.losses import l2


def small(**more: int) -> PixelRecursive:
    torch.manual_seed(0)
    sizes = {"features": 4, "blocks": 1, "prior_features": 6, "prior_layers": 2, "hidden": 8}
    net = build("pixel_recursive", 2, side=12, **{**sizes, **more}).eval()
    for parameter in net.prior.parameters():
        parameter.data.mul_(2)
    return net


def test_each_value_depends_on_those_before_it_and_on_no_other():
    net = small()
    y = torch.rand(1, 3, 9, 9, requires_grad=True)
    row, column = 4, 5
    for channel in range(3):
        (grad,) = torch.autograd.grad(net.prior(y)[0, channel, :, row, column].sum(), y)
        seen = grad[0].abs() > 0
        before = torch.zeros(3, 9, 9, dtype=torch.bool)
        before[:, :row] = True
        before[:, row, :column] = True
        before[:channel, row, column] = True
        assert not (seen & ~before).any()
        near = seen[:, row - 2 : row + 1, column - 2 : column + 3]
        assert near[:, :2].all()  # no blind spot above, to the right either
        assert near[:, 2, :2].all()
        assert seen[:channel, row, column].all()


def test_drawing_with_the_cache_draws_what_drawing_without_it_does():
    net, lr = small(), torch.rand(2, 3, 5, 4)
    drawn = [
        net.sample(lr, generator=torch.Generator().manual_seed(3), cached=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*drawn)
    assert drawn[0].shape == (2, 3, 10, 8)


def test_the_seed_decides_what_is_drawn_and_temperature_how_widely():
    net, lr = small(), torch.rand(1, 3, 4, 4)

    def draw(seed: int, temperature: float) -> torch.Tensor:
        random = torch.Generator().manual_seed(seed)
        return net.sample(lr, temperature=temperature, generator=random)

    assert torch.equal(draw(1, 1.0), draw(1, 1.0))
    assert not torch.equal(draw(1, 1.0), draw(2, 1.0))
    assert torch.equal(draw(1, 0.0), draw(2, 0.0))  # the likeliest, whatever the seed
    assert torch.equal(draw(1, 1e-6), draw(1, 0.0))


def test_bits_are_those_of_the_levels_drawn():
    """A prior that knows every level: 0 bits; one that knows nothing: 8."""
    net = small()
    for parameter in net.parameters():
        parameter.data.zero_()
    lr, hr = torch.rand(3, 3, 4, 4), torch.randint(256, (3, 3, 8, 8)) / 255
    assert torch.allclose(net.scores(lr, hr), torch.full((2, 3), 8.0))
    assert net.loss(lr, hr, l2).item() == pytest.approx(2 * math.log(256))
    for head in net.conditioning.heads:
        head.bias.data[7] = 50.0
    sevens = torch.full((3, 3, 8, 8), 7 / 255)
    assert net.scores(lr, sevens).max() < 1e-6


def test_the_prior_learns_what_the_conditioning_network_cannot_know():
    """Left halves of a row are noise; right halves repeat them: only the pixels before tell."""
    torch.manual_seed(0)
    net = build(
        "pixel_recursive", 2, side=8, features=8, blocks=1, prior_features=16, prior_layers=2,
        hidden=32,
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(120):
        coarse = torch.randint(0, 2, (16, 1, 8, 4))
        hr = torch.cat((coarse, coarse), 3).expand(-1, 3, -1, -1) * 200 / 255
        lr = torch.full((16, 3, 4, 4), 0.5)
        optimizer.zero_grad()
        net.loss(lr, hr, l2).backward()
        optimizer.step()
    whole, alone = net.scores(lr, hr).mean(1)
    assert whole < 0.6 * alone


def test_pictures_larger_than_the_networks_are_not_drawn():
    with pytest.raises(ValueError, match=r"16 x 14 pixels is larger than the 12 x 12 .* 6 x 6"):
        small().sample(torch.rand(1, 3, 7, 8))
    with pytest.raises(ValueError, match="temperature must be 0 or more, got -1"):
        small().sample(torch.rand(1, 3, 4, 4), temperature=-1.0)


def test_other_networks_say_that_they_draw_nothing():
    with pytest.raises(ValueError, match="espcn makes one picture of each, it draws none"):
        build("espcn", 2).sample(torch.rand(1, 3, 4, 4))


def test_the_progress_tells_the_rows():
    told = []
    small().sample(torch.rand(1, 3, 3, 4), progress=lambda done, rows: told.append((done, rows)))
    assert told == [(n, 6) for n in range(1, 7)]
