"""Networks for other programs: ONNX and ``torch.export``, for any batch, height and width.

Both forms take ``lr`` ``(B, C, H, W)`` RGB float32 in [0, 1] and return ``sr`` of ``scale`` times
the sides, clamped to [0, 1]; H and W must be divisible by ``multiple_of``. What else a program
needs to know (scale, colour order, range, context for tiles, provenance) travels in the file.
"""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sr_module.net import SRNet

TOLERANCE = 1e-4
"""Largest difference from torch that a check admits: a fortieth of an 8-bit level."""

EXTRA_FILE = "srdet.json"
"""What the metadata are called inside a ``.pt2`` file."""

_EXAMPLE = (2, 16, 20)  # batch, height and width of the traced input, in multiples
_CHECKED = ((1, 9, 14), (3, 40, 33))  # others, so that a size frozen into the file is found


class OnnxNet(SRNet):
    """A file of ``to_onnx`` behind our contract, computed by onnxruntime."""

    def __init__(self, session: Any, metadata: Mapping[str, str]) -> None:  # noqa: ANN401
        super().__init__()
        self.session = session
        self.scale = int(metadata["scale"])
        self.channels = int(metadata["channels"])
        self.multiple_of = int(metadata["multiple_of"])
        self.overlap = int(metadata["overlap"])
        self.parameter_count = int(metadata["parameters"])

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, channels, H, W) -> (B, channels, scale * H, scale * W)``."""
        (sr,) = self.session.run(["sr"], {"lr": lr.float().cpu().numpy()})
        return torch.from_numpy(sr).to(lr.device)


def describe(net: SRNet, provenance: Mapping[str, object]) -> dict[str, str]:
    """The metadata of an exported network."""
    return {
        "made_by": "srdet",
        "arch": net.arch or type(net).__name__,
        "arch_args": json.dumps(dict(net.arch_args), sort_keys=True),
        "scale": str(net.scale),
        "channels": str(net.channels),
        "parameters": str(sum(p.numel() for p in net.parameters())),
        "multiple_of": str(net.multiple_of),
        "overlap": str(net.overlap),
        "colour_order": "RGB",
        "layout": "NCHW",
        "range": "lr and sr in [0, 1]; sr is clamped",
        "provenance": json.dumps(dict(provenance), sort_keys=True),
    }


def to_onnx(net: SRNet, *, provenance: Mapping[str, object]) -> bytes:
    """``net`` as an ONNX model, input ``lr``, output ``sr``, metadata in its ``metadata_props``.

    Raises:
        ValueError: the network reads several frames, or cannot be expressed.
    """
    import onnx

    with _exporting(net, "ONNX"):
        program = torch.onnx.export(
            _Clamped(net),
            (_input(net, *_EXAMPLE),),
            dynamo=True,  # the older exporter has no antialiased resize and freezes what it traces
            dynamic_shapes={"lr": {0: "batch", 2: "height", 3: "width"}},
            input_names=["lr"],
            output_names=["sr"],
            verbose=False,
        )
    assert program is not None, "torch.onnx.export returns the program under dynamo"
    model = program.model_proto
    onnx.helper.set_model_props(model, describe(net, provenance))
    data: bytes = model.SerializeToString()
    return data


def to_program(net: SRNet, *, provenance: Mapping[str, object]) -> bytes:
    """``net`` as a ``.pt2`` file of ``torch.export``, metadata as its extra file ``srdet.json``.

    Raises:
        ValueError: the network reads several frames, or cannot be expressed.
    """
    free = torch.export.Dim.DYNAMIC
    with _exporting(net, "torch.export"):
        program = torch.export.export(
            _Clamped(net),
            (_input(net, *_EXAMPLE),),
            dynamic_shapes={"lr": {0: free, 2: free, 3: free}},
        )
        file = io.BytesIO()
        metadata = json.dumps(describe(net, provenance))
        torch.export.save(program, file, extra_files={EXTRA_FILE: metadata})
    return file.getvalue()


def load_onnx(source: Path | bytes, *, device: str | None = None) -> OnnxNet:
    """A network that ``to_onnx`` wrote.

    Args:
        source: the file or its content.
        device: "cpu", or None for what onnxruntime prefers on this machine.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or another program's.
    """
    import onnxruntime

    name = str(source) if isinstance(source, Path) else "ONNX model"
    if isinstance(source, Path) and not source.is_file():
        raise FileNotFoundError(f"no ONNX file {source}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    every = onnxruntime.get_available_providers()
    providers = ["CPUExecutionProvider"] if device == "cpu" else every
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        session = onnxruntime.InferenceSession(source, options, providers)
    except (errors.InvalidProtobuf, errors.InvalidGraph, errors.Fail) as error:
        raise ValueError(f"{name} is damaged or no ONNX file ({error})") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata.get("made_by") != "srdet":
        raise ValueError(
            f"{name} does not say its scale and range, as files of `srdet export` do; give the "
            "weights that it was made from"
        )
    return OnnxNet(session, metadata)


def load_program(data: bytes) -> Callable[[Tensor], Tensor]:
    """What a file of ``to_program`` computes."""
    module = torch.export.load(io.BytesIO(data)).module()
    return lambda lr: module(lr)


@torch.inference_mode()
def largest_difference(net: SRNet, exported: Callable[[Tensor], Tensor]) -> float:
    """Between what an exported network and ``net`` itself make of noise, clamped.

    Two batches are tried, both of another size than the one it was exported with.
    """
    clamped = _Clamped(net)
    inputs = [_input(net, *size) for size in _CHECKED]
    return max(float((exported(lr) - clamped(lr)).abs().max()) for lr in inputs)


def checked_sizes(net: SRNet) -> list[tuple[int, ...]]:
    """The shapes of ``lr`` that ``largest_difference`` tries."""
    return [tuple(_input(net, *size).shape) for size in _CHECKED]


class _Clamped(nn.Module):
    """A copy in evaluation mode on the CPU, whose results need no further care."""

    def __init__(self, net: SRNet) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).cpu()
        self.eval()

    def forward(self, lr: Tensor) -> Tensor:
        sr: Tensor = self.net(lr).clamp(0, 1)
        return sr


def _input(net: SRNet, batch: int, height: int, width: int) -> Tensor:
    noise = torch.Generator().manual_seed(height)
    size = (batch, net.channels, height * net.multiple_of, width * net.multiple_of)
    return torch.rand(size, generator=noise)


@contextmanager
def _exporting(net: SRNet, form: str) -> Iterator[None]:
    """One error in place of the exporters' pages, and none of their chatter."""
    name = net.arch or type(net).__name__
    if net.frames > 1:
        raise ValueError(f"{name} reads {net.frames} frames; networks of one picture are exported")
    chatty = [logging.getLogger(word) for word in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in chatty]
    try:
        for logger in chatty:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RuntimeError as error:  # the root of what both exporters raise
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{name} has no form in {form}: {said}") from error
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
