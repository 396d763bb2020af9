"""What Prometheus reads: every series in one table, none with a label that grows with the traffic.

The hot path adds to plain integers and to `Histogram`s, which are lists; nothing is formatted or locked
until somebody scrapes. `SERIES` names each series once, with how it is read; the collector walks it. A
series of a source that is not attached (no node yet) has no samples.

Invariant: labels come from fixed sets (a route's pattern, a status, an error code, a close code); never
from an id that a client chose.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge.connection import Switchboard
from runtime import Cluster, Member, Node
from storage import Replica

SYNC_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
"""From NVMe to a disk that is about to be replaced."""

APPEND_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Messages are stamped to the millisecond."""

HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]


class Histogram:
    """Counts by upper bound, as Prometheus has them; one bisection and three additions a call."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """Add `count` observations of the same value: a batch shares one."""
        self.counts[bisect_left(self.bounds, seconds)] += count
        self.total += seconds * count

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts, the last under +Inf."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        running = 0
        rows = []
        for name, count in zip(names, self.counts, strict=True):
            running += count
            rows.append((name, float(running)))
        return rows


class Metrics:
    """The counters of one process, and what its other parts are asked for when it is scraped."""

    def __init__(self) -> None:
        # Connections, by how they speak: websocket, http.
        self.connections_accepted: Counter[str] = Counter()
        self.connections_refused = 0
        self.connections_open: Callable[[], int] = lambda: 0
        # HTTP readers; WebSockets are counted by their switchboard.
        self.readers_stalled = 0
        # Requests over HTTP; those on WebSockets are counted by their switchboard.
        self.errors: Counter[str] = Counter()
        self.append_seconds = Histogram(APPEND_SECONDS)
        self.sync_seconds = Histogram(SYNC_SECONDS)
        # HTTP, by route pattern, method and status; event streams that are open now.
        self.http_requests: Counter[tuple[str, str, str]] = Counter()
        self.http_seconds: dict[str, Histogram] = {}
        self.event_streams = 0
        # Rows that the archive's database refused for their data; counted by whoever watches it.
        self.dead_letters = 0
        self.cluster: Cluster | None = None
        """Its part in a cluster, if it has one."""
        self.node: Node | None = None
        self.board: Switchboard | None = None
        self.registry = CollectorRegistry()
        self.registry.register(_Collected(self))
        ProcessCollector(registry=self.registry)

    def attach(self, node: Node | None, board: Switchboard) -> None:
        """Observe a node, if this process is one that owns sessions, and its WebSockets from now on."""
        self.node = node
        self.board = board
        if node is not None:
            node.observe_ack = self.append_seconds.observe
            node.observe_sync = self.sync_seconds.observe

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an HTTP request that was answered."""
        self.http_requests[route, method, str(status)] += 1
        histogram = self.http_seconds.get(route)
        if histogram is None:
            histogram = self.http_seconds[route] = Histogram(HTTP_SECONDS)
        histogram.observe(seconds)

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class Series:
    """One series: its name (without a counter's `_total`), what it is, and how it is read."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    read: Callable[[Metrics], Samples]
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class HistogramSeries:
    """One histogram and how it is read: one `Histogram` for each set of label values."""

    name: str
    help: str
    read: Callable[[Metrics], Iterable[tuple[Labels, Histogram]]]
    labels: Labels = ()


def _one(read: Callable[[Metrics], float]) -> Callable[[Metrics], Samples]:
    """Read a series without labels."""
    return lambda metrics: [((), float(read(metrics)))]


def _of_node(read: Callable[[Node], float]) -> Callable[[Metrics], Samples]:
    """Read a series of the node; no samples while there is none."""
    return lambda metrics: [] if metrics.node is None else [((), float(read(metrics.node)))]


def _of_cluster(read: Callable[[Cluster], float]) -> Callable[[Metrics], Samples]:
    """Read a series of the node's part in a cluster; no samples where it is alone."""
    return lambda metrics: [] if metrics.cluster is None else [((), float(read(metrics.cluster)))]


def _link_queues(metrics: Metrics) -> Samples:
    cluster = metrics.cluster
    if cluster is None:
        return []
    to_owners = (("owner",), float(cluster.router.link_queue_bytes))
    if cluster.owner_links is None:
        return [to_owners]
    return [to_owners, (("edge",), float(cluster.owner_links.queue_bytes))]


def _of_replica(read: Callable[[Replica], float]) -> Callable[[Metrics], Samples]:
    """Read a series of an owner's second copies; no samples where durability is `local`."""

    def samples(metrics: Metrics) -> Samples:
        replica = None if metrics.node is None else metrics.node.replica
        return [] if replica is None else [((), float(read(replica)))]

    return samples


def _of_member(read: Callable[[Member], float]) -> Callable[[Metrics], Samples]:
    """Read a series of an owner in a cluster; no samples where it is alone, or an edge."""

    def samples(metrics: Metrics) -> Samples:
        member = None if metrics.cluster is None else metrics.cluster.member
        return [] if member is None else [((), float(read(member)))]

    return samples


