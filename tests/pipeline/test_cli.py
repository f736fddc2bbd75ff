"""``srdet``: help at once, and every mistake is one line with the cure and status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

import pipeline.shards
from pipeline.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]


def test_help_and_mistakes_import_nothing_heavy():
    code = """
import sys
from pipeline.cli import main
assert main(["--help"]) == 0 and main(["trian"]) == 2 and main([]) == 0
heavy = {"torch", "numpy", "PIL", "pytorch_lightning", "mlflow", "ray", "jsonargparse", "rich"}
sys.exit(f"imported: {sorted(heavy & set(sys.modules))}" if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_help_names_every_command_in_lines_that_fit_a_terminal(capsys):
    for words in ([], ["-h"], ["--help"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        for name in COMMANDS:
            assert f"  {name} " in shown
        assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_file_with_a_main(name):
    source = (ROOT / "pipeline" / f"{name}.py").read_text()
    assert "\ndef main(" in source
    of_verbs = ("train", "launch", "tracking")  # fit and validate; run; sync
    assert f"\ndef {name}(" in source or name in of_verbs


def test_the_nearest_command_is_offered(capsys):
    assert main(["shard"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("srdet: error: unknown command 'shard'; did you mean 'shards'?")
    assert main(["zzz"]) == 2
    assert "choose from demo, shards" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_status_2(capsys, tmp_path):
    assert main(["shards", "--images", str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert said == f"srdet shards: error: no such file or folder: {tmp_path}/none\n"


def test_with_traceback_the_mistake_is_raised(tmp_path):
    words = ["shards", "--traceback", "--images", str(tmp_path / "none"), "--out", "o"]
    with pytest.raises(FileNotFoundError):
        main(words)


def test_a_stop_by_the_keyboard_is_told_with_its_own_status(capsys, monkeypatch):
    def stopped(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.shards, "main", stopped)
    assert main(["shards"]) == 130
    assert "finished files are whole" in capsys.readouterr().err


def test_mistakes_in_the_code_are_not_dressed_up(monkeypatch):
    def broken(words):
        raise TypeError("a bug")

    monkeypatch.setattr(pipeline.shards, "main", broken)
    with pytest.raises(TypeError):
        main(["shards"])


def test_a_command_that_ends_well_gives_its_status(monkeypatch):
    monkeypatch.setattr(pipeline.shards, "main", lambda words: None)
    assert main(["shards"]) == 0
    monkeypatch.setattr(pipeline.shards, "main", lambda words: len(words))
    assert main(["shards", "a", "b", "c"]) == 3
