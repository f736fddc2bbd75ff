import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sr_module import build, load_net, save_net, upscale
from sr_module.checkpoint import load_weights, read_provenance
from sr_module.net import SRNet

ARGS = {"features": 8, "blocks": 1}


@pytest.fixture
def net() -> SRNet:
    net = build("rrdbnet", 4, **ARGS)
    nn.init.constant_(
        net.conv_last.bias, 0.5
    )  # results inside [0, 1], where upscale's clamp is idle
    return net


@pytest.fixture
def saved(net: SRNet, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_net(net, path, provenance={"step": 3, "psnr": 28.5, "data": ["a", "b"]})
    return path


def rewrite(path: Path, *, header: str | None = None, drop: str = "", add: str = "") -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors.pop(drop, None)
    if add:
        tensors[add] = torch.zeros(1)
    save_file(tensors, path, metadata if header is None else {"srdet": header})


def test_provenance_comes_back(saved: Path):
    assert read_provenance(saved) == {"step": 3, "psnr": 28.5, "data": ["a", "b"]}


def test_a_loaded_network_is_ready_for_inference(saved: Path):
    assert not load_net(saved).training


def test_channels_last_weights_are_saved_and_come_back(net: SRNet, tmp_path: Path):
    net.to(memory_format=torch.channels_last)
    save_net(net, tmp_path / "deep/er/net.safetensors", provenance={})
    again = load_net(tmp_path / "deep/er/net.safetensors")
    assert torch.equal(again.conv_first.weight, net.conv_first.weight)


def test_saving_again_replaces_the_file_and_leaves_nothing_else(net: SRNet, saved: Path):
    save_net(net, saved, provenance={"step": 4})
    assert read_provenance(saved) == {"step": 4}
    assert list(saved.parent.iterdir()) == [saved]


def test_a_failed_write_keeps_the_old_file(net: SRNet, saved: Path, monkeypatch):
    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_net(net, saved, provenance={"step": 4})
    assert read_provenance(saved)["step"] == 3
    assert list(saved.parent.iterdir()) == [saved]


def test_what_cannot_be_saved_is_refused(net: SRNet, tmp_path: Path):
    with pytest.raises(ValueError, match=r"net\.pt.*\.safetensors"):
        save_net(net, tmp_path / "net.pt", provenance={})
    with pytest.raises(ValueError, match="provenance must hold JSON"):
        save_net(net, tmp_path / "net.safetensors", provenance={"folder": tmp_path})
    net.arch = ""
    with pytest.raises(ValueError, match="RRDBNet was not made by build"):
        save_net(net, tmp_path / "net.safetensors", provenance={})


def test_a_truncated_file_is_named_and_explained(saved: Path):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"net\.safetensors: damaged.*again"):
        load_net(saved)


