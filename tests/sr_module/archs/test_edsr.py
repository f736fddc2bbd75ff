import torch

from sr_module.archs import build


def test_the_mean_moves_with_the_network_and_is_absent_from_files():
    net = build("edsr", 2, features=4, blocks=1)
    assert net.to(torch.float64).mean.dtype == torch.float64
    assert "mean" not in net.state_dict()


def test_without_learned_detail_the_result_is_the_mean_colour():
    net = build("edsr", 2, features=4, blocks=1)
    net.conv_last.weight.data.zero_()
    net.conv_last.bias.data.zero_()
    sr = net(torch.rand(1, 3, 4, 4))
    assert torch.allclose(sr.mean((0, 2, 3)), torch.tensor([0.4488, 0.4371, 0.4040]))


def test_residual_scale_damps_every_block():
    args = {"features": 4, "blocks": 1}
    loud, quiet = build("edsr", 2, **args), build("edsr", 2, **args, residual_scale=0.1)
    quiet.load_state_dict(loud.state_dict())
    x = torch.rand(1, 4, 6, 6)
    assert torch.allclose(quiet.body(x) - x, 0.1 * (loud.body(x) - x), atol=1e-6)
