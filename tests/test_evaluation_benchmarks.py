"""The benchmarks of evaluation and intervals run, and what they compare is the same thing."""

from benchmarks import coverage, evaluation


def test_evaluation_is_measured_beside_pycocotools_and_agrees_with_it(monkeypatch):
    for name, size in {"PICTURES": 4, "OBJECTS": 8, "DETECTIONS": 30, "RESAMPLES": 5}.items():
        monkeypatch.setattr(evaluation, name, size)
    figures = dict(evaluation.run())
    assert "times as fast" in figures["evaluation, ours"]
    assert float(figures["largest difference of any metric"]) < 1e-9


def test_every_kind_of_interval_is_counted(monkeypatch):
    sizes = {"STUDIES": 4, "RESAMPLES": 40, "PICTURES": (12,), "POPULATION": 60}
    sizes |= {"TRAINED": 4, "TRAINED_POPULATION": 40, "TRAINED_PICTURES": 12}
    for name, size in sizes.items():
        monkeypatch.setattr(coverage, name, size)
    figures = dict(coverage.run())
    assert len(figures) == 5 * 2 + 3
    assert all(0 <= float(figure.split()[0]) <= 100 for figure in figures.values())
    assert sum("(ours)" in name for name in figures) == 3
