"""The command line as a user meets it: another process, real files, wrong input."""

import json
import subprocess
import sys
from subprocess import CompletedProcess

import pytest
from PIL import Image
from skimage import data as photographs

from nlden import __version__


@pytest.fixture
def nlden(commands):
    """Return a function that runs the command in a process of its own."""
    return lambda *arguments: CompletedProcess(arguments, *commands.run(*arguments))


def one_line(result):
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert lines[0].startswith("nlden: ")
    return lines[0]


def test_help_and_import_do_not_load_torch():
    code = (
        "import sys, json\nimport nlden\nsys.argv = ['nlden', '--help']\n"
        "from nlden.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(json.dumps([m for m in ('torch', 'lightning', 'av', 'jsonargparse') "
        "if m in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "denoise" in result.stdout
    assert json.loads(result.stdout.splitlines()[-1]) == []


def test_every_command_explains_itself(nlden):
    for command in ("denoise", "demo", "evaluate", "info", "models", "bench"):
        result = nlden(command, "--help")
        assert result.returncode == 0
        assert "Usage" in result.stdout


def test_version():
    command = [sys.executable, "-c", "from nlden.cli.main import main; main()", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"nlden {__version__}"


def test_a_video_and_a_picture_go_into_a_folder(nlden, clip, decode, tmp_path):
    source = clip(frames=2, sigma=20)
    Image.fromarray(photographs.cat()[:60, :80]).save(tmp_path / "cat.jpg")
    arguments = ("denoise", source, tmp_path / "cat.jpg", "-o", tmp_path / "out")
    result = nlden(*arguments, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert decode(tmp_path / "out" / "in.mp4").sound == decode(source).sound
    assert Image.open(tmp_path / "out" / "cat.jpg").size == (80, 60)
    assert "2 frames" in result.stderr
    assert "2 of 2 files" in result.stderr
    video, picture = (
        next(x for x in result.stderr.splitlines() if n in x) for n in ("mp4:", "jpg:")
    )
    assert "video-fast, cpu" in video
    assert "image-base, cpu" in picture


def test_the_same_seed_gives_the_same_file(nlden, clip, tmp_path):
    source = clip(frames=2, sigma=20)
    for name in ("a.mkv", "b.mkv"):
        arguments = ("--precision", "fp32", "--lossless", "--seed", 3)
        assert nlden("denoise", source, "-o", tmp_path / name, *arguments).returncode == 0
    from nlden.media import Frame, VideoReader

    frames = []
    for name in ("a.mkv", "b.mkv"):
        with VideoReader(tmp_path / name) as reader:
            frames.append([i.planes[0].tolist() for i in reader if isinstance(i, Frame)])
    assert frames[0] == frames[1]


def test_a_bad_file_among_good_ones_fails_alone(nlden, clip, tmp_path):
    good = clip(frames=2)
    (tmp_path / "bad.mp4").write_text("not a video")
    result = nlden("denoise", tmp_path / "bad.mp4", good, "-o", tmp_path / "out")
    assert result.returncode == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["in.mp4"]
    assert "1 of 2 files" in result.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--sigma", "-3"], "--sigma"),
        (["--sigma", "300"], "--sigma"),
        (["--sigma", "nan"], "--sigma"),
        (["--sigma", "much"], "--sigma"),
        (["--sigma-luma", "256"], "--sigma-luma"),
        (["--strength", "1.5"], "--strength"),
        (["--luma-strength", "-1"], "--luma-strength"),
        (["--chroma-strength", "nan"], "--chroma-strength"),
        (["-e", "crf"], "-e crf"),
        (["-e", "=3"], "-e =3"),
        (["--deinterlace", "perhaps"], "refuse, auto, all, none"),
        (["--hwaccel", "abacus"], "--hwaccel abacus: give one of none, auto, cuda"),
        (["--tile", "3"], "--tile"),
        (["--precision", "int3"], "--precision"),
        (["--device", "cuda:99"], "--device"),
        (["--device", "abacus"], "--device"),
        (["--model", "nonsense"], "nonsense"),
        (["--start", "x"], "--start"),
        (["--start", "5", "--end", "2"], "--end"),
        (["--frames", "0"], "--frames"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_impossible_options_are_usage_errors(nlden, clip, tmp_path, options, word):
    source = clip(frames=1)
    result = nlden("denoise", source, "-o", tmp_path / "out.mp4", *options)
    assert result.returncode == 2
    assert word in one_line(result)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("missing.mp4", 2),
        ("emptyfolder", 2),
        ("zero.mp4", 1),
        ("text.mp4", 1),
        ("sound.mp4", 1),
        ("stub.mp4", 1),
        ("text.png", 1),
    ],
)
def test_unusable_inputs_are_told_in_one_line(nlden, clip, tmp_path, name, status):
    path = tmp_path / name
    if name == "emptyfolder":
        path.mkdir()
    elif name == "zero.mp4":
        path.touch()
    elif name.startswith("text"):
        path.write_text("this is no video\n" * 100)
    elif name == "sound.mp4":
        import av

        with av.open(str(clip("both.mp4"))) as both, av.open(str(path), "w") as alone:
            stream = alone.add_stream_from_template(both.streams.audio[0])
            for packet in both.demux(audio=0):
                if packet.size:
                    packet.stream = stream
                    alone.mux(packet)
    elif name == "stub.mp4":
        whole = clip("whole.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])  # the index stands at the end, and is lost
    target = tmp_path / ("out.png" if name.endswith("png") else "out.mp4")
    content = path.read_bytes() if path.is_file() else None
    before = sorted(tmp_path.iterdir())
    result = nlden("denoise", path, "-o", target if status == 1 else tmp_path / "new.mp4")
    assert result.returncode == status
    assert name in one_line(result)
    assert sorted(tmp_path.iterdir()) == before
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize(
    ("target", "status", "word"),
    [
        ("in.mp4", 2, "never overwritten"),
        ("old.mp4", 2, "-y"),
        ("out.xyz", 2, "extension"),
        ("nowhere/out.mp4", 2, "no folder"),
        ("/proc/out.mp4", 1, "cannot be written"),
    ],
)
def test_unusable_targets_are_told_in_one_line(nlden, clip, tmp_path, target, status, word):
    source = clip(frames=1)
    (tmp_path / "old.mp4").write_text("precious")
    content = source.read_bytes()
    result = nlden("denoise", source, "-o", tmp_path / target)
    assert result.returncode == status
    line = one_line(result)
    assert word in line
    assert target in line
    assert source.read_bytes() == content
    assert (tmp_path / "old.mp4").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "old.mp4"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-e", "nonsense=1"], "-e nonsense=1: the encoder libx264 has no option nonsense"),
        (["--codec", "prores_ks", "--crf", "3"], "--codec prores_ks: .mp4 cannot hold it"),
        (["--codec", "ffv1", "--crf", "3"], "--crf: the encoder ffv1"),
        (["-e", "profile=nonsense"], "cannot be opened"),
    ],
)
def test_impossible_encoders_are_told_in_one_line(nlden, clip, tmp_path, options, word):
    source = clip(frames=1)
    result = nlden("denoise", source, "-o", tmp_path / "out.mp4", *options)
    assert result.returncode == 1
    assert any(word in line for line in result.stderr.splitlines()), result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


def test_interlaced_video_needs_a_word(nlden, clip, decode, tmp_path):
    source = clip(frames=3, options={"flags": "+ildct+ilme"}, size=(64, 96))
    target = tmp_path / "out.mp4"
    result = nlden("denoise", source, "-o", target)
    assert result.returncode == 1
    assert "--deinterlace auto" in one_line(result)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]
    result = nlden("denoise", source, "-o", target, "--deinterlace", "auto")
    assert result.returncode == 0, result.stderr
    assert decode(target).times == decode(source).times


