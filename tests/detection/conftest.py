"""Small COCO sets written to disk and read back, as a user's would be."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.truth import CocoSet, read_coco

CocoWriter = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are small: more threads only wait for each other where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def write_coco(tmp_path: Path) -> CocoWriter:
    """Writes a set; every part can be replaced: `write_coco(annotations=[...])`."""

    def write(
        *,
        images: int = 1,
        size: tuple[int, int] = (100, 80),
        annotations: list[dict[str, Any]] | None = None,
        categories: dict[int, str] | None = None,
        **replaced: Any,
    ) -> Path:
        names = categories or {1: "car", 2: "boat"}
        content: dict[str, Any] = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]}
                for i in range(1, images + 1)
            ],
            "annotations": annotations or [],
            "categories": [{"id": key, "name": name} for key, name in names.items()],
        }
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content | replaced))
        return path

    return write


@pytest.fixture
def make_set(write_coco: CocoWriter) -> Callable[..., CocoSet]:
    """A set of `(image, xywh box, category)` rows."""

    def make(rows: list[tuple[int, list[float], int]], **settings: Any) -> CocoSet:
        annotations = [
            {"id": i, "image_id": image, "category_id": category, "bbox": box}
            | {"area": box[2] * box[3], "iscrowd": 0}
            for i, (image, box, category) in enumerate(rows, start=1)
        ]
        return read_coco(write_coco(annotations=annotations, **settings), allow_empty=True)

    return make
