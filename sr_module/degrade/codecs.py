"""Through a picture file and back: the very artefacts that JPEG and WebP files have."""

import io

import torch
from torch import Tensor

from sr_module.degrade.jpeg import differentiable_jpeg


def through_jpeg(picture: Tensor, quality: int) -> Tensor:
    """``(3, H, W)`` in [0, 1] through JPEG and back; chroma is halved.

    libjpeg itself on the CPU; elsewhere its arithmetic on the device, which is not waited for.
    """
    if picture.device.type != "cpu":
        return differentiable_jpeg(picture[None], [quality])[0]
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

    decoded = decode_jpeg(encode_jpeg(_levels(picture), quality), mode=ImageReadMode.RGB)
    result: Tensor = decoded.to(picture).div_(255)
    return result


def through_webp(picture: Tensor, quality: int) -> Tensor:
    """``(3, H, W)`` in [0, 1] through libwebp's lossy codec and back, on the CPU always."""
    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    pixels = _levels(picture).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality)
    with Image.open(file) as image:
        decoded = torch.from_numpy(np.array(image.convert("RGB")))
    return decoded.permute(2, 0, 1).to(picture).div_(255)


def _levels(picture: Tensor) -> Tensor:
    return picture.clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
