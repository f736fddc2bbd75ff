import os
from pathlib import Path

import pytest
import torch


@pytest.fixture
def data() -> Path:
    """Folder of real pictures and published weights."""
    folder = os.environ.get("SRDET_DATA")
    if not folder:
        pytest.skip("SRDET_DATA names no folder of real pictures")
    return Path(folder)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
