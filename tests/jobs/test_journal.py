"""What a run leaves for the next one, and when the next one refuses it."""

import json
import os
from dataclasses import replace

import pytest
import torch
from filelock import FileLock

from nlden.jobs.denoise import Interrupted, Request, denoise_file, open_denoiser
from nlden.jobs.journal import ResumeError, folder_of, kept_frames, kept_setting
from nlden.jobs.levels import Noise
from nlden.media.encoding import Encoding
from nlden.media.probe import MediaError

NOISE = Noise(sigma=0.02)


@pytest.fixture(scope="module")
def denoiser():
    return open_denoiser("image-fast", torch.device("cpu"), "fp32", None)


@pytest.fixture
def interrupted(clip, denoiser, tmp_path):
    """A source and a target of which two segments of four frames are finished."""
    source, target = clip(frames=14), tmp_path / "out.mp4"
    seen = []

    def progress(done, total):
        seen.append(done)

    request = Request(NOISE, 0.0, segment=4)
    with pytest.raises(Interrupted) as caught:
        denoise_file(source, target, denoiser, request, progress, lambda: len(seen) > 6)
    assert caught.value.frames == seen[-1] == 8
    return source, target


def test_only_finished_segments_are_kept(interrupted):
    _, target = interrupted
    assert not target.exists()
    assert kept_frames(target) == 8
    assert kept_setting(target, "precision") == "fp32"
    names = {p.name for p in folder_of(target).iterdir()} - {"lock"}
    assert names == {"job.json"} | {f"00000{n}.{k}" for n in (0, 1) for k in ("json", "packets")}


@pytest.mark.parametrize("letter", ["x", "\u00fc"])
def test_the_longest_names_are_written_and_gone_on_with(clip, denoiser, tmp_path, letter):
    stem = letter * (250 // len(letter.encode()))
    source, target = clip(frames=9), tmp_path / f"{stem}.mp4"
    request = Request(NOISE, 0.0, segment=4)
    seen = []
    with pytest.raises(Interrupted):
        denoise_file(
            source, target, denoiser, request, lambda *done: seen.append(done), lambda: bool(seen)
        )
    assert kept_frames(target) == 4
    assert kept_frames(target.with_suffix(".mkv")) == 0
    assert denoise_file(source, target, denoiser, replace(request, resume=True)).passed == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, target.name])


def test_the_folder_of_other_names_is_called_after_them(tmp_path):
    target = tmp_path / f"{'x' * 241}.mp4"
    assert folder_of(target).name == f".{target.name}.segments"
    assert len(folder_of(target).name) == 255


def test_frames_that_are_done_are_not_denoised_again(interrupted, denoiser):
    source, target = interrupted
    calls = []

    class Counting(type(denoiser)):
        def stream(self, *arguments):
            stream = super().stream(*arguments)
            push = stream.push
            stream.push = lambda *planes, **told: calls.append(1) or push(*planes, **told)
            return stream

    counting = Counting(denoiser.network, denoiser.device, denoiser.dtype, denoiser.tile)
    result = denoise_file(source, target, counting, Request(NOISE, 0.0, resume=True, segment=4))
    assert (result.frames, result.passed, len(calls)) == (14, 8, 6)
    assert not folder_of(target).exists()


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (Request(NOISE, 0.5, resume=True, segment=4), "strength (0.0, now 0.5)"),
        (Request(Noise(sigma=0.1), 0.0, resume=True, segment=4), "noise"),
        (Request(NOISE, 0.0, Encoding(crf=30), resume=True, segment=4), "encoding"),
        (Request(NOISE, 0.0, frames=12, resume=True, segment=4), "frames (None, now 12)"),
        (Request(NOISE, 0.0, resume=True, segment=5), "segment (4, now 5)"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_lost(interrupted, denoiser, request_, word):
    source, target = interrupted
    with pytest.raises(ResumeError) as caught:
        denoise_file(source, target, denoiser, request_)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kept_frames(target) == 8


def test_another_source_and_other_weights_are_refused(interrupted, denoiser):
    source, target = interrupted
    request = Request(NOISE, 0.0, resume=True, segment=4)
    other = open_denoiser("image-base", torch.device("cpu"), "fp32", None)
    with pytest.raises(ResumeError, match="weights"):
        denoise_file(source, target, other, request)
    os.utime(source, (1, 1))
    with pytest.raises(ResumeError, match="time of the source"):
        denoise_file(source, target, denoiser, request)
    assert kept_frames(target) == 8


def test_two_runs_do_not_write_one_target(interrupted, denoiser):
    source, target = interrupted
    with (
        FileLock(folder_of(target) / "lock"),
        pytest.raises(ResumeError, match="another run"),
    ):
        denoise_file(source, target, denoiser, Request(NOISE, 0.0, resume=True, segment=4))
    assert kept_frames(target) == 8


def test_without_resume_a_run_begins_anew(interrupted, denoiser, decode):
    source, target = interrupted
    denoise_file(source, target, denoiser, Request(NOISE, 0.0, Encoding(crf=30), segment=4))
    assert decode(target).times == decode(source).times
    assert not folder_of(target).exists()


def test_segments_of_other_frames_are_not_joined(interrupted, denoiser):
    source, target = interrupted
    table = folder_of(target) / "000001.json"
    content = json.loads(table.read_text())
    content["pts"] = [pts + 1 for pts in content["pts"]]
    table.write_text(json.dumps(content))
    with pytest.raises(MediaError, match="frames 4 to 7 are not those"):
        denoise_file(source, target, denoiser, Request(NOISE, 0.0, resume=True, segment=4))
    assert not target.exists()


def test_a_bad_source_leaves_nothing(denoiser, tmp_path):
    source = tmp_path / "in.mp4"
    source.write_text("no video")
    with pytest.raises(MediaError):
        denoise_file(source, tmp_path / "out.mp4", denoiser, Request())
    assert list(tmp_path.iterdir()) == [source]
