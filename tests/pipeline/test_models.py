import json
import shutil
from pathlib import Path

import pytest
import yaml

import sr_module.catalogue
from pipeline.cli import main
from pipeline.models import models, ship, without_places
from sr_module.archs import build
from sr_module.catalogue import trained
from sr_module.checkpoint import load_net, read_provenance, save_net

CONFIG = {
    "seed_everything": 3,
    "trainer": {
        "max_steps": 5,
        "precision": None,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": None,
        "devices": 1,
    },
    "model": {"init_args": {"init_from": "/data/runs/first/net.safetensors"}},
    "data": {"shards": "/data/shards", "batch_size": 16},
    "run": {"out": "/data/runs/mine"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's network, its settings beside it."""
    folder = tmp_path / "runs" / "mine"
    told = {
        "steps": 5,
        "data": {"source": "ten photographs", "digest": "abc"},
        "metrics": {"val/psnr_y": 30.0, "train/loss": 0.1},
        "mlflow_run": "8320412d",
    }
    net = build("msrresnet", 2, features=4, blocks=1)
    save_net(net, folder / "net.safetensors", provenance=told)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder / "net.safetensors"


def table(path: Path, model: str, *, precision: str | None = "bf16", **mean: float) -> Path:
    """What `srdet evaluate --json` writes, as far as it counts here."""
    sets = [{"data_set": "Set5", "mean": mean}]
    rows = [{"model": "bicubic", "sets": []}]
    rows += [{"model": model, "sets": sets, "precision": precision}]
    path.write_text(json.dumps({"protocols": dict.fromkeys(mean, "by Y"), "models": rows}))
    return path


@pytest.fixture
def shipped(run, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sr_module.catalogue, "FOLDER", tmp_path / "weights")
    evaluated = [
        table(tmp_path / "a.json", "mine", psnr_y=30.5, ssim_y=0.9),
        table(tmp_path / "b.json", "tiny_x2", lpips_squeeze=0.125, niqe=6.5),
    ]
    return ship(
        run,
        "tiny_x2",
        evaluated=evaluated,
        licence="research use",
        command="srdet train --data.shards /data/shards --config conf/x.yaml",
        folder=tmp_path / "weights",
    )


def test_a_runs_network_is_shipped_with_its_scores_and_settings(shipped, run):
    told = read_provenance(shipped)
    scores = {"psnr_y": 30.5, "ssim_y": 0.9, "lpips_squeeze": 0.125, "niqe": 6.5}
    assert told["scores"] == {"Set5": scores}
    assert told["scores_protocols"]["psnr_y"] == "by Y"
    assert told["scores_precision"] == "bf16"
    assert told["metrics"] == {"val/psnr_y": 30.0}
    assert told["data_licence"] == "research use"
    assert (told["config"]["seed_everything"], told["config"]["trainer"]["max_steps"]) == (3, 5)
    assert load_net(shipped).arch_args == load_net(run).arch_args


def test_nothing_of_the_machine_is_shipped(shipped):
    told = read_provenance(shipped)
    assert told["config"]["data"] == {"shards": "shards", "batch_size": 16}
    assert told["config"]["model"]["init_args"]["init_from"] == "net.safetensors"
    assert told["command"] == "srdet train --data.shards shards --config conf/x.yaml"
    assert not {"mlflow_run"} & set(told)
    assert "/data" not in json.dumps(told)


def test_a_mixture_tells_of_the_run_that_it_was_mixed_from(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sr_module.catalogue, "FOLDER", tmp_path / "weights")
    of_gan = read_provenance(run)
    save_net(load_net(run), run, provenance={"interpolated": {"alpha": 0.6, "gan": of_gan}})
    table_file = table(tmp_path / "a.json", "mine", psnr_y=30.5, ssim_y=0.9)
    path = ship(
        run,
        "mix_x2",
        evaluated=[table_file],
        licence="research use",
        command="srdet interpolate",
        folder=tmp_path / "weights",
    )
    gan = read_provenance(path)["interpolated"]["gan"]
    assert "mlflow_run" not in gan
    assert gan["metrics"] == {"val/psnr_y": 30.0}
    models()
    assert "alpha 0.6 on the way to a GAN of 5 steps on ten photographs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/tmp/x/net.pt", "net.pt"),
        ("~/runs/x/", "x"),
        ("C:\\runs\\net.pt", "net.pt"),
        ("file:///srv/mlruns/1", "1"),
        ("sqlite:////srv/mlflow.db", "mlflow.db"),
        ("--a=/srv/a --b '/srv/b c'", "--a=a --b 'b c'"),
        ("Y of BT.601, 16-235, val/psnr and/or GPU / CPU", None),
        ("conf/experiment/x.yaml https://host/data s3://bucket/x ../x", None),
    ],
)
def test_absolute_paths_lose_their_folders_and_other_words_nothing(before, after):
    assert without_places({"a": [before, 1]}) == {"a": [after or before, 1]}


def test_the_list_shows_every_network_with_its_scores(shipped, capsys):
    (net,) = models()
    shown = capsys.readouterr().out
    assert (net.name, net.scales, net.arch) == ("tiny_x2", [2], "msrresnet")
    assert "30.50 / 0.9000" in shown
    assert "LPIPS 0.125" in shown
    assert "NIQE 6.50" in shown
    assert max(map(len, shown.splitlines()[:9])) <= 80
    assert "tiny_x2: 5 steps on ten photographs; scored in bf16" in shown
    assert f"{net.parameters:,}" in shown
    assert "protocol by Y" in shown


def test_as_json_the_list_tells_all_that_the_files_tell(shipped, capsys):
    assert main(["models", "--json", "true"]) == 0
    (net,) = json.loads(capsys.readouterr().out)
    assert net["provenance"] == read_provenance(shipped)
    assert net["scores"]["Set5"]["psnr_y"] == 30.5
    assert net["file"] == "tiny_x2.safetensors"


def test_an_installation_without_networks_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sr_module.catalogue, "FOLDER", tmp_path)
    assert trained() == {}
    assert models() == []
    assert "no trained networks" in capsys.readouterr().out


def test_the_networks_that_really_ship_are_listed(capsys):
    listed, shown = models(), capsys.readouterr().out
    assert [net.name for net in listed] == list(trained())
    for net in listed:
        assert net.name in shown
        for metric in (key for scores in net.scores.values() for key in scores):
            assert metric.split("_")[0].upper() in shown  # besides the protocols, shown as well
            assert metric in net.provenance["scores_protocols"]


def test_what_cannot_be_shipped_is_refused(run, tmp_path):
    def shipping(name: str = "tiny_x2", *, model: str = "mine", net: Path = run) -> Path:
        evaluated = [table(tmp_path / "c.json", model, psnr_y=1)]
        return ship(net, name, evaluated=evaluated, licence="", command="", folder=tmp_path)

    with pytest.raises(ValueError, match="'Tiny x2': small letters, digits and _ only"):
        shipping("Tiny x2")
    with pytest.raises(ValueError, match="no row 'tiny_x2' or 'mine', only bicubic, theirs"):
        shipping(model="theirs")
    for precisions in (["bf16", "fp32"], [None]):
        tables = [
            table(tmp_path / f"{precision}.json", "mine", precision=precision, psnr_y=1)
            for precision in precisions
        ]
        with pytest.raises(ValueError, match=r"were made in .*; one known precision is needed"):
            ship(run, "tiny_x2", evaluated=tables, licence="", command="", folder=tmp_path)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run, alone)
    with pytest.raises(FileNotFoundError, match=r"no .*config\.yaml"):
        shipping(net=alone)
