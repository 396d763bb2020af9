"""Sessions that a server knows and nobody uses: made by the hundred thousand, with one message each.

Each session is made, left and written to, without waiting in between: the requests for one session take effect
in their order. So a batch of sessions is one write and one round trip. Of a sample that is chosen beforehand it
is remembered what was acknowledged.
"""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import msgspec

from bench.channel import Channel
from bench.checker import Findings, SessionHistory
from bench.loads.written import open_channel
from bench.protocol import Ack, Create, Error, Join, Leave, Send, decode_answer, encode
from bench.wire import WireError, client_frame

USER = "owner"
"""Of all sessions."""

BATCH_SESSIONS = 300
"""Three requests each, of the 1,024 that a connection may have waiting."""

CONNECTIONS = 4
"""While one batch waits for the disk, others are with the server."""

PART_SESSIONS = 10_000
"""What one connection makes in a row."""

CONTENT = msgspec.Raw(b'{"text":"hello"}')
CLIENT_ID = "1"


class KnownSessions:
    """The sessions that were made, and what must be in some of them."""

    def __init__(self, name: str, count: int, sampled: int, chance: random.Random) -> None:
        self._name = name
        self.count = count
        self.sample = [self.session(n) for n in chance.sample(range(count), min(sampled, count))]
        self._acks: dict[str, Ack | None] = dict.fromkeys(self.sample)

    def session(self, number: int) -> str:
        """Return the name of one."""
        return f"{self._name}-{number}"

    def make(self, url: str, progress: Callable[[str], None]) -> None:
        """Make them all.

        Raises:
            WireError: One was refused.
        """
        parts = [
            range(first, min(self.count, first + PART_SESSIONS))
            for first in range(0, self.count, PART_SESSIONS)
        ]
        made = 0
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for done in as_completed([threads.submit(self._make_part, url, p) for p in parts]):
                made += done.result()
                progress(f"made {made:,} of {self.count:,} sessions")

    def _make_part(self, url: str, numbers: range) -> int:
        with open_channel(url, USER) as channel:
            for first in range(0, len(numbers), BATCH_SESSIONS):
                batch = [self.session(n) for n in numbers[first : first + BATCH_SESSIONS]]
                channel.socket.sendall(b"".join(map(_frames, batch)))
                self._await_acks(channel, len(batch))
        return len(numbers)

    def _await_acks(self, channel: Channel, missing: int) -> None:
        for payload in channel.payloads():
            answer = decode_answer(payload)
            if isinstance(answer, Error):
                raise WireError(f"refused: {answer}")
            if isinstance(answer, Ack):
                if answer.session in self._acks:
                    self._acks[answer.session] = answer
                missing -= 1
                if not missing:
                    return

    def check(self, url: str, findings: Findings) -> None:
        """Replay the sample: each holds its message, once."""
        with open_channel(url, USER) as channel:
            for history in self._histories(findings):
                history.check(channel.replay(history.session))
                channel.leave(history.session)

    def _histories(self, findings: Findings) -> Iterator[SessionHistory]:
        for session, ack in self._acks.items():
            history = SessionHistory(session, findings)
            key = (USER, CLIENT_ID)
            history.send(key, bytes(CONTENT))
            if ack is not None:
                history.acknowledge(key, ack.seq, ack.id)
            yield history


_CREATE = Create(user_id=USER)


def _frames(session: str) -> bytes:
    requests = (
        Join(ref="j", session=session, create=_CREATE),
        Leave(ref="l", session=session),
        Send(ref="s", session=session, client_id=CLIENT_ID, kind="text", content=CONTENT),
    )
    return b"".join([client_frame(encode(request)) for request in requests])
