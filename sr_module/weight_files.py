"""Files of weights, whoever wrote them: which are taken, and what is said of damaged ones."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGAIN = "copy or download it again"


def existing(path: str | Path) -> Path:
    """The path, if weights may be there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of weights, by its suffix.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.suffix == ".ckpt":
        raise ValueError(
            f"{path}: a checkpoint, from which a training goes on, and no network; {_instead(path)}"
        )
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"{path}: weights are .safetensors or .pth files")
    return path


def _instead(checkpoint: Path) -> str:
    """What to take in the place of a checkpoint: the networks that its run wrote beside it."""
    beside = sorted(map(str, checkpoint.parent.glob("*.safetensors")))
    if beside:
        return f"take {first_few(beside, 3)}"
    return (
        "start the same `srdet train` again, which goes on from it and writes its network as "
        ".safetensors at the end; of another program's, save its tensors alone as .safetensors"
    )


def first_few(keys: list[str], count: int = 5) -> str:
    """The first keys, and how many more there are."""
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turns what torch, pickle and safetensors say of damaged or hostile input into one error."""
    from safetensors import SafetensorError

    try:
        yield
    except pickle.UnpicklingError as error:
        if "forbidden" not in str(error):  # pickle, for damage
            raise _damaged(path, error) from error
        raise ValueError(
            f"{path}: holds Python objects, not only tensors; refused, since opening them could run"
            f" anything ({error}); save its tensors alone, as .safetensors"
        ) from error
    except (
        SafetensorError,
        RuntimeError,  # torch, for a damaged archive
        EOFError,
        AttributeError,  # this and the next two: what pickle says it may raise besides
        ImportError,
        IndexError,
    ) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: damaged, or not a file of weights ({type(error).__name__}: {error}); {AGAIN}"
    )
