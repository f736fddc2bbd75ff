"""Enlarges a folder with the realesrgan package, as its own script does, once a line of its input.

Runs in the peers' environment (``requirements-peers.txt``), never in the project's.
"""

import sys
import types
from pathlib import Path

import torchvision.transforms.functional as functional

# basicsr imports a module that torchvision has dropped; it wants this one function of it.
module = types.ModuleType("torchvision.transforms.functional_tensor")
module.rgb_to_grayscale = functional.rgb_to_grayscale
sys.modules[module.__name__] = module

import cv2  # noqa: E402
from realesrgan import RealESRGANer  # noqa: E402
from realesrgan.archs.srvgg_arch import SRVGGNetCompact  # noqa: E402

from benchmarks.served import serve  # noqa: E402


def main(weights: str, pictures: str, out: str, tile: str) -> None:
    """Serves rounds; ``tile`` 0 means untiled."""
    network = SRVGGNetCompact(
        num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=16, upscale=4, act_type="prelu"
    )
    enlarger = RealESRGANer(
        scale=4, model_path=weights, model=network, tile=int(tile), half=False, device="cpu"
    )
    Path(out).mkdir(exist_ok=True)

    def enlarge() -> None:
        for path in sorted(Path(pictures).iterdir()):
            enlarged, _ = enlarger.enhance(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
            cv2.imwrite(str(Path(out) / path.name), enlarged)

    serve(enlarge)


if __name__ == "__main__":
    main(*sys.argv[1:])
