"""A small FCOS that trains from scratch on a CPU in a minute, for small objects.

Tian et al. 2019, arXiv:1904.01355 (FCOS) with torchvision's loss and decoding. Departures, all for
speed on small objects: a narrow residual backbone, a pyramid from stride 4 instead of 8, three
levels, two convolutions per head instead of four.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import FeaturePyramidNetwork

STRIDES = (4, 8, 16)


class SmallFCOS(FCOS):  # type: ignore[misc]  # torchvision publishes no types
    """FCOS for objects of about 6 to 64 pixels.

    Args:
        num_classes: labels the head tells apart, counting the unused 0, as in torchvision's family.
        score_thresh: boxes below are not returned.
        detections_per_img: boxes returned per picture, over all classes.
        widths: channels of the backbone at strides 2, 4, 8 and 16.
        pyramid: channels of the feature pyramid and the heads.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        score_thresh: float,
        detections_per_img: int,
        widths: tuple[int, int, int, int] = (32, 64, 96, 128),
        pyramid: int = 64,
    ) -> None:
        head = FCOSHead(pyramid, 1, num_classes, num_convs=2)
        # Box outputs pass a ReLU: from 1 (a box of two strides) all of them learn at once.
        nn.init.ones_(head.regression_head.bbox_reg.bias)
        super().__init__(
            _Pyramid(widths, pyramid),
            num_classes,
            anchor_generator=AnchorGenerator(
                tuple((s,) for s in STRIDES), ((1.0,),) * len(STRIDES)
            ),
            head=head,
            center_sampling_radius=1.0,  # an object of 8 pixels is two strides wide
            score_thresh=score_thresh,
            detections_per_img=detections_per_img,
        )


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_norm(inputs, outputs, 3, stride),
            nn.ReLU(inplace=True),
            *_conv_norm(outputs, outputs, 3, 1),
        )
        self.skip = nn.Sequential(*_conv_norm(inputs, outputs, 1, stride))
        self.act = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.act(self.body(features) + self.skip(features))
        return out


class _Pyramid(nn.Module):
    """Backbone and feature pyramid: a picture to maps at strides 4, 8 and 16."""

    def __init__(self, widths: tuple[int, int, int, int], pyramid: int) -> None:
        super().__init__()
        first, *rest = widths
        self.stem = nn.Sequential(*_conv_norm(3, first, 3, 2), nn.ReLU(inplace=True))
        before = [first, *rest[:-1]]
        self.stages = nn.ModuleList(_Residual(i, o, 2) for i, o in zip(before, rest, strict=True))
        self.fpn = FeaturePyramidNetwork(list(rest), pyramid)
        self.out_channels = pyramid

    def forward(self, pictures: Tensor) -> OrderedDict[str, Tensor]:
        features = self.stem(pictures)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for level, stage in enumerate(self.stages):
            features = stage(features)
            maps[str(level)] = features
        out: OrderedDict[str, Tensor] = self.fpn(maps)
        return out


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)
