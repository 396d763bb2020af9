"""One connection under load: its sessions, and everything it sent and was told."""

import time
from array import array
from collections.abc import Iterable, Iterator

import msgspec

from bench.channel import Channel, user_url
from bench.checker import Kind, Replayed, SessionHistory, TailHistory
from bench.protocol import Create, Error, Join, Joined, Leave, Message, Ok
from bench.stream import FrameStream
from bench.tally import Tally
from bench.wire import client_frame

NUMBER_DIGITS = 10
"""Fixed width, so that all frames of a session have one length and one prebuilt head."""

CONTENT_BYTES_MIN = 48
"""Below this there is no room for the number that makes each content distinct."""

SETUP_SESSIONS = 100
"""Joined in one go: two requests each, well below what a connection may have waiting."""


class _HotAck(msgspec.Struct, tag="ack", gc=False):
    """The fields of an ack that are needed at speed."""

    ref: str
    seq: int
    id: str
    client_id: str


_decode_hot = msgspec.json.Decoder(_HotAck | Message | Error).decode


def content_of(number: int, size: int) -> bytes:
    """Return the content of one message: `size` bytes, distinct within its session."""
    head = b'{"n":"%010d","text":"' % number
    return head + b"x" * (size - len(head) - 2) + b'"}'


def frame_template(session: str, content_bytes: int) -> bytes:
    """Return a frame with three places for the message's number: ref, client_id, content."""
    number = b"%010d"
    content = content_of(0, content_bytes).replace(b"0" * NUMBER_DIGITS, number)
    payload = (
        b'{"type":"send","ref":"%s","session":"%s","client_id":"%s","kind":"text","content":%s}'
    )
    template = payload % (number, session.encode(), number, content)
    example = template % (0, 0, 0)
    head = client_frame(example)[: -len(example)]
    return head.replace(b"%", b"%%") + template


