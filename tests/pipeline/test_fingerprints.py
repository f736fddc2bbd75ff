import io

import pytest
import torch
from PIL import Image

from detection.detectors import save_detector
from detection.families import build_model
from pipeline.fingerprints import KEY, LISTED, alike, fingerprint, learnt_from, listed, seen_before
from pipeline.pictures import read_picture
from sr_module import build, save_net
from sr_module.resize import imresize


def picture(seed: int, side: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand((1, 3, 12, 12), generator=generator)
    return imresize(small, side // 12)[0].mul(255).to(torch.uint8)


def saved_again(original: torch.Tensor, side: int) -> torch.Tensor:
    """The picture at another size, as a JPEG of low quality."""
    written = io.BytesIO()
    opened = Image.fromarray(original.permute(1, 2, 0).numpy())
    opened.resize((side, side), Image.Resampling.BICUBIC).save(written, "JPEG", quality=60)
    return read_picture(written.getvalue(), name="again")


def net_file(path, fingerprints, *, before=None):
    save_net(
        build("espcn", 4), path, provenance=dict(listed(fingerprints, before=before)),
    )  # fmt: skip
    return path


def test_a_picture_is_known_again_at_another_size_and_quality():
    ours = [fingerprint(picture(seed)) for seed in range(20)]
    again = [fingerprint(saved_again(picture(seed), 48)) for seed in (3, 7)]
    assert alike(ours, again) == [3, 7]


def test_different_pictures_are_not_taken_for_each_other():
    ours = [fingerprint(picture(seed)) for seed in range(40)]
    others = [fingerprint(picture(seed)) for seed in range(100, 140)]
    assert alike(ours, others) == []


def test_nothing_is_like_nothing():
    assert alike([], ["0" * 64]) == alike(["0" * 64], []) == []


def test_a_network_tells_its_pictures_and_those_of_the_network_it_began_from(tmp_path):
    first, second = (fingerprint(picture(seed)) for seed in (1, 2))
    psnr = net_file(tmp_path / "psnr.safetensors", [first])
    gan = net_file(tmp_path / "gan.safetensors", [second, first], before=psnr)
    assert learnt_from(psnr) == [first]
    assert learnt_from(gan) == [first, second]


def test_who_begins_from_unknown_pictures_does_not_claim_to_know_them_all(tmp_path):
    save_net(build("espcn", 4), tmp_path / "silent.safetensors", provenance={"steps": 3})
    assert learnt_from(tmp_path / "silent.safetensors") is None
    assert listed(["0" * 64], before=tmp_path / "silent.safetensors") == {}


def test_too_many_pictures_are_not_listed_at_all():
    assert listed([f"{number:064x}" for number in range(LISTED + 1)]) == {}
    assert KEY in listed([f"{number:064x}" for number in range(3)])


def test_a_study_picture_that_a_network_learnt_from_is_found(tmp_path):
    study = {1: fingerprint(picture(1)), 2: fingerprint(picture(2))}
    sound = net_file(tmp_path / "sound.safetensors", [fingerprint(picture(9))])
    cheat = net_file(tmp_path / "cheat.safetensors", [fingerprint(saved_again(picture(2), 64))])
    seen = seen_before(study, {"sound": [sound], "cheat": [cheat], "both": [sound, cheat]})
    assert seen == {"sound": [], "cheat": [2], "both": [2]}


def test_a_learner_that_does_not_say_is_left_out_and_not_called_sound(tmp_path):
    save_net(build("espcn", 4), tmp_path / "silent.safetensors", provenance={})
    study = {1: fingerprint(picture(1))}
    assert seen_before(study, {"silent": [tmp_path / "silent.safetensors"]}) == {}


@pytest.mark.parametrize("known", [True, False])
def test_a_detector_tells_its_pictures_too(tmp_path, known):
    mark = fingerprint(picture(1))
    save_detector(
        build_model("small_fcos", num_classes=2), tmp_path / "det.safetensors",
        architecture="small_fcos", categories={1: "thing"},
        provenance=listed([mark]) if known else {},
    )  # fmt: skip
    assert learnt_from(tmp_path / "det.safetensors") == ([mark] if known else None)