def test_missing_files_and_other_kinds_are_refused_with_the_cure(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_net(tmp_path / "absent.safetensors")
    (tmp_path / "a.onnx").touch()
    with pytest.raises(ValueError, match=r"a\.onnx.*or \.pth"):
        load_net(tmp_path / "a.onnx")


def test_a_checkpoint_of_a_training_is_refused_with_the_network_of_its_run_or_how_to_get_it(
    tmp_path: Path,
):
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.touch()
    with pytest.raises(
        ValueError, match=r"last\.ckpt: .*same `srdet train` again.* goes on"
    ) as told:
        load_net(checkpoint)
    assert "its tensors alone" in str(told.value)  # a program that is not ours may have written it
    assert "save_net" not in str(told.value)
    for name in ("net.safetensors", "best.safetensors"):
        (tmp_path / name).touch()
    said = f"take {tmp_path / 'best.safetensors'}, {tmp_path / 'net.safetensors'}"
    with pytest.raises(ValueError, match=re.escape(said)):
        load_weights(build("rrdbnet", 4, features=8, blocks=1), checkpoint)


def test_tensors_that_do_not_fit_are_named(saved: Path):
    rewrite(saved, drop="conv_last.bias", add="conv_extra.bias")
    with pytest.raises(ValueError, match=r"missing: conv_last\.bias; not exp.*: conv_extra\.bias"):
        load_net(saved)


def test_weights_of_another_size_are_named_by_key_and_shape(saved: Path):
    with pytest.raises(ValueError, match=r"another shape: conv_first\.weight \(8, 3, 3, 3\) for"):
        load_weights(build("rrdbnet", 4, features=16, blocks=1), saved)


def test_an_unknown_architecture_in_a_file_names_the_file(saved: Path):
    rewrite(saved, header='{"version": 1, "arch": "hat", "scale": 4, "args": {}, "provenance": {}}')
    with pytest.raises(ValueError, match=r"net\.safetensors: unknown architecture 'hat'"):
        load_net(saved)


def test_a_file_of_a_later_format_says_so(saved: Path):
    rewrite(saved, header='{"version": 2}')
    with pytest.raises(ValueError, match="written in format 2"):
        load_net(saved)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("{version: 1}", r"its header is damaged \(Expecting property name.*again"),
        ('{"version": 1, "arch": "compact"}', "its header lacks scale, args, provenance"),
        ("[]", "its header lacks version, arch"),
    ],
)
def test_a_broken_header_names_the_file(saved: Path, header: str, said: str):
    rewrite(saved, header=header)
    for read in (load_net, read_provenance):
        with pytest.raises(ValueError, match=rf"net\.safetensors: {said}"):
            read(saved)


def test_a_published_network_that_lacks_a_tensor_names_it(tmp_path: Path):
    tensors = build("compact", 4, features=8, convs=3).state_dict()
    *_, last = tensors
    for key in ("body.2.bias", last):
        kept = {name: value for name, value in tensors.items() if name != key}
        torch.save({"params": kept}, tmp_path / "net.pth")
        with pytest.raises(ValueError, match=rf"net\.pth: .*Compact.*{key}") as raised:
            load_net(tmp_path / "net.pth")
        assert "save_net" not in str(raised.value)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_foreign_file_is_opened_and_gives_the_same_pictures(net: SRNet, tmp_path: Path, kind):
    path = tmp_path / f"foreign.{kind}"
    tensors = net.state_dict()
    save_file(tensors, path) if kind == "safetensors" else torch.save({"params_ema": tensors}, path)
    foreign, lr = load_net(path), torch.rand(2, 3, 9, 11)
    assert (foreign.scale, foreign.channels, foreign.training) == (4, 3, False)
    assert torch.allclose(upscale(foreign, lr), upscale(net, lr), atol=1e-5)
    assert read_provenance(path) == {}


def test_training_can_go_on_from_a_foreign_file(net: SRNet, tmp_path: Path):
    torch.save({"params_ema": net.state_dict()}, tmp_path / "foreign.pth")
    fresh = build("rrdbnet", 4, **ARGS)
    load_weights(fresh, tmp_path / "foreign.pth")
    assert torch.equal(fresh.conv_last.weight, net.conv_last.weight)


def test_a_foreign_network_cannot_be_saved_as_ours(net: SRNet, tmp_path: Path):
    save_file(net.state_dict(), tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="not made by build"):
        save_net(
            load_net(tmp_path / "foreign.safetensors"), tmp_path / "x.safetensors", provenance={}
        )


def test_weights_of_no_known_network_are_refused(tmp_path: Path):
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "linear.safetensors")
    with pytest.raises(ValueError, match=r"linear\.safetensors.*neither.*beginning with bias"):
        load_net(tmp_path / "linear.safetensors")


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, ("trap",)


def test_a_pickle_with_code_in_it_is_refused_unrun(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, write in [
        ("zip.pth", torch.save),
        ("raw.pth", lambda o, p: p.write_bytes(pickle.dumps(o))),
    ]:
        write({"params": _Trap()}, tmp_path / name)
        said = rf"{name}: holds Python objects, not only tensors; refused, since.*forbidden"
        with pytest.raises(ValueError, match=said):
            load_net(tmp_path / name)
    assert not (tmp_path / "trap").exists()
