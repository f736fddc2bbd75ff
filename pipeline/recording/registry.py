"""MLflow's registry of models: what is put there, by which name, and who is champion."""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.recording.journal import Head
from pipeline.recording.store import RefusedError, client, explained

logger = logging.getLogger(__name__)

CHAMPION = "champion"
"""The alias of the version that people should use."""
KIND, SCALE, STEP = "srdet.kind", "srdet.scale", "srdet.step"
SCORE = "srdet.score"
"""Tag of a version: by which metric, on which pictures, it is how good."""


@dataclass(frozen=True)
class Card:
    """What is said of a model.

    Attributes:
        name: of the model in its run.
        kind: "network" or "detector".
        scale: enlargement.
        step: of the training at which it was made.
        register: the registered model that it becomes a version of; empty registers nothing.
        metric: by which versions are compared; more is better.
        value: of the metric.
        data: digest of the pictures that it was measured on: only equal ones compare.
        tags: more of it.
        description: Markdown.
    """

    name: str
    kind: str
    scale: int
    step: int = 0
    register: str = ""
    metric: str = ""
    value: float = 0.0
    data: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    @property
    def score(self) -> dict[str, Any]:
        """What decides between two versions."""
        return {"metric": self.metric, "value": self.value, "data": self.data}


def pass_model_on(store: Any, head: Head, folder: Path, told: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Stores a packed model as one of the run's, and registers it where that was asked for.

    Args:
        store: MLflow's client.
        head: of the run.
        folder: an MLflow model.
        told: a ``Card`` as a dictionary.
    """
    from mlflow.entities import LoggedModelOutput

    card = Card(**told)
    tags = {KIND: card.kind, SCALE: str(card.scale), STEP: str(card.step), **card.tags}
    if card.metric:
        tags |= {card.metric: f"{card.value:.6g}", SCORE: json.dumps(card.score)}
    known = _already(store, head, card)
    model_id = known or store.create_logged_model(
        head.experiment_id, card.name, head.run_id, tags=tags, model_type=card.kind
    ).model_id  # fmt: skip
    if not known:
        store.log_model_artifacts(model_id, str(folder))
        store.finalize_logged_model(model_id, "READY")
        store.log_outputs(head.run_id, [LoggedModelOutput(model_id, card.step)])
    if card.register:
        _register(store, head, card, model_id, tags)


def _already(store: Any, head: Head, card: Card) -> str | None:  # noqa: ANN401
    """The model, where a sending before this one ended between storing and registering it."""
    query = f"name = '{card.name}' AND source_run_id = '{head.run_id}'"
    found = store.search_logged_models([head.experiment_id], filter_string=query)
    ready = [m for m in found if m.status == "READY" and m.tags.get(STEP) == str(card.step)]
    return ready[0].model_id if ready else None


def _register(
    store: Any,  # noqa: ANN401
    head: Head,
    card: Card,
    model_id: str,
    tags: dict[str, str],
) -> None:
    told = {KIND: card.kind, SCALE: str(card.scale)}
    if _known(store, card.register) is None:
        store.create_registered_model(card.register, tags=told, description=_purpose(card))
    refuse_clash(store, card.register, kind=card.kind, scale=card.scale)
    if any(
        v.model_id == model_id for v in store.search_model_versions(f"name = '{card.register}'")
    ):
        return  # a finished run that is started again makes the same model
    # By its place: an address models:/ID is looked up in the process's own store, not in this one.
    place = store.get_logged_model(model_id).artifact_location
    version = store.create_model_version(
        card.register, place, head.run_id,
        tags=tags, description=card.description, model_id=model_id,
    ).version  # fmt: skip
    champion = _champion(store, card.register)
    why = _stays(champion, card)
    if champion is None or not why:
        store.set_registered_model_alias(card.register, CHAMPION, version)
        return
    logger.warning(
        "%s version %s is registered; @%s stays with version %s: %s. Change it with `srdet "
        "tracking promote --model %s --version %s`",
        card.register, version, CHAMPION, champion.version, why, card.register, version,
    )  # fmt: skip


def _purpose(card: Card) -> str:
    what = {"network": "Super-resolution", "detector": "A detector behind super-resolution"}
    return (
        f"{what[card.kind]}, x{card.scale}. Use: `models:/{card.register}@{CHAMPION}`, as in "
        f"`srdet serve --model models:/{card.register}@{CHAMPION}`."
    )


def _known(store: Any, name: str) -> Any:  # noqa: ANN401
    from mlflow.exceptions import MlflowException

    try:
        return store.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def refuse_clash(store: Any, name: str, *, kind: str, scale: int) -> None:  # noqa: ANN401
    """Raises RefusedError where ``name`` is taken by models of another kind."""
    found = _known(store, name)
    if found is None:
        return
    what = {"network": f"super-resolution x{scale}", "detector": f"detectors behind x{scale}"}
    told = found.tags
    if told.get(KIND) == kind and told.get(SCALE) == str(scale):
        return
    holds = (
        f"{told[KIND]}s x{told.get(SCALE, '?')}" if KIND in told else "models of another program"
    )
    raise RefusedError(
        f"the registered model '{name}' holds {holds}, not {what[kind]}; choose another name to "
        "register under"
    )


def check_name(uri: str, name: str, *, kind: str, scale: int) -> None:
    """Looks before the work whether its model can be registered under ``name``.

    Raises:
        RefusedError: it cannot: the name is taken by models of another kind, or is none.
        AwayError: the store does not answer.
    """
    if not name or set(name) & set("/:@"):
        raise RefusedError(
            f"'{name}' cannot name a registered model: no '/', ':' or '@'; such as srdet-esrgan"
        )
    with explained(uri, f"a look at registered model '{name}'"):
        refuse_clash(client(uri), name, kind=kind, scale=scale)


def _champion(store: Any, name: str) -> Any:  # noqa: ANN401
    from mlflow.exceptions import MlflowException

    try:
        return store.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:  # which of its codes means "no such alias" differs between stores
        return None


def _stays(champion: Any, card: Card) -> str:  # noqa: ANN401
    """Why the champion stays one; empty if it does not."""
    if champion is None:
        return ""
    before = json.loads(champion.tags.get(SCORE, "{}"))
    if before.get("metric") != card.metric or before.get("data") != card.data:
        return "the two were measured on different pictures or by different metrics"
    if card.value <= before["value"]:
        return f"its {card.metric} is {before['value']:.4g}, the new one's {card.value:.4g}"
    return ""


def as_entry(card: Card) -> dict[str, Any]:
    """A card for the journal."""
    return asdict(card)


def promote(uri: str, name: str, version: str) -> None:
    """Makes a version the champion.

    Raises:
        RefusedError: there is no such version.
        AwayError: the store does not answer.
    """
    with explained(uri, f"version {version} of '{name}' as champion"):
        client(uri).set_registered_model_alias(name, CHAMPION, version)


def fetch(uri: str, model: str, file: str, cache: Path) -> Path:
    """A file of a registered model, or of a run's, here.

    Args:
        uri: of the store.
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/ID``.
        file: its path within the model; empty for the model's whole folder.
        cache: folder of files fetched before.

    Returns:
        Its place, named after model and version.

    Raises:
        RefusedError: there is no such model, alias, version or file.
        AwayError: the store does not answer.
    """
    with explained(uri, model):
        store = client(uri)
        source, name = _source(store, model.removeprefix("models:/").strip("/"))
        place = cache / f"{name}{Path(file).suffix}"
        if not place.exists():
            _download(store, source, file, place)
    return place


def _source(store: Any, words: str) -> tuple[str, str]:  # noqa: ANN401
    """Where a model's artifacts are, and what to call it."""
    name, at, alias = words.partition("@")
    if at:
        version = store.get_model_version_by_alias(name, alias)
    elif "/" in words:
        name, _, number = words.rpartition("/")
        if number == "latest":
            found = store.search_model_versions(f"name = '{name}'")
            if not found:
                raise RefusedError(f"there is no registered model '{name}'")
            version = max(found, key=lambda each: int(each.version))
        else:
            version = store.get_model_version(name, number)
    else:
        logged = store.get_logged_model(words)
        return logged.artifact_location, f"{logged.name}-{words}"
    uri = store.get_model_version_download_uri(version.name, version.version)
    return uri, f"{version.name}-v{version.version}"


def _download(store: Any, source: str, file: str, place: Path) -> None:  # noqa: ANN401
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if source.startswith("models:/"):
        source = store.get_logged_model(source.removeprefix("models:/")).artifact_location
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        repository = get_artifact_repository(source, tracking_uri=store.tracking_uri)
        whole = Path(folder) / "whole"
        whole.mkdir()
        Path(repository.download_artifacts(file, dst_path=str(whole))).replace(place)
