"""What the page of a training run says."""

from dataclasses import replace

from pipeline.index import load_index
from pipeline.origin import COMMAND, command
from pipeline.train_record import Origins
from sr_module import build


def test_a_run_names_its_pictures_by_their_source_or_else_by_their_shards(shards):
    net, index = build("msrresnet", 4, features=4, blocks=1), load_index(str(shards))
    origins = Origins("Regression", net, "there/shards", index, [], 1)
    assert "- data: made by the tests, 7 pictures" in origins.description()
    unnamed = replace(origins, index=replace(index, source=""))
    assert "- data: there/shards, 7 pictures" in unnamed.description()


def test_a_worker_of_ray_names_the_command_that_started_it(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/default_worker.py", "--node-ip"])
    assert command() == "default_worker.py"
    monkeypatch.setenv(COMMAND, "srdet tune")
    assert command() == "srdet tune"
