"""Every trap that the documentation lists has the tests it names."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_trap_is_held_by_tests_that_are_there():
    listed = (ROOT / "docs" / "TRAPS.md").read_text()
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }
    rows = [line for line in listed.splitlines() if line.startswith("| ") and "---" not in line]
    traps = [row for row in rows if row != "| trap | test |"]
    assert len(traps) > 50
    for row in traps:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, f"no test: {row}"
        assert set(named) <= there, f"not there: {set(named) - there}"
