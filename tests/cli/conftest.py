"""The program in the process of the tests, which has loaded what it loads."""

import sys
from collections.abc import Callable

import pytest

from nlden.cli.main import main


@pytest.fixture
def run_here(monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command and returns exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test process keeps its own

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nlden", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capfd.readouterr()

    return run
