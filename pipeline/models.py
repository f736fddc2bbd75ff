"""``srdet models``: the trained networks that come with the package, and how one is added to them.

srdet models
srdet models --json true
python -m pipeline.models --net runs/espcn/net.safetensors --name espcn_x4 --evaluated scores.json \
    --licence "photographs: research use" --command "srdet train --config ..."      (adds one)

Everything that is listed stands in the header of the network's own file; ``ship`` puts it there.
"""

import json as jsons
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from pipeline.files import json_text
from pipeline.options import run_function
from sr_module.catalogue import FOLDER, SUFFIX, trained
from sr_module.checkpoint import load_net, read_provenance, save_net

Json = Any
"""What a JSON file may hold."""


_CONFIG = ("seed_everything", "trainer", "model", "data")
_TRAINER = ("max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val")
_PLACE = re.compile(r"(?:\b(?:file|sqlite):/+|(?<![\w.:/])(?:~?/|[A-Za-z]:[\\/]))[^\s\"',;:)]+")
"""An absolute path, or the address of one."""


@dataclass(frozen=True)
class TrainedNet:
    """A network that comes with the package."""

    name: str
    file: str
    arch: str
    arch_args: dict[str, Json]
    scales: list[int]
    parameters: int
    megabytes: float
    scores: dict[str, dict[str, float]]
    """By test set and metric, such as ``scores["Set5"]["psnr_y"]``."""
    provenance: dict[str, Json]


def main(words: list[str]) -> None:
    """The command."""
    run_function(models, words, name="models")


def models(*, json: bool = False) -> list[TrainedNet]:
    """Lists the trained networks that come with the package.

    Args:
        json: print everything that their files tell, as JSON.

    Returns:
        The networks by name.
    """
    nets = [_read(name, path) for name, path in trained().items()]
    if json:
        sys.stdout.write(json_text([asdict(net) for net in nets]) + "\n")
    else:
        _print(nets)
    return nets


def ship(
    net: Path,
    name: str,
    *,
    evaluated: list[Path],
    licence: str,
    command: str,
    notes: str = "",
    folder: Path = FOLDER,
) -> Path:
    """Adds a run's network to those that come with the package; nothing is measured here.

    Args:
        net: the run's network; settings are read from the ``config.yaml`` beside it.
        name: what people will type, such as "espcn_x4".
        evaluated: files of `srdet evaluate --json` that hold its scores.
        licence: of the pictures it was trained on.
        command: what trained it.
        notes: what else people should know.
        folder: where to.

    Returns:
        The new file, whose header has no folder of this machine in it.

    Raises:
        ValueError: a name that is no word, or a table without this network's row.
        FileNotFoundError: a file is missing.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"--name '{name}': small letters, digits and _ only, as in espcn_x4")
    told = _with_origin(_lasting(read_provenance(net)))
    told["config"] = _config_of(net.parent / "config.yaml")
    told |= {"data_licence": licence, "command": command, "notes": notes}
    told |= _scores(evaluated, (name, net.parent.resolve().name))
    path = folder / f"{name}{SUFFIX}"
    save_net(load_net(net), path, provenance=without_places(told))
    return path


def without_places(value: Json) -> Json:
    """``value`` with every absolute path in it cut to its last part."""
    if isinstance(value, Mapping):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    return _PLACE.sub(_last_part, value) if isinstance(value, str) else value


def _last_part(place: re.Match[str]) -> str:
    return re.split(r"[\\/]", place[0].rstrip("\\/"))[-1]


def _with_origin(told: dict[str, Json]) -> dict[str, Json]:
    """A mixture has the steps and data of the GAN training that it lies on the way to."""
    gan = told.get("interpolated", {}).get("gan", {})
    return {key: gan[key] for key in ("steps", "data") if key in gan} | told


def _lasting(told: Mapping[str, Json]) -> dict[str, Json]:
    """Without the run in a store that stays where it is, and the training curves' last points."""
    kept = {key: value for key, value in told.items() if key != "mlflow_run"}
    if "metrics" in kept:
        kept["metrics"] = {k: v for k, v in kept["metrics"].items() if k.startswith("val/")}
    if "interpolated" in kept:
        kept["interpolated"] = {
            key: _lasting(value) if isinstance(value, Mapping) else value
            for key, value in kept["interpolated"].items()
        }
    return kept


def _config_of(file: Path) -> dict[str, Json]:
    """What decides the weights: settings of model and data, seed, and steps."""
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; a run leaves its settings beside its network")
    config = yaml.safe_load(file.read_text())
    kept = {key: config[key] for key in _CONFIG if key in config}
    kept["trainer"] = {key: config["trainer"][key] for key in _TRAINER}
    return kept


