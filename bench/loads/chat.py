"""Real conversations at a multiple of their own pace, each with a reader.

The loop is open: a message is due at its time (`bench/loads/schedule.py`), whatever the server does, and its latencies
count from then, so a stall is seen by all that was due meanwhile. It is sent late only where order demands
it: before its session's reader has joined, and after a refusal.

All conversations share a few connections. One of them sends a conversation's messages, in order; the next
one follows it, from shortly before the first message to the last. At the end each session is replayed and
compared with the conversation, content by content, and with what its reader saw.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial

from bench.channel import Channel, user_url
from bench.checker import Kind
from bench.conversations import load_conversations
from bench.loads.append import TICK_SECONDS
from bench.loads.load import RETRY_SECONDS, LoadPlan
from bench.loads.part import Part, make_part
from bench.loads.schedule import due_seconds, written_seconds
from bench.loads.score import ENTRANCE_SECONDS, Score
from bench.poll import Poll
from bench.protocol import Ack, Error, Join, Joined, Leave, Message, decode_answer, encode
from bench.stream import FrameStream
from bench.tally import Tally
from bench.wire import ANSWER_SECONDS_MAX, WireError, client_frame

PROGRESS_SESSIONS = 500


class ChatPlan(LoadPlan, tag="chat", kw_only=True):
    """What to play, and how fast."""

    conversations: int | None
    """The first so many of the data set; all if None."""
    speed_up: float
    connections: int
    """At least two."""


class Chat:
    """All conversations, and where the playing is."""

    rated = "ack"

    def __init__(self, plan: ChatPlan, *, patience_seconds: float = ANSWER_SECONDS_MAX) -> None:
        self.tally = Tally("ack", "late", "delivery")
        self._plan = plan
        self._patience_seconds = patience_seconds
        self._start = 0.0
        self._prefix = f"bench-{plan.run_id}-"
        conversations = load_conversations(self._prefix, plan.conversations)
        due = due_seconds([written_seconds(each) for each in conversations], plan.speed_up)
        self._parts = [
            make_part(number, conversation, times, self.tally.findings)
            for number, (conversation, times) in enumerate(zip(conversations, due, strict=True))
        ]
        self._by_session = {part.conversation.session: part for part in self._parts}
        self._score = Score(due)
        self._over = 0
        self._parked: list[tuple[float, Callable[[], None]]] = []
        self._poll = Poll()
        self._streams = [self._connect(place) for place in range(plan.connections)]

    def _connect(self, place: int) -> FrameStream:
        name = f"{self._prefix}{place}"
        channel = Channel(user_url(self._plan.url, name))
        stream = FrameStream(channel.socket, channel.reader, name)
        self._poll.add(stream.fileno(), partial(self._serve, stream))
        return stream

    def _writer(self, part: Part) -> FrameStream:
        return self._streams[part.number % len(self._streams)]

    def _reader(self, part: Part) -> FrameStream:
        return self._streams[(part.number + 1) % len(self._streams)]

    @property
    def acked(self) -> int:
        """How many messages were acknowledged."""
        return sum(part.acked for part in self._parts)

    @property
    def is_done(self) -> bool:
        """Whether every conversation was acknowledged, and shown to its reader."""
        return self._over == len(self._parts)

    def begin(self) -> None:
        """Start the clock; the first reader has time to join."""
        self._start = time.perf_counter() + ENTRANCE_SECONDS

    def turn(self, seconds: float) -> None:
        """Do what is due, and read what has arrived."""
        now = time.perf_counter() - self._start
        for number in self._score.take_entrances(now):
            self._join(self._parts[number])
        self._play(now)
        if self._parked:
            self._unpark()
            seconds = min(seconds, RETRY_SECONDS / 10)
        self._poll.turn(min(seconds, max(TICK_SECONDS, self._score.next_seconds - now)))

    def _play(self, now: float) -> None:
        """Send everything that is due, with one write for each connection."""
        parts: dict[int, Part] = {}
        for number in self._score.take_messages(now):
            part = parts[number] = self._parts[number]
            part.due += 1
        if parts:
            self._send(parts.values())

    def _send(self, parts: Iterable[Part]) -> None:
        late = self.tally.now["late"].record
        now = time.perf_counter() - self._start
        frames: dict[FrameStream, list[bytes]] = {}
        for part in parts:
            first = part.sent
            if taken := part.take():
                frames.setdefault(self._writer(part), []).extend(taken)
            for number in range(first, part.sent):
                late(int((now - part.due_seconds[number]) * 1e6))
        for stream, out in frames.items():
            stream.write(b"".join(out))

    def _join(self, part: Part) -> None:
        session = part.conversation.session
        join = Join(ref=f"join {part.number}", session=session, last_seq=0, create=part.create())
        self._reader(part).write(client_frame(encode(join)))

    def _unpark(self) -> None:
        now = time.perf_counter()
        due = [act for at, act in self._parked if at <= now]
        self._parked = [(at, act) for at, act in self._parked if at > now]
        for act in due:
            act()

    def _serve(self, stream: FrameStream) -> None:
        for payload in stream.read():
            answer = decode_answer(payload)
            if isinstance(answer, Message):
                self._see(answer, stream.read_at)
            elif isinstance(answer, Ack):
                self._acknowledge(answer, stream.read_at)
            elif isinstance(answer, Joined):
                part = self._by_session[answer.session]
                part.is_open = True
                self._send([part])
            elif isinstance(answer, Error):
                self._refuse(answer)

    def _see(self, message: Message, read_at: float) -> None:
        part = self._by_session.get(message.session)
        if part is None:
            detail = "shown to a connection that does not follow it"
            self.tally.findings.add(Kind.PHANTOM, message.session, detail)
            return
        part.tail.see(message.replayed())
        if message.seq <= part.length:
            waited = read_at - self._start - part.due_seconds[message.seq - 1]
            self.tally.now["delivery"].record(int(waited * 1e6))
        self._finish(part)

    def _acknowledge(self, ack: Ack, read_at: float) -> None:
        part, number = self._named(ack.ref)
        part.answers.append((number, ack.seq, ack.id))
        waited = read_at - self._start - part.due_seconds[number]
        self.tally.now["ack"].record(int(waited * 1e6))
        self._finish(part)
        self._rest(part)

    def _named(self, ref: str) -> tuple[Part, int]:
        part, _, number = ref.partition(" ")
        return self._parts[int(part)], int(number)

    def _finish(self, part: Part) -> None:
        if part.is_over and not part.is_left:
            part.is_left = True
            self._over += 1
            leave = Leave(ref=f"leave {part.number}", session=part.conversation.session)
            self._reader(part).write(client_frame(encode(leave)))

    def _refuse(self, error: Error) -> None:
        """Wait as long as the server wants; what was overtaken by a refusal waits with it.

        Raises:
            WireError: It refused for good.
        """
        kind, _, number = (error.ref or "").partition(" ")
        is_overtaken = error.code == "conflict" and kind.isdecimal()
        if error.retry_after_ms is None and not is_overtaken:
            raise WireError(f"refused for good: {error}")
        pause = 0.0
        if error.retry_after_ms is not None:
            self.tally.refused[error.code] += 1
            pause = max(error.retry_after_ms / 1000, RETRY_SECONDS)
        if kind == "join":
            again = partial(self._join, self._parts[int(number)])
            self._parked.append((time.perf_counter() + pause, again))
            return
        part, _ = self._named(error.ref or "")
        part.refuse(pause)
        self._rest(part)

    def _rest(self, part: Part) -> None:
        """Once all that was on the way was answered, let the part rest, if some of it was refused."""
        if not part.refused or not part.is_answered:
            return
        if not part.pause_seconds:
            raise WireError(f"{part.conversation.session} has another head than was acknowledged")
        self._parked.append((time.perf_counter() + part.pause_seconds, partial(self._repeat, part)))

    def _repeat(self, part: Part) -> None:
        part.rewind()
        self._send([part])

    def drain(self) -> None:
        """Play to the end, and wait for every ack and every reader.

        What does not come to a reader is a finding of `verify`.

        Raises:
            WireError: Some acks do not come.
        """
        done, heard_at = -1, time.perf_counter()
        while not self.is_done and time.perf_counter() < heard_at + self._patience_seconds:
            self.turn(0.1)
            if (now_done := self.acked + sum(part.tail.cursor for part in self._parts)) > done:
                done, heard_at = now_done, time.perf_counter()
        missing = sum(part.length - part.acked for part in self._parts)
        if missing:
            raise WireError(f"{missing} messages got no answer in {self._patience_seconds:.0f} s")

    def verify(self, progress: Callable[[str], None]) -> None:
        """Compare a replay of each session with its conversation, and with what its reader saw."""
        channel = Channel(user_url(self._plan.url, f"{self._prefix}checker"))
        with closing(channel.socket):
            for done, part in enumerate(self._parts, 1):
                replay = list(channel.replay(part.conversation.session))
                channel.leave(part.conversation.session)
                part.history(self.tally.findings).check(replay)
                part.tail.check(replay, complete=True)
                if done % PROGRESS_SESSIONS == 0 or done == len(self._parts):
                    progress(f"replayed {done:,} of {len(self._parts):,} conversations")

    def close(self) -> None:
        """Hang up."""
        for stream in self._streams:
            stream.close()
