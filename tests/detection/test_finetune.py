import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.ops import FrozenBatchNorm2d

from detection.boxes import iou_matrix
from detection.detectors import as_detector
from detection.families import build_model
from detection.finetune import (
    DetectionCrops,
    DetectorTraining,
    collate,
    crop_boxes,
    frozen_batchnorm,
)


def drawn_squares(count: int, side: int = 96) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Bright squares on a dim ground, one to three a picture."""
    random = torch.Generator().manual_seed(0)
    pictures, boxes, labels = [], [], []
    for _ in range(count):
        picture = (40 * torch.rand(3, side, side, generator=random)).to(torch.uint8)
        corners = []
        for column in range(1 + int(torch.randint(3, (), generator=random))):
            size = int(torch.randint(10, 20, (), generator=random))
            x = 32 * column + int(torch.randint(12, (), generator=random))
            y = int(torch.randint(side - size, (), generator=random))
            picture[:, y : y + size, x : x + size] = 230
            corners.append([x, y, x + size, y + size])
        pictures.append(picture)
        boxes.append(torch.tensor(corners).float())
        labels.append(torch.ones(len(corners), dtype=torch.int64))
    return pictures, boxes, labels


def crops(**settings: int) -> DetectionCrops:
    defaults = {"crop": 64, "samples": 40, "seed": 0}
    return DetectionCrops(*drawn_squares(4), **{**defaults, **settings})


def test_boxes_follow_their_squares_through_crops_and_flips() -> None:
    checked = 0
    for picture, target in crops(samples=60):
        assert picture.shape == (3, 64, 64)
        assert 0 <= float(picture.min()) <= float(picture.max()) <= 1
        for x1, y1, x2, y2 in target["boxes"].long().tolist():
            assert float(picture[:, y1:y2, x1:x2].min()) > 0.85
            checked += 1
    assert checked > 30


def test_samples_depend_on_seed_and_index_alone() -> None:
    first, again, other = crops(), crops(), crops(seed=1)
    later = [again[i] for i in (7, 3)]
    assert torch.equal(first[3][0], later[1][0])
    assert torch.equal(first[3][1]["boxes"], later[1][1]["boxes"])
    assert not all(torch.equal(first[i][0], other[i][0]) for i in range(5))
    assert len({float(first[i][0].sum()) for i in range(20)}) > 10


def test_a_box_stays_when_half_of_it_is_visible() -> None:
    boxes = torch.tensor([[-5.0, 0, 5, 10], [-6.0, 0, 4, 10], [20.0, 20, 30, 30], [90.0, 0, 99, 9]])
    inside, kept = crop_boxes(boxes, 0, 0, 64, visible=0.5)
    assert kept.tolist() == [True, False, True, False]
    assert inside.tolist() == [[0.0, 0, 5, 10], [20, 20, 30, 30]]


def test_a_small_picture_is_padded_with_black() -> None:
    picture = torch.full((3, 30, 40), 200, dtype=torch.uint8)
    data = DetectionCrops(
        [picture], [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], crop=64, samples=1
    )
    padded, target = data[0]
    assert padded.shape == (3, 64, 64)
    assert int((padded > 0).sum()) == 3 * 30 * 40
    assert target["boxes"].shape == (0, 4)


def test_lists_of_different_lengths_are_refused() -> None:
    pictures, boxes, labels = drawn_squares(3)
    with pytest.raises(ValueError, match="got 3, 2 and 3"):
        DetectionCrops(pictures, boxes[:2], labels, crop=32, samples=1)


def test_forty_five_steps_lower_the_loss_and_find_the_squares() -> None:
    torch.manual_seed(0)
    pictures, boxes, labels = drawn_squares(8)
    steps, batch = 45, 4
    data = DetectionCrops(pictures, boxes, labels, crop=64, samples=steps * batch, seed=0)
    model = build_model("small_fcos", num_classes=2)
    losses: list[float] = []

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *rest: object) -> None:
            losses.append(float(trainer.callback_metrics["train/loss"]))

    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[Recorder()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        DetectorTraining(model, learning_rate=3e-3),
        DataLoader(data, batch_size=batch, collate_fn=collate),
    )
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    unseen, truth, _ = drawn_squares(12)
    (found,) = as_detector(model, label_ids=[None, 1])([unseen[11] / 255])
    overlap = iou_matrix(found.boxes[:5], truth[11]).amax(dim=0)
    assert float(overlap.max()) > 0.5


def test_frozen_normalisation_keeps_its_statistics_and_its_answers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()))
    for _ in range(5):
        model(torch.rand(4, 3, 8, 8))
    picture = torch.rand(1, 3, 8, 8)
    before = model.eval()(picture)
    frozen_batchnorm(model)
    after = model.train()(picture)
    torch.testing.assert_close(before, after)
    assert [type(m) for m in model.modules() if "Norm" in type(m).__name__] == [FrozenBatchNorm2d]
    assert all(p.requires_grad for p in model[0].parameters())


def test_a_frozen_detector_is_stored_and_read_like_any_other() -> None:
    torch.manual_seed(0)
    model = build_model("small_fcos", num_classes=2)
    frozen_batchnorm(model)
    other = build_model("small_fcos", num_classes=2)
    other.load_state_dict(model.state_dict())
    picture = [torch.rand(3, 64, 64)]
    first, second = (as_detector(m, label_ids=[None, 1])(picture)[0] for m in (model, other))
    torch.testing.assert_close(first.boxes, second.boxes)
