"""``make bench``: the figures of training, data and enlarging, and what else can be measured."""

import ast
from collections.abc import Iterator
from pathlib import Path

from benchmarks import data_path, degradation, train_step, training, upscale

_HERE = (train_step, training, data_path, upscale, degradation)


def main() -> None:
    """Runs five benchmarks, one table each, and names the others."""
    for benchmark in _HERE:
        print(benchmark.__doc__.split("\n")[0])
        for name, figure in benchmark.run():
            print(f"  {name:<44} {figure}")
    print("others, each on its own:")
    for name, what in others():
        print(f"  python -m benchmarks.{name:<20} {what}")


def others() -> Iterator[tuple[str, str]]:
    """Benchmarks that are run by themselves, and the first line of what they say of themselves."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        ours = any(benchmark.__name__.endswith(f".{path.stem}") for benchmark in _HERE)
        if "-m benchmarks." in said and not ours:
            yield path.stem, said.split("\n")[0]


if __name__ == "__main__":
    main()
