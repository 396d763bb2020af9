"""One writer, and many who follow its session: how long until a message has reached each of them?

The writer is that of `bench/loads/append.py`, closed loop or open loop, with one connection and one session.
A delivery counts from the moment at which its message was sent, in an open loop from when it was due, to the
read that brought it to one subscriber. That may be before the writer has its ack: both are told after the
same sync.
"""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from bench.channel import Channel, user_url
from bench.loads.append import TICK_SECONDS
from bench.loads.audience import Audience, Subscriber
from bench.loads.load import LoadPlan
from bench.loads.writers import Writers
from bench.poll import Poll
from bench.protocol import Join, Joined
from bench.stream import FrameStream
from bench.tally import Tally
from bench.writer import Writer

DELIVERY_SECONDS_MAX = 10.0
"""What nobody is shown any more of for so long after the last ack will not come."""


class FanoutPlan(LoadPlan, tag="fanout", kw_only=True):
    """How to write, and how many follow."""

    subscribers: int
    content_bytes: int
    in_flight: int = 1
    """Has no meaning in an open loop."""
    per_second: float | None = None
    """Open loop, at this rate."""


class Fanout:
    """The writer and its audience, on one poll."""

    rated = "delivery"
    is_done = False

    def __init__(
        self,
        plan: FanoutPlan,
        *,
        clock: Callable[[], float] = time.perf_counter,
        patience_seconds: float = DELIVERY_SECONDS_MAX,
    ) -> None:
        self.tally = Tally("ack", "late", "delivery")
        self._plan = plan
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._is_open = True
        self._start = 0.0
        self._poll = Poll()
        self._writers = Writers(self._poll, self.tally, self._send_next)
        self._writer = Writer(
            plan.url, f"bench-{plan.run_id}", self.tally, content_bytes=plan.content_bytes
        )
        self._writers.add(self._writer)
        (self._session,) = self._writer.sessions
        self._audience = Audience(
            self._session,
            self.tally.findings,
            self._writer.started,
            self.tally.now["delivery"].record,
        )
        for place in range(plan.subscribers):
            self._add_subscriber(f"{self._session}-{place}")

    def _add_subscriber(self, name: str) -> None:
        channel = Channel(user_url(self._plan.url, name))
        channel.send(Join(ref="join", session=self._session, last_seq=0))
        channel.wait_for(Joined)
        subscriber = Subscriber(FrameStream(channel.socket, channel.reader, name))
        self._audience.subscribers.append(subscriber)
        self._poll.add(subscriber.stream.fileno(), partial(self._audience.read, subscriber))

    @property
    def acked(self) -> int:
        """How many messages were acknowledged: the head, for the session has no other writer."""
        return self._writer.acked

    def begin(self) -> None:
        """Fill the window, or start the clock."""
        self._start = self._clock()
        if self._plan.per_second is None:
            self._writer.send(self._plan.in_flight)

    def turn(self, seconds: float) -> None:
        """Send what is due, and read what has arrived."""
        if self._plan.per_second is not None and self._is_open:
            self._send_due(self._plan.per_second)
            next_due = self._start + self._writer.sent / self._plan.per_second
            seconds = min(seconds, max(TICK_SECONDS, next_due - self._clock()))
        self._writers.turn(seconds)

    def _send_due(self, per_second: float) -> None:
        now = self._clock()
        numbers = range(self._writer.sent, int((now - self._start) * per_second) + 1)
        due = [self._start + number / per_second for number in numbers]
        if due:
            self._writer.send_due(due)
        for each in due:
            self.tally.now["late"].record(int((now - each) * 1e6))

    def _send_next(self, writer: Writer, count: int) -> None:
        # In an open loop an answer makes no room: nothing waits for room.
        if self._is_open and self._plan.per_second is None:
            writer.send(count)

    def drain(self) -> None:
        """Send no more; wait for every ack, and until all were shown everything.

        What does not come to a subscriber is a finding of `verify`.

        Raises:
            WireError: Some acks do not come.
        """
        self._is_open = False
        self._writers.drain()
        everything = self.acked * len(self._audience.subscribers)
        shown, heard_at = self._audience.shown(self.acked), self._clock()
        while shown < everything and self._clock() < heard_at + self._patience_seconds:
            self.turn(0.1)
            if (now_shown := self._audience.shown(self.acked)) > shown:
                shown, heard_at = now_shown, self._clock()

    def verify(self, progress: Callable[[str], None]) -> None:
        """Compare a replay with what was acknowledged, and with what was shown."""
        channel = Channel(self._writer.url)
        with closing(channel.socket):
            replay = list(channel.replay(self._session))
        for history in self._writer.histories():
            history.check(replay)
        self._audience.check(self.acked, replay)
        progress(f"replayed {len(replay):,} messages, shown to {self._plan.subscribers:,}")

    def close(self) -> None:
        """Hang up."""
        self._writers.close()
        for subscriber in self._audience.subscribers:
            subscriber.stream.close()
