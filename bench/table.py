"""Reports for people, on stdout."""

from itertools import chain

from rich.console import Console
from rich.table import Table

from bench.report import Metric, Report

LATENCIES = {
    "ack": "ack",
    "delivery": "delivery",
    "replay": "replay",
    "late": "sent late",
    "repeat": "answered again",
}
"""How each kind of latency is called."""

UNITS_WHOLE = {"/s", "records", "bytes", "messages"}
"""Of these a fraction says nothing."""

BARE_NOTE = """\
bare: takes frames, decodes, writes, syncs, answers. No sessions, no replay,
no archive, no checks, so nothing to verify: a yardstick, not a product."""


def print_report(report: Report) -> None:
    """Print the figures, or what is wrong with them."""
    console = Console()
    if not report.ok:
        print_findings(console, report.verdict, report.examples)
        return
    _print_figures(console, report)
    for other in report.beside:
        console.print(f"\nbeside it: {other.scenario}", style="bold")
        _print_figures(console, other)
        if other.scenario == "bare":
            console.print(BARE_NOTE, style="dim")
    for failure in chain(*(each.failures for each in (report, *report.beside))):
        console.print(failure, style="red", markup=False)
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow")


def _print_figures(console: Console, report: Report) -> None:
    rows: dict[str, str] = {}
    for metric in report.metrics:
        rows |= _metric_row(metric)
    rows["refused"] = (
        ", ".join(f"{count:,} {code}" for code, count in report.refused.items()) or "none"
    )
    if report.verdict:
        rows["verified by replay"] = f"{report.acked:,}: all there, once, in order, unchanged"
    print_rows(console, rows)
    console.print()
    _print_latencies(console, report)


def _print_latencies(console: Console, report: Report) -> None:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("ms")
    for name in ("p50", "p90", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    for kind, latency in report.latencies.items():
        times = (f"{value:.2f}" for value in latency.median.values())
        table.add_row(" ".join((LATENCIES.get(kind, kind), latency.presence)).rstrip(), *times)
    sync = report.fdatasync_ms
    table.add_row("fdatasync alone", f"{sync.p50:.2f}", "", f"{sync.p99:.2f}")
    console.print(table)


def print_findings(console: Console, verdict: dict[str, bool | int], examples: list[str]) -> None:
    """Say which promise was broken, and how."""
    console.print("The promise was broken.", style="bold red")
    console.print({kind: count for kind, count in verdict.items() if count})
    console.print("\n".join(examples), markup=False, highlight=False)


def _metric_row(metric: Metric) -> dict[str, str]:
    """Return the median; of several rounds their range as well."""
    text = number_text(metric.median, metric.unit)
    if len(metric.values) > 1:
        low, high = (number_text(each(metric.values), metric.unit) for each in (min, max))
        text = f"{text} ({low} – {high})"
    return {metric.name: " ".join(filter(None, (text, metric.unit, metric.presence)))}


def number_text(value: float, unit: str) -> str:
    """Return a figure with as many digits as mean something."""
    if unit in UNITS_WHOLE or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def print_rows(console: Console, rows: dict[str, str]) -> None:
    """Print two columns."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
