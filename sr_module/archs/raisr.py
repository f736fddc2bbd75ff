"""RAISR: filters learnt by least squares, one for each kind of edge, instead of a network.

Romano, Isidoro and Milanfar 2016, "RAISR: Rapid and Accurate Image Super Resolution",
arXiv:1606.01299: gradients around a pixel are hashed by angle (24), strength (3) and coherence (3)
(section IV), each of the s^2 pixel types of a bucket has its filter (III-B), training sums up
normal equations and solves them, all eight flips and turns of a patch counting (III-A, IV), and the
result is blended with the cheap enlargement where it changes the census of a pixel's neighbours
(V-A).

Departures: the paper enlarges, then hashes and filters the enlarged picture pixel by pixel. The
cheap enlargement (bicubic here) is linear and knows no more than the small picture, so here the
small picture is hashed, once for the s^2 pixels that come of one, and filters read its pixels: 7 x
7 of them span what an 11 x 11 filter behind a bicubic enlargement of x4 reads. What is learnt is
what the enlargement lacks, from differences to the middle pixel, so that flat areas stay as they
are. Pixels are sorted by bucket and each bucket is one matrix product.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_module.archs.luma import LumaNet, enlarge, luma, with_detail

_ANGLES, _STRENGTHS, _COHERENCES = 24, 3, 3
_BUCKETS = _ANGLES * _STRENGTHS * _COHERENCES
_STRENGTH = (0.032, 0.073)
"""Square roots of the larger eigenvalue that part photographs into thirds."""
_COHERENCE = (0.37, 0.60)
_WINDOW = (0.274, 0.452, 0.274)
"""Gaussian of sigma 1 over the gradients, in small pixels."""
_RIDGE = 1e-4
"""Of a bucket's mean squared difference, added to its diagonal."""


