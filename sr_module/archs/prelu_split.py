"""A PReLU between two convolutions as a ReLU, which 8-bit products bring with them.

PReLU with slope ``a`` is ``a x + (1 - a) max(0, x)``. Its linear part passes the ReLU in channels
of its own, as few as the narrow side of the two layers has, where one of them is 1 x 1: the second
layer's part of it, computed by the first, or the first one's inputs, which the second computes on.
"""

from dataclasses import replace

import torch
from torch import Tensor

from sr_module.archs.packed import Convolution


def without_prelu(first: Convolution, second: Convolution) -> tuple[Convolution, Convolution, int]:
    """Two layers that make the same.

    Args:
        first: with slopes.
        second: what reads it.

    Returns:
        The first layer without activation, the second, and how many of the channels between them,
        the last ones, are linear: all others are to pass a ReLU.
    """
    slopes = first.slopes
    assert slopes is not None
    if second.weight.shape[-1] == 1:
        weights, biases, read = _computed_before(first, second, slopes)
    else:
        assert first.weight.shape[-1] == 1
        weights, biases, read = _computed_after(first, second, slopes)
    kept = second.weight * (1 - slopes).view(-1, 1, 1)
    lead = replace(first, weight=weights[0], bias=biases[0], activation="none", slopes=None)
    rest = replace(second, weight=torch.cat([kept, weights[1]], 1), bias=biases[1])
    return lead, rest, read


def _computed_before(
    first: Convolution, second: Convolution, slopes: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    count = len(second.weight)
    through = second.weight[:, :, 0, 0] * slopes
    weight = torch.cat([first.weight, torch.einsum("oc,ciyx->oiyx", through, first.weight)])
    bias = torch.cat([first.bias, through @ first.bias])
    eye = torch.eye(count).view(count, count, 1, 1)
    return (weight, eye), (bias, second.bias), count


def _computed_after(
    first: Convolution, second: Convolution, slopes: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    count = first.weight.shape[1]
    eye = torch.eye(count).view(count, count, 1, 1)
    sloped = second.weight * slopes.view(-1, 1, 1)
    through = torch.einsum("ocyx,ci->oiyx", sloped, first.weight[:, :, 0, 0])
    weight = torch.cat([first.weight, eye])
    bias = torch.cat([first.bias, first.bias.new_zeros(count)])
    return (weight, through), (bias, second.bias + sloped.sum((2, 3)) @ first.bias), count
