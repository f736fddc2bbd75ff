from pathlib import Path

import pytest
import torch

from detection.detectors import save_detector
from detection.families import build_model
from detection.files import write_atomically
from detection.windows import WindowPlan


def refuse(self: Path, target: Path) -> Path:
    raise OSError(28, "No space left on device", str(target))


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_cut_short_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a.json", b"content")
    assert list(tmp_path.iterdir()) == []


def test_window_plans_and_detectors_leave_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build_model("small_fcos", num_classes=2)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        WindowPlan({1: ()}).save(tmp_path / "windows.json")
    with pytest.raises(OSError, match="No space left"):
        save_detector(
            model,
            tmp_path / "d.safetensors",
            architecture="small_fcos",
            categories={1: "car"},
            provenance={},
        )
    assert list(tmp_path.iterdir()) == []
