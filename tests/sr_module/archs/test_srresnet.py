import torch
from torch.nn import functional as F

from sr_module.archs import build


def test_msrresnet_starts_close_to_bilinear_enlargement():
    lr = torch.rand(1, 3, 12, 12)
    bilinear = F.interpolate(lr, scale_factor=4, mode="bilinear", align_corners=False)
    with torch.no_grad():
        assert (build("msrresnet", 4)(lr) - bilinear).abs().max() < 0.05


def test_msrresnet_has_the_published_parameter_names():
    names = {
        name.rsplit(".", 1)[0] for name, _ in build("msrresnet", 4, blocks=1).named_parameters()
    }
    body = {"body.0.conv1", "body.0.conv2"}
    assert names == body | {"conv_first", "upconv1", "upconv2", "conv_hr", "conv_last"}
    assert "upconv2.weight" not in build("msrresnet", 3, blocks=1).state_dict()


def test_srresnet_normalises_by_the_batch_only_in_training():
    net, lr = build("srresnet", 2, features=8, blocks=1), torch.rand(2, 3, 8, 8)
    alone, together = net(lr[:1]), net(lr)[:1]
    assert not torch.allclose(alone, together, atol=1e-4)
    net.eval()
    assert torch.allclose(net(lr[:1]), net(lr)[:1], atol=1e-5)
