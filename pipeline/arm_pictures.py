"""What a detector learns from for an arm: its pictures, mixed with true and un-enlarged ones."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from detection.finetune import Target
from pipeline.arms import ORIGINAL, open_arm
from pipeline.upscalers import bicubic
from pipeline.world import best_precision
from sr_module.task_driven import patchwork


@dataclass(frozen=True)
class Mixture:
    """Parts of each kind of picture in a training; only their ratios count.

    Kim et al. 2024, arXiv:2404.01692 (SR4IR), section 3.4, has the first three in equal parts. The
    fourth keeps what a study's first look at whole pictures needs, and is small because objects
    there have few pixels to learn from.

    Attributes:
        arm: what the arm makes.
        original: the picture as it was; of native pictures, which have no better original, their
            bicubic enlargement.
        patchwork: cells of both by chance.
        given: what the arm is given, not enlarged.
    """

    arm: float = 3.0
    original: float = 3.0
    patchwork: float = 3.0
    given: float = 1.0

    def __post_init__(self) -> None:
        parts = asdict(self)
        if min(parts.values()) < 0 or not 0 < sum(parts.values()) < float("inf"):
            raise ValueError(f"parts of a mixture are 0 or more and not all 0, got {parts}")


class ArmPictures:
    """Mixes an arm's pictures with others, each with its boxes in its own pixels.

    Args:
        spec: the arm, one training of it.
        scale: of the study.
        mixture: parts of each kind.
    """

    def __init__(self, spec: str, scale: int, mixture: Mixture = Mixture()) -> None:
        self.spec, self.scale = spec, scale
        self.parts = torch.tensor(list(asdict(mixture).values()), dtype=torch.float32)
        self.kinds = list(asdict(mixture))
        bf16 = best_precision("auto").startswith("bf16")
        self.upscaler = open_arm(spec, scale, bf16=bf16)

    @torch.no_grad()
    def __call__(
        self, given: Tensor, original: Tensor, targets: list[Target]
    ) -> tuple[list[Tensor], list[Target]]:
        """Of each crop of a batch one kind of picture, drawn by chance, and its targets.

        Args:
            given: ``(B, 3, h, w)``, what an arm is given.
            original: ``(B, 3, H, W)``.
            targets: boxes in pixels of ``original``.
        """
        forms = self._forms(given, original)
        drawn = torch.multinomial(self.parts, len(given), replacement=True).tolist()
        pictures = [forms[self.kinds[kind]][n] for n, kind in enumerate(drawn)]
        # All sides are whole multiples of the smaller one's: a crop divides by the reduction.
        ratios = [picture.shape[-1] / original.shape[-1] for picture in pictures]
        pairs = zip(targets, ratios, strict=True)
        return pictures, [{**target, "boxes": target["boxes"] * ratio} for target, ratio in pairs]

    def _forms(self, given: Tensor, original: Tensor) -> Mapping[str, Tensor]:
        """All crops as each kind of picture."""
        if self.spec == ORIGINAL:
            made, true = original, original
        elif self.upscaler is None:  # whole pictures or windows as they are given
            made, true = given, given
        else:
            made = self.upscaler(given).clamp(0, 1).to(original)
            same = made.shape == original.shape
            true = original if same else bicubic(given, self.scale).to(original)
        return {
            "arm": made, "original": true, "patchwork": patchwork(made, true), "given": given,
        }  # fmt: skip
