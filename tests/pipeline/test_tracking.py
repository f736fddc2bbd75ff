import json
import multiprocessing
import os
import shlex
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import matplotlib.figure
import pytest
import torch
from mlflow import MlflowClient

from pipeline import tracking
from pipeline.recording import store as recording_store
from pipeline.recording.run import MAX_PARAM
from pipeline.tracking import Run, flatten, start, start_in


@pytest.fixture
def client(store: str) -> MlflowClient:
    return MlflowClient(store)


def files(client: MlflowClient, run: Run, folder: str | None = None) -> list[str]:
    return [item.path for item in client.list_artifacts(run.run_id, folder)]


def test_a_run_holds_all_that_was_sent_to_it(client, tmp_path):
    network = tmp_path / "net.bin"
    network.write_bytes(b"weights")
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([0, 1])
    with start("tests tracking", "one", tags={"shards": "s"}, description="what it is") as run:
        run.params({"model": {"arch": "edsr", "args": {"blocks": 2}}, "seed": 0})
        for step, value in ((0, 1.0), (5, 3.0)):
            run.metrics({"val/psnr_y": value, "train/loss": -value}, step=step)
        run.picture("strip", torch.rand(3, 8, 16), step=5)
        run.figure(figure, "plots/curve.png")
        run.table([{"name": "a", "psnr": 1.5}, {"name": "b", "psnr": None}], "scores.json")
        run.artifact(network, folder="model")
        run.text("a: 1\n", "config.yaml")
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "one"
    assert stored.data.params == {"model.arch": "edsr", "model.args.blocks": "2", "seed": "0"}
    assert run.history("val/psnr_y") == [(0, 1.0), (5, 3.0)]
    assert files(client, run, "images")
    assert files(client, run, "model") == ["model/net.bin"]
    assert {"config.yaml", "scores.json", "plots"} <= set(files(client, run))
    read = json.loads(Path(client.download_artifacts(run.run_id, "scores.json")).read_text())
    assert read["columns"] == ["name", "psnr"]
    assert stored.data.tags["mlflow.note.content"] == "what it is"
    assert stored.data.tags["shards"] == "s"


def test_every_run_says_which_code_made_it(client):
    with start("tests tracking", "origin") as run:
        pass
    tags = client.get_run(run.run_id).data.tags
    head = ["git", "rev-parse", "HEAD"]
    root = Path(tracking.__file__).parents[1]
    commit = subprocess.run(head, cwd=root, capture_output=True, text=True).stdout.strip()
    assert tags.get("git.commit", "") == commit
    assert tags["host"] == socket.gethostname()


def test_runs_nest_below_their_parent(client):
    with start("tests tracking", "parent") as parent, start("other", "x", parent=parent) as child:
        pass
    tags = client.get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert child.uri == parent.uri


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_run_that_does_not_end_well_says_so(client, error, status):
    with pytest.raises(error), start("tests tracking", "broken") as run:
        raise error
    assert client.get_run(run.run_id).info.status == status


def test_what_goes_on_in_a_folder_goes_on_in_its_run(client, tmp_path):
    def work(*, resumed: bool) -> Run:
        with start_in(
            tmp_path, "tests tracking", "work", parent=None, tags={}, resumed=resumed
        ) as run:
            run.params({"steps": 1 + resumed})
            assert client.get_run(run.run_id).info.status == "RUNNING"
        return run

    first, again, anew = work(resumed=False), work(resumed=True), work(resumed=False)
    assert again.run_id == first.run_id != anew.run_id
    assert client.get_run(again.run_id).info.status == "FINISHED"
    assert client.get_run(again.run_id).data.params == {"steps": "1"}


def test_a_noted_run_that_the_store_has_lost_is_begun_anew(client, tmp_path, caplog):
    with start_in(tmp_path, "tests tracking", "x", parent=None, tags={}, resumed=False) as run:
        pass
    note = tmp_path / "record" / "run.json"
    note.write_text(note.read_text().replace(run.run_id, "0" * 32))
    with start_in(tmp_path, "tests tracking", "x", parent=None, tags={}, resumed=True) as found:
        pass
    assert found.run_id != "0" * 32
    assert "starting a new one" in caplog.text


def test_the_default_store_is_the_environments_or_a_file_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.default_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking.default_uri(tmp_path / "x") == f"sqlite:///{tmp_path}/x/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking.default_uri() == "http://server:5000"


