"""BasicSR's PairedImageDataset, timed on demand; run by the interpreter of SRDET_PEERS_PYTHON.

    PYTHON basicsr_pairs.py HR_FOLDER LR_FOLDER SCALE CROP BATCH BATCHES WORKERS

Each line on standard input takes so many batches and is answered with a line. It imports
nothing of srdet, so it runs in an environment of its own.
"""

import itertools
import sys
import types

import torch
import torchvision.transforms.functional as functional

# BasicSR 1.4.2 imports a module that torchvision has removed; its one function is still there.
removed = types.ModuleType("torchvision.transforms.functional_tensor")
removed.rgb_to_grayscale = functional.rgb_to_grayscale
sys.modules[removed.__name__] = removed

import cv2  # noqa: E402
from basicsr.data.paired_image_dataset import PairedImageDataset  # noqa: E402
from torch.utils.data import DataLoader, RandomSampler  # noqa: E402


def main() -> None:
    """Answers until the input ends."""
    hr, lr, *numbers = sys.argv[1:]
    scale, crop, batch, batches, workers = map(int, numbers)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    options = {
        "io_backend": {"type": "disk"},
        "dataroot_gt": hr,
        "dataroot_lq": lr,
        "gt_size": crop,
        "scale": scale,
        "use_hflip": True,
        "use_rot": True,
        "phase": "train",
    }
    dataset = PairedImageDataset(options)
    drawn = RandomSampler(dataset, replacement=True, num_samples=batch * 10**9)
    loader = iter(DataLoader(dataset, batch_size=batch, sampler=drawn, num_workers=workers))
    for _ in sys.stdin:
        read = sum(len(pairs["gt"]) for pairs in itertools.islice(loader, batches))
        print(read, flush=True)


if __name__ == "__main__":
    main()
