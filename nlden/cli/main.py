"""``nlden``: the commands and how their errors are shown."""

import logging
import signal
import sys
import warnings
from typing import Annotated

import typer

import nlden
from nlden.cli import bench, demo, denoise, evaluate, evaluate_clips, info, models
from nlden.cli.errors import ParserError, UsageError

app = typer.Typer(
    name="nlden",
    help="Remove noise from video and images with non-local attention.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("denoise")(denoise.command)
app.command("demo")(demo.command)
app.command("evaluate")(evaluate.command)
app.command("evaluate-clips")(evaluate_clips.command)
app.command("info")(info.command)
app.command("models")(models.command)
app.add_typer(bench.app, name="bench")


@app.command(
    "train",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def train(context: typer.Context) -> None:
    """Train, validate or test a recipe: nlden train fit --config recipes/....yaml."""
    from nlden.cli import train as lightning_cli

    lightning_cli.main(context.args)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"nlden {nlden.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Remove noise from video and images with non-local attention."""


def _terminate(number: int, frame: object) -> None:
    # An exception, so that temporary files are removed on the way out.
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line; an error is one line on stderr and a non-zero exit."""
    signal.signal(signal.SIGTERM, _terminate)
    # What Pillow finds wrong is told in one line, by us.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        status = app(standalone_mode=False)
    except UsageError as error:
        print(f"nlden: {error}", file=sys.stderr)
        status = 2
    except ParserError as error:
        if message := error.format_message():  # type: ignore[attr-defined]
            print(f"nlden: {message}", file=sys.stderr)
        status = 2
    except (typer.Abort, KeyboardInterrupt):
        print("nlden: interrupted; nothing was left half-written", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
