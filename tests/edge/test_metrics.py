import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from websockets.frames import Frame, Opcode

from edge import serve
from edge.limits import Limits
from edge.metrics import SERIES, Histogram, HistogramSeries, Metrics
from runtime import Cluster, NodeOptions, WaitingReply, open_node, plan_drain, slot_of
from runtime.links.remote import RemoteSession
from storage import Archive, open_archive
from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import SMALL_LOG, OnePort, open_one_port
from tests.edge.socket_client import open_socket
from tests.fakes.directory import CrashingDirectory
from tests.runtime import clusters
from tests.storage.sql import refuse_rows, run_sql

SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>[-+0-9.e]+|NaN)")


def samples(metrics: Metrics) -> dict[str, float]:
    """Return every sample by name and labels, as Prometheus would read them."""
    found = {}
    for line in metrics.exposition().decode().splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            found[f"{match['name']}{{{match['labels'] or ''}}}"] = float(match["value"])
    return found


def total(metrics: Metrics, series: str) -> float:
    """Return the sum over a series' labels; of a histogram, how much was observed."""
    names = (f"{series}{{", f"{series}_total{{", f"{series}_count{{")
    return sum(value for name, value in samples(metrics).items() if name.startswith(names))


@asynccontextmanager
async def open_edge(
    tmp_path: Path, limits: Limits | None = None
) -> AsyncIterator[tuple[OnePort, HttpClient]]:
    async with open_one_port(tmp_path, limits=limits) as edge, open_http(edge.port) as http:
        await http.post("/v1/sessions", {"id": "s", "user_id": "u"})
        yield edge, http


def test_every_series_has_a_name_of_its_own_and_a_help_text() -> None:
    names = [series.name for series in SERIES]
    assert len(set(names)) == len(names)
    for series in SERIES:
        assert re.fullmatch(r"ringlog_[a-z_]+", series.name)
        assert not series.name.endswith(("_total", "_count", "_bucket", "_sum"))
        assert series.help


def test_no_series_is_labelled_by_what_clients_choose() -> None:
    labels = {label for series in SERIES for label in series.labels}
    assert labels <= {"transport", "code", "route", "method", "status", "to"}


def test_a_histogram_counts_as_prometheus_does() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0):
        histogram.observe(seconds)
    histogram.observe(0.5, count=3)
    assert histogram.buckets() == [("0.1", 2.0), ("1", 6.0), ("+Inf", 7.0)]
    assert histogram.total == pytest.approx(4.15)


def test_metrics_can_be_read_before_there_is_a_node() -> None:
    assert "ringlog_connections{}" in samples(Metrics())


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


async def move_log_and_archive(edge: OnePort, http: HttpClient) -> None:
    for _ in range(3):
        await http.post("/v1/sessions/s/messages", {"sender": "u", "content": "x"})
    await edge.node.flusher.flush_all()


