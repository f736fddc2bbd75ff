"""Sliced detection with SAHI, once a line of its input (see ``sliced.py``).

Runs in the peers' environment (``requirements-peers.txt``), with this project on the path for the
detector and the enlargement alone. SAHI enlarges nothing by itself: the model it is given enlarges
each slice. Its adapter calls that model slice by slice, whatever the batch size, and with gradients
switched on; switching them off here would measure something else than what people run.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from sahi.models.torchvision import TorchVisionDetectionModel
from sahi.predict import get_sliced_prediction
from torch import Tensor, nn

from benchmarks.served import serve
from benchmarks.sliced_srdet import OVERLAP, SCALE, SIZE
from detection.categories import match_categories
from detection.detectors import load_model
from pipeline.pictures import read_picture
from pipeline.upscalers import bicubic

LOWEST = 0.01


class Enlarged(nn.Module):
    """The detector behind the enlargement, answering in the slice's pixels and the set's ids."""

    def __init__(self, model: nn.Module, ids: list[int | None]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("ids", torch.tensor([-1 if i is None else i for i in ids]))

    def forward(self, slices: list[Tensor]) -> list[dict[str, Tensor]]:
        """Boxes, scores and labels of each slice."""
        found = self.model([bicubic(each[None], SCALE)[0] for each in slices])
        return [self._answer(each) for each in found]

    def _answer(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        ids = self.ids[found["labels"]]
        known = ids >= 0
        boxes, scores = found["boxes"][known] / SCALE, found["scores"][known]
        return {"boxes": boxes, "scores": scores, "labels": ids[known]}


def main(job: str) -> None:
    """Serves rounds."""
    said = json.loads(Path(job).read_text())
    categories = {int(key): name for key, name in said["categories"].items()}
    model, names = load_model(Path(said["detector"]))
    peer = TorchVisionDetectionModel(
        model=Enlarged(model, match_categories(names, categories)),
        confidence_threshold=LOWEST,
        category_mapping={str(key): name for key, name in categories.items()},
        device="cpu",
    )
    pictures = {
        key: np.ascontiguousarray(read_picture(Path(file)).permute(1, 2, 0).numpy())
        for key, file in said["files"].items()
    }

    def detect() -> None:
        found = {}
        for key, picture in pictures.items():
            result = get_sliced_prediction(
                picture, peer, slice_height=SIZE, slice_width=SIZE,
                overlap_height_ratio=OVERLAP, overlap_width_ratio=OVERLAP,
                perform_standard_pred=False, postprocess_type="NMS",
                postprocess_match_metric="IOU", postprocess_match_threshold=0.5, verbose=0,
                batch_size=16,
            )  # fmt: skip
            found[key] = [
                [*each.bbox.to_xyxy(), each.score.value, each.category.id]
                for each in result.object_prediction_list
            ]
        Path(said["out"]).write_text(json.dumps(found, default=float))

    serve(detect)


if __name__ == "__main__":
    main(*sys.argv[1:])
