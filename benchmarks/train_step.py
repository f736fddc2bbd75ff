"""Training step of SRResNet 64 x 16 (hr 96, batch 16): number format and memory layout.

Run it with: make bench
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.clock import medians
from pipeline.world import best_device
from sr_module import build

BATCH, CROP, SCALE = 16, 96, 4
ROUNDS = 5


def run() -> Iterator[tuple[str, str]]:
    """Images a second for each combination, and its ratio to fp32 in the ordinary layout."""
    steps = {
        "fp32, NCHW": _step(torch.float32, torch.contiguous_format),
        "fp32, channels_last": _step(torch.float32, torch.channels_last),
        "bf16, NCHW": _step(torch.bfloat16, torch.contiguous_format),
        "bf16, channels_last (srdet's own)": _step(torch.bfloat16, torch.channels_last),
    }
    seconds = medians(steps, rounds=ROUNDS)
    slowest = seconds["fp32, NCHW"]
    for name, value in seconds.items():
        yield name, f"{BATCH / value:7.1f} images/s   {slowest / value:5.2f}x"


def _step(dtype: torch.dtype, layout: torch.memory_format) -> Callable[[], None]:
    device = best_device()
    net = build("msrresnet", SCALE).to(device).to(memory_format=layout)
    optimizer = torch.optim.Adam(net.parameters(), 2e-4, fused=True)
    lr = torch.rand(BATCH, 3, CROP // SCALE, CROP // SCALE, device=device).to(memory_format=layout)
    hr = torch.rand(BATCH, 3, CROP, CROP, device=device).to(memory_format=layout)
    return partial(train, net, optimizer, lr, hr, dtype)


def train(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    lr: torch.Tensor,
    hr: torch.Tensor,
    dtype: torch.dtype,
) -> None:
    """One step of the mean absolute error, waited for."""
    with torch.autocast(lr.device.type, dtype=dtype, enabled=dtype != torch.float32):
        loss = nn.functional.l1_loss(net(lr), hr)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if lr.device.type == "cuda":
        torch.cuda.synchronize()
