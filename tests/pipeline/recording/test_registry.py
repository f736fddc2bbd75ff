import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from pipeline import tracking
from pipeline.packing import pack_network
from pipeline.recording.registry import check_name
from pipeline.registered import network_of, short_name
from pipeline.tracking import Card, start
from pipeline.upscalers import open_upscaler
from sr_module import build
from sr_module.checkpoint import load_net, save_net


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("packed")
    save_net(build("msrresnet", 4, features=8, blocks=1), folder / "net.safetensors", provenance={})
    pack_network(folder / "net.safetensors", folder / "network")
    return folder / "network"


def give(packed: Path, name: str, value: float, *, data: str = "a", scale: int = 4) -> str:
    card = Card(
        "network", "network", scale, register=name, metric="val/psnr_y", value=value, data=data,
        description="what it is",
    )  # fmt: skip
    with start("tests registry", "one") as run:
        run.model(packed, card)
    return run.run_id


def champion(store: str, name: str) -> str:
    return str(MlflowClient(store).get_model_version_by_alias(name, "champion").version)


def test_a_runs_network_is_its_model_and_a_version_in_the_registry(packed, store):
    run_id = give(packed, "srdet-one", 30.0)
    client = MlflowClient(store)
    (version,) = client.search_model_versions("name = 'srdet-one'")
    assert (version.run_id, version.description) == (run_id, "what it is")
    assert version.tags["val/psnr_y"] == "30"
    (output,) = client.get_run(run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, model.model_type, str(model.status)) == ("network", "network", "READY")


def test_a_store_that_is_not_the_processs_own_takes_a_registered_model(
    packed, tmp_path, monkeypatch
):
    """As the demo's, in the demo's folder; MLflow by itself would ask the process's own store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path / 'elsewhere' / 'mlflow.db'}"
    card = Card("network", "network", 4, register="srdet-elsewhere")
    with start("tests registry", "elsewhere", uri=uri) as run:
        run.model(packed, card)
    assert champion(uri, "srdet-elsewhere") == "1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = network_of("models:/srdet-elsewhere@champion")
    assert found.read_bytes() == (packed / "data" / "srdet" / "net.safetensors").read_bytes()
    assert not (tmp_path / "mlflow.db").exists()


def test_every_command_that_takes_a_network_takes_a_registered_one(packed, store):
    give(packed, "srdet-door", 30.0)
    trained = load_net(packed / "data" / "srdet" / "net.safetensors")
    lr = torch.rand(1, 3, 8, 8)
    for name in ("srdet-door@champion", "srdet-door/1", "srdet-door/latest"):
        upscaler = open_upscaler(f"models:/{name}", device="cpu")
        assert upscaler.name == "srdet-door-v1"
        torch.testing.assert_close(upscaler(lr), trained(lr).clamp(0, 1).detach())


def test_the_better_one_on_the_same_pictures_is_the_champion(packed, store, caplog):
    give(packed, "srdet-best", 30.0)
    give(packed, "srdet-best", 29.0)
    assert champion(store, "srdet-best") == "1"
    assert "stays with version 1: its val/psnr_y is 30, the new one's 29" in caplog.text
    give(packed, "srdet-best", 31.0)
    assert champion(store, "srdet-best") == "3"
    give(packed, "srdet-best", 40.0, data="other pictures")
    assert champion(store, "srdet-best") == "3"
    tracking.main(["promote", "--model", "srdet-best", "--version", "4"])
    assert champion(store, "srdet-best") == "4"
    with pytest.raises(ValueError, match="refuses version 9 of 'srdet-best'"):
        tracking.main(["promote", "--model", "srdet-best", "--version", "9"])


def test_a_name_that_holds_something_else_is_refused_before_and_after_the_work(
    packed, store, caplog
):
    give(packed, "srdet-taken", 30.0)
    check_name(store, "srdet-taken", kind="network", scale=4)
    check_name(store, "srdet-free", kind="network", scale=4)
    with pytest.raises(ValueError, match="holds networks x4, not super-resolution x2"):
        check_name(store, "srdet-taken", kind="network", scale=2)
    give(packed, "srdet-taken", 30.0, scale=2)
    assert "not recorded: the registered model 'srdet-taken' holds networks x4" in caplog.text
    assert len(MlflowClient(store).search_model_versions("name = 'srdet-taken'")) == 1
    MlflowClient(store).create_registered_model("somebody-elses")
    with pytest.raises(ValueError, match="holds models of another program"):
        check_name(store, "somebody-elses", kind="network", scale=4)
    with pytest.raises(ValueError, match="cannot name a registered model"):
        check_name(store, "models:/x@y", kind="network", scale=4)


@pytest.mark.parametrize("name", ["nothing@champion", "nothing/1", "nothing/latest", "m-0"])
def test_a_registered_model_that_is_not_there_is_said(store, name):
    with pytest.raises(ValueError, match=r"nothing|m-0"):
        network_of(f"models:/{name}")


def test_a_version_is_fetched_once(packed, store, tmp_path):
    give(packed, "srdet-cached", 30.0)
    place = network_of("models:/srdet-cached@champion")
    assert place.is_relative_to(tmp_path / "cache")
    place.write_bytes(b"still here")
    assert network_of("models:/srdet-cached/1").read_bytes() == b"still here"


def test_the_name_of_an_arm_has_no_signs_that_metrics_cannot_have():
    assert short_name("models:/srdet-esrgan@champion") == "srdet-esrgan-champion"
    assert short_name("models:/srdet-esrgan/3") == "srdet-esrgan-3"


def test_what_a_packed_network_says_of_itself_is_mlflows_own(packed):
    import mlflow.models

    info = mlflow.models.get_model_info(str(packed))
    assert [column.name for column in info.signature.inputs] == ["image"]
    example = json.loads((packed / "input_example.json").read_text())
    assert example["columns"] == ["image"]
