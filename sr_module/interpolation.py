"""Network interpolation: from a network trained for PSNR to its GAN-trained sister, step by step.

Wang et al. 2018, "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
arXiv:1809.00219, section 3.4: ``(1 - alpha) theta_psnr + alpha theta_gan`` for every parameter. It
works because the one was trained on from the other. BatchNorm's running statistics are mixed like
parameters; counters are those of the PSNR network.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from sr_module.net import SRNet


def interpolate(psnr: SRNet, gan: SRNet, *, alpha: float) -> SRNet:
    """The network between ``psnr`` (``alpha`` 0) and ``gan`` (``alpha`` 1).

    Args:
        psnr: trained for distortion.
        gan: of the same architecture, arguments and scale; it is left as it is, and so is ``psnr``.
        alpha: share of ``gan``, in [0, 1].

    Raises:
        ValueError: another share, or networks that differ in more than their values; what differs
            is named.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
    differing = list(_differing(psnr, gan))
    if differing:
        raise ValueError(
            f"only networks of one architecture and size can be mixed, these differ in "
            f"{'; '.join(differing)}"
        )
    mixed = copy.deepcopy(psnr)
    theirs = gan.state_dict()
    mixed.load_state_dict({k: _mix(a, theirs[k], alpha) for k, a in psnr.state_dict().items()})
    return mixed


def _mix(psnr: Tensor, gan: Tensor, alpha: float) -> Tensor:
    return torch.lerp(psnr, gan.to(psnr), alpha) if psnr.is_floating_point() else psnr


def _differing(psnr: SRNet, gan: SRNet) -> Iterator[str]:
    """What keeps two networks from being mixed, in words."""
    for what, a, b in (("architecture", psnr.arch, gan.arch), ("scale", psnr.scale, gan.scale)):
        if a != b:
            yield f"{what}: {a or 'a published one'} and {b or 'a published one'}"
    if psnr.arch != gan.arch:
        return
    for key, value in psnr.arch_args.items():
        if gan.arch_args.get(key) != value:
            yield f"{key}: {value} and {gan.arch_args.get(key)}"
    if psnr.arch_args == gan.arch_args:
        yield from _differing_tensors(psnr.state_dict(), gan.state_dict())


def _differing_tensors(psnr: dict[str, Tensor], gan: dict[str, Tensor]) -> Iterator[str]:
    """Of published networks: they have no name that would say it."""
    for key in psnr.keys() ^ gan.keys():
        yield f"{key}: only in the {'PSNR' if key in psnr else 'GAN'} network"
        return
    for key, value in psnr.items():
        if value.shape != gan[key].shape:
            yield f"{key}: {tuple(value.shape)} and {tuple(gan[key].shape)}"
            return