def test_decoding_on_hardware_that_is_not_there_is_one_warning(nlden, clip, decode, tmp_path):
    from nlden.media.hardware import device_for

    source = clip(frames=2)
    if device_for(source, "qsv"):
        pytest.skip("the hardware is there")
    target = tmp_path / "out.mp4"
    arguments = ("--hwaccel", "qsv", "--lossless", "--strength", 0)
    result = nlden("denoise", source, "-o", target, *arguments)
    assert result.returncode == 0
    assert result.stderr.count("--hwaccel qsv") == 1
    assert all(
        (a == b).all()
        for a, b in zip(decode(source).pictures, decode(target).pictures, strict=True)
    )


def test_y_overwrites(nlden, clip, decode, tmp_path):
    source = clip(frames=1)
    (tmp_path / "old.mp4").write_text("old")
    arguments = ("denoise", source, "-o", tmp_path / "old.mp4", "-y", "--strength", 0)
    assert nlden(*arguments).returncode == 0
    assert len(decode(tmp_path / "old.mp4").times) == 1


def test_a_few_numbered_pictures_are_denoised(nlden, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(photographs.cat()[:64, i : 64 + i]).save(folder / f"{7 + i:03d}.png")
    target = tmp_path / "out" / "%03d.png"
    target.parent.mkdir()
    result = nlden("denoise", folder / "%03d.png", "-o", target, "--frames", 2)
    assert result.returncode == 0, result.stderr
    assert "2 frames" in result.stderr
    assert sorted(p.name for p in target.parent.iterdir()) == ["007.png", "008.png"]


def test_what_a_container_cannot_hold_is_a_warning(nlden, clip, tmp_path):
    result = nlden("denoise", clip(frames=2), "-o", tmp_path / "out.webm", "--strength", 0)
    assert result.returncode == 0
    warnings = [line for line in result.stderr.splitlines() if "warning:" in line]
    assert len(warnings) == 1
    assert "(audio aac" in warnings[0]
    assert ".mkv would keep it" in warnings[0]


def test_models_lists_the_weights_and_prints_their_cards(nlden):
    listed = nlden("models").stdout
    for name in ("image-base", "image-fast"):
        assert name in listed
        card = nlden("models", name).stdout
        assert "CBSD68" in card
        assert "BSDS432" in card
    result = nlden("models", "nonsense")
    assert result.returncode == 2
    assert "nonsense" in one_line(result)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--positions", "1000"], "--positions"),
        (["--positions", "many"], "--positions"),
        (["--clip", "8x270"], "--clip"),
        (["--clip", "8x270x"], "--clip"),
        (["--clip", "0x8x8"], "--clip"),
        (["--clip", "2x8x8", "--plot", "plot.png"], "--plot"),
        (["--csv", "nowhere/rows.csv"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error(nlden, options, word):
    result = nlden("bench", "attention", *options)
    assert result.returncode == 2
    assert word in one_line(result)


def test_windows_over_a_clip_are_measured(nlden, tmp_path):
    result = nlden("bench", "attention", "--clip", "2x9x8", "--csv", tmp_path / "rows.csv")
    assert result.returncode == 0, result.stderr
    assert "window 3x16x16" in result.stdout
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere"], "nowhere"),
        (["pictures", "--crop", "900"], "crop=900"),
        (["pictures", "--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_feed_a_training_is_a_usage_error(run_here, tmp_path, arguments, word):
    (tmp_path / "pictures").mkdir()
    Image.fromarray(photographs.cat()).save(tmp_path / "pictures" / "cat.png")
    result = CompletedProcess(
        arguments, *run_here("bench", "data", tmp_path / arguments[0], *arguments[1:])
    )
    assert result.returncode == 2
    assert word in one_line(result)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--megapixels", "0"], "--megapixels"),
        (["--megapixels", "large"], "--megapixels"),
        (["--precision", "int3"], "--precision"),
        (["--model", "nonsense"], "nonsense"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_be_taken_apart_is_a_usage_error(nlden, options, word):
    result = nlden("bench", "network", *options)
    assert result.returncode == 2
    assert word in one_line(result)
