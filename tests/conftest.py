"""What holds for every test."""

import os
from pathlib import Path

import pytest

# Tests run beside each other and start processes of their own: OpenMP threads that wait for a
# shared core would make each of them several times slower. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def real_data() -> Path:
    """Folder of real pictures and published weights."""
    folder = os.environ.get("SRDET_DATA")
    if not folder:
        pytest.skip("SRDET_DATA names no folder of real pictures")
    return Path(folder)
