"""``python -m bench results``: the tables of docs/benchmarks.md, from the files beside it."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.stored import give_up
from bench.results import PageError, put_results, read_results, results_text


def results(
    directory: Annotated[
        Path, typer.Argument(help="Where the reports are.", exists=True, file_okay=False)
    ] = Path("docs/benchmarks"),
    *,
    page: Annotated[
        Path | None, typer.Option(help="Put the tables into this page, instead of printing them.")
    ] = None,
) -> None:
    """Print the reports of a directory as Markdown tables."""
    reports = read_results(directory)
    if not reports:
        give_up(PageError(f"no reports in {directory}"))
    if page is None:
        typer.echo(results_text(reports))
        return
    try:
        page.write_text(put_results(page.read_text(), reports))
    except PageError as error:
        give_up(error)
