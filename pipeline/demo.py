"""``srdet demo``: the whole main job on built-in scenes, on a CPU, in minutes.

    srdet demo                      everything into srdet-demo/
    srdet demo --out /tmp/try --open_report true

Pictures become shards, a network trains in two stages (towards the mean, then against a
discriminator), a detector trains, and the study measures what each way to enlarge the windows does
to its mAP.
"""

import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipeline import tracking
from pipeline.addresses import runs_page
from pipeline.detect import StudyResult, detect
from pipeline.detector import train_detector
from pipeline.files import atomic_file
from pipeline.options import run_function
from pipeline.progress import bar, console
from pipeline.report import CurveView
from pipeline.scenes import write_scenes
from pipeline.shards import shards
from pipeline.study_settings import Statistics, Windows
from pipeline.tracking import Run
from pipeline.train import CONF, Trained, configured, fit

EXPERIMENT = "srdet demo"


def main(words: list[str]) -> None:
    """The command."""
    run_function(demo, words, name="demo")


def demo(
    *,
    out: Path = Path("srdet-demo"),
    settings: Path = CONF / "demo.yaml",
    open_report: bool = False,
) -> StudyResult:
    """Runs the whole main job on rendered scenes and says where everything is.

    Args:
        out: folder for scenes, shards, networks, detector, report and MLflow store.
        settings: sizes and recipes; conf/demo.yaml has them all.
        open_report: show the report in a browser at the end.

    Returns:
        The study.
    """
    started = time.perf_counter()
    sizes: dict[str, Any] = yaml.safe_load(settings.read_text())
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    uri = tracking.default_uri(out)
    with tracking.start(EXPERIMENT, "demo", uri=uri, description=(__doc__ or "")) as run:
        run.params(sizes)
        with _step(1, "scenes and shards"):
            _scenes(out, sizes["scenes"])
            train, study = out / "scenes" / "train", out / "scenes" / "study"
            shards(
                [train / "images"], out / "shards", coco=train / "annotations.json",
                source="rendered by srdet", overwrite=True, **sizes["shards"],
            )  # fmt: skip
        with _step(2, "super-resolution network, PSNR stage"):
            psnr = _train(out, "psnr", sizes["psnr"], parent=run)
        with _step(3, "super-resolution network, adversarial stage"):
            gan = _train(out, "gan", sizes["gan"], parent=run, init_from=psnr.net)
        with _step(4, "detector"):
            detector = train_detector(
                [train / "annotations.json"], [train / "images"], out / "detector",
                name="4 detector", experiment=EXPERIMENT, parent=run, **sizes["detector"],
            )  # fmt: skip
        with _step(5, "study"):
            result = _study(
                out, study, sizes["study"], networks={"sr": psnr.net, "sr-gan": gan.net},
                detector=detector.path, curves=_curves(psnr, gan), parent=run,
            )  # fmt: skip
        run.artifact(result.report)
        run.describe(result.verdict)
        run.metrics(
            {
                f"gain/{gain.arm}/AP": gain.difference
                for gain in result.findings.gains
                if gain.metric == "AP"
            }
        )
    _tell(result, out, run, seconds=time.perf_counter() - started)
    if open_report:
        webbrowser.open(result.report.as_uri())
    return result


@contextmanager
def _step(number: int, what: str) -> Iterator[None]:
    console.print(f"\n[bold]{number}/5 {what}[/bold]")
    started = time.perf_counter()
    yield
    console.print(f"[dim]{time.perf_counter() - started:.0f} s[/dim]")


def _scenes(out: Path, sizes: dict[str, int]) -> None:
    for number, name in enumerate(("train", "study")):
        count = sizes[name]
        with bar(f"rendering {count} scenes to {name} on", count) as advance:
            write_scenes(
                out / "scenes" / name, count=count, size=sizes["size"],
                seed=sizes["seed"] + number, overwrite=True, progress=advance,
            )  # fmt: skip


def _train(
    out: Path, name: str, config: dict[str, Any], *, parent: Run, init_from: Path | None = None
) -> Trained:
    """One training run; its config stays in the folder, ready for `srdet train --config`."""
    config["data"]["shards"] = str(out / "shards")
    config["run"]["out"] = str(out / name)
    if init_from:
        config["model"]["init_args"]["init_from"] = str(init_from)
    path = out / f"{name}.yaml"
    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False))
    (out / name / "last.ckpt").unlink(missing_ok=True)  # a demo always starts anew
    setup = configured(["--config", str(path), "--trainer.devices", "1"])
    trained = fit(setup, parent=parent)
    assert trained is not None, "the demo is one process"
    return trained


def _study(
    out: Path,
    scenes: Path,
    sizes: dict[str, Any],
    *,
    networks: dict[str, Path],
    detector: Path,
    curves: list[CurveView],
    parent: Run,
) -> StudyResult:
    arms = [f"{arm}={networks[arm]}" if arm in networks else arm for arm in sizes["arms"]]
    return detect(
        [scenes / "annotations.json"], [scenes / "images"], str(detector),
        arms=arms, out=out / "study", title="Does super-resolution help? The srdet demo",
        scale=sizes["scale"], windows=Windows(**sizes["windows"]),
        statistics=Statistics(resamples=sizes["resamples"]),
        register="srdet-demo-detector", name="5 study", experiment=EXPERIMENT, parent=parent,
        training=curves,
    )  # fmt: skip


def _curves(psnr: Trained, gan: Trained) -> list[CurveView]:
    """Validation PSNR and training loss of both stages, read back from the store."""
    return [
        CurveView(title, unit, {
            stage: run.history(metric)
            for stage, run in (("PSNR stage", psnr.run), ("adversarial stage", gan.run)) if run
        })
        for title, unit, metric in (
            ("PSNR of Y on validation pictures", "dB", "val/psnr_y"),
            ("Training loss", "", "train/loss"),
        )
    ]  # fmt: skip


def _tell(result: StudyResult, out: Path, run: Run, *, seconds: float) -> None:
    console.print(f"\nall of it took {seconds / 60:.1f} minutes and lies in {out}", highlight=False)
    console.print(f"report   {result.report}", highlight=False, soft_wrap=True)
    console.print(f"MLflow   {tracking.open_command(run.uri)}", highlight=False, soft_wrap=True)
    place = runs_page(run.uri, run.experiment_id)
    console.print(f"         and then open {place}", highlight=False, soft_wrap=True)
