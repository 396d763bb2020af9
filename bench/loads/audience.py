"""Everyone who follows one session, checked without decoding what each of them is shown.

The server sends the same bytes to all followers. So the first one to be shown a seq decodes it and keeps its
bytes; for all others it is enough that the bytes at their next seq are the same. Only what differs is
decoded, to say what is wrong with it. What was kept is compared with the replay at the end.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bench.checker import GAP_MAX, Findings, Kind, Replayed, TailHistory
from bench.protocol import Error, Message, decode_answer
from bench.stream import FrameStream
from bench.wire import WireError


class Shown(NamedTuple):
    """What a seq looks like to everyone."""

    payload: bytes
    started: float
    """When its sender sent it, or was due to; in seconds of `time.perf_counter`."""


class Subscriber:
    """One connection that follows."""

    __slots__ = ("cursor", "missed", "stream")

    def __init__(self, stream: FrameStream) -> None:
        self.stream = stream
        self.cursor = 0
        """The highest seq that it was shown."""
        self.missed: set[int] = set()
        """Lower ones that it was not shown yet."""


class Audience:
    """All subscribers of one session that has a single writer and was empty when they joined."""

    def __init__(
        self,
        session: str,
        findings: Findings,
        started: Sequence[float],
        record: Callable[[int], None],
    ) -> None:
        """Find out by client_id in `started` when a message was sent; `record` latencies in microseconds."""
        self.subscribers: list[Subscriber] = []
        self._session = session
        self._findings = findings
        self._started = started
        self._record = record
        self._known: dict[int, Shown] = {}

    def read(self, subscriber: Subscriber) -> None:
        """Read what has arrived for one of them.

        Raises:
            WireError: The server hung up, or ended the subscription.
        """
        known, record, stream = self._known, self._record, subscriber.stream
        for payload in stream.read():
            shown = known.get(subscriber.cursor + 1)
            if shown is not None and shown.payload == payload:
                subscriber.cursor += 1
                record(int((stream.read_at - shown.started) * 1e6))
            else:
                self._look_at(subscriber, payload)

    def _look_at(self, subscriber: Subscriber, payload: bytes) -> None:
        """Take the first look at a seq, or say what is wrong."""
        message = decode_answer(payload)
        if isinstance(message, Error):
            raise WireError(f"{subscriber.stream.name}: the subscription ended: {message}")
        if not isinstance(message, Message):
            return
        if not self._is_due(subscriber, message.seq):
            return
        if message.seq not in self._known:
            self._remember(message, payload)
        elif self._known[message.seq].payload != payload:
            self._add(Kind.CHANGED, subscriber, f"was shown another seq {message.seq}")
        if (shown := self._known.get(message.seq)) is not None:
            self._record(int((subscriber.stream.read_at - shown.started) * 1e6))

    def _is_due(self, subscriber: Subscriber, seq: int) -> bool:
        """Move the subscriber on, or tell that this is nothing new to it."""
        at = subscriber.cursor
        if seq <= at:
            kind = Kind.REORDERED if seq in subscriber.missed else Kind.DUPLICATED
            subscriber.missed.discard(seq)
            self._add(kind, subscriber, f"at seq {at} was shown {seq}")
            return False
        if seq > at + 1:
            self._add(Kind.GAP, subscriber, f"at seq {at} was shown {seq}")
            if seq > at + 1 + GAP_MAX:
                return False
            subscriber.missed.update(range(at + 1, seq))
        subscriber.cursor = seq
        return True

    def _remember(self, message: Message, payload: bytes) -> None:
        number = message.client_id or ""
        if number.isdecimal() and int(number) < len(self._started):
            self._known[message.seq] = Shown(payload, self._started[int(number)])
        else:
            detail = f"seq {message.seq}: nobody sent {number!r}"
            self._findings.add(Kind.PHANTOM, self._session, detail)

    def shown(self, head: int) -> int:
        """Return how many messages up to the head were shown, to all of them together."""
        return sum(min(each.cursor, head) for each in self.subscribers)

    def check(self, head: int, replay: Iterable[Replayed]) -> None:
        """Note what somebody was never shown, and where what was shown is not what is stored."""
        for each in self.subscribers:
            each.missed.update(range(each.cursor + 1, head + 1))
            if each.missed:
                detail = f"was never shown {len(each.missed)} messages, from seq {min(each.missed)}"
                self._add(Kind.LOST, each, detail)
        tail = TailHistory(self._session, self._findings)
        for _, shown in sorted(self._known.items()):
            message = decode_answer(shown.payload)
            assert isinstance(message, Message)
            tail.see(message.replayed())
        tail.check(replay, complete=True)

    def _add(self, kind: Kind, subscriber: Subscriber, detail: str) -> None:
        self._findings.add(kind, self._session, f"{subscriber.stream.name} {detail}")
