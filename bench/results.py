"""Stored reports as the tables of a page, so that no figure in it was copied by hand.

Pure but for reading the files. The page keeps the tables between two comments; what stands there is replaced.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.peers.comparison import RATIO, SCENARIO, SYNCS, VERSION, report_absent
from bench.report import RATE, Metric, Report, read_report
from bench.table import number_text
from bench.usage import GENERATOR

BEGIN = "<!-- RESULTS: python -m bench results -->"
END = "<!-- end of RESULTS -->"

APPENDS = ("append", "rate", "ancestor", "flush")
"""Scenarios that share a table: durable appends under several loads."""

UNINTERESTING = {GENERATOR, "records per commit", "flush lag p50", "flush lag max"}
"""Figures that explain a run, and would crowd a page; the files have them."""


class PageError(Exception):
    """A page has no place for the results."""


def read_results(directory: Path) -> dict[str, Report]:
    """Return the reports in a directory by the names of their files."""
    return {path.stem: read_report(path) for path in sorted(directory.glob("*.json"))}


def put_results(page: str, results: Mapping[str, Report]) -> str:
    """Return a page with these results in place of those that it had.

    Raises:
        PageError: It has no comments that say where.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PageError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{results_text(results)}\n\n{END}{after}"


def results_text(results: Mapping[str, Report]) -> str:
    """Return all tables."""
    appends = {name: report for name, report in results.items() if report.scenario in APPENDS}
    peers = {name: report for name, report in results.items() if report.scenario == SCENARIO}
    others = {name: report for name, report in results.items() if name not in {*appends, *peers}}
    parts = [_runs_table(results)]
    if appends:
        parts += ["### Durable appends", _appends_table(appends)]
    for name, report in peers.items():
        load = f"{report.config['connections']} × {report.config['in_flight']}"
        parts += [f"### Beside what else there is, {load}", _peers_table(name, report)]
    if others:
        parts += ["### Everything else", _figures_table(others)]
    return "\n\n".join(parts)


def _runs_table(results: Mapping[str, Report]) -> str:
    """Return what each run ran on, and what to know about it; a broken promise stands here."""
    heads = (
        "file",
        "commit",
        "rounds",
        "a call in Python",
        "`fdatasync` p50",
        "verdict",
        "to know",
    )
    machine = next(iter(results.values())).environment
    rows = []
    for name, report in results.items():
        where = report.environment
        known = [
            f"{other.scenario}: {text}"
            for other in report.beside
            for text in (*other.failures, *other.warnings)
        ]
        absent = report_absent(report)
        own = [text for text in report.warnings if text.partition(": ")[0] not in absent]
        rows.append(
            (
                _file(name),
                where.commit,
                str(report.config.get("rounds", 1)),
                f"{where.interpreter_ns:.0f} ns",
                f"{report.fdatasync_ms.p50:.2f} ms",
                _verdict(report),
                "; ".join([*report.failures, *own, *known]),
            )
        )
    text = (
        f"{machine.cores} cores of an {machine.cpu}, {machine.filesystem}, Linux {machine.kernel},"
        f" Python {machine.python}. Where there are several rounds, these are their medians."
    )
    return f"{text}\n\n{_table(heads, rows)}"


def _verdict(report: Report) -> str:
    broken = [each for each in (report, *report.beside) if not each.verdict.get("ok", True)]
    if not broken:
        return f"{report.acked:,} verified" if report.verdict else "none"
    counts = {kind: count for each in broken for kind, count in each.verdict.items() if count}
    return f"**BROKEN**: {', '.join(f'{count} {kind}' for kind, count in counts.items())}"


def _appends_table(results: Mapping[str, Report]) -> str:
    heads = (
        "file",
        "connections × in flight",
        "acknowledged a second",
        "p50",
        "p99",
        "flush lag p99",
    )
    rows = []
    for name, report in results.items():
        bare = next((other for other in report.beside if other.scenario == "bare"), None)
        rows.append(
            (
                _file(name),
                _load(report),
                "–" if report.rate_per_second is None else f"{report.rate_per_second:,.0f}",
                *_waits(report),
                _value(report, "flush lag p99"),
                "–" if bare is None else f"{bare.rate_per_second or 0:,.0f}",
                _value(report, "ratio to bare"),
            )
        )
    return _table((*heads, "bare server", "ratio"), rows)


def _load(report: Report) -> str:
    config = report.config
    text = f"{config['connections']} × {config['in_flight']}"
    if config["per_second"] is not None:
        text = f"{config['connections']}, {config['per_second']:,.0f} a second"
    if config["archive"] is not None:
        text += ", PostgreSQL"
    if config["archive_down"]:
        text += ", archive held back"
    if config["sessions"] is not None:
        text += f", {config['sessions']:,} sessions, {report.acked:,} messages"
    return text


def _peers_table(name: str, report: Report) -> str:
    heads = (
        "peer",
        "acknowledged a second",
        "p50",
        "p99",
        "syncs per ack",
        "Ringlog's rate over its",
    )
    everyone = sorted((report, *report.beside), key=lambda each: -(each.rate_per_second or 0))
    rows = [
        (
            "**Ringlog**" if each is report else f"{each.scenario} {each.config[VERSION]}",
            f"{each.rate_per_second:,.0f}" if each.rate_per_second else "failed",
            *_waits(each),
            _value(each, SYNCS),
            "1" if each is report else _value(each, RATIO),
        )
        for each in everyone
    ]
    rows += [(peer, reason, "", "", "", "") for peer, reason in report_absent(report).items()]
    return f"{_table(heads, rows)}\n\nFrom {_file(name)}."


def _figures_table(results: Mapping[str, Report]) -> str:
    rows = []
    for name, report in results.items():
        for kind, latency in report.latencies.items():
            times = latency.median
            text = f"{times['p50']:.2f} · {times['p99']:.2f} · {times['max']:.2f} ms"
            rows.append((_file(name), f"{kind}, p50 · p99 · max", text))
        for metric in report.metrics:
            if metric.name not in UNINTERESTING:
                what = "a second" if metric.name == RATE else metric.name
                rows.append((_file(name), what, _text(metric)))
    return _table(("file", "figure", "value"), rows)


def _waits(report: Report) -> tuple[str, str]:
    ack = report.ack_ms
    return ("–", "–") if ack is None else (f"{ack['p50']:.2f} ms", f"{ack['p99']:.2f} ms")


def _value(report: Report, name: str) -> str:
    metric = report.metric(name)
    if metric is None:
        return "–"
    return _text(metric)


def _text(metric: Metric) -> str:
    parts = (number_text(metric.median, metric.unit), metric.unit)
    text = " ".join(filter(None, parts))
    return f"{text}, {metric.presence}" if metric.presence else text


def _file(name: str) -> str:
    return f"[{name}](benchmarks/{name}.json)"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = tuple(heads)
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
