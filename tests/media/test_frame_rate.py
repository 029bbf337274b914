from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlden.media.frame_rate import classify_timing, measure_timing
from nlden.media.probe import open_video


def timing(path):
    container, stream = open_video(path)
    with container:
        return measure_timing(path, container, stream)


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.avi", "in.ts"])
def test_a_constant_rate_is_told_in_every_container(clip, name):
    # B-frames put the packets of MP4 and Matroska out of order.
    options = {"bf": "0"} if name == "in.avi" else {"bf": "2"}
    found, warnings = timing(clip(name, frames=30, options=options))
    assert (found.kind, found.rate, warnings) == ("constant", pytest.approx(25, rel=0.01), [])


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
def test_a_variable_rate_is_told_with_its_extremes(clip, name):
    times = [0, 40, 80, 100, 140, 340, 380, 420]  # milliseconds
    found, _ = timing(clip(name, pts=times, time_base=Fraction(1, 1000)))
    assert found.kind == "variable"
    assert found.slowest == pytest.approx(1000 / 200)
    assert found.fastest == pytest.approx(1000 / 20)
    assert found.rate == pytest.approx(7 / 0.42)


def test_a_cut_off_file_is_told(clip, tmp_path):
    whole = clip(frames=40, container_options={"movflags": "faststart"}, sigma=10)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    _, warnings = timing(broken)
    assert len(warnings) == 1
    assert "broken.mp4" in warnings[0]
    assert "of 40 frames" in warnings[0]


@given(
    rate=st.fractions(Fraction(1), Fraction(240), max_denominator=1001),
    unit=st.sampled_from([Fraction(1, 1000), Fraction(1, 90000)]),
    count=st.integers(2, 60),
    begin=st.integers(-(10**6), 10**6),
)
def test_times_rounded_to_the_time_base_are_constant(rate, unit, count, begin):
    times = [begin + round(i / rate / unit) for i in range(count)]
    found = classify_timing(times, unit)
    assert found.kind == "constant"
    assert found.rate == pytest.approx(float(rate), rel=float(unit * rate))


@given(st.lists(st.integers(1, 50), min_size=3, max_size=60), st.integers(0, 58))
def test_a_frame_that_is_left_out_makes_a_rate_variable(steps, where):
    times = [40 * i for i in range(len(steps) + 1)]
    del times[1 + where % (len(times) - 2)]
    found = classify_timing(times, Fraction(1, 1000))
    assert (found.kind, found.slowest, found.fastest) == (
        ("variable", 12.5, 25.0) if len(times) > 2 else ("constant", None, None)
    )


@pytest.mark.parametrize("times", [[], [7]])
def test_what_no_timestamp_tells_is_unknown(times):
    assert classify_timing(times, Fraction(1, 25), Fraction(24)).kind == "unknown"
    assert classify_timing(times, Fraction(1, 25), Fraction(24)).rate == 24