def _scores(files: Sequence[Path], names: tuple[str, str]) -> dict[str, Json]:
    """The scores of one row in tables of ``srdet evaluate``, with protocols and precision."""
    scores: dict[str, dict[str, float]] = {}
    protocols: dict[str, str] = {}
    precisions: set[str] = set()
    for file in files:
        table = jsons.loads(file.read_text())
        row = _row(table["models"], names, file)
        for each in row["sets"]:
            known = {key: value for key, value in each["mean"].items() if value is not None}
            scores.setdefault(each["data_set"], {}).update(known)
        protocols |= table["protocols"]
        precisions.add(row.get("precision") or "unknown")
    if len(precisions) != 1 or "unknown" in precisions:
        raise ValueError(
            f"the scores of {names[0]} were made in {', '.join(sorted(precisions))}; one known "
            "precision is needed: make the tables again by srdet evaluate, with one --precision"
        )
    return {"scores": scores, "scores_protocols": protocols, "scores_precision": precisions.pop()}


def _row(rows: list[dict[str, Json]], names: tuple[str, str], file: Path) -> dict[str, Json]:
    for row in rows:
        if row["model"] in names:
            return row
    found = ", ".join(row["model"] for row in rows)
    raise ValueError(
        f"{file} has no row '{names[0]}' or '{names[1]}', only {found}; name the row in srdet "
        f"evaluate: --model {names[0]}=FILE"
    )


def _read(name: str, path: Path) -> TrainedNet:
    net, told = load_net(path), read_provenance(path)
    scores: Json = told.get("scores", {})
    return TrainedNet(
        name,
        path.name,
        net.arch,
        dict(net.arch_args),
        sorted(net.serves or (net.scale,)),
        sum(p.numel() for p in net.parameters()),
        round(path.stat().st_size / 1e6, 2),
        scores,
        told,
    )


def _print(nets: Sequence[TrainedNet]) -> None:
    console = Console()
    if not nets:
        console.print("no trained networks come with this installation")
        return
    console.print(_table(nets))
    for line in _lines(nets):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(nets: Sequence[TrainedNet]) -> Table:
    sets = sorted({name for net in nets for name in net.scores}, key=_in_order)
    table = Table("network", show_lines=True)
    table.add_column("parameters", justify="right")
    for name in sets:
        table.add_column(f"{name}\nPSNR / SSIM", justify="right")
    for net in nets:
        kind = f"{net.arch} {' '.join(f'x{scale}' for scale in net.scales)}"
        size = f"{net.parameters:,}\n{net.megabytes:.2f} MB"
        cells = [_cell(net.scores.get(name, {})) for name in sets]
        table.add_row(f"{net.name}\n{kind}", size, *cells)
    return table


def _budget(told: Mapping[str, Json]) -> str:
    mixed = told.get("interpolated")
    if mixed:
        return f"alpha {mixed['alpha']:g} on the way to a GAN of {_budget(mixed['gan'])}"
    return f"{told.get('steps', 0):,} steps on {told.get('data', {}).get('source', '?')}"


def _in_order(data_set: str) -> tuple[str, int, str]:
    """Set5 before Set14."""
    return re.sub(r"\d", "", data_set), len(data_set), data_set


def _cell(scores: Mapping[str, float]) -> str:
    if not {"psnr_y", "ssim_y"} <= set(scores):
        return "-"
    fidelity = f"{scores['psnr_y']:.2f} / {scores['ssim_y']:.4f}"
    # Which features LPIPS compares stands in its protocol, below the table.
    lpips = [f"LPIPS {scores[key]:.3f}" for key in sorted(scores) if key.startswith("lpips_")]
    niqe = [f"NIQE {scores['niqe']:.2f}"] if "niqe" in scores else []
    return "\n".join([fidelity, *lpips, *niqe])


def _lines(nets: Sequence[TrainedNet]) -> Iterator[str]:
    """What each was trained on, how it was scored, and what to do with a name."""
    yield "trained on"
    for net in nets:
        told = net.provenance
        notes = f"; {told['notes']}" if told.get("notes") else ""
        scored = f"; scored in {told['scores_precision']}" if "scores_precision" in told else ""
        yield f"  {net.name}: {_budget(told)}{scored}{notes}"
    protocols = {p for net in nets for p in net.provenance.get("scores_protocols", {}).values()}
    for protocol in sorted(protocols):
        yield f"protocol {protocol}"
    yield f"use a name wherever a model is asked for: srdet upscale --model {nets[0].name} ..."


if __name__ == "__main__":
    run_function(ship, sys.argv[1:], name="models")
