"""``python -m bench compare A.json B.json``: what changed between two reports, and what is noise."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.commands.stored import give_up, read_stored
from bench.compare import (
    ALPHA,
    THRESHOLD,
    CompareError,
    Comparison,
    Difference,
    Judgement,
    Spread,
    VerdictError,
    compare_reports,
)
from bench.report import write_json

EXIT_WORSE = 1
"""Something is worse, or a run broke the promise."""

PIPE_COLUMNS = 160
"""Enough that no cell is wrapped where nobody has a window: in a file, or in the log of a CI."""

WIDE_COLUMNS = 110
"""From here on, a figure has one line."""

_STYLES = {Judgement.BETTER: "green", Judgement.WORSE: "bold red"}


def compare(
    a: Annotated[Path, typer.Argument(help="The report to compare with.", metavar="A.json")],
    b: Annotated[Path, typer.Argument(help="The report that is judged.", metavar="B.json")],
    *,
    threshold: Annotated[
        float, typer.Option(min=0, help="Per cent by which medians must differ to matter.")
    ] = THRESHOLD * 100,
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="Exit with 1 if a figure is worse.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the comparison as JSON; - is stdout.")
    ] = None,
) -> None:
    """Say of each figure in two reports whether B is better than A, worse, or within the noise.

    Exits with 1 if the verdict of either failed, and with 2 if they cannot be compared.
    """
    try:
        comparison = compare_reports(read_stored(a), read_stored(b), threshold / 100)
    except CompareError as error:
        give_up(error)
    except VerdictError as error:
        give_up(error, EXIT_WORSE)
    if json is not None:
        try:
            write_json(comparison, json)
        except OSError as error:
            give_up(f"{json}: {error.strerror or error}; give another file to --json")
    if str(json) != "-":
        print_comparison(comparison, Console(highlight=False))
    if fail_on_worse and comparison.count(Judgement.WORSE):
        raise typer.Exit(EXIT_WORSE)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what makes it doubtful first, then every figure, then how to read them."""
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    commits = f"A {comparison.commit_a}, B {comparison.commit_b}"
    console.print(Text(f"{comparison.scenario}: {commits}", style="bold"))
    for warning in comparison.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print()
    console.print(_table(comparison.differences, wide=console.width >= WIDE_COLUMNS))
    console.print()
    for line in _legend(comparison):
        console.print(Text(line, style="dim"))


def _table(differences: list[Difference], *, wide: bool) -> Table:
    """Lay the figures out; where there is no room beside a median, its range is below it."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("figure", overflow="fold")
    for heading in ("A (range)", "B (range)", "B/A"):
        table.add_column(heading, justify="right", no_wrap=True)
    if wide:
        table.add_column("chance", justify="right", no_wrap=True)
    table.add_column("judgement", no_wrap=True)
    for each in differences:
        chance, judgement = _chance(each), _judgement(each)
        table.add_row(
            # Text, not str: brackets in a name are not markup.
            Text(f"{each.name} {each.unit}".rstrip()),
            _spread(each.a, wide=wide),
            _spread(each.b, wide=wide),
            "–" if each.ratio is None else f"{each.ratio:.2f}",
            *([chance, judgement] if wide else [_below(judgement, chance)]),
        )
    return table


def _spread(spread: Spread, *, wide: bool) -> Text:
    middle, low, high = (_number(value) for value in (spread.median, spread.low, spread.high))
    return Text(f"{middle} ({low}–{high})") if wide else _below(Text(middle), f"{low}–{high}")


def _below(first: Text, second: str) -> Text:
    return first.append(f"\n{second}", style="dim") if second else first


def _chance(difference: Difference) -> str:
    if difference.p is None or difference.judgement is None:
        return ""
    return f"p {difference.p:.3f}" if difference.p >= 0.001 else "p < 0.001"


def _judgement(difference: Difference) -> Text:
    if difference.judgement is None:
        return Text("not a goal", style="dim")
    mark = " (weak)" if difference.weak else ""
    return Text().append(
        f"{difference.judgement}{mark}", style=_STYLES.get(difference.judgement, "")
    )


def _number(value: float) -> str:
    """Return three digits, or all before the point of what is not large: the rest is noise."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if letter == "k" else limit)
            return f"{scaled:,.{_digits(scaled)}f}{letter}"
    return f"{value:,.{_digits(value)}f}"


def _digits(value: float) -> int:
    return next((n for n, limit in enumerate((100, 10, 1)) if abs(value) >= limit), 3)


def _legend(comparison: Comparison) -> list[str]:
    """Explain the judgements that occur."""
    judged = [each for each in comparison.differences if each.judgement is not None]
    counts = [f"{comparison.count(kind)} {kind}" for kind in Judgement if comparison.count(kind)]
    lines = [", ".join(counts) or "no figure in both that is a goal"]
    if any(each.p is not None for each in judged):
        lines.append(
            f"p: by chance, exact Mann–Whitney test; better or worse has a p below {ALPHA:g} "
            f"and medians that differ by {comparison.threshold * 100:g} % or more."
        )
    if any(each.weak for each in judged):
        lines.append(
            "weak: no round of one side lies in the range of the other, which three beside three "
            "do by chance once in ten times; take five rounds each to be surer."
        )
    if comparison.count(Judgement.CANNOT_TELL):
        lines.append("cannot tell: fewer than three rounds on a side; take at least four of each.")
    return lines
