"""Errors of usage."""

from collections.abc import Sequence
from pathlib import Path

import typer

# Typer carries its own copy of click in some releases and imports it in others: the class of its
# errors is reached through one that it exports.
ParserError: type[Exception] = typer.BadParameter.__mro__[2]
"""Base of what typer raises for a wrong command line; has ``format_message`` and ``exit_code``."""


class UsageError(Exception):
    """A command cannot do what it was asked. The message is one line for the user."""


def check_choice(option: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that an option cannot have."""
    if value not in allowed:
        raise UsageError(f"{option} {value}: give one of {', '.join(allowed)}")


def check_precision(value: str) -> None:
    """Refuse what no ``--precision`` can be."""
    check_choice("--precision", value, ("auto", "fp32", "bf16", "fp16"))


def check_target(path: Path | None) -> Path | None:
    """Refuse, before anything is computed, a file that could not be written."""
    if path is not None and path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    return path


def parse_sigmas(value: str) -> list[float]:
    """Return the noise levels of ``--sigma 15,25,50``, as 0 to 1."""
    try:
        levels = [float(part) for part in value.split(",")]
    except ValueError:
        levels = []
    if not levels or any(not 0 < level <= 255 for level in levels):
        raise UsageError(f"--sigma {value}: give levels above 0, up to 255, such as 15,25,50")
    if len(set(levels)) < len(levels):
        raise UsageError(f"--sigma {value}: a level is there twice")
    return [level / 255 for level in levels]
