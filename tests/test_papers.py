"""The recipes against the constants of their papers, which are written down here once more.

Where a paper is silent, constants are those that its authors or followers published; what neither
says is left out. Crops of VDSR and DRCN are 48 and 42 pixels for the papers' 41, which no scale
divides.
"""

from collections.abc import Iterator, Mapping

import pytest

from pipeline.parsing import CONF, parse, plain

SGD = {"optimizer": "sgd", "momentum": 0.9}
ADAM = {"optimizer": "adam", "betas": [0.9, 0.999], "schedule": "steps"}
FOLLOWERS_ADAM = {"optimizer": "adam", "betas": [0.9, 0.99]}  # of BasicSR's settings
EVERY_200K = {"milestones": [200_000, 400_000, 600_000, 800_000], "gamma": 0.5}
FROM_50K = {"milestones": [50_000, 100_000, 200_000, 300_000], "gamma": 0.5}
CONV5_4 = {"conv5_4": 1.0}
BEFORE = {"before_activation": True, "criterion": "l1", "layers": CONV5_4, "feature_scale": 1.0}
WEIGHTS = {"pixel_weight": 1e-2, "perceptual_weight": 1.0, "gan_weight": 5e-3}

PAPERS: dict[str, dict[str, object]] = {
    "srcnn": {
        "data": {"batch_size": 128, "crop": 33},
        "max_steps": 6_250_000,  # 8e8 patches
        "ema_decay": 0.0,
        "optimisation": {**SGD, "learning_rate": 1e-4, "layer_factors": {"conv3": 0.1}},
    },
    "fsrcnn": {
        "data": {"crop": 21},
        "ema_decay": 0.0,
        "optimisation": {**SGD, "learning_rate": 1e-3, "layer_factors": {"deconv": 0.1}},
    },
    "espcn": {
        "data": {"crop": 51},
        "ema_decay": 0.0,
        "optimisation": {**SGD, "learning_rate": 1e-2, "layer_factors": {"conv3": 0.1}},
    },
    "vdsr": {
        "data": {"batch_size": 64, "crop": 48},
        "max_steps": 9960,
        "ema_decay": 0.0,
        "optimisation": {
            **SGD,
            "learning_rate": 0.1,
            "weight_decay": 1e-4,
            "milestones": [2490, 4980, 7470],  # every 20 of 80 epochs
            "gamma": 0.1,
        },
    },
    "drcn": {
        "data": {"batch_size": 64, "crop": 42},
        "ema_decay": 0.0,
        "optimisation": {**SGD, "learning_rate": 1e-2, "weight_decay": 1e-4, "gamma": 0.1},
    },
    "edsr": {
        "data": {"batch_size": 16, "crop": 192},
        "max_steps": 300_000,
        "ema_decay": 0.0,
        "loss": "l1",
        "arch_args": {"features": 64, "blocks": 16, "residual_scale": 1.0},
        "optimisation": {**ADAM, "learning_rate": 1e-4, "milestones": [200_000], "gamma": 0.5},
    },
    "edsr_full": {
        "data": {"batch_size": 16, "crop": 192},
        "max_steps": 1_000_000,
        "ema_decay": 0.0,
        "loss": "l1",
        "arch_args": {"features": 256, "blocks": 32, "residual_scale": 0.1},
        "optimisation": {**ADAM, "learning_rate": 1e-4, **EVERY_200K},
    },
    "srresnet": {
        "data": {"batch_size": 16, "crop": 96},
        "max_steps": 1_000_000,
        "ema_decay": 0.0,
        "loss": "l2",
        "optimisation": {**ADAM, "learning_rate": 1e-4, "milestones": []},
    },
    "srgan": {
        "data": {"batch_size": 16, "crop": 96},
        "max_steps": 200_000,
        "ema_decay": 0.0,
        "gan": "vanilla",
        "discriminator": "srgan",
        **WEIGHTS,
        "pixel_weight": 0.0,
        "gan_weight": 1e-3,
        "perceptual": {
            "before_activation": False,
            "criterion": "l2",
            "layers": CONV5_4,
            "feature_scale": 0.0784,  # 1 / 12.75, whose square is the 0.006 of the loss
        },
        "optimisation": {**ADAM, "learning_rate": 1e-4, "milestones": [100_000], "gamma": 0.1},
    },
    "rrdb_psnr": {
        "data": {"batch_size": 16, "crop": 192},
        "max_steps": 1_000_000,
        "ema_decay": 0.0,
        "loss": "l1",
        "arch_args": {"features": 64, "blocks": 23},
        "optimisation": {**ADAM, "learning_rate": 2e-4, **EVERY_200K},
    },
    "esrgan": {
        "data": {"batch_size": 16, "crop": 128},
        "max_steps": 400_000,
        "ema_decay": 0.0,
        "gan": "ragan",
        "discriminator": "vgg128",
        **WEIGHTS,
        "perceptual": BEFORE,
        "optimisation": {**ADAM, "learning_rate": 1e-4, **FROM_50K},
    },
    "real_esrnet": {
        "data": {"batch_size": 12, "crop": 256},
        "max_steps": 1_000_000,
        "ema_decay": 0.999,
        "loss": "l1",
        "optimisation": {**FOLLOWERS_ADAM, "learning_rate": 2e-4, "milestones": []},
    },
    "real_esrgan": {
        "data": {"batch_size": 12, "crop": 256},
        "max_steps": 400_000,
        "ema_decay": 0.999,
        "gan": "vanilla",
        "discriminator": "unet",
        "pixel_weight": 1.0,
        "perceptual_weight": 1.0,
        "gan_weight": 0.1,
        "perceptual": {
            **BEFORE,
            "layers": {
                "conv1_2": 0.1,
                "conv2_2": 0.1,
                "conv3_4": 1.0,
                "conv4_4": 1.0,
                "conv5_4": 1.0,
            },
        },
        "optimisation": {**FOLLOWERS_ADAM, "learning_rate": 1e-4, "milestones": []},
    },
    "srresnet_modern": {
        "data": {"batch_size": 16, "crop": 128},
        "max_steps": 1_000_000,
        "ema_decay": 0.999,
        "loss": "l1",
        "optimisation": {
            **FOLLOWERS_ADAM,
            "learning_rate": 2e-4,
            "schedule": "cosine",
            "period": 250_000,
            "learning_rate_min": 1e-7,
        },
    },
    "srgan_modern": {
        "data": {"batch_size": 16, "crop": 128},
        "max_steps": 400_000,
        "ema_decay": 0.999,
        "gan": "vanilla",
        **WEIGHTS,
        "perceptual": BEFORE,
        "optimisation": {**FOLLOWERS_ADAM, "learning_rate": 1e-4, **FROM_50K},
    },
}


