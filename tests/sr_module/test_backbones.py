import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_module.backbones import Normalise, backbone_layers, downloaded, read_tensors


def random_squeezenet() -> nn.Sequential:
    """torchvision's own layers with weights of a seed: the smallest of the backbones."""
    from torchvision.models import squeezenet1_1

    return squeezenet1_1().features.eval()


def test_the_layers_are_torchvisions_under_either_form_of_its_names(tmp_path: Path):
    reference = random_squeezenet()
    plain = dict(reference.state_dict())
    torch.save(plain, tmp_path / "plain.pth")
    save_file({f"features.{k}": v for k, v in plain.items()}, tmp_path / "full.safetensors")
    image = torch.rand(2, 3, 40, 40)
    for name in ("plain.pth", "full.safetensors"):
        assert torch.equal(backbone_layers("squeeze", tmp_path / name)(image), reference(image))


def test_published_weights_are_frozen_and_stay_out_of_state_dicts(tmp_path: Path):
    torch.save(random_squeezenet().state_dict(), tmp_path / "w.pth")
    layers = backbone_layers("squeeze", tmp_path / "w.pth")
    assert list(layers.parameters()) == []
    assert layers.state_dict() == {}
    layers.load_state_dict({})
    assert layers.double()(torch.rand(1, 3, 40, 40).double()).dtype == torch.float64


def test_each_convention_sees_the_picture_as_it_was_trained():
    """A picture of the mean colour is zero; the channels lie apart to tell their order."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert Normalise()(mean).abs().max() == 0
    image = torch.tensor([200.0, 100.0, 50.0]).view(1, 3, 1, 1) / 255
    caffe = Normalise("caffe")(image).flatten()
    assert torch.allclose(caffe, torch.tensor([50.0 - 104, 100 - 117, 200 - 123]), atol=1e-4)
    with pytest.raises(ValueError, match="unknown input convention 'cafe'; did you mean 'caffe'"):
        Normalise("cafe")  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["missing", "reshaped"])
def test_what_is_not_the_network_is_refused_with_the_file_named(tmp_path: Path, change: str):
    tensors: dict[str, Tensor] = dict(random_squeezenet().state_dict())
    if change == "missing":
        del tensors["3.squeeze.bias"]
    else:
        tensors["3.squeeze.bias"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: not squeezenet1_1.*3\.squeeze\.bias"):
        backbone_layers("squeeze", tmp_path / "w.pth")


def test_only_files_of_tensors_are_read(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_tensors(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not tensors")
    (tmp_path / "text.safetensors").write_text("not tensors")
    (tmp_path / "empty.pth").touch()
    torch.save({"epoch": 3}, tmp_path / "checkpoint.pth")
    torch.save(random_squeezenet(), tmp_path / "pickled.pth")
    for name in ("text.pth", "text.safetensors", "empty.pth", "checkpoint.pth", "pickled.pth"):
        with pytest.raises(ValueError, match=name):
            read_tensors(tmp_path / name)


def test_an_unknown_backbone_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match="unknown backbone 'alexa'; did you mean 'alex'"):
        backbone_layers("alexa", None)  # type: ignore[arg-type]


class _Published:
    """Stands for torchvision's list of weights, with a server that nobody can reach."""

    url = "http://127.0.0.1:9/vgg.pth"

    def get_state_dict(self, **_: object) -> dict[str, Tensor]:
        from torch.hub import load_state_dict_from_url

        return dict(load_state_dict_from_url(self.url))

    def __str__(self) -> str:
        return "VGG_Weights.V1"


def test_what_cannot_be_downloaded_is_named_with_its_address(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    said = (
        r"VGG_Weights\.V1 could not be downloaded from http://127\.0\.0\.1:9/vgg\.pth \(.*refused"
    )
    with pytest.raises(ConnectionError, match=said) as told:
        downloaded(_Published())  # type: ignore[arg-type]
    kept = tmp_path / "hub" / "checkpoints" / "vgg.pth"
    assert str(told.value).endswith(f", and are not at {kept}, where a download is kept")
    kept.write_text("<html>sign in</html>")
    with pytest.raises(ValueError, match=re.escape(f"{kept}: damaged") + ".*delete it"):
        downloaded(_Published())  # type: ignore[arg-type]