class Writer:
    """One connection, and its sessions in turn: message n goes to session n modulo their number."""

    __slots__ = (
        "_acked_at", "_acked_ids", "_acked_numbers", "_acked_seqs", "_answered", "_content_bytes", "_frames", "_tails",
        "_tally", "refused", "sent", "sessions", "started", "stream", "url", "user",
    )  # fmt: skip

    def __init__(
        self,
        url: str,
        name: str,
        tally: Tally,
        *,
        content_bytes: int,
        sessions: int = 1,
        joined: bool = False,
        timed: bool = False,
    ) -> None:
        """Keep when each message was acknowledged, if `timed`."""
        self.user = name
        self.url = user_url(url, name)
        self.sessions = [name if sessions == 1 else f"{name}-{n}" for n in range(sessions)]
        self.started = array("d")
        """By number: the moment from which its latency counts."""
        self.sent = 0
        self.refused: list[Error] = []
        self._tally = tally
        self._content_bytes = content_bytes
        self._frames = [frame_template(session, content_bytes) for session in self.sessions]
        # As columns: a run may have ten million of them.
        self._acked_numbers = array("q")
        self._acked_seqs = array("q")
        self._acked_at = array("d") if timed else None
        self._acked_ids: list[str] = []
        self._answered = bytearray()
        """By number: 1 once it has an ack."""
        self._tails = {
            session: TailHistory(session, tally.findings) for session in self.sessions if joined
        }
        """What it was shown live of each session that it follows."""
        self.stream = self._set_up(joined=joined)

    def _set_up(self, *, joined: bool) -> FrameStream:
        channel = Channel(self.url)
        create = Create(user_id=self.user)
        for first in range(0, len(self.sessions), SETUP_SESSIONS):
            batch = self.sessions[first : first + SETUP_SESSIONS]
            channel.send(*(Join(ref="j", session=session, create=create) for session in batch))
            for _ in batch:
                channel.wait_for(Joined)
            if not joined:
                channel.send(*(Leave(ref="l", session=session) for session in batch))
                for _ in batch:
                    channel.wait_for(Ok)
        return FrameStream(channel.socket, channel.reader, self.user)

    @property
    def acked(self) -> int:
        """How many messages have an answer that is not a refusal."""
        return len(self._acked_seqs)

    def send(self, count: int) -> None:
        """Put `count` new messages on their way, in one write; latencies count from now."""
        if count:
            out = self._take(count)
            self.started.extend([time.perf_counter()] * count)
            self.stream.write(out)

    def send_due(self, due: list[float]) -> None:
        """Put a new message on its way for each moment at which one was due, in one write."""
        out = self._take(len(due))
        self.started.extend(due)
        self.stream.write(out)

    def _take(self, count: int) -> bytes:
        frames, first = self._frames, self.sent
        self.sent = last = first + count
        self._answered.extend(bytes(count))
        if len(frames) == 1:
            frame = frames[0]
            return b"".join([frame % (n, n, n) for n in range(first, last)])
        return b"".join([frames[n % len(frames)] % (n, n, n) for n in range(first, last)])

    def read(self) -> int:
        """Read what has arrived, record latencies, and return how many messages were acknowledged."""
        record = self._tally.now["ack"].record
        numbers, seqs, ids = self._acked_numbers, self._acked_seqs, self._acked_ids
        answered, started, stream = self._answered, self.started, self.stream
        acked_at = self._acked_at
        before = len(seqs)
        for payload in stream.read():
            answer = _decode_hot(payload)
            if type(answer) is _HotAck:
                number = int(answer.ref)
                if answered[number]:
                    self._see_second(answer)
                    continue
                answered[number] = 1
                numbers.append(number)
                seqs.append(answer.seq)
                ids.append(answer.id)
                if acked_at is not None:
                    acked_at.append(stream.read_at)
                record(int((stream.read_at - started[number]) * 1e6))
            elif type(answer) is Message:
                self._see_live(answer)
            elif type(answer) is Error:
                self.refused.append(answer)
        return len(seqs) - before

    def _see_second(self, ack: _HotAck) -> None:
        session = self.sessions[int(ack.ref) % len(self.sessions)]
        detail = f"message {ack.ref} was sent once and acknowledged again, at seq {ack.seq}"
        self._tally.findings.add(Kind.DUPLICATED, session, detail)

    def _see_live(self, message: Message) -> None:
        tail = self._tails.get(message.session)
        if tail is None:
            detail = f"{self.user} was shown seq {message.seq}, and does not follow it"
            self._tally.findings.add(Kind.PHANTOM, message.session, detail)
            return
        tail.see(message.replayed())
        number = message.client_id or ""
        # One that nobody sent is a finding once it is compared with the replay.
        if number.isdecimal() and int(number) < self.sent:
            waited = self.stream.read_at - self.started[int(number)]
            self._tally.now["delivery"].record(int(waited * 1e6))

    def histories(self) -> Iterator[SessionHistory]:
        """Yield what the checker compares with a replay, session by session."""
        count = len(self.sessions)
        acks: list[list[int]] = [[] for _ in self.sessions]
        for place, number in enumerate(self._acked_numbers):
            acks[number % count].append(place)
        for at, session in enumerate(self.sessions):
            history = SessionHistory(session, self._tally.findings)
            for number in range(at, self.sent, count):
                history.send(self._key(number), content_of(number, self._content_bytes))
            for place in acks[at]:
                key = self._key(self._acked_numbers[place])
                history.acknowledge(key, self._acked_seqs[place], self._acked_ids[place])
            yield history

    def waits(self) -> dict[str, list[tuple[float, float]]]:
        """Return by session when each acknowledged message was due, and when it was acknowledged."""
        assert self._acked_at is not None
        found: dict[str, list[tuple[float, float]]] = {session: [] for session in self.sessions}
        for number, at in zip(self._acked_numbers, self._acked_at, strict=True):
            session = self.sessions[number % len(self.sessions)]
            found[session].append((self.started[number], at))
        return found

    def _key(self, number: int) -> tuple[str, str]:
        return self.user, f"{number:010}"

    def check_replays(self) -> None:
        """Hang up, and compare a replay of each session with what was acknowledged, and with what was shown."""
        self.stream.close()
        channel = Channel(self.url)
        for history in self.histories():
            replay: Iterable[Replayed] = channel.replay(history.session)
            if tail := self._tails.get(history.session):
                replay = list(replay)
                tail.check(replay, complete=True)
            history.check(replay)
            channel.leave(history.session)
        channel.socket.close()