def settings(name: str) -> dict[str, object]:
    """All settings of a recipe, those that it leaves to defaults included."""
    words = ["--config", str(CONF / "experiment" / f"{name}.yaml"), "--data.shards", "shards"]
    config = plain(parse(words))
    trainer = {"max_steps": config["trainer"]["max_steps"]}
    return {"data": config["data"], **trainer, **config["model"]["init_args"]}


def differing(stated: object, found: object, at: str = "") -> Iterator[str]:
    if isinstance(stated, Mapping) and isinstance(found, Mapping):
        for key, value in stated.items():
            yield from differing(value, found.get(key, "nothing"), f"{at}.{key}")
        if at.endswith((".layers", ".layer_factors")) and set(found) != set(stated):
            yield f"{at}: {found} for {stated}"
    elif stated != found:
        yield f"{at}: {found} for {stated}"


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_has_the_constants_of_its_paper(name):
    found = settings(name)
    assert list(differing(PAPERS[name], found)) == []
    if "gan" in PAPERS[name]:  # both halves learn alike
        assert (
            list(differing(PAPERS[name]["optimisation"], found["discriminator_optimisation"])) == []
        )


def test_gradients_are_bounded_where_the_papers_of_kim_et_al_bound_them_and_nowhere_else():
    for name in PAPERS:
        found = settings(name)
        bounded = found.get("clip_adjustable") is not None
        assert bounded == (name in ("vdsr", "drcn")), name
        assert found["clip_norm"] is None, name
