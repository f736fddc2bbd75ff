import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.files import NoSpaceError
from pipeline.recording.journal import Head, Journal, find_journals
from pipeline.recording.run import leave


def begun(folder: Path, **told: object) -> Journal:
    return Journal.create(folder, Head("sqlite:///x.db", "tests", "a run", **told))


def point(step: int, **metrics: float) -> dict[str, object]:
    return {"metrics": metrics, "step": step, "time": 1}


def write_points(journal: Journal, count: int) -> None:
    for step in range(count):
        journal.append(point(step, loss=1.0))


def test_what_was_written_down_is_read_in_order_until_the_store_has_it(tmp_path):
    journal = begun(tmp_path)
    for step in range(3):
        journal.append(point(step, loss=0.5))
    entries = journal.unsent()
    assert [entry["step"] for entry, _ in entries] == [0, 1, 2]
    journal.acknowledge(entries[1][1], [])
    assert [entry["step"] for entry, _ in journal.unsent()] == [2]
    journal.acknowledge(entries[2][1], [])
    assert journal.unsent() == []
    assert not journal.waiting


def test_another_process_goes_on_where_a_killed_one_stopped(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from pipeline.recording.journal import Head, Journal\n"
        "journal = Journal.create(Path(sys.argv[1]), Head('u', 'e', 'n'))\n"
        "for step in range(10): journal.append({'metrics': {'loss': 1.0}, 'step': step})\n"
        "journal.acknowledge(journal.unsent()[3][1], [])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert done.returncode == -9
    journal = Journal(tmp_path)
    assert [entry["step"] for entry, _ in journal.unsent()] == list(range(4, 10))
    assert journal.before == {"loss": 9}
    assert not journal.ended


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path):
    journal = begun(tmp_path)
    journal.append(point(1, loss=1.0))
    journal.close()
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"metrics": {"lo')
    journal = Journal(tmp_path)
    journal.append(point(2, loss=1.0))
    assert [entry["step"] for entry, _ in journal.unsent()] == [1, 2]


def test_a_full_disk_takes_no_half_entries_and_with_room_again_the_journal_goes_on(disk_of):
    """A write of a line takes its first half where the disk fills up in its middle."""
    disk = disk_of("64k")
    journal = begun(disk / "record")
    file = disk / "net.bin"
    file.write_bytes(bytes(20_000))
    with pytest.raises(NoSpaceError, match=r"no room on disk while writing .*records\.jsonl"):
        write_points(journal, 10_000)
    last = journal.steps["loss"]
    with (
        pytest.raises(NoSpaceError, match=r"no room on disk while writing .*copy\.bin"),
        journal.place("copy.bin") as place,
    ):
        place.write_bytes(bytes(20_000))
    assert not list((journal.folder / "files").iterdir())
    entries = journal.unsent()
    assert [entry["step"] for entry, _ in entries] == list(range(last + 1))
    journal.acknowledge(entries[0][1], [])  # cannot be noted, which costs sending it once more
    file.unlink()
    journal.append(point(last + 1, loss=1.0))
    assert [entry["step"] for entry, _ in journal.unsent()] == list(range(1, last + 2))
    journal.close()
    again = Journal(journal.folder)
    assert [entry["step"] for entry, _ in again.unsent()] == list(range(last + 2))


def test_what_is_read_off_the_machine_behind_the_end_does_not_open_the_run_again(tmp_path):
    journal = begun(tmp_path)
    journal.append(point(1, loss=1.0), in_life=True)
    journal.append({"end": "FINISHED"})
    journal.append(point(2, loss=1.0), in_life=True)
    journal.close()
    again = Journal(tmp_path)
    assert again.ended
    assert again.steps == {"loss": 1}
    again.close()


def test_one_process_at_a_time_has_a_journal(tmp_path):
    held = begun(tmp_path)
    code = "import sys; from pathlib import Path; from pipeline.recording.journal import Journal\n"
    code += "Journal(Path(sys.argv[1]), wait_s=0)"
    root = Path(__file__).parents[3]
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, cwd=root, check=False, capture_output=True, text=True)
    assert re.search(r"another process \(\d+ on .*\) records the run in", done.stderr)
    held.close()


def test_a_file_is_kept_as_it_was_and_goes_when_it_was_sent(tmp_path):
    file = tmp_path / "net.bin"
    file.write_text("first")
    journal = begun(tmp_path / "record")
    ticket = journal.keep(file)
    replacement = tmp_path / "new"
    replacement.write_text("second")
    replacement.replace(file)
    assert journal.file(ticket).name == "net.bin"
    assert journal.file(ticket).read_text() == "first"
    journal.append({"artifact": "", "file": ticket})
    ((entry, end),) = journal.unsent()
    journal.acknowledge(end, [entry])
    assert not journal.file(ticket).exists()
    assert file.read_text() == "second"


def test_a_long_journal_that_was_sent_begins_again_and_still_knows_its_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.recording.journal.LONG", 1000)
    journal = begun(tmp_path)
    for step in range(100):
        journal.append(point(step, loss=0.5))
    while pairs := journal.unsent():
        journal.acknowledge(pairs[-1][1], [])
    assert (tmp_path / "records.jsonl").stat().st_size == 0
    journal.close()
    again = Journal(tmp_path)
    assert again.before == {"loss": 99}
    again.append(point(100, loss=0.5))
    assert [entry["step"] for entry, _ in again.unsent()] == [100]


def test_numbers_that_are_none_survive_the_file(tmp_path):
    journal = begun(tmp_path)
    journal.append(point(1, loss=float("nan"), best=float("inf")))
    ((entry, _),) = journal.unsent()
    assert entry["metrics"]["loss"] != entry["metrics"]["loss"]
    assert entry["metrics"]["best"] == float("inf")


def test_journals_are_found_with_parents_before_their_children(tmp_path):
    begun(tmp_path / "b" / "record", started=2)
    begun(tmp_path / "a" / "record" / "below" / "x", started=3)
    begun(tmp_path / "a" / "record", started=1)
    found = [place.relative_to(tmp_path).as_posix() for place in find_journals([tmp_path])]
    assert found == ["a/record", "b/record", "a/record/below/x"]


def test_a_folder_without_a_journal_says_so(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"uri": "x"}))
    with pytest.raises(ValueError, match="holds no journal of a run"):
        Journal(tmp_path)


def test_a_journal_that_is_of_no_more_use_leaves_those_nested_in_it(tmp_path):
    outer = begun(tmp_path / "srdet-unsent" / "a")
    inner = begun(tmp_path / "srdet-unsent" / "a" / "below" / "b")
    inner.append(point(1, loss=1.0))
    leave(outer)
    assert [path.name for path in find_journals([tmp_path])] == ["b"]
    inner.acknowledge(inner.unsent()[-1][1], [])
    leave(inner)
    assert list(tmp_path.iterdir()) == []
