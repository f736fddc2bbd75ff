"""Networks by name: one paper per file, one dict, one function that builds.

A network of your own is a subclass of ``SRNet`` and one line in ``ARCHS``. Its constructor takes
``scale`` and keyword arguments annotated ``int``, ``float``, ``bool`` or ``str``.
"""

import inspect
import math
from collections.abc import Mapping

from torch import nn

from sr_module.archs.compact import SRVGGNetCompact
from sr_module.archs.discriminators import (
    SRGANDiscriminator,
    UNetDiscriminator,
    VGGStyleDiscriminator,
)
from sr_module.archs.drcn import DRCN
from sr_module.archs.edsr import EDSR
from sr_module.archs.espcn import ESPCN
from sr_module.archs.fsrcnn import FSRCNN
from sr_module.archs.pixel_recursive import PixelRecursive
from sr_module.archs.raisr import RAISR
from sr_module.archs.rrdbnet import RRDBNet
from sr_module.archs.srcnn import SRCNN
from sr_module.archs.srresnet import MSRResNet, SRResNet
from sr_module.archs.staged import StagedNet
from sr_module.archs.vdsr import VDSR
from sr_module.archs.vespcn import VESPCN
from sr_module.choice import unknown
from sr_module.net import SRNet

__all__ = ["ARCHS", "DISCRIMINATORS", "build", "build_discriminator"]

ARCHS: dict[str, type[SRNet]] = {
    "raisr": RAISR,
    "srcnn": SRCNN,
    "fsrcnn": FSRCNN,
    "espcn": ESPCN,
    "vdsr": VDSR,
    "drcn": DRCN,
    "srresnet": SRResNet,
    "msrresnet": MSRResNet,
    "edsr": EDSR,
    "rrdbnet": RRDBNet,
    "compact": SRVGGNetCompact,
    "vespcn": VESPCN,
    "staged": StagedNet,
    "pixel_recursive": PixelRecursive,
}

DISCRIMINATORS: dict[str, type[nn.Module]] = {
    "srgan": SRGANDiscriminator,
    "vgg128": VGGStyleDiscriminator,
    "unet": UNetDiscriminator,
}


def build(arch: str, scale: int, **args: object) -> SRNet:
    """The network called ``arch`` with fresh weights, enlarging ``scale`` times.

    Args:
        arch: a key of ``ARCHS``.
        scale: enlargement of both sides; each network lists those it has.
        args: arguments of the network's constructor; its defaults are the paper's values.

    Raises:
        ValueError: an unknown name, argument or scale, or an argument of the wrong kind.
    """
    if arch not in ARCHS:
        raise unknown("architecture", arch, ARCHS)
    kind = ARCHS[arch]
    if scale not in kind.scales:
        allowed = ", ".join(map(str, kind.scales))
        raise ValueError(f"{arch} has no scale {scale!r}; choose from: {allowed}")
    resolved = _resolve(arch, kind, args)
    net = kind(scale, **resolved)
    net.arch = arch
    net.arch_args = resolved
    return net


def build_discriminator(name: str, **args: object) -> nn.Module:
    """The discriminator called ``name`` with fresh weights.

    Args:
        name: a key of ``DISCRIMINATORS``.
        args: arguments of its constructor.

    Raises:
        ValueError: an unknown name or argument, or an argument of the wrong kind.
    """
    if name not in DISCRIMINATORS:
        raise unknown("discriminator", name, DISCRIMINATORS)
    kind = DISCRIMINATORS[name]
    return kind(**_resolve(name, kind, args))


def _resolve(name: str, kind: type[nn.Module], args: Mapping[str, object]) -> dict[str, object]:
    """Every argument of the constructor, checked, with its default where none was given.

    Defaults are written out so that a checkpoint stays readable when a default changes.
    """
    parameters = dict(inspect.signature(kind).parameters)
    parameters.pop("scale", None)
    for key in args:
        if key not in parameters:
            raise unknown(f"argument of {name}:", key, parameters)
    return {
        key: _checked(f"{name}: {key}", args.get(key, parameter.default), parameter.annotation)
        for key, parameter in parameters.items()
    }


def _checked(label: str, value: object, kind: type) -> object:
    """``value`` if it is of ``kind``, else a clear error. Sizes and factors are positive."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{label} must be of type {kind.__name__}, got {value!r}")
    if kind in (int, float) and not 0 < value < math.inf:  # type: ignore[operator]
        raise ValueError(f"{label} must be positive, got {value!r}")
    return value
