"""Second-order degradation of 16 pictures of 256 x 256 px beside BasicSR's own, in turn.

Run it with: python -m benchmarks.degradation. BasicSR runs in the environment whose interpreter
SRDET_PEERS_PYTHON names (requirements-peers.txt).
"""

import contextlib
import os
import sys
from collections.abc import Iterator

from benchmarks.served import Served, interleaved

BASICSR = "BasicSR"
ROUNDS = 2


def run() -> Iterator[tuple[str, str]]:
    """Batches a second of processor time, which other work on the machine hardly changes."""
    peers = os.environ.get("SRDET_PEERS_PYTHON")
    words = {
        "srdet": (sys.executable, "sharpened"),
        "srdet, nothing sharpened": (sys.executable, "plain"),
    }
    with contextlib.ExitStack() as stack:
        works = {
            name: stack.enter_context(
                Served(python, ["-m", "benchmarks.degrade_srdet", kind], threads=1)
            )
            for name, (python, kind) in words.items()
        }
        for kind in ("sharpened", "plain") if peers else ():
            name = BASICSR if kind == "sharpened" else f"{BASICSR}, nothing sharpened"
            process = Served(str(peers), ["-m", "benchmarks.degrade_basicsr", kind], threads=1)
            works[name] = stack.enter_context(process)
        taken = interleaved(works, rounds=ROUNDS)
    for name, took in taken.items():
        theirs = taken.get(name.replace("srdet", BASICSR), took)
        ratio = f"   {theirs.processor / took.processor:5.2f}x BasicSR's speed" if peers else ""
        yield name, f"{took.processor:7.3f} s a batch of one core{ratio}"
    if not peers:
        yield BASICSR, "skipped: SRDET_PEERS_PYTHON is not set"


if __name__ == "__main__":
    for title, figure in run():
        print(f"  {title:<44} {figure}")
