"""Takes training steps of BasicSR's own models, so many for a line of its input.

Runs in the peers' environment (``requirements-peers.txt``), never in the project's; see
``training.py``. The options are those of its published training files.
"""

import itertools
import sys
import types
from typing import Any

import torch
import torchvision.transforms.functional as functional

# basicsr imports a module that torchvision has dropped; it wants this one function of it.
module = types.ModuleType("torchvision.transforms.functional_tensor")
module.rgb_to_grayscale = functional.rgb_to_grayscale
sys.modules[module.__name__] = module

from basicsr.archs import vgg_arch  # noqa: E402
from basicsr.models import build_model  # noqa: E402

from benchmarks.served import serve  # noqa: E402

SCALE = 4
NETWORK = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 64}
ADAM = {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
REGRESSION = {
    "ema_decay": 0.999,
    "optim_g": ADAM,
    "scheduler": {"type": "MultiStepLR", "milestones": [200_000], "gamma": 0.5},
    "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
}
ADVERSARIAL = {
    **REGRESSION,
    "optim_d": {**ADAM},  # it takes its options apart
    "pixel_opt": {"type": "L1Loss", "loss_weight": 1e-2, "reduction": "mean"},
    "perceptual_opt": {
        "type": "PerceptualLoss",
        "layer_weights": {"conv5_4": 1},
        "vgg_type": "vgg19",
        "use_input_norm": True,
        "range_norm": False,
        "perceptual_weight": 1.0,
        "style_weight": 0,
        "criterion": "l1",
    },
    "gan_opt": {
        "type": "GANLoss",
        "gan_type": "vanilla",
        "real_label_val": 1.0,
        "fake_label_val": 0.0,
        "loss_weight": 5e-3,
    },
}


def options(kind: str, crop: int) -> dict[str, Any]:
    """What its training files would hold."""
    common = {
        "num_gpu": int(torch.cuda.is_available()),
        "is_train": True,
        "dist": False,
        "scale": SCALE,
        "path": {},
    }
    if kind == "srresnet":
        network = {"type": "MSRResNet", **NETWORK, "num_block": 16, "upscale": SCALE}
        return {**common, "model_type": "SRModel", "network_g": network, "train": REGRESSION}
    name, _, blocks = kind.partition("-")
    network = {"type": "RRDBNet", **NETWORK, "num_block": int(blocks), "scale": SCALE}
    if name == "rrdb":
        return {**common, "model_type": "SRModel", "network_g": network, "train": REGRESSION}
    judge = {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 64, "input_size": crop}
    networks = {"network_g": network, "network_d": judge}
    return {**common, "model_type": "ESRGANModel", **networks, "train": ADVERSARIAL}


def main(kind: str, batch: str, crop: str, steps: str) -> None:
    """Serves rounds of ``steps`` steps."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # as its train.py does
    fresh = vgg_arch.vgg.vgg19
    vgg_arch.vgg.vgg19 = lambda pretrained: fresh(weights=None)  # no download; equally fast
    model = build_model(options(kind, int(crop)))
    side = int(crop) // SCALE
    data = {
        "lq": torch.rand(int(batch), 3, side, side),
        "gt": torch.rand(int(batch), 3, int(crop), int(crop)),
    }
    data = {name: tensor.to(model.device) for name, tensor in data.items()}
    numbers = itertools.count(1)

    def steps_of_a_round() -> None:
        for number in itertools.islice(numbers, int(steps)):
            model.update_learning_rate(number, warmup_iter=-1)
            model.feed_data(data)
            model.optimize_parameters(number)

    serve(steps_of_a_round, settle=torch.cuda.synchronize if torch.cuda.is_available() else int)


if __name__ == "__main__":
    main(*sys.argv[1:])