class RAISR(LumaNet):
    """Filters in buffers: ``accumulate`` and ``solve`` train it, no gradient does.

    Args:
        scale: enlargement of both sides.
        patch: side of the filters in low-resolution pixels; odd.
        blending: whether the census decides how much of the cheap enlargement remains.
    """

    filters: Tensor
    gram: Tensor
    moment: Tensor
    seen: Tensor

    sums = ("gram", "moment", "seen")
    """Buffers that ``accumulate`` adds to: sums over pictures, and over processes."""

    def __init__(self, scale: int, *, patch: int = 7, blending: bool = True) -> None:
        super().__init__()
        if patch % 2 == 0 or patch < 3:
            raise ValueError(f"raisr: patch must be odd and 3 or more, got {patch}")
        self.scale, self.patch, self.blending = scale, patch, blending
        taps, types = patch**2, scale**2
        self.register_buffer("filters", torch.zeros(_BUCKETS, taps, types))
        shapes = {"gram": (taps, taps), "moment": (taps, types), "seen": ()}
        for name, shape in shapes.items():
            zeros = torch.zeros(_BUCKETS, *shape, dtype=torch.float64)
            self.register_buffer(name, zeros, persistent=False)
        self.overlap = patch // 2 + 1  # the census looks one enlarged pixel further

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 3, scale * H, scale * W)``."""
        up = enlarge(lr, self.scale)
        return with_detail(up, self._detail(luma(lr), luma(up)))

    def luma_sr(self, y: Tensor) -> Tensor:
        """``(B, 1, H, W) -> (B, 1, scale * H, scale * W)``."""
        up = enlarge(y, self.scale)
        return up + self._detail(y, up)

    def _detail(self, y: Tensor, up: Tensor) -> Tensor:
        """What the filters add to the cheap enlargement ``up``."""
        if torch.compiler.is_exporting():
            made = torch.einsum("nt,nts->ns", self._differences(y), self.filters[_hash(y)])
        else:
            made = self._filtered(y)
        detail = F.pixel_shuffle(
            made.view(y.shape[0], *y.shape[-2:], -1).permute(0, 3, 1, 2), self.scale
        )
        return detail * _unchanged(up, up + detail) if self.blending else detail

    def _filtered(self, y: Tensor) -> Tensor:
        """One product for each bucket: ``(B * H * W, scale^2)``.

        Rounded to bfloat16, raw pixels would lose the detail that the filters see in them.
        """
        order, counts = _by_bucket(_hash(y))
        kernels = self._kernels(y).unbind()
        with torch.autocast(y.device.type, enabled=False):
            parts = torch.split(self._patches(y, order), counts)
            made = torch.cat([part @ kernel.T for part, kernel in zip(parts, kernels, strict=True)])
        return torch.empty_like(made).index_copy_(0, order, made)

    def _patches(self, y: Tensor, order: Tensor) -> Tensor:
        """The neighbourhoods of pixels in this order, column by column: ``(len(order), taps)``.

        All columns of a neighbourhood's height are laid out one after another, so that each
        neighbourhood is a run of them and none is copied before it is asked for.
        """
        side, width = self.patch, y.shape[-1]
        around = F.pad(y, [side // 2] * 4, mode="replicate")
        columns = around[:, 0].unfold(1, side, 1).contiguous()  # (B, H, W + side - 1, side)
        rows = columns.numel() // side - (side - 1)
        runs = columns.as_strided((rows, side**2), (side, 1))
        return runs.index_select(0, order + order.div(width, rounding_mode="floor") * (side - 1))

    def _kernels(self, y: Tensor) -> Tensor:
        """The filters for neighbourhoods as they are, not less their middle: ``(.., types, taps)``.

        Taps go column by column, and lie together: so few columns are multiplied faster that way.
        """
        filters = self.filters.to(y).view(_BUCKETS, self.patch, self.patch, -1)
        kernels: Tensor = filters.transpose(1, 2).flatten(1, 2)  # a copy: taps change places
        kernels[:, self.patch**2 // 2] -= kernels.sum(1)
        return kernels.transpose(1, 2).contiguous()

    def _differences(self, y: Tensor) -> Tensor:
        """Every pixel's neighbours less itself: ``(B * H * W, taps)``."""
        reach = self.patch // 2
        patches = F.unfold(F.pad(y, [reach] * 4, mode="replicate"), self.patch)  # (B, taps, H * W)
        return (patches - y.flatten(1).unsqueeze(1)).transpose(1, 2).reshape(-1, self.patch**2)

    @torch.no_grad()
    def accumulate(self, lr: Tensor, hr: Tensor) -> None:
        """Adds a batch to the normal equations of its buckets.

        Args:
            lr: ``(B, 3, H, W)``.
            hr: ``(B, 3, scale * H, scale * W)``.
        """
        y = luma(lr)
        missing = F.pixel_unshuffle(luma(hr) - enlarge(y, self.scale), self.scale)
        wanted = missing.permute(0, 2, 3, 1).reshape(-1, self.scale**2)
        order, counts = _by_bucket(_hash(y))
        differences = self._differences(y).index_select(0, order).double()
        wanted = wanted.index_select(0, order).double()
        start = 0
        for bucket, count in enumerate(counts):
            if count:
                part = differences[start : start + count]
                self.gram[bucket].addmm_(part.T, part)
                self.moment[bucket].addmm_(part.T, wanted[start : start + count])
                start += count
        self.seen += torch.tensor(counts, dtype=self.seen.dtype, device=self.seen.device)

    @torch.no_grad()
    def solve(self) -> dict[str, float]:
        """Filters from the sums.

        A bucket with fewer patches than a filter has taps, flips and turns counted, takes the sums
        of all buckets of its strength; where those are too few as well, it keeps the cheap
        enlargement.

        Returns:
            How many ``patches`` were seen, and the shares of the buckets that are ``pooled`` and
            ``empty``.

        Raises:
            ValueError: nothing was accumulated.
        """
        if not self.seen.any():
            raise ValueError("raisr: there is nothing to solve; accumulate pictures first")
        gram, moment, seen = self._symmetric()
        pooled_gram, pooled_moment, pooled_seen = map(_by_strength, (gram, moment, seen))
        few, none = seen < self.patch**2, pooled_seen < self.patch**2
        gram = torch.where(few.view(-1, 1, 1), pooled_gram, gram)
        moment = torch.where(few.view(-1, 1, 1), pooled_moment, moment)
        ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1) + 1e-12
        gram = gram + torch.diag_embed(ridge.unsqueeze(1).expand(-1, self.patch**2))
        filters = torch.cholesky_solve(moment, torch.linalg.cholesky(gram))
        self.filters.copy_(filters.masked_fill(none.view(-1, 1, 1), 0))
        shares = {"pooled": few & ~none, "empty": none}
        return {
            "patches": float(self.seen.sum()),
            **{name: float(share.double().mean()) for name, share in shares.items()},
        }

    def _symmetric(self) -> tuple[Tensor, Tensor, Tensor]:
        """The sums as if every patch had come in its eight flips and turns, each counting 1/8."""
        gram, moment, seen = map(torch.zeros_like, (self.gram, self.moment, self.seen))
        for buckets, taps, types in _symmetries(self.patch, self.scale):
            buckets, taps, types = (each.to(gram.device) for each in (buckets, taps, types))
            gram.index_add_(0, buckets, self.gram[:, taps][:, :, taps])
            moment.index_add_(0, buckets, self.moment[:, taps][:, :, types])
            seen.index_add_(0, buckets, self.seen)
        return gram / 8, moment / 8, seen


