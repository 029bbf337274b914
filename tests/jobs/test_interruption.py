"""Interrupted runs and their continuation: the real command, killed and started again."""

import json
import os
import random
import signal
import time
from contextlib import suppress
from fractions import Fraction

import pytest

SEGMENT = 25
KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, "full disk")
OPTIONS = ("--sigma", 5, "--strength", 0, "--device", "cpu", "--precision", "fp32")


def denoise(source, target, *options):
    return ("denoise", source, "-o", target, *OPTIONS, "--segment", SEGMENT, *options)


def kept(target):
    """Read how many frames the finished segments hold."""
    folder = target.parent / f".{target.name}.segments"
    tables = sorted(folder.glob("0*.json"))
    return sum(len(json.loads(table.read_text())["pts"]) for table in tables)


@pytest.fixture
def film(clip):
    """A film of variable frame rate with B-frames and sound.

    Of 128 columns: at others libx264 with AVX-512 depends on what memory held before.
    """
    pts = [40 * i + i * 7 % 13 for i in range(300)]
    return clip(frames=300, size=(48, 128), pts=pts, time_base=Fraction(1, 1000), sigma=5)


def test_twenty_interruptions_change_nothing(commands, film, tmp_path, decode):
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    assert commands.run("--version")[0] == 0
    begun = time.monotonic()
    assert commands.run(*denoise(film, whole))[0] == 0
    duration = time.monotonic() - begun
    expected, source = whole.read_bytes(), film.read_bytes()
    assert decode(whole).times == decode(film).times
    assert decode(whole).sound == decode(film).sound
    rng = random.Random(0)
    hits = dict.fromkeys(KINDS, 0)
    while min(hits.values()) < 5:
        kind = min(KINDS, key=lambda k: hits[k])
        before = kept(target)
        largest = rng.randrange(len(expected) // 10, len(expected)) if kind == "full disk" else 0
        process = commands.start(*denoise(film, target, "--resume", "--json"), largest=largest)
        if not largest:
            time.sleep(rng.uniform(0.02, duration))
            with suppress(ProcessLookupError):  # it was faster
                os.kill(process, kind)
        status, out, err = commands.wait()
        assert "Traceback" not in err
        assert film.read_bytes() == source
        if status == 0:
            assert target.read_bytes() == expected
            assert {p.name for p in tmp_path.iterdir()} == {"in.mp4", "whole.mp4", "out.mp4"}
            target.unlink()
            continue
        if target.exists():  # the signal came when all had been written
            assert target.read_bytes() == expected
            target.unlink()
            continue
        assert kept(target) >= before
        if kind in (signal.SIGINT, signal.SIGTERM) and status == -kind and not out:
            continue  # on a busy machine it came before the program listens
        hits[kind] += 1
        told = [json.loads(line) for line in out.splitlines()]
        done = max((t["frames"] for t in told if t["event"] == "progress"), default=0)
        # Beside the segment there are frames on their way to the encoder.
        assert kept(target) >= min(done, before) + max(0, done - before) - SEGMENT - 6
        expected_status = {"full disk": 1, signal.SIGKILL: -9}
        assert status == expected_status.get(kind, 128 + kind if kind != "full disk" else 1)
        if kind != signal.SIGKILL and kept(target) > before:
            assert "--resume" in err.strip().splitlines()[-1]
    assert commands.run(*denoise(film, target, "--resume"))[0] == 0
    assert target.read_bytes() == expected
