"""``srdet upscale`` and ``srdet evaluate`` on clips: videos and folders of frames."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import cli
from pipeline.evaluate import evaluate
from pipeline.pictures import read_picture, to_float, to_uint8
from pipeline.upscale import upscale
from pipeline.video import VideoReader
from sr_module import build, load_net, save_net
from sr_module import upscale as run_net
from sr_module.metrics import matlab_y, psnr
from sr_module.resize import imresize

av = pytest.importorskip("av", reason='videos need PyAV: pip install "srdet[video]"')


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network of three frames that shows which ones it saw."""
    torch.manual_seed(0)
    net = build("vespcn", 2, features=4, convs=4)
    net.body[-1].weight.data.mul_(20)
    save_net(net, tmp_path / "three.safetensors", provenance={})
    return tmp_path / "three.safetensors"


def film(path: Path, frames: int = 6, size: tuple[int, int] = (32, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"crf": "1"}
        for n in range(frames):
            pixels = np.full((size[1], size[0], 3), 60 + 20 * n, np.uint8)
            pixels[:, 3 * n : 3 * n + 6] = 200
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def folder(path: Path, frames: int = 4, size: tuple[int, int] = (24, 16)) -> Path:
    path.mkdir(parents=True)
    for n in range(frames):
        rng = np.random.default_rng(n)
        pixels = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path / f"{n}.png")
    return path


def frames_of(path: Path) -> list[torch.Tensor]:
    with VideoReader(path) as reader:
        return [frame.picture for frame in reader]


def test_a_video_is_enlarged_frame_by_frame_from_its_neighbours(network, tmp_path, caplog):
    source = film(tmp_path / "in" / "a.mp4")
    assert upscale(str(network), [tmp_path / "in"], tmp_path / "out", quality=0) == 1
    made, lr = frames_of(tmp_path / "out" / "a.mp4"), frames_of(source)
    assert len(made) == len(lr)
    net = load_net(network)
    for n in range(len(lr)):
        window = [lr[max(0, n - 1)], lr[n], lr[min(n + 1, len(lr) - 1)]]
        expected = to_uint8(run_net(net, to_float(torch.stack(window))))
        luma = (made[n].float().mean(0) - expected.float().mean(0)).abs()
        assert luma.mean() < 1.5  # the video itself rounds and halves colour
    assert "it has no sound" in caplog.text


def test_a_network_of_pictures_enlarges_videos_too(tmp_path: Path):
    film(tmp_path / "a.mp4")
    assert upscale("nearest", [tmp_path / "a.mp4"], tmp_path / "out", scale=2, quality=5) == 1
    made = frames_of(tmp_path / "out" / "a.mp4")
    assert [frame.shape for frame in made] == [(3, 48, 64)] * 6


def test_pictures_and_videos_of_one_folder_go_together_and_what_stands_is_kept(tmp_path, capsys):
    film(tmp_path / "in" / "a.mkv")
    folder(tmp_path / "in" / "stills", frames=2)
    assert upscale("nearest", [tmp_path / "in"], tmp_path / "out", scale=2) == 3
    with pytest.raises(FileExistsError, match="3 of 3 results exist already"):
        upscale("nearest", [tmp_path / "in"], tmp_path / "out", scale=2)
    (tmp_path / "out" / "a.mkv").unlink()
    assert upscale("nearest", [tmp_path / "in"], tmp_path / "out", scale=2, existing="skip") == 1


