"""The import rule of docs/ARCHITECTURE.md, read from the source: nothing is imported for it."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("sr_module", "detection", "pipeline")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

LIGHTNING = (
    "sr_module/training.py", "sr_module/regression.py", "sr_module/adversarial.py",
    "pipeline/skipped.py",
    "detection/finetune.py", "pipeline/data.py", "pipeline/train.py", "pipeline/resume.py",
    "pipeline/best.py",
    "pipeline/parsing.py", "pipeline/watch.py", "pipeline/detector.py", "pipeline/profiling.py",
    "pipeline/sweeps/objectives.py", "pipeline/sweeps/trial.py", "pipeline/sweeps/reports.py",
    "pipeline/sweeps/together.py",
    "pipeline/training_bar.py", "pipeline/boxed.py", "pipeline/going_on.py",
    "pipeline/finetune.py",
    "pipeline/task_driven.py",
    "sr_module/task_driven.py",
)  # fmt: skip
MLFLOW = ("delivery", "models", "registry", "store", "system")
DOORS = {
    "mlflow": (
        *(f"pipeline/recording/{file}.py" for file in MLFLOW),
        "pipeline/served.py",
    ),
    # opened in one place: for training, sweeps, and work shared among workers
    "ray": (
        "pipeline/ray_session.py",
        "pipeline/ray_train.py",
        "pipeline/sweeps/board.py",
        "pipeline/sweeps/running.py",
        "pipeline/sweeps/strategy.py",
        "pipeline/sweeps/trial.py",
        "pipeline/sweeps/together.py",
    ),
    "optuna": ("pipeline/sweeps/strategy.py",),
    "webdataset": ("pipeline/samples.py", "pipeline/shard_writer.py", "pipeline/stream.py"),
    "pyvips": ("pipeline/encode.py", "pipeline/levels.py", "pipeline/raster.py"),
    "av": ("pipeline/video.py",),
    "pycocotools": ("detection/coco.py",),
    # optional extras, each behind the one contract of detectors
    "transformers": ("detection/huggingface.py",),
    "ultralytics": ("detection/ultralytics_models.py",),
    "pytorch_lightning": LIGHTNING,
    "spandrel": ("sr_module/foreign.py",),
    "lightning": (),
    "lightning_fabric": ("pipeline/launch.py",),
}
LAZY = ("mlflow", "ray", "pycocotools", "spandrel", "matplotlib", "onnxruntime", "pyvips", "av")
LAZY += ("transformers", "ultralytics")
LAZY += ("optuna",)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """First words of what a file imports; with ``top_only`` only what happens when it is read."""
    tree = ast.parse(path.read_text())
    for node in _reached(tree) if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno} imports relatively"
            yield str(node.module).split(".")[0]


def _reached(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes outside functions and outside ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not typing_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _reached(child)


def test_there_is_something_to_check():
    assert len(SOURCES) > 50
    assert {
        room: any(name(p).startswith(room) for p in SOURCES) for room in ROOMS
    } == dict.fromkeys(ROOMS, True)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_leaves_import_nothing_of_ours_and_nobody_imports_the_root(path):
    room = name(path).split("/")[0]
    ours = set(modules(path)) & {*ROOMS, "tests", "benchmarks", "conf"}
    allowed = set(ROOMS) if room == "pipeline" else {room}
    assert ours <= allowed


@pytest.mark.parametrize("package", DOORS)
def test_each_outside_package_has_its_doors_and_no_other(package):
    found = {name(path) for path in SOURCES if package in modules(path)}
    assert found == set(DOORS[package])


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert not set(modules(path, top_only=True)) & set(LAZY)


def test_the_root_uses_both_leaves():
    used = {
        module for path in SOURCES if name(path).startswith("pipeline") for module in modules(path)
    }
    assert {"sr_module", "detection"} <= used


def outside_archs() -> list[Path]:
    return [path for path in SOURCES if not name(path).startswith("sr_module/archs/")]


@pytest.mark.parametrize("path", outside_archs(), ids=name)
def test_no_architecture_is_named_or_asked_for_outside_its_room(path):
    from sr_module.archs import ARCHS

    classes = {kind.__name__ for kind in ARCHS.values()}
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Constant):
            assert node.value not in ARCHS, f"{where} names {node.value}"
        if isinstance(node, ast.Name | ast.Attribute):
            word = node.id if isinstance(node, ast.Name) else node.attr
            assert word not in classes, f"{where} names {word}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            asked = ast.unparse(node.args[1])
            assert not {"SRNet", "ForeignNet"} & set(asked.replace("|", " ").split()), where


def test_the_command_line_says_its_help_without_any_heavy_package(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from pipeline.cli import main; main(['--help']); "
        "heavy = {'torch', 'mlflow', 'ray', 'pytorch_lightning', 'webdataset', 'matplotlib'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
