"""Clients that all join at once and read to the head, as after a restart of everything.

One loop reads for all of them and keeps what it read; nothing is decoded but the last message of each read,
to see whether it is the head. What was shown is compared with what was acknowledged when the time is taken.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.channel import user_url
from bench.checker import Findings, Kind, Replayed
from bench.histogram import Histogram
from bench.loads.written import WrittenSession
from bench.poll import Poll
from bench.protocol import Error, Hello, Join, Joined, Message, decode_answer, encode
from bench.stream import FrameStream
from bench.wire import ANSWER_SECONDS_MAX, WireError, client_frame

TURN_SECONDS = 0.1
"""How often a wait looks whether anything comes at all."""


@dataclass(slots=True)
class Pass:
    """What reading once was like."""

    seconds: float
    """From the first join to the last message."""
    messages: int
    payload_bytes: int
    """Of the message frames, without their heads."""
    processor_seconds: float
    """What this process used: near `seconds`, it is the clients that were slow."""
    latency: Histogram = field(default_factory=Histogram)
    """In microseconds, for each client: from the first join to its last message."""


class Reader:
    """One client: a session that it reads once, from a cursor."""

    def __init__(self, url: str, written: WrittenSession) -> None:
        self.written = written
        self.stream = FrameStream.connect(user_url(url, written.user), written.name)
        self.is_open = False
        self.shown: list[bytes] = []
        """Payloads of the messages."""
        self.ended_at: float | None = None
        """When it had read the head."""
        self._head: int | None = None

    def join(self) -> None:
        """Ask for everything."""
        join = Join(ref="replay", session=self.written.name, last_seq=0)
        self.stream.write(client_frame(encode(join)))

    def read(self) -> None:
        """Read once.

        Raises:
            WireError: The server refused, or hung up.
        """
        self.shown.extend(self.stream.read())
        while self._head is None and self.shown:
            self._note(self.shown.pop(0))
        if self.shown and self.ended_at is None:
            self._note(self.shown[-1])

    def _note(self, payload: bytes) -> None:
        answer = decode_answer(payload)
        if isinstance(answer, Hello):
            self.is_open = True
        elif isinstance(answer, Joined):
            self._head = answer.head_seq
            if self._head == 0:
                self.ended_at = self.stream.read_at
        elif isinstance(answer, Message) and self._head is not None and answer.seq >= self._head:
            self.ended_at = self.stream.read_at
        elif isinstance(answer, Error):
            raise WireError(f"{self.written.name}: refused: {answer}")

    def replayed(self) -> Iterator[Replayed]:
        """Yield what was shown."""
        for payload in self.shown:
            answer = decode_answer(payload)
            if isinstance(answer, Message):
                yield answer.replayed()


def _is_open(reader: Reader) -> bool:
    return reader.is_open


def _is_at_head(reader: Reader) -> bool:
    return reader.ended_at is not None


class Readers:
    """Clients that are connected and have asked for nothing yet; one pass, then they are done."""

    def __init__(self, url: str, sessions: Sequence[WrittenSession]) -> None:
        """Connect a client for each of the sessions, in which one may be named several times.

        Raises:
            WireError: The server does not let us.
        """
        self._poll = Poll()
        self._readers = [Reader(url, written) for written in sessions]
        self._is_done: Callable[[Reader], bool] = _is_open
        """What is waited for,"""
        self._missing = set(self._readers)
        """in whom,"""
        self._heard_at = 0.0
        """and when a message came last."""
        for reader in self._readers:
            self._poll.add(reader.stream.fileno(), partial(self._serve, reader))
        self._wait(_is_open)
        if self._missing:
            raise WireError(f"no hello in {ANSWER_SECONDS_MAX:.0f} s")

    def read(self) -> Pass:
        """Join all at once and read to each head; who is shown nothing more is waited for no longer."""
        began, used = time.perf_counter(), time.process_time()
        for reader in self._readers:
            reader.join()
        self._wait(_is_at_head)
        used = time.process_time() - used
        ended = [reader.ended_at for reader in self._readers if reader.ended_at is not None]
        made = Pass(
            seconds=max(ended, default=time.perf_counter()) - began,
            messages=sum(len(reader.shown) for reader in self._readers),
            payload_bytes=sum(len(payload) for r in self._readers for payload in r.shown),
            processor_seconds=used,
        )
        for at in ended:
            made.latency.record(int((at - began) * 1e6))
        return made

    def _wait(self, is_done: Callable[[Reader], bool]) -> None:
        """Read until all are done, or until no message came for `ANSWER_SECONDS_MAX`."""
        self._is_done = is_done
        self._missing = set(self._readers)
        self._heard_at = time.perf_counter()
        while self._missing and time.perf_counter() < self._heard_at + ANSWER_SECONDS_MAX:
            self._poll.turn(TURN_SECONDS)

    def _serve(self, reader: Reader) -> None:
        before = len(reader.shown)
        reader.read()
        if len(reader.shown) > before:
            self._heard_at = reader.stream.read_at
        if self._is_done(reader):
            self._missing.discard(reader)

    def check(self, findings: Findings) -> None:
        """Compare what each was shown with what was acknowledged."""
        for reader in self._readers:
            reader.written.check(reader.replayed(), findings)
            if not _is_at_head(reader):
                detail = f"a client was shown {len(reader.shown)} messages, and never the head"
                findings.add(Kind.LOST, reader.written.name, detail)

    def close(self) -> None:
        """Hang up."""
        for reader in self._readers:
            self._poll.remove(reader.stream.fileno())
            reader.stream.close()
