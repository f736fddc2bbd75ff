import pytest
import torch
from torch.nn import functional as F

from sr_module import load_net, upscale
from sr_module.archs import build
from sr_module.checkpoint import load_weights


def test_without_learned_detail_the_result_is_the_nearest_enlargement():
    net, lr = build("compact", 3, features=4, convs=1), torch.rand(1, 3, 5, 6)
    net.body[-1].weight.data.zero_()
    net.body[-1].bias.data.zero_()
    assert torch.equal(net(lr), F.interpolate(lr, scale_factor=3, mode="nearest"))


@pytest.mark.real_data
def test_published_weights_give_the_published_network(data):
    path = data / "weights/realesr-animevideov3.pth"
    ours, published = build("compact", 4), load_net(path)
    load_weights(ours, path)
    lr = torch.rand(3, 21, 34)
    assert (published.scale, published.channels) == (4, 3)
    assert torch.allclose(upscale(ours, lr), upscale(published, lr), atol=1e-5)


def test_a_new_network_hears_its_input_through_all_its_layers():
    """With torch's own start a signal fades to nothing in 18 layers, and nothing is learnt."""
    lr = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    for convs in (16, 32):
        with torch.no_grad():
            detail = build("compact", 4, convs=convs).body(lr)
        assert 0.01 < detail.std(dim=(2, 3)).mean() < 1