def _hash(y: Tensor) -> Tensor:
    """Bucket of every pixel, ``(B * H * W,)``, from the gradients around it (section IV)."""
    around = F.pad(y, [1] * 4, mode="replicate")
    across = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) / 2
    down = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2
    xx, xy, yy = (_smooth(product) for product in (across * across, across * down, down * down))
    spread = ((xx - yy).square() + 4 * xy.square()).sqrt()  # ONNX knows no hypot
    strong = ((xx + yy + spread) / 2).sqrt()
    weak = ((xx + yy - spread) / 2).clamp(min=0).sqrt()
    angle = torch.atan2(2 * xy, xx - yy) / (2 * math.pi)  # of the gradient, -1/2 to 1/2 half turns
    turns = torch.where(angle < 0, angle + 1, angle)
    angle_bin = (turns * _ANGLES).floor().clamp(max=_ANGLES - 1)
    coherence = (strong - weak) / (strong + weak + 1e-6)
    bucket = (angle_bin * _STRENGTHS + _level(strong, _STRENGTH)) * _COHERENCES
    return (bucket + _level(coherence, _COHERENCE)).flatten().long()


def _smooth(x: Tensor) -> Tensor:
    """Shifted sums: a tile and the whole picture give the same value, to the last bit."""
    side, middle, _ = _WINDOW
    x = F.pad(x, [1] * 4, mode="replicate")
    x = side * (x[..., :-2] + x[..., 2:]) + middle * x[..., 1:-1]
    return side * (x[..., :-2, :] + x[..., 2:, :]) + middle * x[..., 1:-1, :]


def _level(x: Tensor, bounds: tuple[float, ...]) -> Tensor:
    return sum(((x > bound).to(x.dtype) for bound in bounds), start=torch.zeros_like(x))


def _by_bucket(buckets: Tensor) -> tuple[Tensor, list[int]]:
    """The order that puts pixels of one bucket together, and how many each has."""
    small = buckets.to(torch.uint8)
    if small.device.type == "cpu":  # by counting; torch compares, and takes eight times as long
        order = torch.from_numpy(np.argsort(small.numpy(), kind="stable"))
    else:
        order = small.argsort()
    return order, torch.bincount(buckets, minlength=_BUCKETS).tolist()


def _by_strength(x: Tensor) -> Tensor:
    """Sums over the buckets of one strength, in the place of each of them."""
    grouped = x.view(_ANGLES, _STRENGTHS, _COHERENCES, *x.shape[1:])
    return grouped.sum((0, 2), keepdim=True).expand_as(grouped).reshape(x.shape)


def _symmetries(patch: int, scale: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each flip and turn: where buckets go, and which tap and pixel type come to each place."""
    angle = torch.arange(_ANGLES)
    rest = torch.arange(_STRENGTHS * _COHERENCES)
    taps = torch.arange(patch**2).view(patch, patch)
    types = torch.arange(scale**2).view(scale, scale)
    for flipped in (False, True):
        for turns in range(4):
            goes = (angle + turns * _ANGLES // 2) % _ANGLES
            goes = _ANGLES - 1 - goes if flipped else goes
            buckets = (goes.unsqueeze(1) * len(rest) + rest).flatten()
            turned = [torch.rot90(each, turns) for each in (taps, types)]
            moved = [each.flip(-1) if flipped else each for each in turned]
            yield buckets, moved[0].flatten(), moved[1].flatten()


def _unchanged(cheap: Tensor, made: Tensor) -> Tensor:
    """Share of a pixel's eight comparisons with its neighbours that stay as they were (V-A).

    Opposite neighbours compare the same two pixels, so four comparisons tell all eight.
    """
    turned = torch.zeros_like(cheap, dtype=torch.uint8)
    height, width = cheap.shape[-2:]
    for y, x in ((0, 1), (1, -1), (1, 0), (1, 1)):
        here = (..., slice(0, height - y), slice(max(0, -x), width - max(0, x)))
        there = (..., slice(y, height), slice(max(0, x), width + min(0, x)))
        differs = (cheap[there] > cheap[here]) != (made[there] > made[here])
        turned[here] += differs
        turned[there] += differs
    return 1 - turned.to(cheap.dtype) / 8
