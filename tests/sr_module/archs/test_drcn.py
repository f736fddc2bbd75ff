"""DRCN: one recursion, supervised at every depth, and an ensemble that learns."""

import torch
from torch.nn import functional as F

from sr_module.archs import build
from sr_module.archs.luma import enlarge, luma
from sr_module.losses import l2
from sr_module.net import SRNet


def tiny(**args: object) -> SRNet:
    return build("drcn", 2, **{"features": 4, "recursions": 3, "supervised": 10, **args})


def by_hand(net: SRNet, y: torch.Tensor) -> list[torch.Tensor]:
    up = enlarge(y, 2)
    x, predictions = net.embed(up), []
    for _ in range(3):
        x = F.relu(F.conv2d(x, net.recurse.weight, net.recurse.bias, padding=1))
        predictions.append(up + net.reconstruct(x))
    return predictions


def test_the_picture_is_the_weighted_sum_of_every_depth():
    net, y = tiny(), torch.rand(1, 1, 6, 6)
    with torch.no_grad():
        net.ensemble.copy_(torch.tensor([0.5, 0.1, 0.7]))
    expected = sum(w * p for w, p in zip(net.ensemble, by_hand(net, y), strict=True))
    assert torch.allclose(net.luma_sr(y), expected, atol=1e-6)


def test_the_loss_moves_from_the_depths_to_the_ensemble():
    net, lr, hr = tiny(), torch.rand(2, 3, 6, 6), torch.rand(2, 3, 12, 12)
    each = torch.stack([l2(p, luma(hr)) for p in by_hand(net, luma(lr))]).mean()
    last = l2(net.luma_sr(luma(lr)), luma(hr))
    for batch in range(12):
        alpha = 0.9 * max(0.0, 1 - batch / 10)
        assert torch.allclose(net.loss(lr, hr, l2), alpha * each + (1 - alpha) * last, atol=1e-6)


def test_scoring_does_not_count_as_training():
    net = tiny().eval()
    net.loss(torch.rand(1, 3, 6, 6), torch.rand(1, 3, 12, 12), l2)
    assert net.batches == 0


def test_the_ensemble_is_trained():
    net, lr, hr = tiny(), torch.rand(2, 3, 6, 6), torch.rand(2, 3, 12, 12)
    before = net.ensemble.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net.loss(lr, hr, l2).backward()
    optimizer.step()
    assert (net.ensemble - before).abs().min() > 0


def test_the_recursion_begins_as_the_identity():
    x = torch.rand(1, 4, 5, 5)
    assert torch.allclose(tiny().recurse(x), x)
