"""Sessions that are written before anything is measured, and what was promised of each.

A session is written over one blocking connection with a window of messages on the way. Contents are made
from their numbers, so all that is kept of a message is the seq and the id of its ack: a million messages
are remembered in some hundred bytes each, and the contents exist only while they are compared.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager

from bench.channel import Channel, user_url
from bench.checker import Findings, Replayed, SessionHistory
from bench.protocol import Ack, Create, Error, Join, Joined, Leave, Ok, decode_answer
from bench.wire import WireError
from bench.writer import content_of, frame_template

BATCH = 256
"""Messages that leave in one write."""

WINDOW = 2 * BATCH
"""On the way at once: one batch is with the server while the answers to the other are read. It allows 1,024."""

PROGRESS_MESSAGES = 100_000


class WrittenSession:
    """One session: messages that are acknowledged, and what a replay of them must show."""

    def __init__(self, name: str, user: str, content_bytes: int) -> None:
        self.name = name
        self.user = user
        self._content_bytes = content_bytes
        self._frame = frame_template(name, content_bytes)
        self._seqs = array("q")
        self._ids: list[str] = []

    @property
    def count(self) -> int:
        """How many messages were acknowledged: the head, if the server numbers them well."""
        return len(self._ids)

    def create(self, channel: Channel) -> None:
        """Make the session, and do not follow it.

        Raises:
            WireError: The server refuses.
        """
        channel.send(Join(ref="j", session=self.name, create=Create(user_id=self.user)))
        channel.wait_for(Joined)
        channel.send(Leave(ref="l", session=self.name))
        channel.wait_for(Ok)

    def append(self, channel: Channel, count: int) -> None:
        """Append messages, and return when each is acknowledged.

        Raises:
            WireError: One was refused.
        """
        sent = answered = self.count
        last = sent + count
        self._seqs.extend([0] * count)
        self._ids += [""] * count
        payloads = channel.payloads()
        while answered < last:
            if sent < last and sent - answered <= WINDOW - BATCH:
                batch = range(sent, min(last, sent + BATCH))
                channel.socket.sendall(b"".join([self._frame % (n, n, n) for n in batch]))
                sent = batch.stop
                continue
            answer = decode_answer(next(payloads))
            if isinstance(answer, Error):
                raise WireError(f"{self.name}: refused: {answer}")
            if isinstance(answer, Ack):
                number = int(answer.ref)
                self._seqs[number], self._ids[number] = answer.seq, answer.id
                answered += 1

    def check(self, replay: Iterable[Replayed], findings: Findings, after_seq: int = 0) -> None:
        """Compare a replay after a cursor with what was acknowledged.

        The checker knows histories from their beginning only, so one after a cursor is shown to it as if
        the session began there.
        """
        history = SessionHistory(self.name, findings)
        for number in range(after_seq, self.count):
            key = (self.user, f"{number:010}")
            history.send(key, content_of(number, self._content_bytes))
            history.acknowledge(key, self._seqs[number] - after_seq, self._ids[number])
        history.check(message._replace(seq=message.seq - after_seq) for message in replay)


@contextmanager
def open_channel(url: str, user: str) -> Iterator[Channel]:
    """Connect a user of a development server; it hangs up when the block ends."""
    channel = Channel(user_url(url, user))
    with closing(channel.socket):
        yield channel


def write_session(
    url: str,
    name: str,
    messages: int,
    content_bytes: int,
    progress: Callable[[str], None] = lambda _: None,
) -> WrittenSession:
    """Make a session of so many messages, over a connection of its own."""
    written = WrittenSession(name, name, content_bytes)
    with open_channel(url, written.user) as channel:
        written.create(channel)
        while written.count < messages:
            written.append(channel, min(PROGRESS_MESSAGES, messages - written.count))
            if messages > PROGRESS_MESSAGES:
                progress(f"wrote {written.count:,} of {messages:,} messages of one session")
    return written


def replay_over(url: str, written: WrittenSession) -> Iterator[Replayed]:
    """Yield what a blocking connection of its owner is shown of a session, from its beginning."""
    with open_channel(url, written.user) as channel:
        yield from channel.replay(written.name)
