r"""Puts the traps of docs/TRAPS.md back, one by one, and looks whether their tests notice.

    python tests/put_back.py                      (all of them: some ten minutes)
    python tests/put_back.py bfloat16 test_crops.py     (those that say so, or are tested there)

Each stands in tests/traps.toml. The code is copied, so nothing here changes; first all the tests
must pass in an untouched copy, then each must fail in the copy that has its trap.
"""

import importlib
import os
import shutil
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

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
    """What pytest returns for the tests of a copy, and its first complaint."""
    with tempfile.TemporaryFile("w+") as told:
        if not (child := os.fork()):
            _run_tests(copy, tests, told.fileno())
        _, status = os.waitpid(child, 0)
        told.seek(0)
        lines = told.read().strip().splitlines()
    wrong = [line for line in lines if line.startswith(("FAILED", "ERROR"))] or lines[-1:]
    return os.waitstatus_to_exitcode(status), wrong[0].partition(" - ")[2] or wrong[0]


def _run_tests(copy: Path, tests: Sequence[str], told: int) -> NoReturn:
    """In a process of its own, which has the packages but none of our modules yet."""
    for stream in (1, 2):
        os.dup2(told, stream)
    os.chdir(copy)
    sys.path[0], os.environ["PYTHONPATH"] = str(copy), str(copy)
    os.environ["COLUMNS"] = "250"  # or complaints are cut off
    words = ["-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests]
    code = pytest.main(words)
    sys.stdout.flush()
    os._exit(code)


def main(words: Sequence[str]) -> int:
    """How many traps no test notices."""
    named = [f"{trap['says']} {trap['test']}" for trap in traps()]
    chosen = [
        trap
        for trap, name in zip(traps(), named, strict=True)
        if not words or any(word in name for word in words)
    ]
    counts = Counter[str]()
    for says, verdict, how in put_back(chosen):
        counts[verdict] += 1
        print(f"{verdict:<12} {says}   [{how}]", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return counts[VERDICTS[False]]


if __name__ == "__main__":
    # no files of bytes: two changes of one second and one length would look like none
    sys.dont_write_bytecode = True
    for package in ("torchvision", "pytorch_lightning", "pycocotools.cocoeval"):
        importlib.import_module(package)  # once, and not in the process of every trap
    sys.exit(main(sys.argv[1:]))
