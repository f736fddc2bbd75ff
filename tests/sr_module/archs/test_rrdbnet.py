import pytest
import torch
from spandrel import ModelLoader

from sr_module.archs import build

SMALL = {"features": 16, "blocks": 2}


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_spandrel_recognises_and_runs_the_same_network(scale: int):
    net = build("rrdbnet", scale, **SMALL).eval()
    torch.nn.init.constant_(net.conv_last.bias, 0.5)  # results inside [0, 1], where clamps are idle
    descriptor = ModelLoader().load_from_state_dict(net.state_dict())
    lr = torch.rand(1, 3, 8, 12)
    assert descriptor.architecture.id == "ESRGAN"
    assert descriptor.scale == scale
    with torch.no_grad():
        sr = net(lr)
        assert sr.std() > 1e-3
        assert torch.allclose(descriptor(lr), sr, atol=1e-5)


def test_recomputation_changes_no_result_and_no_gradient():
    plain, lean = build("rrdbnet", 2, **SMALL), build("rrdbnet", 2, **SMALL, recompute=True)
    lean.load_state_dict(plain.state_dict())
    lr = torch.rand(1, 3, 8, 8)
    for net in (plain, lean):
        net(lr).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5), name


def test_recomputation_keeps_fewer_bytes_for_the_backward_pass():
    kept = {}
    for recompute in (False, True):
        net = build("rrdbnet", 4, **SMALL, recompute=recompute)
        weights = {parameter.data_ptr() for parameter in net.parameters()}
        seen: dict[int, int] = {}

        def pack(tensor, weights=weights, seen=seen):
            if tensor.data_ptr() not in weights:
                seen[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net._trunk(torch.rand(1, 16, 16, 16, requires_grad=True))
        kept[recompute] = sum(seen.values())
    assert kept[True] < kept[False] / 4
