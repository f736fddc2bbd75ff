"""``srdet``: one word per job; every job is one function of the same name in one file of this room.

``srdet --help`` answers at once because a command's file is imported only when it is asked for.
"""

import difflib
import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Sequence

from pipeline.heap import keep_freed_memory

COMMANDS = {
    "demo": "the whole main job on built-in scenes: CPU, a few minutes, nothing else needed",
    "shards": "pictures (and COCO boxes) or videos -> WebDataset shards + index.json",
    "train": "train a super-resolution network from shards: --config conf/experiment/srgan.yaml",
    "tune": "Ray Tune sweep over training settings: --config conf/tune/smoke.yaml",
    "upscale": "a network + pictures, folders or videos -> enlarged pictures and videos",
    "sample": "a network that gives a likelihood + small pictures -> pictures drawn from it",
    "evaluate": "a network, bicubic, or anyone's pictures + HR folder -> PSNR and SSIM table",
    "models": "the trained networks that come with the package, and what they score",
    "interpolate": "a PSNR and a GAN network -> their mixtures, or the distortion-perception curve",
    "export": "a network -> ONNX or torch.export, any batch and size, checked against torch",
    "convert": "YOLO, Pascal VOC or VisDrone annotations -> COCO; large pictures -> slices",
    "levels": "pictures of 16 bits, floating point or many bands -> 8-bit ones, all by one range",
    "detect": "detector + COCO set + arms -> mAP-gain study with intervals and report",
    "serve": "a network, or a detector behind one, over HTTP: pictures in, pictures or boxes out",
    "tracking": "sync: send what an MLflow server that was away has not got; promote: a champion",
    "jpeg": "networks + HR folder (+ detector) -> curves over the JPEG quality of their input",
    "launch": "start a training script on several processes or nodes (`lightning run` is the same)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status (2: the input was wrong, and it was said how)."""
    words = list(sys.argv[1:] if argv is None else argv)
    trace = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"srdet {version('srdet')}\n")
        return 0
    return _run(words[0], words[1:], trace=trace)


def _run(name: str, words: list[str], *, trace: bool) -> int:
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return _fail("", f"unknown command '{name}'{hint} (choose from {', '.join(COMMANDS)})")
    keep_freed_memory()
    # Matplotlib, MLflow and Ray each have first-use chatter; a command speaks for itself.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    module = importlib.import_module(f"pipeline.{name}")
    command: Callable[[list[str]], int | None] = module.main
    try:
        return command(words) or 0
    except (ValueError, OSError) as error:
        if trace:
            raise
        return _fail(name, str(error))
    except KeyboardInterrupt:
        return _fail(name, "stopped by the keyboard; finished files are whole", status=130)


def _fail(name: str, message: str, *, status: int = 2) -> int:
    sys.stderr.write(f"srdet {name}".rstrip() + f": error: {message}\n")
    return status


def _help() -> str:
    lines = [
        "usage: srdet COMMAND [options]     (srdet COMMAND --help tells a command's options)",
        "",
        "Does super-resolution help your small-object detector, by how much, on which objects, at",
        "what cost? srdet trains the networks, super-resolves the crops and measures the COCO mAP",
        "gain.",
        "",
        "commands:",
    ]
    for name, what in COMMANDS.items():
        lines += textwrap.wrap(f"  {name:<13}{what}", 98, subsequent_indent=" " * 15)
    lines += [
        "",
        "options:",
        "  --version    what is installed",
        "  --traceback  errors with their place in the code",
        "",
    ]
    return "\n".join(lines)
