"""Discriminators: they judge pictures of the high-resolution side and return logits.

``SRGANDiscriminator``: Ledig et al. 2017, arXiv:1609.04802, figure 4, one logit per picture; the
sigmoid is part of the loss. ``VGGStyleDiscriminator``: the one ESRGAN was trained with, Wang et al.
2018, arXiv:1809.00219, one logit per picture; layers and parameter names are those of the published
training code for crops of 128 pixels. ``UNetDiscriminator``: Wang et al. 2021, arXiv:2107.10833,
section 3.4, one logit per pixel, every inner convolution under spectral norm. No departure.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class SRGANDiscriminator(nn.Module):
    """SRGAN's discriminator for square crops of ``crop`` pixels, a multiple of 16."""

    def __init__(self, *, crop: int = 96, features: int = 64) -> None:
        super().__init__()
        if crop % 16:
            raise ValueError(f"the srgan discriminator needs a crop divisible by 16, got {crop}")
        self.crop = crop
        widths = [features * factor for factor in (1, 1, 2, 2, 4, 4, 8, 8)]
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.LeakyReLU(0.2)]
        for i in range(1, len(widths)):
            # strides alternate 2, 1, 2, ...: a width appears at full size, then at half
            layers += [
                nn.Conv2d(widths[i - 1], widths[i], 3, stride=1 + i % 2, padding=1),
                nn.BatchNorm2d(widths[i]),
                nn.LeakyReLU(0.2),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(widths[-1] * (crop // 16) ** 2, 1024),
            nn.LeakyReLU(0.2),
            nn.Linear(1024, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, crop, crop) -> (B, 1)`` logits."""
        _require_crop("srgan", image, self.crop)
        logits: Tensor = self.classifier(self.features(image).flatten(1))
        return logits


class VGGStyleDiscriminator(nn.Module):
    """ESRGAN's discriminator for square crops of ``crop`` pixels, a multiple of 32.

    Five stages halve the picture each; other crops change the first linear layer alone.
    """

    def __init__(self, *, crop: int = 128, features: int = 64) -> None:
        super().__init__()
        if crop % 32:
            raise ValueError(f"the vgg128 discriminator needs a crop divisible by 32, got {crop}")
        self.crop = crop
        widths = [features * factor for factor in (1, 2, 4, 8, 8)]
        self.conv0_0 = nn.Conv2d(3, features, 3, padding=1)
        self.normalised: list[str] = []
        for stage, width in enumerate(widths):
            if stage:
                self._add(f"{stage}_0", nn.Conv2d(widths[stage - 1], width, 3, 1, 1, bias=False))
            self._add(f"{stage}_1", nn.Conv2d(width, width, 4, 2, 1, bias=False))
        self.linear1 = nn.Linear(widths[-1] * (crop // 32) ** 2, 100)
        self.linear2 = nn.Linear(100, 1)

    def _add(self, place: str, conv: nn.Conv2d) -> None:
        self.add_module(f"conv{place}", conv)
        self.add_module(f"bn{place}", nn.BatchNorm2d(conv.out_channels))
        self.normalised.append(place)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, crop, crop) -> (B, 1)`` logits."""
        _require_crop("vgg128", image, self.crop)
        x = _rectify(self.conv0_0(image))
        for place in self.normalised:
            x = getattr(self, f"conv{place}")(x)
            x = _rectify(getattr(self, f"bn{place}")(x))
        logits: Tensor = self.linear2(_rectify(self.linear1(x.flatten(1))))
        return logits


class UNetDiscriminator(nn.Module):
    """Real-ESRGAN's U-Net discriminator; sides of the picture must be multiples of 8."""

    def __init__(self, *, features: int = 64) -> None:
        super().__init__()
        f = features
        self.conv0 = nn.Conv2d(3, f, 3, padding=1)
        self.conv1 = _down(f, 2 * f)
        self.conv2 = _down(2 * f, 4 * f)
        self.conv3 = _down(4 * f, 8 * f)
        self.conv4 = _same(8 * f, 4 * f)
        self.conv5 = _same(4 * f, 2 * f)
        self.conv6 = _same(2 * f, f)
        self.conv7 = _same(f, f)
        self.conv8 = _same(f, f)
        self.conv9 = nn.Conv2d(f, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 1, H, W)`` logits."""
        if image.shape[-2] % 8 or image.shape[-1] % 8:
            given = "x".join(map(str, image.shape[-2:]))
            raise ValueError(f"the unet discriminator needs sides divisible by 8, got {given}")
        skips = [_rectify(self.conv0(image))]
        for conv in (self.conv1, self.conv2, self.conv3):
            skips.append(_rectify(conv(skips[-1])))
        x = skips.pop()
        for conv in (self.conv4, self.conv5, self.conv6):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = _rectify(conv(x)) + skips.pop()
        logits: Tensor = self.conv9(_rectify(self.conv8(_rectify(self.conv7(x)))))
        return logits


def _require_crop(name: str, image: Tensor, crop: int) -> None:
    if image.shape[-2:] != (crop, crop):
        given = "x".join(map(str, image.shape[-2:]))
        raise ValueError(
            f"this {name} discriminator was built for crops of {crop} pixels, got {given}; set its "
            "crop to the training crop"
        )


def _down(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))


def _same(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))


def _rectify(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
