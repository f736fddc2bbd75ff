import base64
import http.server
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from pipeline import tracking
from pipeline.recording import sender
from pipeline.recording.delivery import Delivery, batches
from pipeline.recording.journal import Head, Journal
from pipeline.tracking import Data, start, start_in, sync


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sender, "PAUSE_S", 1.0)


@pytest.fixture
def road(server: int, road_to: Callable, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A way to the session's server that the test may close; its address is the default one."""
    made = road_to(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{made.port}")
    yield made
    made.close()


def points(client: MlflowClient, run_id: str, metric: str) -> list[tuple[int, float]]:
    history = client.get_metric_history(run_id, metric)
    return [(point.step, point.value) for point in sorted(history, key=lambda p: p.step)]


def test_metrics_that_follow_one_another_are_sent_together_and_order_is_kept():
    def metric(step: int) -> dict[str, object]:
        return {"metrics": {"loss": 1.0}, "step": step, "time": 0}

    entries = [metric(0), metric(1), {"tags": {}}, {"params": {}}, metric(2)]
    made = [(e, i) for i, e in enumerate(entries)]
    assert [(len(group), end) for group, end in batches(made)] == [(2, 1), (1, 2), (1, 3), (1, 4)]


def test_entries_that_are_sent_twice_are_there_once(store, tmp_path):
    journal = Journal.create(tmp_path / "record", Head(store, "tests delivery", "twice"))
    for step in range(1500):
        journal.append({"metrics": {"a": float(step), "b": 0.5}, "step": step, "time": 1000 + step})
    journal.append({"params": {"x": "1"}})
    Delivery(journal, store).pass_on()
    journal._offset = 0  # as after a crash between sending and noting it
    Delivery(journal, store).pass_on()
    client, run_id = MlflowClient(store), journal.head.run_id
    assert points(client, run_id, "a") == [(step, float(step)) for step in range(1500)]
    assert client.get_run(run_id).data.params == {"x": "1"}


def test_a_run_that_was_made_but_not_noted_before_a_crash_is_found_again(store, tmp_path):
    head = Head(store, "tests delivery", "found again")
    first = Journal.create(tmp_path / "record", head)
    Delivery(first, store).open_run()
    second = Journal.create(tmp_path / "again", head)
    Delivery(second, store).open_run()
    assert second.head.run_id == first.head.run_id


def test_a_resumed_run_tells_no_step_twice(store, tmp_path):
    def work(steps: range, value: float, *, resumed: bool) -> str:
        with start_in(tmp_path, "tests", "x", parent=None, tags={}, resumed=resumed) as run:
            for step in steps:
                run.metrics({"loss": value}, step=step)
        return run.run_id

    run_id = work(range(1, 8), 1.0, resumed=False)
    assert work(range(5, 11), 2.0, resumed=True) == run_id
    told = points(MlflowClient(store), run_id, "loss")
    assert told == [(step, 1.0 if step < 8 else 2.0) for step in range(1, 11)]


def test_pictures_of_a_run_are_named_as_mlflow_names_datasets(store, tmp_path):
    data = Data("shards train", "d" * 64, str(tmp_path), "training", '{"pictures": 3}')
    with start("tests", "data") as run:
        run.inputs([data, Data("val", "e", "https://u:secret@host/val", "validation")])
    inputs = MlflowClient(store).get_run(run.run_id).inputs.dataset_inputs
    told = {i.dataset.name: (i.dataset, i.tags[0].value) for i in inputs}
    assert told["shards train"][1] == "training"
    assert told["shards train"][0].digest == "d" * 36
    assert json.loads(told["val"][0].source) == {"url": "https://host/val"}
    import mlflow.data

    assert mlflow.data.get_source(told["shards train"][0]).load() == str(tmp_path)


def test_only_the_last_checkpoints_stay_among_the_files_of_a_run(store, tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    with start_in(tmp_path, "tests", "c", parent=None, tags={}, resumed=False) as run:
        for step in (10, 20, 30):
            checkpoint.unlink(missing_ok=True)
            checkpoint.write_text(str(step))
            run.checkpoint(checkpoint, step=step, keep=2)
            run.history("x")  # all is sent then
    client = MlflowClient(store)
    found = [item.path for item in client.list_artifacts(run.run_id, "checkpoints")]
    assert found == [f"checkpoints/step-{step:09d}.ckpt" for step in (20, 30)]
    assert Path(client.download_artifacts(run.run_id, found[-1])).read_text() == "30"


def test_what_mlflow_refuses_is_told_and_keeps_nothing_else_back(store, caplog):
    with start("tests", "refused") as run:
        run._write({"tags": {"": "no name"}})
        run.metrics({"loss": 1.0}, step=1)
    assert points(MlflowClient(store), run.run_id, "loss") == [(1, 1.0)]
    assert "not recorded: MLflow at sqlite:" in caplog.text


def test_an_experiment_that_was_deleted_is_said_at_once(store):
    with start("tests deleted", "one") as run:
        pass
    MlflowClient(store).delete_experiment(run.experiment_id)
    with pytest.raises(ValueError, match="was deleted; bring it back with `mlflow experiments"):
        start("tests deleted", "two").__enter__()
    assert not list(Path("srdet-unsent").glob("*"))


def _write_a_run(uri: str, number: int, count: int, gate: object) -> None:
    gate.wait()
    with start("crowd", f"writer {number}", uri=uri) as run:
        run.params({"number": number})
        for step in range(count):
            run.metrics({f"m{key}": float(step + key) for key in range(20)}, step=step)


def write_at_once(uri: str, writers: int, count: int) -> list[int]:
    """Exit codes of so many processes, each of which writes a run."""
    context = multiprocessing.get_context("fork")
    gate = context.Event()
    crowd = [
        context.Process(target=_write_a_run, args=(uri, n, count, gate)) for n in range(writers)
    ]
    for process in crowd:
        process.start()
    gate.set()
    for process in crowd:
        process.join(240)
    return [process.exitcode for process in crowd]


def check_the_crowd(client: MlflowClient, writers: int, count: int) -> None:
    experiment = client.get_experiment_by_name("crowd")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["number"] for run in runs) == sorted(map(str, range(writers)))
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        for key in (0, 7, 19):
            told = points(client, run.info.run_id, f"m{key}")
            assert told == [(step, float(step + key)) for step in range(count)]


@pytest.mark.slow
def test_sixteen_processes_make_a_new_sqlite_store_at_once_and_lose_nothing(tmp_path):
    uri = f"sqlite:///{tmp_path / 'new.db'}"
    assert write_at_once(uri, 16, 50) == [0] * 16
    check_the_crowd(MlflowClient(uri), 16, 50)
    assert not list(tmp_path.glob("srdet-unsent/*"))


@pytest.mark.slow
def test_many_processes_write_to_a_server_with_postgresql_and_lose_nothing(
    postgres, serving, tmp_path
):
    with serving(tmp_path, postgres) as served:
        uri = served.address
        assert write_at_once(uri, 8, 50) == [0] * 8
        check_the_crowd(MlflowClient(uri), 8, 50)
    assert write_at_once(postgres, 2, 10) == [0] * 2  # straight to the database, which is nobody's


@pytest.mark.slow
def test_a_server_that_was_away_has_every_metric_and_picture_when_it_is_back(road, server, caplog):
    client = MlflowClient(f"http://127.0.0.1:{server}")
    with start("away", "comes back") as run:
        run.metrics({"loss": 0.0}, step=0)
        run.history("loss")
        road.close()
        began = time.perf_counter()
        for step in range(1, 500):
            run.metrics({"loss": float(step)}, step=step)
        run.picture("strip", torch.rand(3, 8, 8), step=7)
        assert time.perf_counter() - began < 5  # a refused connection alone takes MLflow longer
        until(lambda: "does not answer" in caplog.text)
        road.open()
    assert points(client, run.run_id, "loss") == [(step, float(step)) for step in range(500)]
    assert [item.path for item in client.list_artifacts(run.run_id, "images")]
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert "answers again and has every record" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.slow
def test_what_a_server_has_not_got_at_the_end_is_sent_later(
    road, server, tmp_path, monkeypatch, capfd, caplog
):
    monkeypatch.setattr(sender.Sender.drain, "__defaults__", (2.0,))
    client = MlflowClient(f"http://127.0.0.1:{server}")
    work = tmp_path / "work"
    with start_in(work, "later", "study", parent=None, tags={}, resumed=False) as run:
        road.close()
        run.metrics({"loss": 1.0}, step=1)
        with start("later", "arm", parent=run) as arm:  # made while nobody answers
            arm.metrics({"ap": 0.5})
            with start("later", "part", parent=arm) as part:
                part.table([{"a": 1}], "rows.json")
    assert "srdet tracking sync --folders" in caplog.text
    assert tracking.main(["sync", "--folders", str(work)]) == 1
    with start_in(work, "later", "study", parent=None, tags={}, resumed=True) as again:
        again.metrics({"loss": 2.0}, step=2)  # goes on without the server
    road.open()
    assert tracking.main(["sync", "--folders", str(tmp_path)]) == 0
    experiment = client.get_experiment_by_name("later")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"study", "arm", "part"}
    above = {name: runs[name].data.tags.get("mlflow.parentRunId") for name in runs}
    ids = {name: runs[name].info.run_id for name in runs}
    assert above == {"study": None, "arm": ids["study"], "part": ids["arm"]}
    assert points(client, run.run_id, "loss") == [(1, 1.0), (2, 2.0)]
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert sync([tmp_path]) == 0
    told = capfd.readouterr()
    assert "every record of" in told.err
    assert "secret" not in told.out + told.err + caplog.text
    for path in tmp_path.rglob("*.json*"):
        assert "secret" not in path.read_text(), path


@pytest.mark.slow
def test_a_server_that_is_away_at_the_start_is_said_at_once_with_the_choice_to_go_on_offline(
    road, server, tmp_path, monkeypatch
):
    road.close()
    with pytest.raises(ConnectionError, match=r"does not answer\. Start it; or go on offline with"):
        start("offline", "x").__enter__()
    assert not list(Path("srdet-unsent").glob("*"))
    monkeypatch.setenv("SRDET_OFFLINE", "1")
    with start_in(tmp_path, "offline", "x", parent=None, tags={}, resumed=False) as run:
        run.metrics({"loss": 1.0}, step=1)
        assert run.run_id.startswith("offline-")
        monkeypatch.setattr(sender.Sender.drain, "__defaults__", (0.5,))
    monkeypatch.delenv("SRDET_OFFLINE")
    road.open()
    assert sync([tmp_path]) == 0
    client = MlflowClient(f"http://127.0.0.1:{server}")
    found = client.get_experiment_by_name("offline")
    (made,) = client.search_runs([found.experiment_id])
    assert points(client, made.info.run_id, "loss") == [(1, 1.0)]
    assert made.info.start_time == run.journal.head.started


@pytest.mark.slow
def test_a_slow_server_delays_no_step(road, server):
    road.delay_s = 0.3
    with start("slow", "x") as run:
        began = time.perf_counter()
        for step in range(200):
            run.metrics({"loss": 1.0}, step=step)
        assert time.perf_counter() - began < 200 * road.delay_s / 10
    client = MlflowClient(f"http://127.0.0.1:{server}")
    assert len(points(client, run.run_id, "loss")) == 200


class Guarded(http.server.BaseHTTPRequestHandler):
    """Lets nobody in, as the gate before an MLflow server does."""

    def _refuse(self) -> None:
        asked = self.headers.get("Authorization", "")
        self.server.asked.append(base64.b64decode(asked.removeprefix("Basic ")).decode())
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"<html>who are you?</html>")

    do_GET = do_POST = _refuse  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_wrong_credentials_are_said_at_once_and_shown_nowhere(monkeypatch, capfd, caplog):
    gate = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    gate.asked = []
    threading.Thread(target=gate.serve_forever, daemon=True).start()
    uri = f"http://someone:secret@127.0.0.1:{gate.server_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    try:
        with pytest.raises(PermissionError, match="does not accept the credentials") as refused:
            start("tests", "x").__enter__()
    finally:
        gate.shutdown()
        gate.server_close()
    assert "someone:secret" in gate.asked  # they were tried
    told = capfd.readouterr()
    assert "secret" not in told.out + told.err + caplog.text + str(refused.value)
    assert refused.value.__cause__ is None


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
