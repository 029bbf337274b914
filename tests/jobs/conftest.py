"""The command in forked processes: real descriptors and signals, without its start-up time."""

import os
import sys
from collections.abc import Callable

import pytest
from PIL import Image
from typer.testing import CliRunner

from nlden.cli.main import app, main


def _become_nlden(arguments: tuple[object, ...], descriptors: tuple[int, int, int]) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, 1024)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, "rw"[i > 0]) for i in range(3))
    sys.argv = ["nlden", *map(str, arguments)]
    status = 99  # of whatever is no exit: a traceback
    try:
        main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0
    except BaseException as error:
        print(f"Traceback: {error!r}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.fixture(scope="session")
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let the command import all it uses once, here, and not in every fork."""
    folder = tmp_path_factory.mktemp("first")
    Image.new("L", (8, 8)).save(folder / "in.png")
    arguments = ["denoise", str(folder / "in.png"), "-o", str(folder / "out.png")]
    CliRunner().invoke(
        app, [*arguments, "--precision", "fp32", "--strength", "0"], catch_exceptions=False
    )


@pytest.fixture
def fork_nlden(_imported: None) -> Callable[..., int]:
    """Return a function that runs ``nlden`` with three descriptors and returns its process."""

    def fork(*arguments: object, stdin: int, stdout: int, stderr: int) -> int:
        process = os.fork()
        if process == 0:
            _become_nlden(arguments, (stdin, stdout, stderr))
        return process

    return fork
