"""Durable appends: as fast as the answers come, or at a rate that is given.

**Closed loop.** Each connection keeps `in_flight` messages on the way: an ack makes room for the next. A stall
delays the messages that would have been sent during it, so the latencies say what these clients saw, not
what an open arrival process would have seen.

**Open loop** (`per_second`). Message k is due at ``start + k / per_second``, whatever the server does, and goes
over the connections in turn. Its latency counts from when it was due, not from when it could be sent: else a
server that stalls would delay the very measurements that show the stall ("coordinated omission": Gil Tene,
"How NOT to Measure Latency"; wrk2). A message that is refused is not sent again.
"""

import time
from collections.abc import Callable

from bench.loads.load import LoadPlan
from bench.loads.writers import Writers
from bench.poll import Poll
from bench.tally import Tally
from bench.writer import Writer

TICK_SECONDS = 0.001
"""Messages that are due within a millisecond leave together: a wait cannot be much finer."""


class AppendPlan(LoadPlan, tag="append", kw_only=True):
    """How to append."""

    connections: int
    sessions: int
    """Altogether, at least one for each connection."""
    content_bytes: int
    joined: bool = False
    in_flight: int = 1
    """For each connection; has no meaning in an open loop."""
    per_second: float | None = None
    """Open loop, at this rate altogether."""
    timed: bool = False
    """Whether the outcome tells of each message when it was due and when it was acknowledged."""


class Appends:
    """The writers and when they write."""

    rated = "ack"
    is_done = False

    def __init__(self, plan: AppendPlan, clock: Callable[[], float] = time.perf_counter) -> None:
        self.tally = Tally("ack", "late", *(["delivery"] if plan.joined else []))
        self._plan = plan
        self._clock = clock
        self._is_open = True
        self._start = 0.0
        self._sent = 0
        closed = plan.per_second is None
        self._writers = Writers(Poll(), self.tally, self._send_next if closed else _send_none)
        for place in range(plan.connections):
            sessions = len(range(place, plan.sessions, plan.connections))
            writer = Writer(
                plan.url,
                f"bench-{plan.run_id}-{place}",
                self.tally,
                content_bytes=plan.content_bytes,
                sessions=sessions,
                joined=plan.joined,
                timed=plan.timed,
            )
            self._writers.add(writer)

    @property
    def acked(self) -> int:
        """How many messages were acknowledged."""
        return self._writers.acked

    def begin(self) -> None:
        """Fill every window, or start the clock."""
        self._start = self._clock()
        if self._plan.per_second is None:
            for writer in self._writers.all:
                writer.send(self._plan.in_flight)

    def turn(self, seconds: float) -> None:
        """Send what is due, and read what has arrived."""
        if self._plan.per_second is not None:
            self._send_due(self._plan.per_second)
            seconds = min(seconds, max(TICK_SECONDS, self._due(self._sent) - self._clock()))
        self._writers.turn(seconds)

    def drain(self) -> None:
        """Send no more, and wait for every answer."""
        self._is_open = False
        self._writers.drain()

    def verify(self, progress: Callable[[str], None]) -> None:
        """Compare replays with what was acknowledged."""
        self._writers.verify(progress)

    def waits(self) -> dict[str, list[tuple[float, float]]]:
        """Return by session when each message was due and acknowledged; nothing unless that was asked for."""
        if not self._plan.timed:
            return {}
        return {
            session: waits
            for writer in self._writers.all
            for session, waits in writer.waits().items()
        }

    def close(self) -> None:
        """Hang up."""
        self._writers.close()

    def _send_next(self, writer: Writer, count: int) -> None:
        if self._is_open:
            writer.send(count)

    def _due(self, number: int) -> float:
        assert self._plan.per_second is not None
        return self._start + number / self._plan.per_second

    def _send_due(self, per_second: float) -> None:
        now = self._clock()
        first, self._sent = self._sent, max(self._sent, int((now - self._start) * per_second) + 1)
        writers = self._writers.all
        for place in range(min(len(writers), self._sent - first)):
            numbers = range(first + place, self._sent, len(writers))
            writers[(first + place) % len(writers)].send_due([self._due(n) for n in numbers])
        late = self.tally.now["late"].record
        for number in range(first, self._sent):
            late(int((now - self._due(number)) * 1e6))


def _send_none(writer: Writer, count: int) -> None:
    """In an open loop an answer makes no room: nothing waits for room."""
