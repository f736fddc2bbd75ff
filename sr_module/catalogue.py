"""The trained networks that come with the package, by name: ``weights/NAME.safetensors``.

Each file is one of ``save_net`` and tells everything about itself in its header: architecture,
arguments, scale, and as provenance the data it was trained on, its budget, its settings and what it
scores on the test sets. There is no second place where that is written down.
"""

from pathlib import Path

from sr_module.choice import unknown

FOLDER = Path(__file__).parent / "weights"
SUFFIX = ".safetensors"


def trained() -> dict[str, Path]:
    """The networks' files by name, in alphabetical order."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def trained_net(name: str) -> Path:
    """The file of the network called ``name``, for ``load_net`` and ``load_weights``.

    Raises:
        ValueError: there is none of this name; the nearest one is offered.
    """
    nets = trained()
    if name not in nets:
        raise unknown("trained network", name, nets)
    return nets[name]
