"""Every trap that the documentation lists has the tests it names, and they were seen to fail."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = (ROOT / "docs" / "TRAPS.md").read_text()
PUT_BACK = tomllib.loads((ROOT / "tests" / "traps.toml").read_text())["trap"]


def test_every_trap_is_held_by_tests_that_are_there():
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }
    rows = [line for line in LISTED.splitlines() if line.startswith("| ") and "---" not in line]
    traps = [row for row in rows if row != "| trap | test |"]
    assert len(traps) > 50
    for row in traps:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, f"no test: {row}"
        assert set(named) <= there, f"not there: {set(named) - there}"


def test_every_test_of_a_trap_has_a_trap_to_put_back():
    listed = set(re.findall(r"`(test_\w+)`", LISTED))
    assert listed == {trap["test"].rpartition("::")[2] for trap in PUT_BACK}


@pytest.mark.parametrize("trap", PUT_BACK, ids=lambda trap: trap["says"])
def test_what_a_trap_changes_is_still_the_code(trap):
    path, name = trap["test"].split("::")
    assert f"def {name}(" in (ROOT / path).read_text()
    assert trap["before"] != trap["after"]
    # Code that has moved on: bring the entry of tests/traps.toml after it, and run put_back.py.
    assert (ROOT / trap["file"]).read_text().count(trap["before"]) == 1
