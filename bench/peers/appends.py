"""The load on a peer: durable appends, closed loop, the same for all of them.

As in `bench/loads/append.py`: each connection keeps `in_flight` messages on the way, and an ack makes room for the
next. What differs is only what a message looks like and how acks are counted (`drivers`). No peer is trusted to
say which message an ack belongs to: each answers one stream's messages in order, and what it stores in the end is
compared with what was sent.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial

from bench.checker import Replayed, SessionHistory
from bench.loads.load import LoadPlan
from bench.peers.drivers.driver import NUMBER, Driver
from bench.peers.drivers.http import HttpDriver
from bench.peers.drivers.nats import NatsDriver
from bench.peers.drivers.postgres import PostgresDriver, PostgresNotifyDriver
from bench.peers.drivers.redis import RedisDriver
from bench.peers.drivers.websocket import GatewayDriver, RinglogDriver
from bench.poll import Poll
from bench.stream import RECEIVE_BYTES
from bench.tally import Tally
from bench.wire import ANSWER_SECONDS_MAX, WireError
from bench.writer import NUMBER_DIGITS, content_of

DRIVERS: dict[str, type[Driver]] = {
    "ringlog": RinglogDriver,
    "redis": RedisDriver,
    "gateway": GatewayDriver,
    "postgres": PostgresDriver,
    "postgres-notify": PostgresNotifyDriver,
    "nats": NatsDriver,
    "http": HttpDriver,
}
"""By the name that a plan carries."""

_NUMBER_AT = content_of(0, 100).index(b"0" * NUMBER_DIGITS)


class PeerPlan(LoadPlan, tag="peer", kw_only=True):
    """How to append to a peer."""

    driver: str
    connections: int
    in_flight: int
    content_bytes: int


class PeerAppends:
    """The connections, each with a stream of its own."""

    rated = "ack"

    def __init__(self, plan: PeerPlan) -> None:
        """Set up every connection.

        Raises:
            OSError, WireError: The peer does not let us.
        """
        self.tally = Tally("ack")
        self._in_flight = plan.in_flight
        self._poll = Poll()
        streams = [f"bench-{plan.run_id}-{place}" for place in range(plan.connections)]
        driver = DRIVERS[plan.driver]
        driver.prepare(plan.url, streams)
        self._appenders = [
            Appender(driver(plan.url, stream), self.tally, plan.content_bytes) for stream in streams
        ]
        self._is_open = True
        for appender in self._appenders:
            self._poll.add(appender.fileno, partial(self._serve, appender))

    @property
    def acked(self) -> int:
        """How many messages were acknowledged."""
        return sum(appender.acked for appender in self._appenders)

    @property
    def is_done(self) -> bool:
        """Never: every ack makes room for a message."""
        return False

    def begin(self) -> None:
        """Fill every window."""
        for appender in self._appenders:
            appender.send(self._in_flight)

    def turn(self, seconds: float) -> None:
        """Read what has arrived, and answer each ack with a message."""
        self._poll.turn(seconds)

    def _serve(self, appender: "Appender") -> None:
        acks = appender.read()
        if acks and self._is_open:
            appender.send(acks)

    def drain(self) -> None:
        """Send no more, and wait for every answer.

        Raises:
            WireError: Some do not come.
        """
        self._is_open = False
        heard_at, missing = time.perf_counter(), self._unanswered()
        while missing and time.perf_counter() < heard_at + ANSWER_SECONDS_MAX:
            self.turn(0.1)
            if (now_missing := self._unanswered()) < missing:
                heard_at, missing = time.perf_counter(), now_missing
        if missing:
            raise WireError(f"{missing} messages got no answer in {ANSWER_SECONDS_MAX:.0f} s")

    def _unanswered(self) -> int:
        return sum(appender.sent - appender.acked for appender in self._appenders)

    def verify(self, progress: Callable[[str], None]) -> None:
        """Read every stream back and compare it with what was acknowledged.

        Raises:
            OSError, WireError: The peer does not say what it stores.
        """
        for appender in self._appenders:
            self._poll.remove(appender.fileno)
            appender.check()
        progress(f"read {len(self._appenders)} streams back")

    def close(self) -> None:
        """Hang up on all."""
        for appender in self._appenders:
            appender.close()


class Appender:
    """One connection under load."""

    __slots__ = (
        "_content_bytes", "_driver", "_out", "_pieces", "_socket", "_started", "_tally", "acked", "sent",
    )  # fmt: skip

    def __init__(self, driver: Driver, tally: Tally, content_bytes: int) -> None:
        self.sent = 0
        self.acked = 0
        self._driver = driver
        self._tally = tally
        self._content_bytes = content_bytes
        content = content_of(0, content_bytes).replace(b"0" * NUMBER_DIGITS, NUMBER, 1)
        self._pieces = driver.frame(content).split(NUMBER)
        """A frame, cut where its number goes: joined by a number it is the frame of that message."""
        self._started: deque[float] = deque()
        self._out = b""
        self._socket = driver.socket
        self._socket.settimeout(0)

    @property
    def fileno(self) -> int:
        """What to register for polling."""
        return self._socket.fileno()

    def send(self, count: int) -> None:
        """Put so many new messages on their way, in one write; latencies count from now."""
        first, pieces = self.sent, self._pieces
        self.sent = last = first + count
        out = b"".join([(b"%010d" % number).join(pieces) for number in range(first, last)])
        self._started.extend([time.perf_counter()] * count)
        self._write(out)

    def _write(self, out: bytes) -> None:
        out = self._out + out
        try:
            written = self._socket.send(out)
        except BlockingIOError:
            written = 0
        self._out = out[written:]

    def read(self) -> int:
        """Read once, record latencies, and return how many messages were acknowledged.

        Raises:
            WireError: The peer hung up, refused, or speaks something else.
        """
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return 0
        now = time.perf_counter()
        if not data:
            raise WireError(f"{self._driver.stream}: the peer hung up")
        acks = self._driver.count_acks(data)
        if self._out or self._driver.out:
            out, self._driver.out = self._driver.out, b""
            self._write(out)
        if acks > len(self._started):
            raise WireError(f"{self._driver.stream}: more acks than messages")
        record, started = self._tally.now["ack"].record, self._started
        for _ in range(acks):
            record(int((now - started.popleft()) * 1e6))
        self.acked += acks
        return acks

    def check(self) -> None:
        """Hang up, and compare the stream with what was acknowledged."""
        self.close()
        stream = self._driver.stream
        history = SessionHistory(stream, self._tally.findings)
        for number in range(self.sent):
            history.send(_key(stream, number), content_of(number, self._content_bytes))
        for number in range(self.acked):
            history.acknowledge(_key(stream, number), number + 1, "")
        history.check(
            Replayed(position, "", *_key_of(stream, content), content)
            for position, content in self._driver.read_back()
        )

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def _key(stream: str, number: int) -> tuple[str, str]:
    return stream, f"{number:010}"


def _key_of(stream: str, content: bytes) -> tuple[str, str]:
    """Return which message this content claims to be."""
    return stream, content[_NUMBER_AT : _NUMBER_AT + NUMBER_DIGITS].decode(errors="replace")
