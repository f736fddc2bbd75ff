"""How a low-resolution picture comes about: what cameras, programs and networks do to pictures.

``Degradation`` is blur, reduction, noise and a codec, once; with nothing but a scale it is
``imresize`` alone, the papers' low resolution. ``SecondOrder`` is Real-ESRGAN's pipeline. Every
picture of a batch has draws of its own, so that it degrades alone as it does in any batch, on a CPU
as from a shard.
"""

from sr_module.degrade.classical import Degradation
from sr_module.degrade.jpeg import differentiable_jpeg
from sr_module.degrade.second_order import SecondOrder, Stage
from sr_module.degrade.sharpen import sharpen

AnyDegradation = Degradation | SecondOrder

__all__ = [
    "AnyDegradation",
    "Degradation",
    "SecondOrder",
    "Stage",
    "differentiable_jpeg",
    "sharpen",
]
