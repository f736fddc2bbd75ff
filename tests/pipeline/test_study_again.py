"""A study that is run again looks at nothing twice and says the same."""

import json

from pipeline import cli
from tests.pipeline.test_detect import scene, words

__all__ = ["scene"]


def kept(folder):
    files = (folder / "study" / "seen").rglob("*.safetensors")
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in files}


def test_a_further_arm_looks_at_what_is_new_and_a_changed_detector_at_all(scene):
    assert cli.main(words(scene, "--arms", "lanczos", "--join.full", "true")) == 0
    first, numbers = kept(scene), json.loads((scene / "study" / "study.json").read_text())
    assert len(first) == 3  # whole pictures, lanczos and bicubic

    more = ("--arms", "lanczos", "nearest", "--join.full", "true", "--merge.threshold", "0.5")
    assert cli.main(words(scene, *more)) == 0
    second = kept(scene)
    assert first.items() <= second.items()
    assert {name.split("/")[2] for name in second.keys() - first.keys()} == {"arm_nearest"}
    again = json.loads((scene / "study" / "study.json").read_text())
    for name, arm in numbers["arms"].items():
        assert again["arms"][name]["seconds_per_picture"] == arm["seconds_per_picture"]

    detector = scene / "det.safetensors"
    content = bytearray(detector.read_bytes())
    content[-1] ^= 1
    detector.write_bytes(content)
    assert cli.main(words(scene, *more)) == 0
    assert not kept(scene).items() & second.items()
