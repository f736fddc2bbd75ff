"""Weights for use: self-describing safetensors are written, ours and published files are read.

A file holds the tensors and, as JSON in its header, the architecture's name, its arguments, its
scale and where the weights come from. Nothing is unpickled; published files are ``foreign.py``'s.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sr_module.archs import build
from sr_module.foreign import foreign_tensors, load_foreign
from sr_module.net import SRNet
from sr_module.weight_files import AGAIN, existing, explaining, first_few

_HEADER = "srdet"  # the one key of our safetensors metadata; other tools' files lack it
_VERSION = 1
_PARTS = ("version", "arch", "scale", "args", "provenance")


def save_net(net: SRNet, path: str | Path, *, provenance: Mapping[str, object]) -> None:
    """Write ``net`` for use; a reader never sees half a file, whatever happens meanwhile.

    Args:
        net: a network made by ``build``.
        path: a ``.safetensors`` file; its folder is made if need be.
        provenance: where the weights come from (commit, data, step, metrics); JSON values.

    Raises:
        ValueError: another suffix, a network that ``build`` did not make, or provenance that JSON
            cannot hold.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: networks are saved as .safetensors files")
    if not net.arch:
        raise ValueError(
            f"{type(net).__name__} was not made by build(arch, scale, ...) and could not be rebuilt"
            " from its file; add it to ARCHS and build it by name"
        )
    tensors = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    _write_atomically(path, save(tensors, metadata={_HEADER: _header_of(net, provenance)}))


def load_net(path: str | Path, *, scale: int | None = None) -> SRNet:
    """The network in ``path``, on the CPU, in evaluation mode.

    Args:
        path: a file of ``save_net``, or published weights (``.pth``, ``.safetensors``) of any
            architecture that spandrel knows.
        scale: enlargement, where the weights serve several; None takes the one they are saved with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, of another kind, does not fit its architecture, or does not
            serve ``scale``.
    """
    path = existing(path)
    header = _read_header(path)
    net = load_foreign(path) if header is None else _load_ours(path, header)
    if scale is None or scale == net.scale:
        return net
    if header is None or scale not in net.serves:
        served = ", ".join(map(str, net.serves or (net.scale,)))
        raise ValueError(f"{path}: these weights enlarge {served} times, not {scale} times")
    return _load_ours(path, {**header, "scale": scale})


def load_weights(net: SRNet, path: str | Path) -> None:
    """Copy the weights in ``path`` into ``net``, to train on from them.

    Args:
        net: a network of the same architecture and arguments.
        path: a file of ``save_net``, or published weights with the same parameter names, such as
            those of Real-ESRGAN for ``rrdbnet`` and ``compact``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its tensors do not fit; the differing keys are named.
    """
    path = existing(path)
    tensors = foreign_tensors(path) if _read_header(path) is None else _own_tensors(path)
    _fill(net, tensors, path)


def read_provenance(path: str | Path) -> dict[str, object]:
    """What ``save_net`` was told about the weights in ``path``; empty for files of other makers."""
    header = _read_header(existing(path))
    return {} if header is None else dict(header["provenance"])


def _header_of(net: SRNet, provenance: Mapping[str, object]) -> str:
    header = {
        "version": _VERSION,
        "arch": net.arch,
        "scale": net.scale,
        "args": dict(net.arch_args),
        "provenance": dict(provenance),
    }
    try:
        return json.dumps(header, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance must hold JSON values only: {error}") from error


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_header(path: Path) -> dict[str, Any] | None:
    """Our header, or None for a file that another program wrote."""
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return None
    with explaining(path), safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_HEADER)
    if text is None:
        return None
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its header is damaged ({error}); {AGAIN}") from error
    header = dict(header) if isinstance(header, dict) else {}
    if header.get("version", _VERSION) != _VERSION:
        raise ValueError(
            f"{path}: written in format {header['version']}, this version of srdet reads {_VERSION}"
        )
    missing = [part for part in _PARTS if part not in header]
    if missing:
        raise ValueError(f"{path}: its header lacks {', '.join(missing)}; {AGAIN}")
    return header


def _load_ours(path: Path, header: Mapping[str, Any]) -> SRNet:
    try:
        net = build(header["arch"], header["scale"], **header["args"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _fill(net, _own_tensors(path), path)
    return net.eval()


def _own_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with explaining(path):
        return load_file(path)


def _fill(net: SRNet, tensors: Mapping[str, Tensor], path: Path) -> None:
    differing = _differing(net.state_dict(), tensors)
    if differing:
        args = ", ".join(f"{key}={value}" for key, value in net.arch_args.items())
        raise ValueError(
            f"{path}: its tensors do not fit {net.arch} x{net.scale} ({args}): "
            f"{'; '.join(differing)}"
        )
    net.load_state_dict(tensors)


def _differing(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``found`` from loading, in words; empty if nothing does."""
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    kinds = {
        "missing": [key for key in shapes if key not in found],
        "not expected": [key for key in found if key not in shapes],
        "of another shape": [
            f"{key} {tuple(found[key].shape)} for {shape}"
            for key, shape in shapes.items()
            if key in found and tuple(found[key].shape) != shape
        ],
    }
    return [f"{kind}: {first_few(keys)}" for kind, keys in kinds.items() if keys]
