"""The benchmarks run; what they measure is nobody's business here."""

from benchmarks import data_path, train_step


def test_the_training_step_is_measured_for_each_format_and_layout(monkeypatch):
    monkeypatch.setattr(train_step, "BATCH", 1)
    monkeypatch.setattr(train_step, "CROP", 16)
    monkeypatch.setattr(train_step, "ROUNDS", 1)
    figures = dict(train_step.run())
    assert len(figures) == 4
    assert all("images/s" in figure for figure in figures.values())


def test_the_data_path_is_measured_beside_decoding(monkeypatch):
    monkeypatch.setattr(data_path, "SCENES", 3)
    monkeypatch.setattr(data_path, "BATCHES", 2)
    monkeypatch.setattr(data_path, "ROUNDS", 1)
    figures = dict(data_path.run())
    assert [name.split()[0] for name in figures] == ["decoding", "stream,", "stream,"]