async def test_appending_moves_the_series_of_log_and_flusher(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        before = samples(edge.metrics)
        await move_log_and_archive(edge, http)
        after = samples(edge.metrics)
        for name in (
            "ringlog_log_commits_total",
            "ringlog_log_records_total",
            "ringlog_log_bytes_total",
            "ringlog_log_syncs_total",
            "ringlog_log_durable_lsn_total",
            "ringlog_flush_cursor_total",
            "ringlog_append_seconds_count",
            "ringlog_log_sync_seconds_count",
        ):
            assert after[f"{name}{{}}"] > before[f"{name}{{}}"], name
        assert after["ringlog_log_records_total{}"] - before["ringlog_log_records_total{}"] == 3
        assert after["ringlog_log_segments{}"] >= 1
        assert after["ringlog_log_disk_bytes{}"] >= 1 << 20
        assert after["ringlog_sessions_active{}"] == 1
        assert after["ringlog_flush_backlog_records{}"] == 0
        assert after["ringlog_flush_cursor_total{}"] == after["ringlog_log_durable_lsn_total{}"]


async def test_what_waits_for_an_archive_that_is_away_is_counted(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        await edge.node.flusher.flush_all()
        edge.archive.close()
        await http.post("/v1/sessions/s/messages", {"sender": "u", "content": "x"})
        assert total(edge.metrics, "ringlog_flush_backlog_records") == 1
        assert total(edge.metrics, "ringlog_flush_backlog_bytes") > 0
        await trio.sleep(0.01)
        assert total(edge.metrics, "ringlog_flush_lag_seconds") > 0


async def test_connections_move_their_series(tmp_path: Path) -> None:
    async with open_edge(tmp_path, Limits(connections_max=2)) as (edge, _):
        before = samples(edge.metrics)
        assert total(edge.metrics, "ringlog_connections") == 1
        async with open_socket(edge.port) as websocket:
            await websocket.ask(type="join", ref="1", session="s")
            assert total(edge.metrics, "ringlog_connections") == 2
            assert total(edge.metrics, "ringlog_websockets") == 1
            assert total(edge.metrics, "ringlog_tails") == 1
            after = samples(edge.metrics)
            for short in ("messages_received", "bytes_received", "bytes_sent"):
                name = f"ringlog_websocket_{short}_total{{}}"
                assert after[name] > before[name], name
            assert after['ringlog_connections_accepted_total{transport="websocket"}'] == 1
            assert after['ringlog_connections_accepted_total{transport="http"}'] == 1
            async with open_http(edge.port) as refused:
                assert (await refused.receive()).status == 503
            assert total(edge.metrics, "ringlog_connections_refused") == 1


async def test_refusals_and_requests_move_their_series(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        await http.get("/v1/sessions/s")
        await http.get("/v1/sessions/nope")
        await http.get("/nowhere/at/all")
        await http.request("BREW", "/v1/sessions")
        found = samples(edge.metrics)
        assert found['ringlog_errors_total{code="session_not_found"}'] == 1
        assert found['ringlog_errors_total{code="not_found"}'] == 1
        route = 'method="GET",route="/v1/sessions/{session}",status='
        assert found[f'ringlog_http_requests_total{{{route}"200"}}'] == 1
        assert found[f'ringlog_http_requests_total{{{route}"404"}}'] == 1
        assert found['ringlog_http_request_seconds_count{route="/v1/sessions/{session}"}'] == 2
        assert 'ringlog_http_requests_total{method="other",route="none",status="405"}' in found
        async with open_socket(edge.port, "user_id=a%20b") as refused:
            assert refused.response is not None
            assert refused.response.status_code == 400
        assert total(edge.metrics, "ringlog_websocket_handshakes_refused") == 1


async def test_streams_and_deadlines_move_their_series(tmp_path: Path) -> None:
    limits = Limits(idle_timeout_seconds=0.3, heartbeat_seconds=0.2, stall_timeout_seconds=0.3)
    async with open_edge(tmp_path, limits) as (edge, http):
        async with open_http(edge.port) as stream:
            await stream.send("GET", "/v1/sessions/s/stream")
            await stream.receive_head()
            await stream.receive_piece()
            assert total(edge.metrics, "ringlog_event_streams") == 1
        async with open_socket(edge.port) as silent:
            silent_stream = silent.stream
            with trio.fail_after(10):
                while total(edge.metrics, "ringlog_websocket_idle_closes") == 0:
                    await trio.sleep(0.05)
            del silent_stream
        for _ in range(12):
            body = {"sender": "u", "content": "x" * 250_000}
            await http.post("/v1/sessions/s/messages", body)
        async with open_http(edge.port) as stalled:
            await stalled.send("GET", "/v1/sessions/s/messages")
            with trio.fail_after(10):
                while total(edge.metrics, "ringlog_readers_stalled") == 0:
                    await trio.sleep(0.05)


async def test_a_full_disk_moves_log_full_until_there_is_room(tmp_path: Path) -> None:
    directory = CrashingDirectory()
    directory.faults.capacity_bytes = SMALL_LOG.segment_bytes * 3 // 2
    async with open_one_port(tmp_path, directory=directory) as edge:
        await until(lambda: total(edge.metrics, "ringlog_log_full") == 1)
        directory.faults.capacity_bytes = None
        await until(lambda: total(edge.metrics, "ringlog_log_full") == 0)


async def test_what_waits_for_the_disk_moves_log_queue_bytes(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, _):
        server = await edge.node.open("default", "s")
        reply = WaitingReply()
        assert total(edge.metrics, "ringlog_log_queue_bytes") == 0
        # Appended, and no task had a turn to write it.
        server.append("u", None, "text", b'"x"', b"{}", None, reply, None)
        assert total(edge.metrics, "ringlog_log_queue_bytes") > 0
        await reply.wait_ack()
        assert total(edge.metrics, "ringlog_log_queue_bytes") == 0


async def test_what_the_database_refuses_moves_dead_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "KEYS_REFRESH_SECONDS", 0.01)
    async with open_edge(tmp_path) as (edge, http), trio.open_nursery() as nursery:
        nursery.start_soon(serve._watch_archive, edge.archive, edge.auth, edge.metrics)
        refuse_rows(f"sqlite:///{tmp_path}/archive.db", "messages", "seq = 2")
        for _ in range(3):
            await http.post("/v1/sessions/s/messages", {"sender": "u", "content": "x"})
        await until(lambda: total(edge.metrics, "ringlog_dead_letters") == 1)
        nursery.cancel_scope.cancel()


async def test_a_node_that_stops_is_not_ready_and_says_so_everywhere(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        assert total(edge.metrics, "ringlog_ready") == 1
        assert (await http.get("/readyz")).status == 200
        await edge.node.shutdown(5)
        assert total(edge.metrics, "ringlog_ready") == 0
        refused = await http.get("/readyz")
        assert (refused.status, refused.code) == (503, "not_ready")
        assert refused.json()["details"]["reasons"] == ["shutting_down"]
        assert (await http.get("/healthz")).status == 200


async def test_refusals_on_websockets_are_counted_by_their_codes(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http), open_socket(edge.port) as websocket:
        await http.get("/v1/sessions/nope")
        await websocket.ask(type="join", ref="1", session="nope")
        await websocket.ask(type="leave", ref="2", session="s")
        await websocket.ask(type="ping", ref="3", colour="red")
        await websocket.ask(type="join", ref="4", session="s")
        await websocket.send_raw(b"nonsense")
        await websocket.receive("error")
        await websocket.stream.send_all(Frame(Opcode.BINARY, b"x").serialize(mask=True))
        assert await websocket.wait_closed() == 1003
        found = samples(edge.metrics)
        counts = {
            code: found[f'ringlog_errors_total{{code="{code}"}}']
            for code in (
                "session_not_found", "not_joined", "unknown_field", "bad_json", "binary_frame",
            )
        }  # fmt: skip
        assert counts == dict.fromkeys(counts, 1.0) | {"session_not_found": 2.0}
        assert total(edge.metrics, "ringlog_errors") == 6


async def test_an_archive_that_takes_nothing_moves_flush_failing_until_it_does(
    tmp_path: Path,
) -> None:
    async with open_edge(tmp_path) as (edge, http):
        await edge.node.flusher.flush_all()
        url = f"sqlite:///{tmp_path}/archive.db"
        run_sql(url, "ALTER TABLE messages RENAME TO away")
        await http.post("/v1/sessions/s/messages", {"sender": "u", "content": "x"})
        await until(lambda: total(edge.metrics, "ringlog_flush_failing") == 1)
        run_sql(url, "ALTER TABLE away RENAME TO messages")
        await until(lambda: total(edge.metrics, "ringlog_flush_failing") == 0)


def test_every_series_is_named_in_a_test_that_moves_it() -> None:
    text = Path(__file__).read_text()
    names = {series.name for series in SERIES}
    short = {name for name in names if name.startswith("ringlog_websocket_")}
    missing = {name for name in names - short if name not in text}
    missing |= {name for name in short if name.removeprefix("ringlog_websocket_") not in text}
    assert missing == set()
    assert all(isinstance(series, HistogramSeries) or series.kind for series in SERIES)


@pytest.mark.postgres
async def test_a_replica_tells_how_it_keeps_up(tmp_path: Path, postgres_url: str) -> None:
    archive = open_archive(postgres_url)
    options = NodeOptions(data_dir=tmp_path, log=clusters.SMALL_LOG, durability="replicated")
    async with open_node(options, archive) as node:
        metrics = Metrics()
        metrics.node = node
        await node.catalog.create("default", "s", user_id="alice")
        assert 0 < samples(metrics)["ringlog_replica_seconds{}"] < 60
        assert samples(metrics)["ringlog_replica_retries_total{}"] == 0
        assert samples(metrics)["ringlog_replica_stalled{}"] == 0
    archive.close()


async def test_a_cluster_tells_of_its_ring_and_its_links(tmp_path: Path, archive: Archive) -> None:
    async with (
        clusters.open_members(tmp_path, archive, 2) as members,
        clusters.open_edge(archive) as edge,
    ):
        for number in range(8):
            await edge.catalog.create("default", f"s{number}", user_id="alice")
            await edge.open("default", f"s{number}")
        metrics = Metrics()
        assert "ringlog_slots_served{}" not in samples(metrics)
        served = 0.0
        for member in members:
            metrics.cluster = member.cluster
            served += total(metrics, "ringlog_slots_served")
            assert samples(metrics)["ringlog_slots_stuck{}"] == 0
            assert samples(metrics)["ringlog_owner_confirmed{}"] == 1
            assert samples(metrics)["ringlog_takeovers_total{}"] == 0
            assert "ringlog_replica_seconds{}" not in samples(metrics)
            version = member.cluster.watch.ring.version
            assert samples(metrics)["ringlog_ring_version{}"] == version
        assert served == clusters.SLOTS
        metrics.cluster = Cluster(edge, members[0].cluster.watch, None, None)
        assert total(metrics, "ringlog_sessions_remote") == 8
        assert total(metrics, "ringlog_links") == 2
        assert "ringlog_slots_served{}" not in samples(metrics)


async def test_a_cluster_tells_what_moves_and_what_waits(tmp_path: Path, archive: Archive) -> None:
    async with (
        clusters.open_members(tmp_path, archive, 2) as members,
        clusters.open_edge(archive) as edge,
    ):
        first, second = members
        metrics = Metrics()
        metrics.cluster = Cluster(edge, first.cluster.watch, None, None)
        await edge.catalog.create("default", "s", user_id="alice")
        session = await edge.open("default", "s", to_append=True)
        reply = WaitingReply()
        session.append("alice", "c", "text", b"1", b"{}", None, reply, None)
        assert samples(metrics)["ringlog_requests_waiting{}"] == 1
        assert samples(metrics)['ringlog_link_queue_bytes{to="owner"}'] > 0
        await reply.wait()
        assert samples(metrics)["ringlog_requests_waiting{}"] == 0
        ring = await trio.to_thread.run_sync(archive.read_ring)
        slot = slot_of("default", "s", clusters.SLOTS)
        owner, other = (first, second) if first.node_id == ring.owners[slot] else (second, first)
        metrics.cluster = owner.cluster
        before = samples(metrics)
        assert before['ringlog_link_queue_bytes{to="edge"}'] == 0
        drain = plan_drain(ring, owner.node_id, at_ms=0, actor="test")
        await clusters.change(archive, drain)
        await clusters.until_settled(archive, members)
        given_up = "ringlog_slots_given_up_total{}"
        assert samples(metrics)[given_up] == before[given_up] + ring.owners.count(owner.node_id)
        assert 0 < samples(metrics)["ringlog_handoff_seconds{}"] < 20
        metrics.cluster = other.cluster
        assert samples(metrics)["ringlog_slots_taken_total{}"] >= clusters.SLOTS
        # A link that breaks: what had no answer goes again.
        metrics.cluster = Cluster(edge, first.cluster.watch, None, None)
        repeated = "ringlog_requests_repeated_total{}"
        before = samples(metrics)
        session = await edge.open("default", "s", to_append=True)
        again = WaitingReply()
        session.append("alice", "d", "text", b"1", b"{}", None, again, None)
        assert isinstance(session, RemoteSession)
        session.channel_lost()
        await again.wait()
        assert samples(metrics)[repeated] == before[repeated] + 1
