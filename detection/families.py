"""torchvision's detectors without their own enlargement, for windows that are already enlarged.

Out of the box they rescale every input to a shorter side of 800 with bilinear interpolation, which
would hide what a study measures; they drop scores below 0.05 or 0.2 and keep 100 boxes, where
small objects come by hundreds; and under bfloat16 they compute box corners with eight bits. All
three are undone here.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detection.small_fcos import SmallFCOS

TORCHVISION = (
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "retinanet_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
)
"""Families with a feature pyramid. SSD's fixed input size would shrink the windows again."""

NAMES = ("small_fcos", *TORCHVISION)


def build_model(
    name: str, *, num_classes: int, score_threshold: float = 0.01, max_detections: int = 500
) -> nn.Module:
    """A detector with random weights that takes pictures as they are.

    Called with pictures and targets (``boxes``, ``labels`` from 1) in training mode it returns a
    dict of losses; with pictures alone in evaluation mode a list of dicts of boxes, scores and
    labels.

    Args:
        name: one of ``NAMES``.
        num_classes: labels including 0, which is the background or unused.
        score_threshold: boxes below are not returned.
        max_detections: boxes returned per picture, over all classes.

    Raises:
        ValueError: the name is unknown.
    """
    check_name(name)
    limits = _limits(name, score_threshold, max_detections)
    if name == "small_fcos":
        model: nn.Module = SmallFCOS(num_classes, **limits)
    else:
        model = get_model(
            name, weights=None, weights_backbone=None, num_classes=num_classes, **limits
        )
    model.transform = _UnscaledTransform()
    _keep_boxes_in_float32(model)
    return model


def check_name(name: str) -> None:
    """Refuse a detector's name that is unknown, with the nearest one that is known."""
    if name in NAMES:
        return
    nearest = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.3)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise ValueError(
        f"unknown detector '{name}'{hint} Choose from {', '.join(NAMES)}, or give a file of "
        f"`srdet detect train` (.safetensors), an exported YOLOX (.onnx), a folder of Hugging Face "
        f"transformers, or ultralytics:FILE"
    )


def coco_names() -> list[str | None]:
    """Names of the 91 labels of published COCO weights; None where COCO left a number free."""
    labels = FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return [None if label in ("__background__", "N/A") else label for label in labels]


class _UnscaledTransform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalises and pads to a multiple of 32, never resizes.

    torchvision's ``_skip_resize`` acts in training mode only.
    """

    def __init__(self) -> None:
        imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        super().__init__(1, 1, *imagenet)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def _limits(name: str, score_threshold: float, max_detections: int) -> dict[str, Any]:
    if not name.startswith("fasterrcnn"):
        return {"score_thresh": score_threshold, "detections_per_img": max_detections}
    # MobileNet's own proposals stop at 150 of at least 0.05, which small objects do not survive.
    proposals = {"rpn_score_thresh": 0.0, "rpn_post_nms_top_n_test": 1000}
    return {
        "box_score_thresh": score_threshold,
        "box_detections_per_img": max_detections,
        **proposals,
    }


def _keep_boxes_in_float32(model: nn.Module) -> None:
    """Make anchors and widen what the heads return, so that boxes are float32 under autocast.

    torchvision makes anchors in the type of the feature maps and decodes in the type of the head:
    in bfloat16 a corner near x = 600 would be a multiple of 4.
    """
    if isinstance(model, FasterRCNN):
        anchors, heads = model.rpn.anchor_generator, [model.rpn.head, model.roi_heads.box_predictor]
    else:
        anchors, heads = model.anchor_generator, [model.head]
    anchors.register_forward_pre_hook(_as_maps_of_float32)
    for head in heads:
        head.register_forward_hook(_widen)


def _as_maps_of_float32(
    module: nn.Module, inputs: tuple[ImageList, list[Tensor]]
) -> tuple[ImageList, list[Tensor]]:
    """Stand-ins without memory: anchors only ask a map for its shape, type and device."""
    del module
    images, maps = inputs
    return images, [map_.new_zeros((), dtype=torch.float32).expand(map_.shape) for map_ in maps]


def _widen(module: nn.Module, inputs: object, output: object) -> object:
    del module, inputs
    return _as_float32(output)


def _as_float32(value: object) -> object:
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, dict):
        return type(value)((key, _as_float32(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_as_float32(part) for part in value)
    return value
