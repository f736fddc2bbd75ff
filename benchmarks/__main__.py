"""``make bench``: every benchmark, one table each."""

from benchmarks import data_path, degradation, train_step, upscale


def main() -> None:
    """Runs all benchmarks."""
    for benchmark in (train_step, data_path, upscale, degradation):
        print(benchmark.__doc__.split("\n")[0])
        for name, figure in benchmark.run():
            print(f"  {name:<44} {figure}")


if __name__ == "__main__":
    main()
