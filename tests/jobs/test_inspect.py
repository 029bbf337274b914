from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from nlden.jobs.denoise import Request, denoise_file, open_denoiser
from nlden.jobs.inspect import detect_cuts, inspect_file, media_files
from nlden.media.probe import MediaError


def spliced(path, codec, pix_fmt, sigma, *, size=(128, 192), length=6):
    """Encode three shots of standing cameras, and return where they begin, in seconds."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        for number in range(3 * length):
            name = ("astronaut", "coffee", "chelsea")[number // length]
            view = getattr(photographs, name)()[:256, 64:448].reshape(128, 2, 192, 2, 3)
            noisy = view.mean((1, 3)) + sigma * rng.standard_normal((*size, 3))
            picture = np.clip(noisy, 0, 255).round().astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return [length / 24, 2 * length / 24]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("in.mp4", "libx264", "yuv420p"),
        ("in.mkv", "ffv1", "yuv420p10le"),
        ("in.mkv", "ffv1", "gray"),
        ("rgb.mkv", "libx264rgb", "rgb24"),
        ("in.ts", "libx264", "yuv420p"),  # its timestamps begin after zero
    ],
)
@pytest.mark.parametrize("sigma", [0, 50])
def test_cuts_are_found_in_coded_files(tmp_path, name, codec, pix_fmt, sigma):
    seconds = spliced(tmp_path / name, codec, pix_fmt, sigma)
    seen = []
    cuts, warnings = detect_cuts(tmp_path / name, lambda *x: seen.append(x))
    assert [cut.frame for cut in cuts] == [6, 12]
    assert [cut.second for cut in cuts] == pytest.approx(seconds, abs=0.002)
    assert [done for done, _ in seen] == list(range(1, 19))
    assert warnings == []


def test_a_file_is_described(clip):
    path = clip(sigma=25, size=(130, 194), pix_fmt="yuv420p10le", codec="libx265", rotation=90)
    facts = inspect_file(path)
    video, audio = sorted(facts.streams, key=lambda s: s.kind, reverse=True)
    picture = video.picture
    assert (picture.width, picture.height, picture.bits, picture.chroma) == (194, 130, 10, "4:2:0")
    assert (picture.range, picture.matrix, picture.primaries) == ("limited", "bt709", "bt709")
    assert picture.taken_as == "bt709, limited"
    assert abs(picture.rotation) == 90
    assert (picture.timing.kind, picture.timing.rate) == ("constant", 25)
    assert (audio.codec, audio.sound, audio.denoised) == ("aac", (44100, "mono"), "copied")
    assert video.denoised == "encoded: libx265, yuv420p10le"
    assert facts.size == path.stat().st_size
    assert facts.cuts is None
    assert facts.warnings == []


def test_the_noise_and_the_encoder_are_those_of_a_denoise_run(clip, tmp_path):
    source = clip("in.mkv", sigma=25, size=(130, 194), codec="ffv1")
    denoiser = open_denoiser("image-fast", torch.device("cpu"), "fp32", None)
    result = denoise_file(source, tmp_path / "out.mkv", denoiser, Request(strength=0.0))
    facts = inspect_file(source)
    assert facts.noise.luma == pytest.approx(255 * result.levels.luma, abs=0.01)
    assert facts.noise.chroma == pytest.approx(255 * result.levels.chroma, abs=0.01)
    (told,) = (s.denoised for s in facts.streams if s.kind == "video")
    with av.open(str(tmp_path / "out.mkv")) as out:
        stream = out.streams.video[0]
        assert told == f"encoded: {stream.codec_context.name}, {stream.pix_fmt}"


def test_subtitles_attachments_chapters_and_tags_are_listed(tmp_path):
    path = tmp_path / "rich.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "A [bold]film[/bold]"
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["language"] = "deu"
        container.add_attachment("font.ttf", "font/ttf", b"no font")
        container.set_chapters(
            [
                {"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000),
                 "metadata": {"title": "Opening"}},
            ]
        )  # fmt: skip
        for _ in range(4):
            picture = av.VideoFrame.from_ndarray(photographs.coffee()[:48, :64].copy(), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    facts = inspect_file(path)
    assert facts.metadata["title"] == "A [bold]film[/bold]"
    assert [(c.start, c.end, c.title) for c in facts.chapters] == [(0, 0.08, "Opening")]
    video, font = facts.streams
    assert (video.language, font.kind, font.title) == ("deu", "attachment", "font.ttf")
    assert font.denoised == "copied"


def test_hdr_metadata_is_read(tmp_path):
    path = tmp_path / "hdr.mkv"
    told = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    parameters = f"log-level=none:master-display={told}:max-cll=1000,400"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": parameters})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, 16
        for _ in range(3):
            picture = av.VideoFrame.from_ndarray(photographs.coffee()[:64, :64].copy(), "rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p10le")))
        container.mux(stream.encode(None))
    picture = inspect_file(path).streams[0].picture
    assert (picture.matrix, picture.primaries, picture.transfer) == (
        "bt2020nc",
        "bt2020",
        "smpte2084",
    )
    hdr = picture.hdr  # in units of 0.00002 and of 0.0001 cd/m2 as they were told
    assert hdr["red"] == pytest.approx((0.68, 0.32))
    assert hdr["green"] == pytest.approx((0.265, 0.69))
    assert hdr["blue"] == pytest.approx((0.15, 0.06))
    assert hdr["white_point"] == pytest.approx((0.3127, 0.329))
    assert (hdr["max_luminance"], hdr["min_luminance"]) == pytest.approx((1000, 0.005))
    assert (hdr["max_content_light"], hdr["max_frame_average_light"]) == (1000, 400)


def test_untagged_colour_is_told_with_what_it_is_taken_for(tmp_path):
    spliced(tmp_path / "in.mkv", "ffv1", "yuv444p", 0, length=1)
    picture = inspect_file(tmp_path / "in.mkv").streams[0].picture
    assert (picture.chroma, picture.matrix, picture.range) == ("4:4:4", None, None)
    assert picture.taken_as == "bt601, limited"


@pytest.mark.parametrize(
    ("suffix", "mode", "form"),
    [(".png", "RGBA", "rgb"), (".jpg", "L", "gray"), (".tiff", "RGB", "rgb")],
)
def test_stills_are_described(tmp_path, suffix, mode, form):
    rng = np.random.default_rng(0)
    noisy = np.clip(128 + 20 * rng.standard_normal((120, 160, 3)), 0, 255).astype(np.uint8)
    path = tmp_path / f"in{suffix}"
    Image.fromarray(noisy).convert(mode).save(path, dpi=(72, 72), quality=100)
    facts = inspect_file(path)
    picture = facts.streams[0].picture
    assert (picture.width, picture.height, picture.pixel_format) == (160, 120, form)
    assert (picture.bits, picture.alpha) == (8, mode == "RGBA")
    assert (facts.duration, facts.cuts) == (None, None)
    level = 20 if form == "rgb" else 20 * (0.299**2 + 0.587**2 + 0.114**2) ** 0.5
    assert facts.noise.luma == pytest.approx(level, rel=0.1)


def test_numbered_pictures_are_one_video(tmp_path):
    for number in range(3):
        Image.fromarray(photographs.coffee()[:64, :80]).save(tmp_path / f"{number:04}.png")
    facts = inspect_file(tmp_path / "%04d.png", lambda done, total: None)
    (stream,) = facts.streams
    assert (stream.picture.width, stream.picture.height) == (80, 64)
    assert stream.denoised == "encoded: png, rgb24"
    assert facts.size == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert facts.cuts == []


def test_folders_are_searched_for_media(tmp_path):
    for name in ("b.mp4", "a.png", "notes.txt", ".hidden.mp4", "deep/c.MKV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(p.relative_to(tmp_path)) for p in media_files(tmp_path)]
    assert names == ["a.png", "b.mp4", "deep/c.MKV"]
    assert media_files(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="empty: no videos or pictures"):
        media_files(tmp_path / "empty")


def test_a_container_that_denoise_cannot_write_is_told(clip, tmp_path):
    path = tmp_path / "in.xyz"
    path.write_bytes(clip().read_bytes())
    told = [s.denoised for s in inspect_file(path).streams if s.kind == "video"]
    assert told == ["not written as .xyz; use .mkv"]


def test_what_is_no_media_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"this is no video\n" * 100)
    (tmp_path / "empty.png").touch()
    for name in ("text.mp4", "empty.png", "missing.mkv"):
        with pytest.raises(MediaError, match=name):
            inspect_file(tmp_path / name)
