"""Errors of usage."""

import typer

# Typer carries its own copy of click in some releases and imports it in others: the class of its
# errors is reached through one that it exports.
ParserError: type[Exception] = typer.BadParameter.__mro__[2]
"""Base of what typer raises for a wrong command line; has ``format_message`` and ``exit_code``."""


class UsageError(Exception):
    """A command cannot do what it was asked. The message is one line for the user."""


def check_precision(value: str) -> None:
    """Refuse what no ``--precision`` can be."""
    allowed = ("auto", "fp32", "bf16", "fp16")
    if value not in allowed:
        raise UsageError(f"--precision {value}: give one of {', '.join(allowed)}")
