"""Typed functions as commands: every option by its name, every mistake in one sentence."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.options import UsageError, run_function


def job(
    images: list[Path],
    out: Path,
    *,
    cut: int = 480,
    share: float = 0.5,
    names: list[str] | None = None,
    overwrite: bool = False,
    hook: object = None,
) -> dict[str, object]:
    """Does it."""
    return {
        "images": images,
        "out": out,
        "cut": cut,
        "share": share,
        "names": names,
        "overwrite": overwrite,
    }


@dataclass(frozen=True)
class Trials:
    """Attributes:
    qualities: some numbers.
    """

    qualities: list[int] | None = None


def tried(out: Path, *, trials: Trials = Trials()) -> Trials:
    """Does it, too."""
    return trials


def run(words: str) -> dict[str, object]:
    return run_function(job, words.split(), name="job", leave_out=["hook"])


def test_options_arrive_with_their_types():
    assert run("--images a --out b --cut 3 --share 1 --names x y --overwrite true") == {
        "images": [Path("a")],
        "out": Path("b"),
        "cut": 3,
        "share": 1.0,
        "names": ["x", "y"],
        "overwrite": True,
    }


def test_options_that_are_left_out_keep_their_defaults():
    got = run("--images a --out b")
    assert (got["cut"], got["share"], got["names"], got["overwrite"]) == (480, 0.5, None, False)


@pytest.mark.parametrize(
    "words",
    [
        "--images a b",
        "--images=a b",
        "--images a --images b",
        "--images=a --images=b",
        "--images [a,b]",
        "--images=[a,b]",
    ],
)
def test_a_list_can_be_given_in_every_usual_way(words):
    assert run(f"{words} --out c")["images"] == [Path("a"), Path("b")]
    assert run(f"--out c {words}")["images"] == [Path("a"), Path("b")]


@pytest.mark.parametrize("given", ["10 30", "[10,30]"])
def test_a_list_of_a_settings_object_is_given_like_any_other(given):
    words = f"--trials.qualities {given} --out c".split()
    assert run_function(tried, words, name="tried") == Trials([10, 30])
    assert run_function(tried, ["--out", "c", "--trials.qualities", "7"], name="tried") == Trials(
        [7]
    )


def test_a_name_that_opens_with_a_bracket_is_a_name():
    assert run("--images [1].png x --out c")["images"] == [Path("[1].png"), Path("x")]
    assert run("--images [1]a.png --out c")["images"] == [Path("[1]a.png")]


def test_a_config_file_gives_options_that_the_words_after_it_override(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("images: [a, b]\nout: o\ncut: 3\nshare: 0.25\n")
    got = run(f"--config {config} --cut 9")
    assert got["images"] == [Path("a"), Path("b")]
    assert (got["cut"], got["share"]) == (9, 0.25)
    assert run(f"--config={config} --images c")["images"] == [Path("c")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--images a --out c --cutt 3", r"--cutt 3; did you mean 'cut'\?"),
        ("--images a --out c --over-write true", r"did you mean 'overwrite'\?"),
        ("--image a --out c", r"did you mean 'images'\?"),
        ("--images a --out c --hook 1", "unrecognized arguments: --hook"),
        ("--images a --out c --zzz 3", "--zzz 3; see --help"),
        ("--images a --out c stray", "unrecognized arguments: stray"),
        ("--images a --out c --cut much", 'key "cut": Expected a int. Got value: much'),
        ("--images a --out c --share half", 'key "share": Expected a float'),
        ("--images a --out c --overwrite perhaps", 'key "overwrite": Expected a bool'),
        ("--images a --out c --cut", "--cut: expected one argument"),
        ("--images --out c", "option --images needs one value or more"),
        ("--out c", "required: images"),
        ("--images a --out c --config none.yaml", r"none\.yaml"),
    ],
)
def test_a_mistake_is_said_in_one_line(words, said):
    with pytest.raises(UsageError, match=said) as caught:
        run(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("images: [a]\nout: o\ncutt: 3\n", r"'cutt' is not accepted; did you mean 'cut'\?"),
        ("images: [a]\nout: o\ncut: x\n", 'key "cut": Expected a int'),
        ("images: [a\nout", "Problems parsing config"),
        ("- a\n", "Unexpected config"),
        ("", "Unexpected config"),
    ],
)
def test_a_mistake_in_a_config_file_names_the_file(tmp_path, content, said):
    config = tmp_path / "mine.yaml"
    config.write_text(content)
    for words in (f"--config {config}", f"--config={config}"):
        with pytest.raises(UsageError, match=rf"{said}.*mine\.yaml"):
            run(words)


def test_help_lists_every_option_and_leaves_out_what_is_for_code(capsys):
    for words in ("--help", "-h", "--images a -h"):
        with pytest.raises(SystemExit) as left:
            run(words)
        assert left.value.code == 0
        shown = capsys.readouterr().out
        assert "Does it." in shown
        assert "--overwrite" in shown
        assert "--hook" not in shown
