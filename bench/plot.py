"""Which charts a set of reports gives, and what their files are called.

Reports of one scenario are drawn together, a line each. A report alone has a line for each kind of waiting
instead. What ran beside a report has a chart of its own.
"""

import re
from collections.abc import Mapping

from bench.plots.peers import draw_peers
from bench.plots.percentiles import draw_percentiles
from bench.plots.seconds import draw_seconds
from bench.plots.server import draw_server
from bench.report import Report


def draw_charts(reports: Mapping[str, Report]) -> dict[str, str]:
    """Return the charts of named reports: SVG by file name. A chart without data is left out."""
    charts: dict[str, str | None] = {}
    for scenario in dict.fromkeys(report.scenario for report in reports.values()):
        same = {name: report for name, report in reports.items() if report.scenario == scenario}
        stem = _file_stem(scenario)
        charts |= {f"{stem}-{name}.svg": chart for name, chart in _charts(scenario, same).items()}
    return {name: chart for name, chart in charts.items() if chart is not None}


def _charts(scenario: str, reports: Mapping[str, Report]) -> dict[str, str | None]:
    """Draw reports of one scenario."""
    charts = {
        "rate": draw_seconds(f"{scenario}: rate over time", reports),
        "server": draw_server(f"{scenario}: the server over time", reports),
    }
    if len(reports) == 1:
        (report,) = reports.values()
        title = f"{scenario}: latency by percentile"
        charts["latency"] = draw_percentiles(title, report.latencies, [report])
        charts["beside"] = draw_peers(f"{scenario}: the same load on other servers", report)
        return charts
    for kind in dict.fromkeys(kind for report in reports.values() for kind in report.latencies):
        having = {name: report for name, report in reports.items() if kind in report.latencies}
        charts[f"latency-{_file_stem(kind)}"] = draw_percentiles(
            f"{scenario}: {kind} latency by percentile",
            {name: report.latencies[kind] for name, report in having.items()},
            list(having.values()),
        )
    for name, report in reports.items():
        charts[f"beside-{_file_stem(name)}"] = draw_peers(
            f"{scenario}, {name}: the same load on other servers", report
        )
    return charts


def _file_stem(name: str) -> str:
    """Return a name that is safe in any directory: what a file says must not choose where we write."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "report"
