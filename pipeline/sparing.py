"""Lightning without the metrics that nobody asks for: most of the time until a first step.

``import pytorch_lightning`` takes two classes from torchmetrics, whose ``__init__`` imports every
metric that it has, and with them scipy, torchvision's models and transformers.
"""

import logging
import sys
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from types import ModuleType

NEEDED = {"Metric": "torchmetrics.metric", "MetricCollection": "torchmetrics.collections"}


def spare_torchmetrics() -> None:
    """Runs torchmetrics' own ``__init__`` when one of its metrics is asked for, and not before.

    Until then ``torchmetrics`` has the names that Lightning takes from it. Nothing is replaced:
    classes are the package's own, and everything else of it is there for who asks.
    """
    spec = None if "torchmetrics" in sys.modules else find_spec("torchmetrics")
    if spec is None:
        return
    package = module_from_spec(spec)
    package.__dict__.update(
        __version__=version("torchmetrics"),
        _logger=logging.getLogger("torchmetrics"),  # which its own modules take from it
        __getattr__=partial(_asked_for, package, spec),
    )
    sys.modules["torchmetrics"] = package


def _asked_for(package: ModuleType, spec: ModuleSpec, name: str) -> object:
    if name in NEEDED:
        import_module("torchmetrics.utilities")  # imports metric itself, and must come first
        return getattr(import_module(NEEDED[name]), name)
    if name.startswith("__"):  # a question about the module, such as copy's, not for a metric
        raise AttributeError(f"module 'torchmetrics' has no attribute '{name}'")
    assert spec.loader is not None
    del package.__dict__["__getattr__"]
    spec.loader.exec_module(package)
    return getattr(package, name)
