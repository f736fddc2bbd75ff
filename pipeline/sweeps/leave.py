"""What a sweep leaves for use: networks, recipes, marks on the trials in MLflow."""

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.addresses import answers
from pipeline.files import atomic_file
from pipeline.packing import pack_network
from pipeline.sweeps.outcome import Ended, Standing
from pipeline.sweeps.trial import Plan
from pipeline.sweeps.words import recipe
from pipeline.tracking import Card, Run
from sr_module.checkpoint import load_net, read_provenance

logger = logging.getLogger(__name__)


def leave_networks(
    standing: Standing, run: Run, *, train: Sequence[Path], fixed: Mapping[str, Any], plan: Plan
) -> None:
    """The best trial's network and recipe; of several objectives, those of the whole Pareto set."""
    _leave(standing.best, plan.out, "net", "best", train=train, fixed=fixed, plan=plan)
    for path in (plan.out / "net.safetensors", plan.out / "best.yaml"):
        run.artifact(path, folder="best")
    if len(plan.objective) > 1:
        for each in standing.front:
            _leave(
                each, plan.out / "pareto", each.name, each.name, train=train, fixed=fixed, plan=plan
            )


def _leave(
    trial: Ended,
    folder: Path,
    net: str,
    config: str,
    *,
    train: Sequence[Path],
    fixed: Mapping[str, Any],
    plan: Plan,
) -> None:
    assert trial.net is not None
    with atomic_file(folder / f"{net}.safetensors") as temporary:
        shutil.copyfile(trial.net, temporary)
    path = folder / f"{config}.yaml"
    text = recipe_text(trial, path, train=train, fixed=fixed, plan=plan)
    with atomic_file(path) as temporary:
        temporary.write_text(text)


def recipe_text(
    trial: Ended, path: Path, *, train: Sequence[Path], fixed: Mapping[str, Any], plan: Plan
) -> str:
    """A trial's settings as the file ``path`` for ``srdet train --config``, headed as a recipe."""
    scores = ", ".join(f"{metric} {trial.metrics[metric]:.5g}" for metric in plan.objective)
    found = ", ".join(f"{plan.labels[key]} {value}" for key, value in trial.point.items())
    files = ", ".join(each.name for each in train)
    head = [
        f"# {trial.name} of the sweep {plan.out.name}: {found}.",
        "#",
        f"# Command    srdet train --config {path} --data.shards SHARDS",
        f"# Expected   {scores} after {trial.validations} validations",
        f"# Source     {files}, and what the sweep found",
    ]
    out = f"runs/{plan.out.name}-{path.stem}"
    settings = recipe(train, {**fixed, **trial.point, "run.out": out})
    return "\n".join([*head, yaml.safe_dump(settings, sort_keys=False)])


def register_best(standing: Standing, run: Run, name: str | None, plan: Plan) -> None:
    """The best network as a model of the sweep's run, registered where a name is given."""
    net, best = plan.out / "net.safetensors", standing.best
    metric, mode = next(iter(plan.objective.items()))
    provenance: Any = read_provenance(net)
    loaded = load_net(net)
    card = Card(
        name="network", kind="network", scale=loaded.scale, step=provenance["steps"],
        register=name or "", tags={"arch": loaded.arch, "sweep.trial": best.name},
        description=f"The best of the sweep {plan.out.name}: {best.name}",
        data=provenance["data"]["digest"][:16],
        # versions are compared by a metric of which more is better
        metric=metric if mode == "max" else "",
        value=best.metrics[metric] if mode == "max" else 0.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=plan.out) as folder:
        packed = Path(folder) / "network"
        pack_network(net, packed)
        run.model(packed, card)


def trial_runs(run: Run) -> dict[str, str]:
    """Name of a trial -> id of its run; none where the store does not answer."""
    if not answers(run.uri):
        logger.warning("MLflow does not answer: the trials' runs are not marked with their ranks")
        return {}
    below = f"tags.`mlflow.parentRunId` = '{run.stored_id}'"
    return {
        child.info.run_name.partition(":")[0]: child.info.run_id
        for child in run.client.search_runs([run.experiment_id], below)
    }


def mark_trials(standing: Standing, run: Run, runs: Mapping[str, str]) -> None:
    """Rank, state and, of the best, the word best, as tags of the trials' runs."""
    for rank, each in enumerate(standing.trials, start=1):
        if each.name in runs:
            for key, value in _marks(each, rank, standing).items():
                run.client.set_tag(runs[each.name], key, value)


def _marks(trial: Ended, rank: int, standing: Standing) -> dict[str, str]:
    marks = {"sweep.rank": str(rank), "sweep.state": trial.state}
    if trial in standing.front:
        marks["sweep.pareto"] = "true"
    if trial is standing.best:
        marks["sweep.best"] = "true"
    if trial.error:
        marks["sweep.error"] = trial.error[:500]
    return marks
