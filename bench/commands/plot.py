"""``python -m bench plot REPORT.json…``: charts for a README."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.stored import give_up, read_stored
from bench.plot import draw_charts


def plot(
    reports: Annotated[
        list[Path], typer.Argument(help="What --json wrote.", metavar="REPORT.json")
    ],
    *,
    output: Annotated[Path, typer.Option(help="The directory for the SVG files.")] = Path(),
) -> None:
    """Draw latencies by percentile, rates over time, and what ran beside, as SVG.

    Reports of one scenario share their charts. Each file that is written is named on stdout.
    """
    # By file name, which is what a reader of the chart sees; by path if that is not enough.
    stems = [path.stem for path in reports]
    names = [str(path) if stems.count(path.stem) > 1 else path.stem for path in reports]
    named = {name: read_stored(path) for name, path in zip(names, reports, strict=True)}
    for name, report in named.items():
        if not report.ok:
            typer.echo(f"bench: {name}: a verdict failed; what it is on has no figures", err=True)
    charts = draw_charts(named)
    if not charts:
        give_up("nothing to draw: no latency, no timeline and nothing beside in these reports")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, chart in charts.items():
            (output / name).write_text(chart, encoding="utf-8")
            typer.echo(output / name)
    except OSError as error:
        give_up(f"{error.filename}: {error.strerror}; give another --output")
