"""``nlden models``: the weights in the package."""

from typing import Annotated

import typer

from nlden.cli.errors import UsageError


def command(
    name: Annotated[
        str | None, typer.Argument(help="Print the model card of these weights.")
    ] = None,
) -> None:
    """List the trained weights by name, or print the model card of one."""
    from rich.console import Console
    from rich.table import Table

    from nlden.models.pretrained import WeightsError, find, read, shipped

    try:
        if name is not None:
            typer.echo(read(name)[0].card)
            return
        table = Table("name", "for", "parameters", "file", "results (PSNR in dB)")
        for weights in shipped():
            description, tensors = read(weights)
            parameters = sum(t.numel() for t in tensors.values())
            size = find(weights).stat().st_size
            facts = description.facts
            table.add_row(
                weights,
                facts.get("use", ""),
                f"{parameters / 1e6:.2f} M",
                f"{size / 1e6:.1f} MB",
                facts.get("results", ""),
            )
        Console().print(table)
    except WeightsError as error:
        raise UsageError(str(error)) from error
