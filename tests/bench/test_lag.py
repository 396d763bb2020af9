import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trio

from bench.lag import LagProbe, Sample, largest_backlog, summarise_lag

EXPOSITION = b"""\
# HELP ringlog_flush_lag_seconds Age of the oldest record that waits for the archive
# TYPE ringlog_flush_lag_seconds gauge
ringlog_flush_lag_seconds 0.125
ringlog_flush_backlog_records 4711.0
ringlog_flush_backlog_bytes 1e+06
"""


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
    with closing(LagProbe(url)) as probe:
        return await probe.look()


async def test_lag_and_backlog_are_those_of_the_metrics() -> None:
    with open_metrics(EXPOSITION) as url:
        assert await look(url) == Sample(0.125, 4711)


async def test_the_lag_of_a_server_without_open_metrics_is_not_known() -> None:
    with open_metrics(b"forbidden", 403) as url:
        assert await look(url) is None
    with open_metrics(b"another_series 1\n") as url:
        assert await look(url) is None
    assert await look(url) is None


async def test_it_watches_until_what_it_waits_for_has_come() -> None:
    with open_metrics(EXPOSITION) as url, closing(LagProbe(url)) as probe:

        async def wait() -> None:
            if len(probe.samples) < 3:
                await trio.sleep_forever()

        await probe.watch_until(wait)
    assert probe.samples == [Sample(0.125, 4711)] * 3


def test_percentiles_are_by_nearest_rank_and_none_without_samples() -> None:
    samples = [Sample(number / 10, number) for number in range(10, 0, -1)]
    assert summarise_lag(samples) == {"p50": 0.5, "p99": 1.0, "max": 1.0}
    assert largest_backlog(samples) == 10
    assert summarise_lag([]) is None
    assert largest_backlog([]) is None