def _ready(metrics: Metrics) -> Samples:
    """Read whether the process should get traffic: what holds its sessions says so."""
    host = metrics.node if metrics.cluster is None else metrics.cluster.router
    return [] if host is None else [((), float(not host.not_ready()))]


def _of_board(read: Callable[[Switchboard], float]) -> Callable[[Metrics], Samples]:
    """Read a series of the WebSockets; no samples while nothing drives them."""
    return lambda metrics: [] if metrics.board is None else [((), float(read(metrics.board)))]


def _errors(metrics: Metrics) -> Counter[str]:
    return metrics.errors if metrics.board is None else metrics.errors + metrics.board.errors


SERIES: tuple[Series | HistogramSeries, ...] = (
    Series(
        "ringlog_connections_accepted", "counter", "Connections accepted",
        lambda metrics: [((kind,), count) for kind, count in metrics.connections_accepted.items()],
        ("transport",),
    ),
    Series(
        "ringlog_connections_refused", "counter", "Connections refused because too many were open",
        _one(lambda metrics: metrics.connections_refused),
    ),
    Series(
        "ringlog_connections", "gauge", "Connections open now",
        _one(lambda metrics: metrics.connections_open()),
    ),
    Series(
        "ringlog_readers_stalled", "counter", "Connections cut because the reader took nothing",
        lambda metrics: [
            (("http",), metrics.readers_stalled),
            (("websocket",), 0 if metrics.board is None else metrics.board.closed_stalled),
        ],
        ("transport",),
    ),
    Series(
        "ringlog_websockets", "gauge", "WebSockets open now",
        _of_board(lambda board: len(board.connections) + board.streams),
    ),
    Series(
        "ringlog_websocket_messages_received", "counter", "WebSocket messages received",
        _of_board(lambda board: board.messages_received),
    ),
    Series(
        "ringlog_websocket_bytes_received", "counter", "Bytes received on WebSockets",
        _of_board(lambda board: board.bytes_received),
    ),
    Series(
        "ringlog_websocket_bytes_sent", "counter", "Bytes sent on WebSockets",
        _of_board(lambda board: board.bytes_sent),
    ),
    Series(
        "ringlog_websocket_idle_closes", "counter", "WebSockets closed because nothing was heard",
        _of_board(lambda board: board.closed_idle),
    ),
    Series(
        "ringlog_websocket_handshakes_refused", "counter", "WebSocket handshakes refused",
        _of_board(lambda board: board.handshakes_refused),
    ),
    Series(
        "ringlog_errors", "counter", "Requests and connections refused, by error code",
        lambda metrics: [((code,), count) for code, count in _errors(metrics).items()],
        ("code",),
    ),
    HistogramSeries(
        "ringlog_append_seconds", "From receiving the oldest message of a batch to acknowledging it",
        lambda metrics: [((), metrics.append_seconds)],
    ),
    HistogramSeries(
        "ringlog_log_sync_seconds", "One fdatasync of the commit log",
        lambda metrics: [((), metrics.sync_seconds)],
    ),
    Series(
        "ringlog_http_requests", "counter", "HTTP requests answered",
        lambda metrics: list(metrics.http_requests.items()),
        ("route", "method", "status"),
    ),
    HistogramSeries(
        "ringlog_http_request_seconds", "From an HTTP request to its response; streams to their start",
        lambda metrics: [((route,), seconds) for route, seconds in metrics.http_seconds.items()],
        ("route",),
    ),
    Series(
        "ringlog_event_streams", "gauge", "Server-sent event streams open now",
        _one(lambda metrics: metrics.event_streams),
    ),
    Series(
        "ringlog_ready", "gauge", "1 if the server should get traffic",
        _ready,
    ),
    Series(
        "ringlog_sessions_active", "gauge", "Sessions in memory",
        _of_node(lambda node: node.statistics().active_sessions),
    ),
    Series(
        "ringlog_tails", "gauge", "Readers that follow a session",
        _of_node(lambda node: node.statistics().tails),
    ),
    Series(
        "ringlog_log_commits", "counter", "Batches written to the log",
        _of_node(lambda node: node.log.statistics().commits),
    ),
    Series(
        "ringlog_log_records", "counter", "Records written to the log",
        _of_node(lambda node: node.log.statistics().records),
    ),
    Series(
        "ringlog_log_bytes", "counter", "Bytes written to the log",
        _of_node(lambda node: node.log.statistics().bytes),
    ),
    Series(
        "ringlog_log_syncs", "counter", "fdatasync calls of the log",
        _of_node(lambda node: node.log.statistics().fsyncs),
    ),
    Series(
        "ringlog_log_queue_bytes", "gauge", "Bytes that wait to be written to the log",
        _of_node(lambda node: node.log.statistics().queue_bytes),
    ),
    Series(
        "ringlog_log_segments", "gauge", "Segments on disk",
        _of_node(lambda node: node.log.statistics().segments),
    ),
    Series(
        "ringlog_log_disk_bytes", "gauge", "Size of the segments on disk",
        _of_node(lambda node: node.log.statistics().bytes_on_disk),
    ),
    Series(
        "ringlog_log_full", "gauge", "1 while appends are refused for want of disk space",
        _of_node(lambda node: node.log.statistics().full),
    ),
    Series(
        "ringlog_log_durable_lsn", "counter", "The LSN end up to which the log is durable",
        _of_node(lambda node: node.log.durable_lsn),
    ),
    Series(
        "ringlog_flush_cursor", "counter", "The LSN end up to which the archive holds the log",
        _of_node(lambda node: node.flusher.cursor),
    ),
    Series(
        "ringlog_flush_backlog_records", "gauge", "Durable records that the archive does not hold",
        _of_node(lambda node: node.flusher.backlog_rows),
    ),
    Series(
        "ringlog_flush_backlog_bytes", "gauge", "Bytes that wait for the archive, in memory",
        _of_node(lambda node: node.unflushed_bytes),
    ),
    Series(
        "ringlog_flush_lag_seconds", "gauge", "Age of the oldest record that waits for the archive",
        _of_node(lambda node: node.flusher.lag_seconds()),
    ),
    Series(
        "ringlog_ring_version", "gauge", "The version of the ring that the node knows",
        _of_cluster(lambda cluster: cluster.watch.ring.version),
    ),
    Series(
        "ringlog_sessions_remote", "gauge", "Sessions of other owners that clients here use",
        _of_cluster(lambda cluster: cluster.router.remote_sessions),
    ),
    Series(
        "ringlog_links", "gauge", "Links to owners that are up",
        _of_cluster(lambda cluster: cluster.router.links),
    ),
    Series(
        "ringlog_link_queue_bytes", "gauge", "Bytes that wait to be sent on links, to owners and to edges",
        _link_queues,
        ("to",),
    ),
    Series(
        "ringlog_requests_waiting", "gauge", "Requests of clients here that other owners have not answered",
        _of_cluster(lambda cluster: cluster.router.requests_waiting),
    ),
    Series(
        "ringlog_requests_repeated", "counter", "Requests sent again: their session had moved, or the link broke",
        _of_cluster(lambda cluster: cluster.router.repeats),
    ),
    Series(
        "ringlog_slots_served", "gauge", "Slots that this owner serves",
        _of_member(lambda member: member.slots_served),
    ),
    Series(
        "ringlog_slots_stuck", "gauge", "1 while slots cannot be given up that should be",
        _of_member(lambda member: member.stuck is not None),
    ),
    Series(
        "ringlog_slots_taken", "counter", "Slots that this owner has taken",
        _of_member(lambda member: member.slots_taken),
    ),
    Series(
        "ringlog_slots_given_up", "counter", "Slots that this owner has given up in good order",
        _of_member(lambda member: member.slots_given_up),
    ),
    Series(
        "ringlog_handoff_seconds", "gauge",
        "For how long the slots that were given up last were not served before others could take them",
        _of_member(lambda member: member.handoff_seconds),
    ),
    Series(
        "ringlog_owner_confirmed", "gauge",
        "0 while others may have taken over from this owner, for all that it can tell",
        _of_member(lambda member: member.is_confirmed),
    ),
    Series(
        "ringlog_takeovers", "counter", "Owners that this one took over from",
        _of_member(lambda member: member.takeovers),
    ),
    Series(
        "ringlog_replica_seconds", "gauge", "How long the last batch took to be in the archive too",
        _of_replica(lambda replica: replica.seconds_last),
    ),
    Series(
        "ringlog_replica_retries", "counter", "Batches that had no answer and were added again",
        _of_replica(lambda replica: replica.retries),
    ),
    Series(
        "ringlog_replica_stalled", "gauge", "1 while appends are refused because the archive is away",
        _of_replica(lambda replica: replica.stalled is not None),
    ),
    Series(
        "ringlog_dead_letters", "gauge", "Records set aside because the database refused their data",
        _one(lambda metrics: metrics.dead_letters),
    ),
    Series(
        "ringlog_flush_failing", "gauge", "1 while the archive does not take what is flushed",
        _of_node(lambda node: node.flusher.failing_since is not None),
    ),
)  # fmt: skip
"""Every series that /metrics has, beside those of the process itself (process_…)."""


class _Collected(Collector):
    """Walks `SERIES` when the registry is scraped."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        """Tell the registry nothing in advance: names are unique by the table's test."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the present value of every series."""
        for series in SERIES:
            if isinstance(series, HistogramSeries):
                yield _histogram(series, self._metrics)
                continue
            family = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
            metric = family(series.name, series.help, labels=series.labels)
            for labels, value in series.read(self._metrics):
                metric.add_metric(labels, value)
            yield metric


def _histogram(series: HistogramSeries, metrics: Metrics) -> Metric:
    metric = HistogramMetricFamily(series.name, series.help, labels=series.labels)
    for labels, histogram in series.read(metrics):
        metric.add_metric(labels, buckets=histogram.buckets(), sum_value=histogram.total)
    return metric