def test_settings_become_dotted_parameters_without_passwords_and_not_too_long():
    flat = flatten({"a": {"b": [1, 2], "c": None}, "d": "x" * 9000, "e": "https://u:p@h/s"})
    assert flat["a.b"] == "[1, 2]"
    assert flat["a.c"] == "None"
    assert len(flat["d"]) == MAX_PARAM
    assert flat["e"] == "https://h/s"


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:secret@host:5000/path",
        "http://user:se@cret@host",
        "postgresql://user:secret@host/db",
        "postgresql://host/db?user=me&password=secret",
    ],
)
def test_no_password_is_ever_shown(uri):
    for shown in (tracking.public_uri(uri), tracking.open_command(uri), repr(Run(uri, "1", "2"))):
        assert "cret" not in shown
        assert "user" not in shown
    assert "host" in tracking.public_uri(uri)


def test_the_command_that_shows_a_file_store_can_be_pasted():
    assert tracking.open_command("sqlite:////a b/mlflow.db") == (
        f"{shlex.quote(sys.executable)} -m mlflow ui "
        "--backend-store-uri 'sqlite:////a b/mlflow.db' --port 5000"
    )
    assert tracking.open_command("https://u:p@h:1/x") == "open https://h:1/x in a browser"


def test_a_run_may_begin_before_its_store_is_ready_and_is_whole_all_the_same(client, tmp_path):
    begin = partial(start_in, tmp_path, "tests beside", "one", parent=None, tags={"a": "b"})
    with begin(resumed=False, at_once=False) as run:
        assert run.run_id.startswith("offline-")
        run.metrics({"loss": 0.5}, step=1)
        known = run.stored_id
        assert client.get_run(known).info.status == "RUNNING"
    assert run.run_id == known
    stored = client.get_run(known)
    assert (stored.info.status, stored.data.tags["a"]) == ("FINISHED", "b")
    assert run.experiment_id == stored.info.experiment_id
    with begin(resumed=True, at_once=False) as again:
        assert again.run_id == known
        again.metrics({"loss": 0.25}, step=2)
    assert again.history("loss") == [(1, 0.5), (2, 0.25)]


def test_a_store_that_refuses_such_a_run_ends_it_with_what_it_says(client, tmp_path):
    made = client.create_experiment("tests deleted beside")
    client.delete_experiment(made)
    work = {"parent": None, "tags": {}, "resumed": False, "at_once": False}
    with start_in(tmp_path, "tests deleted beside", "one", **work) as run:
        run.metrics({"loss": 0.5}, step=1)
        assert run.stored_id.startswith("offline-")
        with pytest.raises(ValueError, match=r"'tests deleted beside' in .* was deleted"):
            run.metrics({"loss": 0.5}, step=2)
    assert not list(tmp_path.iterdir())


def test_no_process_is_forked_while_a_thread_imports_mlflow():
    importing, forking = threading.Event(), threading.Event()
    order: list[str] = []

    def import_mlflow() -> None:
        with recording_store._importing:
            importing.set()
            forking.wait(30)
            order.append("imported")

    thread = threading.Thread(target=import_mlflow)
    thread.start()
    importing.wait(30)
    # Called when a fork begins, before the lock of the store, which was registered earlier.
    os.register_at_fork(before=forking.set)
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    order.append("forked")
    child.join()
    thread.join()
    assert order == ["imported", "forked"]


@pytest.mark.slow
def test_a_server_takes_everything_and_a_resumed_run_goes_on_there(
    tmp_path, serving, monkeypatch, capfd, caplog
):
    work = tmp_path / "work"
    with serving(tmp_path) as served:
        uri = served.address.replace("//", "//someone:secret@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with start_in(work, "served", "one", parent=None, tags={}, resumed=False) as run:
            run.metrics({"loss": 0.5}, step=3)
            run.picture("strip", torch.rand(3, 8, 8), step=3)
            run.text("x", "note.txt")
        with start_in(work, "served", "one", parent=None, tags={}, resumed=True) as again:
            assert again.run_id == run.run_id
            assert again.uri == uri  # the password came from the environment
        client = MlflowClient(uri)
        assert client.get_run(run.run_id).info.status == "FINISHED"
        assert run.history("loss") == [(3, 0.5)]
        assert "note.txt" in files(client, run)
        assert files(client, run, "images")
    captured = capfd.readouterr()
    assert "secret" not in captured.out + captured.err + caplog.text
    for path in work.rglob("*.json*"):
        assert "secret" not in path.read_text(), path


def test_runs_that_were_ended_from_outside_are_closed_with_their_parent(client, store):
    with start("sweep", "parent", uri=store) as parent, start("sweep", "other", uri=store) as other:
        kwargs = {"tags": {"mlflow.parentRunId": parent.run_id}}
        left = client.create_run(parent.experiment_id, **kwargs).info.run_id
        with start("sweep", "done", parent=parent) as done:
            pass
        assert tracking.close_children(parent) == 1
        assert client.get_run(left).info.status == "KILLED"
        assert client.get_run(done.run_id).info.status == "FINISHED"
        assert client.get_run(other.run_id).info.status == "RUNNING"
