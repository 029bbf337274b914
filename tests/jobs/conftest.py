"""Run the command in processes of its own that begin at once and can be killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Loading torch takes seconds: one process has done it and forks for each command.
_SERVER = """
import json, os, resource, sys
import av, torch
import nlden.cli.denoise_run, nlden.jobs.denoise, nlden.models.pretrained
from nlden.cli.main import main
torch.set_num_threads(1)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for number in (1, 2):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(f"{order['log']}.{number}", flags), number)
        if order["largest"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
        sys.argv = ["nlden", *order["arguments"]]
        try:
            main()
        except SystemExit as exit:
            sys.stdout.flush()
            os._exit(exit.code or 0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """Start commands of nlden one after the other; see the fixture."""

    def __init__(self, server: subprocess.Popen, log: Path) -> None:
        self._server, self._log = server, log

    def start(self, *arguments: object, largest: int = 0) -> int:
        """Start a command; return its process.

        Args:
            arguments: of ``nlden``.
            largest: bytes that a file may have: a full disk for one process; 0 is any number.
        """
        order = {"arguments": [*map(str, arguments)], "log": str(self._log), "largest": largest}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def wait(self) -> tuple[int, str, str]:
        """Return the exit status (or minus the signal), stdout and stderr."""
        status = int(self._server.stdout.readline())
        return status, *(Path(f"{self._log}.{n}").read_text() for n in (1, 2))

    def run(self, *arguments: object, **options) -> tuple[int, str, str]:
        """Start a command and wait for it."""
        self.start(*arguments, **options)
        return self.wait()


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Open a server of commands."""
    log = tmp_path_factory.mktemp("commands") / "log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "COLUMNS": "200"},
    ) as server:
        yield Commands(server, log)
        server.stdin.close()
