"""Degrades batches of 16 pictures by BasicSR's own RealESRGANModel; see ``degradation.py``.

Runs in the peers' environment, never in the project's. Its options are those of its published
training file. Kernels are drawn before, by its own functions, and its pool of pairs is left out:
both are in its favour.
"""

import random
import sys
import types

import numpy as np
import torch
import torchvision.transforms.functional as functional

# basicsr imports a module that torchvision has dropped; it wants this one function of it.
module = types.ModuleType("torchvision.transforms.functional_tensor")
module.rgb_to_grayscale = functional.rgb_to_grayscale
sys.modules[module.__name__] = module

from basicsr.data.degradations import circular_lowpass_kernel, random_mixed_kernels  # noqa: E402
from basicsr.models.realesrgan_model import RealESRGANModel  # noqa: E402
from basicsr.utils import DiffJPEG, USMSharp  # noqa: E402

from benchmarks.served import serve  # noqa: E402

BATCH, SIDE = 16, 256
SHAPES = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
OPTIONS = {
    "scale": 4, "gt_size": SIDE,
    "resize_prob": [0.2, 0.7, 0.1], "resize_range": [0.15, 1.5], "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30], "poisson_scale_range": [0.05, 3], "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95], "second_blur_prob": 0.8, "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2], "gaussian_noise_prob2": 0.5, "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5], "gray_noise_prob2": 0.4, "jpeg_range2": [30, 95],
}  # fmt: skip


class Jpeg(DiffJPEG):
    """Its own; newer torch keeps the strides of what it permutes, which its ``view`` refuses."""

    def forward(self, x: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
        """Pictures in planes."""
        return super().forward(x, quality=quality).contiguous()


def kernels(sigma: list[float]) -> torch.Tensor:
    """One for each picture, padded to 21 x 21 as its data set pads them."""
    drawn = []
    for _ in range(BATCH):
        side = random.choice(range(7, 22, 2))
        kernel = random_mixed_kernels(
            SHAPES, [0.45, 0.25, 0.12, 0.03, 0.12, 0.03], side, sigma, sigma,
            [-np.pi, np.pi], [0.5, 4], [1, 2],
        )  # fmt: skip
        pad = (21 - side) // 2
        drawn.append(np.pad(kernel, ((pad, pad), (pad, pad))))
    return torch.tensor(np.stack(drawn), dtype=torch.float32)


def main(kind: str) -> None:
    """Serves batches."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (what basicsr draws from)
    model = RealESRGANModel.__new__(RealESRGANModel)
    model.opt, model.is_train, model.device = OPTIONS, True, torch.device("cpu")
    model.jpeger = Jpeg(differentiable=False)
    model.usm_sharpener = USMSharp() if kind == "sharpened" else lambda pictures: pictures
    model._dequeue_and_enqueue = lambda: None
    ringing = circular_lowpass_kernel(np.pi / 2, 15, pad_to=21)
    data = {
        "gt": torch.rand(BATCH, 3, SIDE, SIDE),
        "kernel1": kernels([0.2, 3]),
        "kernel2": kernels([0.2, 1.5]),
        "sinc_kernel": torch.tensor(ringing, dtype=torch.float32).expand(BATCH, 21, 21),
    }
    serve(lambda: model.feed_data(data))


if __name__ == "__main__":
    main(*sys.argv[1:])
