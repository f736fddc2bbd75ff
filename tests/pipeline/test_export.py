from pathlib import Path

import pytest
import torch

import pipeline.export
from pipeline.cli import main
from pipeline.export import export
from pipeline.upscalers import open_upscaler
from sr_module.archs import build
from sr_module.checkpoint import save_net
from sr_module.export import to_program


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_net(build("rrdbnet", 2, features=4, blocks=1, growth=2), path, provenance={"steps": 3})
    return path


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_an_export_says_what_it_takes_and_how_far_it_is_from_torch(network, tmp_path, capsys, form):
    out = tmp_path / "out" / f"net.{form}"
    assert main(["export", "--model", str(network), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "lr (B, 3, H, W) -> sr (B, 3, 2 H, 2 W), RGB float32 in [0, 1], clamped" in said
    assert "H and W divisible by 2" in said
    assert "largest difference from torch" in said
    assert "1x3x18x28, 3x3x80x66" in said
    assert out.stat().st_size > 1000


def test_the_exported_file_is_a_model_of_every_other_command(network, tmp_path):
    exported = export(str(network), tmp_path / "net.onnx")
    assert exported.largest_difference < 1e-5
    lr = torch.rand(1, 3, 13, 9)  # sides that are no multiples: padded and trimmed
    made, expected = (open_upscaler(str(p), device="cpu")(lr) for p in (exported.path, network))
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_weights_of_several_scales_are_exported_at_the_one_asked_for(tmp_path):
    path = tmp_path / "several.safetensors"
    save_net(build("vdsr", 2, features=2, convs=2), path, provenance={})
    assert export(str(path), tmp_path / "net.pt2", scale=3).scale == 3


def test_a_file_that_computes_something_else_is_not_left(network, tmp_path, monkeypatch):
    other = build("rrdbnet", 2, features=4, blocks=1, growth=2)
    torch.nn.init.constant_(other.conv_last.bias, 0.3)
    data = to_program(other, provenance={})
    monkeypatch.setattr(pipeline.export, "to_program", lambda net, provenance: data)
    with pytest.raises(ValueError, match=r"net.pt2 was not written: .* differ from torch by"):
        export(str(network), tmp_path / "out" / "net.pt2")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "out", "said"),
    [
        ("bicubic", "net.onnx", "bicubic is a kernel; only networks are exported"),
        ("bicubic", "net.pth", "give --out a name that ends in .onnx or .pt2"),
        ("nothing", "net.onnx", "'nothing' is neither a file nor one of bicubic"),
    ],
)
def test_what_cannot_be_exported_is_refused(model, out, said, capsys, tmp_path):
    assert main(["export", "--model", model, "--out", str(tmp_path / out)]) == 2
    assert said in capsys.readouterr().err
