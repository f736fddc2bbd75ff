"""MLflow's form of a model: its files, what goes in and comes out, and an example."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import full_disk_named
from pipeline.recording.store import quiet


def network_signature(image: str) -> Any:  # noqa: ANN401 (mlflow's own types)
    """Pictures in base64 to pictures in base64, with their sizes."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    numbers = [ColSpec("long", name) for name in ("width", "height", "scale")]
    return ModelSignature(_pictures(image), Schema([ColSpec("string", image), *numbers]))


def detector_signature(image: str, min_score: float) -> Any:  # noqa: ANN401
    """Pictures in base64 to detections."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    found = Object(
        [
            Property("box", Array("double")),
            Property("score", "double"),
            Property("category_id", "long"),
            Property("category", "string"),
        ]
    )
    numbers = [ColSpec("long", name) for name in ("width", "height")]
    answers = Schema([ColSpec(Array(found), "detections"), *numbers])
    least = ParamSchema([ParamSpec("min_score", "double", min_score)])
    return ModelSignature(_pictures(image), answers, least)


def _pictures(image: str) -> Any:  # noqa: ANN401
    from mlflow.types import ColSpec, Schema

    return Schema([ColSpec("string", image)])


def save_model(
    out: Path,
    data: Path,
    *,
    signature: Any,  # noqa: ANN401
    example: Mapping[str, Sequence[str]],
    loader: str,
    code: Sequence[Path],
    requirements: Sequence[str],
) -> None:
    """Writes an MLflow model.

    Args:
        out: folder to make.
        data: folder that the loader reads.
        signature: of what goes in and comes out.
        example: of what goes in.
        loader: module with ``_load_pyfunc``.
        code: packages that it needs.
        requirements: pinned distributions that they need.

    Raises:
        NoSpaceError: the disk is full.
    """
    quiet()
    import mlflow.pyfunc
    import pandas
    from mlflow.exceptions import MlflowException

    with warnings.catch_warnings(), full_disk_named(out, hidden_in=(MlflowException,)):
        warnings.simplefilter("ignore")  # advice on type hints and pickles, of which there are none
        mlflow.pyfunc.save_model(
            out,
            loader_module=loader,
            data_path=str(data),
            code_paths=[str(path) for path in code],
            signature=signature,
            input_example=pandas.DataFrame(example),
            pip_requirements=list(requirements),
        )


def scoring_app(folder: Path) -> Any:  # noqa: ANN401
    """The web application, by the ASGI protocol, that `mlflow models serve` runs for a model."""
    quiet()
    import mlflow.pyfunc
    from mlflow.pyfunc import scoring_server

    return scoring_server.init(mlflow.pyfunc.load_model(str(folder)))
