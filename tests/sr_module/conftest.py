from pathlib import Path

import pytest
import torch


@pytest.fixture
def data(real_data: Path) -> Path:
    """Folder of real pictures and published weights."""
    return real_data


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
