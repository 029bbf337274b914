"""The README says what is true: its Python runs, its test command is what the gate runs."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_the_python_of_the_readme_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[number], f"README snippet {number}", "exec"), {})


def test_the_readme_shows_python():
    assert len(SNIPPETS) == 7


def test_files_that_the_readme_names_exist():
    root = Path(__file__).parent.parent
    named = re.findall(r"recipes/\S+?\.yaml|docs/\w+\.png", README)
    assert named
    assert all((root / name).is_file() for name in named)


def test_options_that_the_readme_names_exist():
    from typer.main import get_command

    from nlden.cli.main import app

    commands = [get_command(app).commands[name] for name in ("denoise", "info", "evaluate-clips")]
    known = {option for c in commands for parameter in c.params for option in parameter.opts}
    named = set(re.findall(r"`(--[a-z-]+)", README.split("## Python")[0]))
    assert named
    assert named <= known
