"""Super-resolution: networks, losses, metrics, degradations, checkpoints and inference.

Tensors, everywhere in this package: pictures are ``(B, C, H, W)``, RGB, float32 in [0, 1]; clips
are ``(B, T, C, H, W)``; uint8 exists only in files and shards. ``lr``, ``hr`` and ``sr`` are the
low-resolution, the true high-resolution and the super-resolved picture, nothing else. Shapes and
ranges are checked where a picture enters (``upscale``, ``imresize``, the metrics) and trusted
inside.
"""

from sr_module.archs import build
from sr_module.checkpoint import load_net, save_net
from sr_module.net import SRNet
from sr_module.upscale import upscale

__all__ = ["SRNet", "build", "load_net", "save_net", "upscale"]
