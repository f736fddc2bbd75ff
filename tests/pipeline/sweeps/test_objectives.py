"""What a sweep judges trials by, while they train."""

import pytest

from detection.gain import paired_gains
from pipeline.arm_runs import Rules, run_arm
from pipeline.arms import REFERENCE, open_arm
from pipeline.plans import plan_windows
from pipeline.study import Split, find_in_full
from pipeline.study_settings import Windows
from pipeline.sweeps import objectives
from pipeline.sweeps.objectives import GainScore, study_pictures
from pipeline.sweeps.settings import GainStudy
from pipeline.train import configured, fit
from tests.pipeline.test_study import SIDE, find_bright, write_squares


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of three pictures; the detector is real, and no file."""
    monkeypatch.setattr(objectives, "load_detector", lambda *_, **__: find_bright)
    objectives._bench.cache_clear()
    coco = write_squares(tmp_path)
    settings = GainStudy(
        coco, tmp_path / "images", "bright", windows=Windows(size=SIDE // 2), resamples=50
    )
    yield settings
    objectives._bench.cache_clear()


def test_a_trial_is_told_the_gain_that_a_study_of_its_network_finds(study, tiny, tmp_path):
    setup = configured(tiny("--trainer.precision", "32-true"))
    scale = setup.data.scale
    trained = fit(setup, watching=[GainScore(study, scale)])
    told = {key: value for key, value in trained.metrics.items() if key.startswith("detect/")}

    pictures = study_pictures(study, scale)
    full = find_in_full(pictures, find_bright)
    split = Split(pictures, plan_windows(pictures, study.windows, full.found), full)
    rules = Rules(find_bright, study.join, study.merge, study.batch_size)
    evaluations = {}
    for name, spec in {
        REFERENCE: REFERENCE,
        "sr": str(tmp_path / "run" / "net.safetensors"),
    }.items():
        upscaler = open_arm(spec, scale, bf16=False)
        arm = run_arm(name, spec, split=split, rules=rules, upscaler=upscaler)
        evaluations[name] = arm.evaluation
    (gain,) = paired_gains(evaluations, reference=REFERENCE, metrics=["AP"], resamples=50)
    assert told == pytest.approx(
        {
            "detect/gain_low": gain.low, "detect/gain": gain.difference,
            "detect/gain_high": gain.high, "detect/ap": gain.value,
        },
        abs=1e-6,
    )  # fmt: skip
    assert gain.value > 0
