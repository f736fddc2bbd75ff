"""``srdet export``: a network for other programs, as ONNX or as a program of ``torch.export``.

srdet export --model srresnet_small_x4 --out net.onnx
srdet export --model runs/esrgan/net.safetensors --out net.pt2

Input ``lr`` and output ``sr`` are ``(B, 3, H, W)`` RGB float32 in [0, 1] of any batch, height and
width; the file says its scale and the rest itself (ONNX: ``metadata_props``; ``.pt2``: the extra
file ``srdet.json``). Every command here opens the .onnx file again: ``--model net.onnx``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pipeline.files import atomic_file
from pipeline.options import run_function
from pipeline.progress import console
from pipeline.upscalers import network_file
from sr_module.checkpoint import load_net, read_provenance
from sr_module.export import (
    TOLERANCE,
    checked_sizes,
    largest_difference,
    load_onnx,
    load_program,
    to_onnx,
    to_program,
)
from sr_module.net import SRNet


@dataclass(frozen=True)
class Exported:
    """A file for other programs, and how far its results are from those of torch."""

    path: Path
    scale: int
    multiple_of: int
    megabytes: float
    largest_difference: float


def main(words: list[str]) -> None:
    """The command."""
    run_function(export, words, name="export")


def export(model: str, out: Path, *, scale: int | None = None) -> Exported:
    """Writes a network for other programs and checks that it computes what torch computes.

    Args:
        model: a trained network of `srdet models`, or a file of weights (ours, or published ones).
        out: a .onnx file (onnxruntime, TensorRT, OpenVINO), or a .pt2 file (torch.export).
        scale: enlargement, where the weights serve several.

    Returns:
        What was written.

    Raises:
        ValueError: another suffix, a kernel, a network without such a form, or results that differ
            from torch's by more than 0.0001; no file is left then.
        FileNotFoundError: no such network.
    """
    if out.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"cannot export to {out}: give --out a name that ends in .onnx or .pt2")
    path = network_file(model, to_be="exported")
    net = load_net(path, scale=scale)
    console.print(f"exporting {model} ...", highlight=False)
    write, read = (to_onnx, load_onnx) if out.suffix == ".onnx" else (to_program, load_program)
    data = write(net, provenance=read_provenance(path))
    difference = _checked(net, read(data), out)
    with atomic_file(out) as temporary:
        temporary.write_bytes(data)
    exported = Exported(out, net.scale, net.multiple_of, len(data) / 1e6, difference)
    _print(exported, net)
    return exported


def _checked(net: SRNet, exported: Callable[[Tensor], Tensor], out: Path) -> float:
    difference = largest_difference(net, exported)
    if not difference <= TOLERANCE:  # also catches NaN
        raise ValueError(
            f"{out} was not written: it would differ from torch by {difference:.2g}, more than "
            f"{TOLERANCE:g}; try the other form (.onnx, .pt2)"
        )
    return difference


def _print(exported: Exported, net: SRNet) -> None:
    sides = "any H and W"
    if net.multiple_of > 1:
        sides = f"H and W divisible by {net.multiple_of}: pad the picture, trim the result"
    sizes = ", ".join("x".join(map(str, size)) for size in checked_sizes(net))
    lines = (
        f"{exported.path}: {exported.megabytes:.2f} MB",
        f"lr (B, {net.channels}, H, W) -> sr (B, {net.channels}, {net.scale} H, {net.scale} W), "
        f"RGB float32 in [0, 1], clamped; {sides}",
        f"largest difference from torch {exported.largest_difference:.1e} (on {sizes})",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
