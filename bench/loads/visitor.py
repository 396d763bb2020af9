"""One client that comes and goes: a session, a cursor, an outbox, and one connection after the other.

It does what docs/protocol.md asks of a client ("How to stay connected"): it joins with its own `last_seq`, sends
again what was not acknowledged, in order and under the same `client_id`, and then goes on::

                 connect                  cursor at the head             hang up
    away ──────────────────────▶ behind ──────────────────────▶ present ─────────▶ away
          join; the outbox,               a burst of new                 the answers that
          once that is answered           messages                       are owed are lost

What was refused is sent again when every other answer is in.
"""

import time
from dataclasses import dataclass, field

from bench.channel import user_url
from bench.checker import TailHistory
from bench.loads.load import RETRY_SECONDS
from bench.loads.outbox import Outbox
from bench.protocol import Ack, Create, Error, Join, Joined, Message, decode_answer, encode
from bench.stream import FrameStream
from bench.tally import Tally
from bench.wire import WireError, client_frame
from bench.writer import frame_template

JOIN = "join"
"""The ref of a join; that of a send is its number."""


@dataclass(slots=True)
class Room:
    """A session, and who meets there."""

    session: str
    members: "dict[str, Visitor]" = field(default_factory=dict)
    head: int = 0
    """The highest seq that any of them was told."""


class Visitor:
    """One client."""

    __slots__ = (
        "_connected_at", "_frame", "_head", "_in_flight", "_resting", "_tally", "_to_say", "_url",
        "is_present", "outbox", "room", "stream", "tail", "user",
    )  # fmt: skip

    def __init__(
        self, url: str, user: str, room: Room, tally: Tally, *, content_bytes: int, in_flight: int
    ) -> None:
        self.user = user
        self.room = room
        self.outbox = Outbox(user, content_bytes)
        self.tail = TailHistory(room.session, tally.findings)
        """Over all connections."""
        self.stream: FrameStream | None = None
        """None while it is away."""
        self.is_present = False
        """Whether it is connected and has caught up."""
        self._url = user_url(url, user)
        self._tally = tally
        self._in_flight = in_flight
        self._frame = frame_template(room.session, content_bytes)
        self._to_say = 0
        self._resting = False
        self._head: int | None = None
        self._connected_at = 0.0
        room.members[user] = self

    @property
    def is_settled(self) -> bool:
        """Whether all it said was acknowledged, and all that was said was shown to it."""
        return self.is_present and not self.outbox.count and self.tail.cursor >= self.room.head

    @property
    def was_turned_away(self) -> bool:
        """Whether its join was refused: it is connected, and will not catch up."""
        return self._resting and self._head is None

    def connect(self) -> None:
        """Come back, and join where it left off."""
        self._connected_at = time.perf_counter()
        self._head = None
        self._resting = False
        self.stream = FrameStream.connect(self._url, self.user)
        create = None
        if self.tail.cursor == 0:
            others = tuple(name for name in self.room.members if name != self.user)
            create = Create(user_id=self.user, members=others)
        join = Join(ref=JOIN, session=self.room.session, last_seq=self.tail.cursor, create=create)
        self.stream.write(client_frame(encode(join)))

    def begin_burst(self, count: int) -> None:
        """Say so much, a few messages at a time; 0 ends a burst."""
        self._to_say = count
        self._go_on()

    def _go_on(self) -> None:
        """Say what there is room for; where something was refused, that first and alone."""
        if self.stream is None or not self.is_present or self._resting:
            return
        if self.outbox.has_refused:
            if not self.outbox.is_owed:
                self._send(self.outbox.unanswered)
            return
        count = min(self._to_say, self._in_flight - self.outbox.count)
        if count > 0:
            self._to_say -= count
            self._send(self.outbox.add(count))

    def _send(self, numbers: list[int]) -> None:
        """Send these messages, in one write; their latencies count from now."""
        assert self.stream is not None
        if numbers:
            self.outbox.send(numbers, time.perf_counter())
            frame = self._frame
            self.stream.write(b"".join([frame % (n, n, n) for n in numbers]))

    def wake(self) -> None:
        """Go on after a refusal."""
        self._resting = False
        self._go_on()

    def hang_up(self, last_words: int = 0) -> None:
        """Be gone without a goodbye, with so many more messages on their way."""
        assert self.stream is not None
        self._send(self.outbox.add(last_words))
        self.stream.close()
        self.stream = None
        self.is_present = False
        self._to_say = 0

    def read(self) -> float | None:
        """Read what has arrived; return how long to rest if something was refused, in seconds.

        Raises:
            WireError: The server hung up, or refused for good.
        """
        assert self.stream is not None
        pause: float | None = None
        for payload in self.stream.read():
            answer = decode_answer(payload)
            if isinstance(answer, Message):
                self._see(answer, self.stream.read_at)
            elif isinstance(answer, Ack):
                self._acknowledge(answer, self.stream.read_at)
            elif isinstance(answer, Joined):
                self._head = answer.head_seq
                self._send(self.outbox.unanswered)
                self._arrive(self.stream.read_at)
            elif isinstance(answer, Error):
                pause = max(pause or 0.0, self._refuse(answer))
        if pause is None:
            self._go_on()
        return pause

    def _see(self, message: Message, read_at: float) -> None:
        self.tail.see(message.replayed())
        if not self.is_present:
            self._arrive(read_at)
            return
        other = self.room.members.get(message.sender)
        number = message.client_id or ""
        # What nobody sent has no latency; the replay finds it.
        if other is None or other is self or not number.isdecimal():
            return
        if (started := other.outbox.started(int(number))) is not None:
            self._tally.now["delivery"].record(int((read_at - started) * 1e6))

    def _arrive(self, read_at: float) -> None:
        """Be present once everything up to the head of the join was shown."""
        if self._head is not None and self.tail.cursor >= self._head:
            self.is_present = True
            self._tally.now["replay"].record(int((read_at - self._connected_at) * 1e6))

    def _acknowledge(self, ack: Ack, read_at: float) -> None:
        started = self.outbox.acknowledge(int(ack.ref), ack.seq, ack.id)
        self.room.head = max(self.room.head, ack.seq)
        kind = "repeat" if ack.duplicate else "ack"
        self._tally.now[kind].record(int((read_at - started) * 1e6))

    def _refuse(self, error: Error) -> float:
        if error.ref is None or error.retry_after_ms is None:
            raise WireError(f"{self.user}: refused for good: {error}")
        self._tally.refused[error.code] += 1
        self._resting = True
        if error.ref != JOIN:
            self.outbox.refuse(int(error.ref))
        return max(error.retry_after_ms / 1000, RETRY_SECONDS)
