import copy
import inspect
import io
import json

import onnx
import pytest
import torch
from torch import nn

from sr_module import upscale
from sr_module.archs import ARCHS, build
from sr_module.export import (
    EXTRA_FILE,
    TOLERANCE,
    describe,
    largest_difference,
    load_onnx,
    load_program,
    to_onnx,
    to_program,
)
from sr_module.net import SRNet


def narrow(arch: str, scale: int) -> SRNet:
    """A network of two features and two blocks, or whatever its arguments call them.

    Its results vary between 0 and 1, as a trained one's do: a comparison of clamped pictures would
    prove nothing otherwise.
    """
    parameters = inspect.signature(ARCHS[arch]).parameters
    sizes = {name: p.default for name, p in parameters.items() if type(p.default) is int}
    net = build(
        arch,
        scale,
        **{name: min(size, 3 if name == "patch" else 2) for name, size in sizes.items()},
    ).eval()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    if not layers:
        nn.init.normal_(net.filters, std=0.02)
        return net
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
        if layer.bias is not None:
            nn.init.normal_(layer.bias, std=0.1)
    with torch.no_grad():
        layers[-1].weight.mul_(0.1)
        layers[-1].bias.fill_(0.3)
        made = net(torch.rand(1, 3, 16, 16))
        inside = ((made > 0.01) & (made < 0.99)).float().mean()
    assert inside > 0.2, f"{arch}: {inside:.0%} of the results are inside the range"
    return net


OF_ONE_PICTURE = [arch for arch, kind in ARCHS.items() if build(arch, kind.scales[0]).frames == 1]


@pytest.mark.parametrize("arch", OF_ONE_PICTURE)
def test_every_architecture_has_an_onnx_form_of_any_size(arch):
    net = narrow(arch, ARCHS[arch].scales[0])
    assert largest_difference(net, load_onnx(to_onnx(net, provenance={}))) < 1e-5


@pytest.mark.parametrize("arch", OF_ONE_PICTURE)
def test_every_architecture_has_a_torch_program_of_any_size(arch):
    net = narrow(arch, ARCHS[arch].scales[0])
    assert largest_difference(net, load_program(to_program(net, provenance={}))) < 1e-6


@pytest.fixture(scope="module")
def net() -> SRNet:
    torch.manual_seed(0)
    return narrow("rrdbnet", 2)


@pytest.fixture(scope="module")
def exported(net) -> bytes:
    return to_onnx(net, provenance={"steps": 7})


def test_the_file_says_what_a_program_needs_to_know(net, exported):
    model = onnx.load_from_string(exported)
    onnx.checker.check_model(model)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told == describe(net, {"steps": 7})
    assert (told["scale"], told["multiple_of"], told["colour_order"]) == ("2", "2", "RGB")
    assert json.loads(told["provenance"]) == {"steps": 7}
    (lr,), (sr,) = model.graph.input, model.graph.output
    assert (lr.name, sr.name) == ("lr", "sr")
    sides = [dim.dim_param or dim.dim_value for dim in lr.type.tensor_type.shape.dim]
    assert sides[1] == 3
    assert all(isinstance(side, str) for side in (sides[0], *sides[2:]))


def test_a_torch_program_carries_the_same_words(net):
    extra = {EXTRA_FILE: ""}
    torch.export.load(io.BytesIO(to_program(net, provenance={"steps": 7})), extra_files=extra)
    assert json.loads(extra[EXTRA_FILE]) == describe(net, {"steps": 7})


def test_an_exported_network_is_enlarged_with_tile_by_tile_like_any_other(net, exported):
    again = load_onnx(exported)
    assert (again.scale, again.multiple_of, again.overlap) == (2, 2, net.overlap)
    assert again.parameter_count == sum(p.numel() for p in net.parameters())
    lr = torch.rand(3, 37, 51)
    torch.testing.assert_close(upscale(again, lr), upscale(net, lr), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        upscale(again, lr, tile=16), upscale(net, lr, tile=16), atol=1e-5, rtol=0
    )


def test_results_are_clamped_to_the_range_of_pictures():
    bright = narrow("rrdbnet", 2)
    torch.nn.init.constant_(bright.conv_last.bias, 3)
    made = load_program(to_program(bright, provenance={}))(torch.rand(1, 3, 8, 8)).detach()
    assert float(made.min()) == float(made.max()) == 1


def test_the_check_finds_a_small_difference_in_one_bias(net, exported):
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.conv_last.bias.add_(2 * TOLERANCE)
    assert largest_difference(other, load_onnx(exported)) > TOLERANCE


def test_a_size_frozen_into_a_program_is_found(net):
    frozen = torch.export.export(net, (torch.rand(2, 3, 32, 40),)).module()
    with pytest.raises(AssertionError, match="Guard failed"):
        largest_difference(net, lambda lr: frozen(lr))


def test_the_network_keeps_its_mode(net):
    net.train()
    to_program(net, provenance={})
    assert net.training
    net.eval()


def test_a_network_of_several_frames_is_refused():
    clip = narrow("msrresnet", 2)
    clip.frames = 3
    with pytest.raises(ValueError, match="msrresnet reads 3 frames; networks of one picture"):
        to_onnx(clip, provenance={})


def test_what_an_exporter_cannot_express_is_one_line():
    class Choosy(SRNet):
        scale = 1

        def forward(self, lr):
            return lr if float(lr.mean()) > 0.5 else -lr

    for export in (to_onnx, to_program):
        with pytest.raises(ValueError, match=r"\AChoosy has no form in [^\n]+\Z"):
            export(Choosy(), provenance={})


def test_other_programs_files_and_damaged_ones_are_refused(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="no ONNX file"):
        load_onnx(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(exported[: len(exported) // 2])
    with pytest.raises(ValueError, match=r"bad\.onnx is damaged or no ONNX file"):
        load_onnx(tmp_path / "bad.onnx")
    model = onnx.load_from_string(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(ValueError, match="does not say its scale and range"):
        load_onnx(tmp_path / "theirs.onnx", device="cpu")
