import subprocess
import sys

from pipeline.parsing import CONF


def told_by(code: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_training_imports_neither_scipy_nor_transformers_nor_mlflow():
    heavy = ("scipy", "transformers", "mlflow", "ray", "pandas", "torchmetrics.functional")
    code = f"import pipeline.train, sys; print([m for m in {heavy} if m in sys.modules])"
    assert told_by(code) == "[]"


def test_who_asks_for_a_metric_gets_torchmetrics_own_and_lightning_knows_it():
    code = """
import pipeline, torchmetrics
from pytorch_lightning.core.module import Metric
assert "scipy" not in __import__("sys").modules
from torchmetrics import MeanMetric, functional
from torchmetrics.image import PeakSignalNoiseRatio
assert torchmetrics.Metric is Metric and issubclass(MeanMetric, Metric)
assert functional.accuracy and torchmetrics.MeanMetric is MeanMetric
print(torchmetrics.__version__)
"""
    from importlib.metadata import version

    assert told_by(code) == version("torchmetrics")
