r"""Puts the traps of docs/TRAPS.md back, one by one, and looks whether their tests notice.

    python tests/put_back.py                      (all of them: a quarter of an hour)
    python tests/put_back.py bfloat16 "half a pixel"     (those that say so)

Each stands in tests/traps.toml. The code is copied, so nothing here changes; first all the tests
must pass in an untouched copy, then each must fail in the copy that has its trap.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAPS = Path(__file__).with_name("traps.toml")
COPIED = ("pipeline", "sr_module", "detection", "conf", "tests", "docs", "pyproject.toml")
VERDICTS = ("NOT NOTICED", "noticed")
FAILED = 1
"""What pytest returns when tests ran and some failed, and not when none could be run."""


def traps() -> list[dict[str, str]]:
    """What the trap says, the file, its code before and after, and the test."""
    rows: list[dict[str, str]] = tomllib.loads(TRAPS.read_text())["trap"]
    return rows


def put_back(chosen: Sequence[dict[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Each trap with "noticed", "NOT NOTICED" or "not run", and what pytest said."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            kind = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            kind(ROOT / name, copy / name)
        code, said = _tested(copy, sorted({trap["test"] for trap in chosen}))
        if code:
            raise SystemExit(f"not even the untouched code passes:\n{said}")
        for trap in chosen:
            path = copy / trap["file"]
            honest = path.read_text()
            path.write_text(honest.replace(trap["before"], trap["after"]))
            code, said = _tested(copy, [trap["test"]])
            path.write_text(honest)
            skipped = code == 0 and "passed" not in said
            yield trap["says"], "not run" if skipped else VERDICTS[code == FAILED], said


def _tested(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    words = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    # no file of bytes: two changes of one second and one length would look like none
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*words, *tests], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines() or [done.stderr]
    told = [line for line in lines if line.startswith(("FAILED", "ERROR"))] or lines[-1:]
    return done.returncode, told[0].partition(" - ")[2] or told[0]


def main(words: Sequence[str]) -> int:
    """How many traps no test notices."""
    chosen = [t for t in traps() if not words or any(word in t["says"] for word in words)]
    counts = Counter[str]()
    for says, verdict, how in put_back(chosen):
        counts[verdict] += 1
        print(f"{verdict:<12} {says}   [{how}]", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return counts[VERDICTS[False]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
