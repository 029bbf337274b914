"""The plain forms compute what the blocks compute; rows, files and pictures of the benchmark."""

import csv

import pytest
import torch

from nlden.evaluation import attention
from nlden.evaluation.attention import CASES, CHANNELS, CLIP_WINDOWS, measure, measure_clip, plot
from nlden.evaluation.environment import environment, write_csv

FORMS = [(block, form) for block, (_, forms) in CASES.items() for form in forms]


@pytest.mark.parametrize(("block", "form"), FORMS)
def test_plain_forms_are_the_same_function(block, form):
    torch.manual_seed(0)
    build, forms = CASES[block]
    module = build().double().eval()
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)
    x = torch.randn(2, CHANNELS, 5, 6, dtype=torch.float64)
    assert torch.allclose(forms[form](module, x), module(x), rtol=1e-9, atol=1e-9)


def test_rows_csv_and_plot(tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "CASES", {"concatenation": CASES["concatenation"]})
    seen = []
    # All pairs of 1024 positions would take 768 MiB.
    rows = measure([64, 1024], 0.5, seen.append)
    assert rows == seen
    assert {(r.form, r.positions) for r in rows} == {
        ("nlden", 64),
        ("nlden", 1024),
        ("all pairs", 64),
        ("N x N map", 64),
        ("N x N map", 1024),
    }
    assert all(r.seconds > 0 for r in rows)
    held = {r.form: r.mebibytes for r in rows if r.positions == 1024}
    assert held["N x N map"] > held["nlden"]
    plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    write_csv(tmp_path / "rows.csv", [vars(r) for r in rows])
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert [row["form"] for row in csv.DictReader(file)] == [r.form for r in rows]


def test_windows_over_a_clip():
    seen = []
    rows = measure_clip((3, 17, 20), seen.append)
    assert rows == seen
    assert len(rows) == len(CLIP_WINDOWS)
    assert all(r.positions == 3 * 17 * 20 and r.seconds > 0 for r in rows)


def test_the_environment_is_one_line():
    line = environment(torch.device("cpu"))
    assert torch.__version__ in line
    assert "\n" not in line
