import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.probe import Probe, Sample, lag_figures, sync_figures

EXPOSITION = b"""\
# HELP ringlog_flush_lag_seconds Age of the oldest record that waits for the archive
# TYPE ringlog_flush_lag_seconds gauge
ringlog_flush_lag_seconds 0.125
ringlog_flush_backlog_records 4711.0
ringlog_flush_backlog_bytes 1e+06
ringlog_log_syncs_total 12.0
ringlog_log_commits_total 10.0
ringlog_log_records_total 2500.0
"""

SAMPLE = Sample(0.125, 4711, syncs=12, commits=10, records=2500)


@contextmanager
def open_metrics(body: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.server_port}/v1/ws"
        finally:
            server.shutdown()
            thread.join()


async def look(url: str) -> Sample | None:
    with closing(Probe(url)) as probe:
        return await probe.look()


async def test_lag_and_backlog_are_those_of_the_metrics() -> None:
    with open_metrics(EXPOSITION) as url:
        assert await look(url) == SAMPLE


async def test_the_lag_of_a_server_without_open_metrics_is_not_known() -> None:
    with open_metrics(b"forbidden", 403) as url:
        assert await look(url) is None
    with open_metrics(b"another_series 1\n") as url:
        assert await look(url) is None
    assert await look(url) is None


def test_the_lag_is_given_by_nearest_rank_and_not_without_samples() -> None:
    samples = [SAMPLE._replace(lag_seconds=n / 10, backlog_records=n) for n in range(10, 0, -1)]
    figures = {figure.name: figure.value for figure in lag_figures(samples)}
    assert figures == {
        "flush lag p50": 0.5,
        "flush lag p99": 1.0,
        "flush lag max": 1.0,
        "largest flush backlog": 10,
    }
    assert lag_figures([]) == []


def test_syncs_are_shared_by_the_records_of_the_measured_time_alone() -> None:
    after = SAMPLE._replace(syncs=62, commits=50, records=12_500)
    figures = {figure.name: figure.value for figure in sync_figures(SAMPLE, after)}
    assert figures == {"log fsyncs per record": 0.005, "records per commit": 250.0}
    assert sync_figures(SAMPLE, SAMPLE) == []
    assert sync_figures(None, after) == []
