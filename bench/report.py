"""What a run prints: a table for people on stdout, or JSON for the next program."""

import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.demo import DemoResult
from bench.environment import Environment, SyncLatency

MIB = 1024 * 1024

BARE_NOTE = """\
bare: takes frames, decodes, writes, syncs, answers. No sessions, no replay,
no archive, no checks, so nothing to verify: a yardstick, not a product."""


class BareReport(msgspec.Struct, kw_only=True):
    """The bare server under the same load: a yardstick. It cannot replay, so it has no verdict."""

    rate_per_second: float
    acked: int
    ack_ms: dict[str, float]
    fdatasync_ms: SyncLatency
    server_cpu: float | None
    server_rss_bytes: int | None
    generator_cpu: float


class RoundReport(msgspec.Struct, kw_only=True):
    """One round: what the medians were taken of."""

    rate_per_second: float
    bare_rate_per_second: float | None


class AppendReport(msgspec.Struct, kw_only=True):
    """The outcome of an append run; a run whose verdict failed has no rate.

    Of several rounds these are the medians. What was acknowledged, refused and found is that of all
    rounds together, and so is the longest wait and what was seen of the flush lag.
    """

    scenario: str
    config: dict[str, str | int | float | bool | None]
    environment: Environment
    rate_per_second: float | None
    acked: int
    refused: dict[str, int]
    ack_ms: dict[str, float]
    fdatasync_ms: SyncLatency
    server_cpu: float | None
    server_rss_bytes: int | None
    generator_cpu: float
    flush_lag_s: dict[str, float] | None
    flush_backlog_max: int | None
    catch_up_s: float | None
    verdict: dict[str, bool | int]
    examples: list[str]
    rounds: list[RoundReport]
    bare: BareReport | None
    ratio: float | None


class MemoryReport(msgspec.Struct, kw_only=True):
    """What idle things cost the server."""

    scenario: str
    environment: Environment
    sessions: int
    connections: int
    start_rss_bytes: int
    rss_bytes: int
    session_bytes: float
    connection_bytes: float


def progress(line: str) -> None:
    """Say on stderr how far a run is."""
    print(line, file=sys.stderr, flush=True)


def write_json(report: msgspec.Struct, path: Path) -> None:
    """Write a report where the next program finds it; ``-`` is stdout."""
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=2)
    if str(path) == "-":
        sys.stdout.buffer.write(encoded + b"\n")
    else:
        path.write_bytes(encoded + b"\n")


def print_append(report: AppendReport) -> None:
    """Print the figures, or what is wrong with them."""
    console = Console()
    if not report.verdict["ok"]:
        _print_findings(console, report.verdict, report.examples)
        return
    ack, sync = report.ack_ms, report.fdatasync_ms
    rows = {
        "acknowledged": f"{report.rate_per_second:,.0f} /s",
        "ack p50 · p90 · p99": f"{ack['p50']:.2f} · {ack['p90']:.2f} · {ack['p99']:.2f} ms",
        "ack p99.9 · max": f"{ack['p999']:.2f} · {ack['max']:.2f} ms",
        "fdatasync alone p50 · p99": f"{sync.p50:.2f} · {sync.p99:.2f} ms",
        "server processor": _share(report.server_cpu),
        "server memory": _mebibytes(report.server_rss_bytes),
        "generator processor": _share(report.generator_cpu),
        "refused": _counts(report.refused),
        "flush lag p50 · p99 · max": _lag(report.flush_lag_s),
        "largest flush backlog": _records(report.flush_backlog_max),
        **_archive_rows(report),
        "verified by replay": f"{report.acked:,} acknowledged: all there, once, in order, unchanged",
        **_bare_rows(report),
    }
    _print_rows(console, rows)
    if report.bare is not None:
        console.print(BARE_NOTE, style="dim")


def print_memory(report: MemoryReport) -> None:
    """Print what one session and one connection cost."""
    rows = {
        "server at start": _mebibytes(report.start_rss_bytes),
        f"with {report.sessions:,} active sessions and {report.connections:,} connections": (
            _mebibytes(report.rss_bytes)
        ),
        "per active session": f"{report.session_bytes:,.0f} bytes",
        "per idle joined connection": f"{report.connection_bytes:,.0f} bytes",
    }
    _print_rows(Console(), rows)


def print_demo(result: DemoResult) -> None:
    """Print what was played, and whether the archive holds it."""
    console = Console()
    findings = result.findings
    rate = result.messages / result.play_seconds
    rows = {
        "conversations": f"{result.conversations:,}",
        "messages acknowledged": f"{result.messages:,} in {result.play_seconds:.1f} s ({rate:,.0f} /s)",
        "kill -9": f"{result.kills}",
        "connections lost and resumed": f"{result.reconnects}",
        "messages in the archive": f"{result.archived:,}",
    }
    _print_rows(console, rows)
    if findings.ok:
        console.print("All there, in order, once, byte for byte.", style="bold green")
    else:
        _print_findings(console, findings.verdict(), findings.examples)


def _print_findings(console: Console, verdict: dict[str, bool | int], examples: list[str]) -> None:
    console.print("The promise was broken.", style="bold red")
    console.print({kind: count for kind, count in verdict.items() if count})
    console.print("\n".join(examples), markup=False, highlight=False)


def _print_rows(console: Console, rows: dict[str, str]) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _archive_rows(report: AppendReport) -> dict[str, str]:
    if report.catch_up_s is None:
        return {}
    return {
        "archive held back": "it took nothing while this was measured",
        "archive caught up": f"{report.catch_up_s:.1f} s after it was let go",
    }


def _bare_rows(report: AppendReport) -> dict[str, str]:
    """Return the rounds if there are several, and the yardstick if there is one."""
    rounds, bare = report.rounds, report.bare
    rows = {}
    if len(rounds) > 1:
        rows["each round"] = " · ".join(f"{each.rate_per_second:,.0f}" for each in rounds) + " /s"
    if bare is None:
        return rows
    ack = bare.ack_ms
    rows["bare: acknowledged"] = f"{bare.rate_per_second:,.0f} /s"
    rows["bare: ack p50 · p90 · p99"] = f"{ack['p50']:.2f} · {ack['p90']:.2f} · {ack['p99']:.2f} ms"
    rows["bare: server processor"] = _share(bare.server_cpu)
    if len(rounds) > 1:
        rates = (f"{each.bare_rate_per_second:,.0f}" for each in rounds)
        rows["bare: each round"] = " · ".join(rates) + " /s"
    rows["ratio to bare"] = "none" if report.ratio is None else f"{report.ratio:.2f}"
    return rows


def _lag(lag: dict[str, float] | None) -> str:
    if lag is None:
        return "not known"
    return f"{lag['p50']:.2f} · {lag['p99']:.2f} · {lag['max']:.2f} s"


def _records(count: int | None) -> str:
    return "not known" if count is None else f"{count:,} records"


def _share(cpu: float | None) -> str:
    return "not ours to measure" if cpu is None else f"{cpu:.2f} cores"


def _mebibytes(size: int | None) -> str:
    return "not ours to measure" if size is None else f"{size / MIB:,.0f} MiB"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in counts.items()) or "none"
