"""The comparison for people, on stdout."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.measurement import GENERATOR_SHARE_MAX
from bench.peers.catalogue import PEERS, Ringlog
from bench.peers.comparison import RATIO, SCENARIO, SYNCS, VERSION, report_absent
from bench.report import RATE, Report
from bench.table import print_findings
from bench.usage import GENERATOR, SERVER

PIPE_COLUMNS = 120
"""Enough that no cell is wrapped where nobody has a window."""

_HEADINGS = ("a second", "p50 ms", "p99 ms", "syncs/ack", "server", "generator", "ratio")
_LOAD = ("connections", "in_flight", "content_bytes", "seconds", "rounds")
_UNKNOWN = "–"
_RINGLOG = Ringlog()

LEGEND = (
    "A sync before each ack, everywhere. A second, p50, p99: acknowledged appends, and the wait for one; medians of"
    " the rounds. server, generator: processor, in cores; ! where the generator may be the limit. ratio: Ringlog's rate over this one's, round by round."
    " verdict: what the server itself says it stores is what it acknowledged, once, in order, unchanged."
)


def print_comparison(report: Report) -> None:
    """Print a row for each peer, the missing ones too, then what to know about them."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    sync = report.fdatasync_ms
    load = ", ".join(f"{key} {report.config[key]}" for key in _LOAD)
    console.print(f"{load}; fdatasync alone p50 {sync.p50:.2f} ms, p99 {sync.p99:.2f} ms\n")
    absent = report_absent(report)
    console.print(_table(report, absent))
    for each in (report, *report.beside):
        if not _kept(each):
            console.print(f"\n{_name(each)}", style="bold")
            if _has_faults(each):
                print_findings(console, each.verdict, each.examples)
            else:
                console.print(Text("\n".join(each.failures)))
    console.print()
    for each in (report, *report.beside):
        if _kept(each):
            for failure in each.failures:
                console.print(Text(f"{_name(each)}: {failure}", style="red"))
        for warning in each.warnings:
            if warning.partition(": ")[0] not in absent:
                console.print(Text(f"{_name(each)}: {warning}", style="yellow"))
    for line in (LEGEND, *_notes(report)):
        console.print(Text(line, style="dim"))


def _table(report: Report, absent: Mapping[str, str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("peer", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    rows = sorted((report, *report.beside), key=lambda each: -(each.rate_per_second or 0))
    for each in rows:
        name = Text(_name(each), style="bold" if each is report else "")
        table.add_row(name, *_cells(each), _verdict(each))
    for missing, reason in absent.items():
        table.add_row(Text(missing), *([_UNKNOWN] * len(_HEADINGS)), Text(reason))
    return table


def _cells(report: Report) -> list[str]:
    ack_ms = report.ack_ms or {}
    generator = _metric(report, GENERATOR, ".2f")
    if any(
        metric.name == GENERATOR and metric.median > GENERATOR_SHARE_MAX
        for metric in report.metrics
    ):
        generator += "!"
    return [
        _metric(report, RATE, ",.0f"),
        *(f"{ack_ms[name]:.2f}" if name in ack_ms else _UNKNOWN for name in ("p50", "p99")),
        _metric(report, SYNCS, ".3f"),
        _metric(report, SERVER, ".2f"),
        generator,
        _metric(report, RATIO, ".2f"),
    ]


def _metric(report: Report, name: str, form: str) -> str:
    metric = report.metric(name)
    return _UNKNOWN if metric is None else format(metric.median, form)


def _kept(report: Report) -> bool:
    """Whether this one kept its promise, whatever the others did."""
    return bool(report.verdict.get("ok", True))


def _has_faults(report: Report) -> bool:
    """Whether something is stored otherwise than acknowledged; else a failed one gave up before."""
    return any(count for kind, count in report.verdict.items() if kind != "ok")


def _verdict(report: Report) -> Text:
    if _kept(report):
        rounds = report.config["rounds"]
        assert isinstance(rounds, int)
        measured = rounds - len(report.failures)
        return Text("kept" if measured == rounds else f"kept in {measured} of {rounds} rounds")
    return Text("BROKEN" if _has_faults(report) else "FAILED", style="bold red")


def _name(report: Report) -> str:
    return _RINGLOG.name if report.scenario == SCENARIO else report.scenario


def _notes(report: Report) -> list[str]:
    """Say what each peer in the table is, and is not."""
    there = {_name(each): each for each in (report, *report.beside)}
    return [
        f"{peer.name} ({there[peer.name].config[VERSION]}): {peer.note}"
        for peer in (_RINGLOG, *PEERS)
        if peer.name in there
    ]
