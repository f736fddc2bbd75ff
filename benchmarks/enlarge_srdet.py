"""Enlarges a folder as ``srdet upscale`` does, once a line of its input (see ``upscale.py``)."""

import sys
from pathlib import Path

from benchmarks.served import serve
from pipeline.heap import keep_freed_memory
from pipeline.upscale import upscale


def main(weights: str, pictures: str, out: str) -> None:
    """Serves rounds."""
    keep_freed_memory()
    serve(lambda: upscale(weights, [Path(pictures)], Path(out), existing="overwrite"))


if __name__ == "__main__":
    main(*sys.argv[1:])