def test_folders_are_clips_where_asked_and_stills_are_repeated_where_asked(network, tmp_path):
    clip = folder(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"three reads 3 frames of a clip, not single pictures"):
        upscale(str(network), [clip], tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert upscale(str(network), [clip], tmp_path / "moving", clips=True, precision="fp32") == 4
    still_frames = upscale(
        str(network), [clip], tmp_path / "still", repeat_still=True, precision="fp32"
    )
    assert still_frames == 4
    lr = [to_float(read_picture(clip / f"{n}.png")) for n in range(4)]
    net = load_net(network)
    moving = to_uint8(run_net(net, torch.stack(lr[:3])))
    still = to_uint8(run_net(net, lr[1].expand(3, -1, -1, -1)))
    assert not torch.equal(moving, still)
    assert (read_picture(tmp_path / "moving" / "1.png").int() - moving.int()).abs().max() <= 1
    assert (read_picture(tmp_path / "still" / "1.png").int() - still.int()).abs().max() <= 1


def test_a_clip_shorter_than_the_network_reads_is_named_or_repeated(network, tmp_path, caplog):
    film(tmp_path / "a.mp4", frames=2)
    with pytest.raises(
        ValueError, match=r"nothing was written to .*out: .*a.mp4 has 2 frames, the network reads 3"
    ):
        upscale(str(network), [tmp_path / "a.mp4"], tmp_path / "out")
    assert "skipped" not in caplog.text  # said once
    assert not list((tmp_path / "out").iterdir())  # nothing half-written
    assert upscale(str(network), [tmp_path / "a.mp4"], tmp_path / "out", repeat_still=True) == 1


@pytest.mark.parametrize("odd", [0, 2])
def test_one_frame_of_another_size_is_the_error_and_nothing_is_written(network, tmp_path, odd):
    clip = folder(tmp_path / "clip", 3)
    Image.new("RGB", (20, 16)).save(clip / f"{odd}.png")
    said = rf"{odd}.png is 20 x 16 pixels, not 24 x 16 as 2 of the 3 frames .* or remove it"
    with pytest.raises(ValueError, match=rf"nothing was written to .*out: .*{said}"):
        upscale(str(network), [clip], tmp_path / "out", clips=True)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(ValueError, match=said):
        evaluate([str(clip)], model=["nearest", str(network)], clips=True, track=False)


def test_a_clip_that_breaks_off_is_kept_as_far_as_it_went(network, tmp_path, caplog):
    clip = folder(tmp_path / "clip", 5)
    data = (clip / "3.png").read_bytes()
    (clip / "3.png").write_bytes(data[: len(data) // 2])
    assert upscale(str(network), [clip], tmp_path / "out", clips=True) == 2
    assert "3.png is damaged" in caplog.text
    assert "only 2 frames before it are written" in caplog.text


def test_a_video_that_cannot_be_read_does_not_stop_the_others(tmp_path, caplog):
    film(tmp_path / "in" / "good.mp4")
    (tmp_path / "in" / "bad.mp4").write_bytes(b"broken")
    assert upscale("nearest", [tmp_path / "in"], tmp_path / "out", scale=2) == 1
    assert "bad.mp4 is damaged or no video" in caplog.text


def test_other_containers_become_mkv(tmp_path, caplog):
    film(tmp_path / "a.avi")
    assert upscale("nearest", [tmp_path / "a.avi"], tmp_path / "out", scale=2) == 1
    assert len(frames_of(tmp_path / "out" / "a.mkv")) == 6
    assert ".avi videos are written as .mkv" in caplog.text


def test_wrong_quality_is_refused(tmp_path, capsys):
    words = ["--model", "nearest", "--scale", "2", "--pictures", str(film(tmp_path / "a.mp4"))]
    assert cli.main(["upscale", *words, "--out", str(tmp_path / "o"), "--quality", "99"]) == 2
    assert "--quality 99: from 0 (lossless) to 51" in capsys.readouterr().err


def test_clips_are_scored_by_frames_and_then_by_clips(network, tmp_path):
    for name, frames in (("long", 5), ("short", 3)):
        folder(tmp_path / "Vid" / name, frames)
    models = ["nearest", str(network)]
    result = evaluate([str(tmp_path / "Vid")], model=models, clips=True, track=False)
    assert any("mean over all frames of each, then over clips" in said for said in result.remarks)
    net = load_net(network)
    means = []
    for name, frames in (("long", 5), ("short", 3)):
        hr = [to_float(read_picture(tmp_path / "Vid" / name / f"{n}.png")) for n in range(frames)]
        lr = [imresize(each, 0.5) for each in hr]
        values = []
        for n in range(frames):
            window = torch.stack([lr[max(0, n - 1)], lr[n], lr[min(n + 1, frames - 1)]])
            sr = run_net(net, window)[None]
            values.append(float(psnr(sr, hr[n][None], matlab_y(2))))
        means.append(sum(values) / frames)
    (scores,) = result.models[1].sets
    assert [clip.picture for clip in scores.pictures] == ["long", "short"]
    assert scores.mean["psnr_y"] == pytest.approx(sum(means) / 2, abs=1e-3)


def test_pictures_are_scored_with_a_network_of_frames_only_where_repeated(network, tmp_path):
    folder(tmp_path / "Set", 2, size=(32, 32))
    with pytest.raises(ValueError, match="reads 3 frames of a clip, not single pictures"):
        evaluate([str(tmp_path / "Set")], model=[str(network)], track=False)
    result = evaluate([str(tmp_path / "Set")], model=[str(network)], repeat_still=True, track=False)
    assert len(result.models[0].sets[0].pictures) == 2


def test_clips_are_not_scored_against_given_low_resolution(tmp_path):
    folder(tmp_path / "Vid" / "a")
    with pytest.raises(ValueError, match="--lr goes with pictures; clips are reduced"):
        evaluate([str(tmp_path / "Vid")], model=["nearest"], scale=2, clips=True, lr=tmp_path)
