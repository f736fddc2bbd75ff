import copy

import torch
from torchvision.ops import FrozenBatchNorm2d

from detection.detectors import load_model, save_detector
from detection.families import build_model
from detection.seeing import Eye

TARGETS = [
    {"boxes": torch.tensor([[8.0, 8.0, 24.0, 24.0]]), "labels": torch.tensor([1])},
    {"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0, dtype=torch.int64)},
]


def eye() -> Eye:
    torch.manual_seed(0)
    return Eye(build_model("small_fcos", num_classes=2))


def test_the_detectors_loss_has_a_gradient_in_every_picture_even_without_objects():
    pictures = torch.rand(2, 3, 64, 64, requires_grad=True)
    _, loss = eye().look(pictures, TARGETS)
    loss.backward()
    assert (pictures.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_features_of_a_look_are_those_of_the_backbone_alone():
    seeing, pictures = eye(), torch.rand(2, 3, 64, 64)
    looked, _ = seeing.look(pictures, TARGETS)
    alone = seeing.features(pictures)
    assert len(alone) == 3
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, looked, strict=True))


def test_looking_changes_nothing_in_the_detector():
    seeing = eye()
    before = copy.deepcopy(seeing.model.state_dict())
    for _ in range(2):
        seeing.look(torch.rand(2, 3, 64, 64), TARGETS)
    assert all(torch.equal(before[key], value) for key, value in seeing.model.state_dict().items())


def test_another_familys_features_and_loss_are_seen_alike():
    seeing = Eye(build_model("fasterrcnn_mobilenet_v3_large_fpn", num_classes=2))
    pictures = torch.rand(2, 3, 64, 64, requires_grad=True)
    maps, loss = seeing.look(pictures, TARGETS)
    loss.backward()
    assert len(maps) == len(seeing.features(pictures))
    assert pictures.grad.abs().sum() > 0


def test_a_detector_whose_batch_norms_were_frozen_comes_back_from_its_file(tmp_path):
    seeing = eye()
    assert any(isinstance(m, FrozenBatchNorm2d) for m in seeing.model.modules())
    path = tmp_path / "det.safetensors"
    save_detector(
        seeing.model, path, architecture="small_fcos", categories={1: "thing"}, provenance={}
    )
    again, _ = load_model(path)
    picture = [torch.rand(3, 64, 64)]
    seeing.model.eval()
    again.eval()
    assert torch.allclose(again(picture)[0]["scores"], seeing.model(picture)[0]["scores"])
