"""What people do: come, catch up, say something, stay a while, vanish, come back.

Each client lives in cycles. It connects, joins its session where it left off, and is shown what it missed.
Then it sends a burst of messages, a few at a time, stays a short random while, sends a few last words and hangs
up in the same moment, without a goodbye and without their answers. After another random while it is back,
and sends again what was not acknowledged. Two clients share each session, so each sees what the
other says, live or when it comes back.

What is measured, beside the acks: *delivery*, from the moment at which the other one sent a message to the
read that brought it to a client that had caught up; *replay*, from the attempt to connect to having been
shown the head that `joined` named; *repeat*, the answer to a message that was sent again and was there already.

The loop is closed: a client waits for what it needs before it goes on. All choices come from the seed;
what the clients meet depends on time as well, so two runs are alike and not equal.
"""

import heapq
import random
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import count

from bench.channel import Channel, user_url
from bench.checker import SessionHistory
from bench.loads.load import LoadPlan
from bench.loads.visitor import Room, Visitor
from bench.poll import Poll
from bench.tally import Tally
from bench.wire import ANSWER_SECONDS_MAX, WireError

SPREAD = (0.5, 1.5)
"""A while is drawn evenly from between these, as parts of its mean."""

PROGRESS_SESSIONS = 100


class MixedPlan(LoadPlan, tag="mixed", kw_only=True):
    """Who comes and goes, and how fast."""

    clients: int
    sessions: int
    """At most one for each client."""
    content_bytes: int
    burst: int
    """Messages of a client, each time it has caught up."""
    in_flight: int
    """How many of them at a time; and how many last words before it hangs up."""
    stay_seconds: float
    away_seconds: float
    """Mean values."""
    seed: int


class Mixed:
    """All clients, and when each of them comes or goes next."""

    rated = "ack"
    is_done = False

    def __init__(self, plan: MixedPlan, *, patience_seconds: float = ANSWER_SECONDS_MAX) -> None:
        self.tally = Tally("ack", "delivery", "replay", "repeat")
        self._plan = plan
        self._patience_seconds = patience_seconds
        self._poll = Poll()
        self._random = random.Random(plan.seed)
        self._is_open = True
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = count()
        name = f"bench-{plan.run_id}"
        self._rooms = [Room(f"{name}-{place}") for place in range(plan.sessions)]
        self._visitors = [
            Visitor(
                plan.url,
                f"{name}-client-{place}",
                self._rooms[place % plan.sessions],
                self.tally,
                content_bytes=plan.content_bytes,
                in_flight=plan.in_flight,
            )
            for place in range(plan.clients)
        ]

    @property
    def acked(self) -> int:
        """How many messages were acknowledged."""
        return sum(visitor.outbox.acked for visitor in self._visitors)

    def begin(self) -> None:
        """Let them come, one by one."""
        for visitor in self._visitors:
            after = self._random.uniform(0, self._plan.away_seconds)
            self._after(after, partial(self._come, visitor))

    def turn(self, seconds: float) -> None:
        """Do what is due, and read what has arrived."""
        now = time.perf_counter()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        if self._timers:
            seconds = min(seconds, self._timers[0][0] - time.perf_counter())
        self._poll.turn(seconds)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        due = time.perf_counter() + seconds
        heapq.heappush(self._timers, (due, next(self._timer_numbers), act))

    def _a_while(self, mean_seconds: float) -> float:
        return mean_seconds * self._random.uniform(*SPREAD)

    def _come(self, visitor: Visitor) -> None:
        visitor.connect()
        assert visitor.stream is not None
        self._poll.add(visitor.stream.fileno(), partial(self._serve, visitor))

    def _serve(self, visitor: Visitor) -> None:
        was_present = visitor.is_present
        pause = visitor.read()
        if visitor.is_present and not was_present and self._is_open:
            visitor.begin_burst(self._plan.burst)
            self._after(self._a_while(self._plan.stay_seconds), partial(self._go, visitor))
        if pause is None:
            return
        if visitor.was_turned_away:
            self._part(visitor, pause)
        else:
            self._after(pause, visitor.wake)

    def _go(self, visitor: Visitor) -> None:
        if self._is_open:
            away = self._a_while(self._plan.away_seconds)
            self._part(visitor, away, last_words=self._plan.in_flight)

    def _part(self, visitor: Visitor, away_seconds: float, *, last_words: int = 0) -> None:
        assert visitor.stream is not None
        self._poll.remove(visitor.stream.fileno())
        visitor.hang_up(last_words)
        self._after(away_seconds, partial(self._come, visitor))

    def drain(self) -> None:
        """Say nothing new; wait until all are back, were answered, and were shown everything.

        What does not come to a client is a finding of `verify`.

        Raises:
            WireError: Some answers do not come.
        """
        self._is_open = False
        for visitor in self._visitors:
            visitor.begin_burst(0)
        done, heard_at = self._progress(), time.perf_counter()
        while not all(visitor.is_settled for visitor in self._visitors):
            if time.perf_counter() > heard_at + self._patience_seconds:
                break
            self.turn(0.1)
            if (now_done := self._progress()) > done:
                done, heard_at = now_done, time.perf_counter()
        if missing := sum(visitor.outbox.count for visitor in self._visitors):
            raise WireError(f"{missing} messages got no answer in {self._patience_seconds:.0f} s")

    def _progress(self) -> int:
        """Return a number that grows as long as there is something to wait for."""
        present = sum(visitor.is_present for visitor in self._visitors)
        return present + self.acked + sum(visitor.tail.cursor for visitor in self._visitors)

    def verify(self, progress: Callable[[str], None]) -> None:
        """Compare a replay of each session with what its clients sent, were told and were shown."""
        channel = Channel(user_url(self._plan.url, f"bench-{self._plan.run_id}"))
        with closing(channel.socket):
            for done, room in enumerate(self._rooms, 1):
                replay = list(channel.replay(room.session))
                channel.leave(room.session)
                history = SessionHistory(room.session, self.tally.findings)
                for visitor in room.members.values():
                    visitor.outbox.note(history)
                    visitor.tail.check(replay, complete=True)
                history.check(replay)
                if done % PROGRESS_SESSIONS == 0 or done == len(self._rooms):
                    progress(f"replayed {done:,} of {len(self._rooms):,} sessions")

    def close(self) -> None:
        """Hang up, once and for all."""
        for visitor in self._visitors:
            if visitor.stream is not None:
                visitor.hang_up()
