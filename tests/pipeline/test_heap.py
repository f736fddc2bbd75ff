import subprocess
import sys

import pytest

from pipeline.heap import keep_freed_memory

ROUNDS, PAGES = 8, 16384  # 64 MiB in pages of 4 KiB

FAULTS = f"""
import ctypes, resource, sys
import torch
from pipeline.heap import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 KiB everywhere
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(16):  # the first few may not fit where the one before was
    torch.ones({PAGES} * 1024)
before = faults()
for _ in range({ROUNDS}):
    torch.ones({PAGES} * 1024)
print(faults() - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="no glibc")
def test_what_an_array_freed_the_next_one_gets_without_new_pages_from_the_system():
    assert _faults("kept") < PAGES
    assert _faults("given back") > ROUNDS * PAGES / 2  # or the line above says nothing


def test_other_systems_keep_their_own_ways(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
