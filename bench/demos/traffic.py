"""The clients of a demonstration: users who write and read in sessions that they share, at the pace of a busy chat.

Each has something to say all the time, so what they would notice of a failure is the time between two of their
acknowledgements in one session: `REST_SECONDS` and a little, if all is well.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field

import trio

from bench.archived import read_archived
from bench.channel import Channel, user_url
from bench.checker import Findings, Kind, SessionHistory, TailHistory
from bench.client import Client, Habits
from bench.delivery import Delivery, Outgoing
from bench.protocol import Ack, Create, Error

REST_SECONDS = 0.1
"""Between what a user has read and what they say to it, in each of their sessions."""

MEMBERS = (0, 1, 5)
"""Of a session, counted on from its own number: so members come in over different edges."""

SETTLE_SECONDS_MAX = 60.0
"""How long it may take in the end until every message is answered and shown."""

SETTLE_POLL_SECONDS = 0.02

READER = "reader"


@dataclass(slots=True)
class Noticed:
    """What clients noticed since they began, or since somebody looked."""

    pauses: dict[str, float] = field(default_factory=dict)
    """By session the longest time between two acknowledgements of one user, in seconds."""
    repeats: int = 0
    """Messages that were sent again, and answered with their first acknowledgement."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Errors by their code; each was repeated until it was stored."""

    def longest_pause(self, sessions: Set[str]) -> float:
        """Return the longest pause in some sessions, 0 if nothing was acknowledged in them."""
        return max((pause for name, pause in self.pauses.items() if name in sessions), default=0.0)


class Traffic:
    """All users, what they were told, and what was found."""

    def __init__(self, urls: Sequence[str], *, users: int, sessions: int) -> None:
        self.acknowledged = 0
        self.findings = Findings()
        self.noticed = Noticed()
        self._prefix = f"demo-{random.Random().randbytes(3).hex()}-"
        self._urls = urls
        self._since = Noticed()
        self._acked_at: dict[str, float] = {}
        """When a user was last acknowledged in a session, by what the refs of both have in common."""
        self._histories: dict[str, SessionHistory] = {}
        self._stopping = False
        members = {
            f"{self._prefix}{number}": [f"user-{(number + step) % users}" for step in MEMBERS]
            for number in range(sessions)
        }
        self._creates = {
            session: Create(user_id=READER, members=tuple(dict.fromkeys(names)))
            for session, names in members.items()
        }
        self._writers = [self._writer(number) for number in range(users)]
        self._reader = Client(
            user_url(urls[-1], READER), self._histories, self.findings, follow=self._creates
        )

    @property
    def sessions(self) -> list[str]:
        """Their names."""
        return list(self._creates)

    @property
    def reconnects(self) -> int:
        """How many connections were lost and made again."""
        return sum(client.connections - 1 for client in (*self._writers, self._reader))

    def look(self) -> Noticed:
        """Return what was noticed since somebody looked."""
        since, self._since = self._since, Noticed()
        return since

    async def run(self) -> None:
        """Go on until `stop` is called and every message is acknowledged and was shown.

        Raises:
            ProtocolError, SilentServerError: A client cannot go on.
        """
        async with trio.open_nursery() as reading:
            reading.start_soon(self._reader.run)
            async with trio.open_nursery() as writing:
                for writer in self._writers:
                    writing.start_soon(writer.run)
            with trio.move_on_after(SETTLE_SECONDS_MAX):
                await self._until_shown()
            reading.cancel_scope.cancel()

    def stop(self) -> None:
        """Let nobody begin anything new."""
        self._stopping = True

    async def more(self, messages: int) -> None:
        """Wait until so many more are acknowledged."""
        enough = self.acknowledged + messages
        while self.acknowledged < enough:  # noqa: ASYNC110 - hundreds of clients need no event each
            await trio.sleep(SETTLE_POLL_SECONDS)

    def check(self, url: str) -> int:
        """Compare a replay of each session with what was acknowledged and shown; return how many messages there are."""
        shown: dict[str, list[TailHistory]] = {}
        for writer in self._writers:
            for tail in writer.left:
                shown.setdefault(tail.session, []).append(tail)
        replayed = 0
        channel = Channel(user_url(url, READER))
        with closing(channel.socket):
            for session in self._creates:
                messages = list(channel.replay(session))
                channel.leave(session)
                self._history(session).check(messages)
                self._reader.followed[session].check(messages, complete=True)
                for tail in shown.get(session, ()):
                    tail.check(messages, complete=False)
                replayed += len(messages)
        return replayed

    def check_archive(self, archive: str) -> int:
        """Compare what the archive holds in the end with what was acknowledged; return how many messages that is."""
        missing, found = set(self._creates), 0
        for session, rows in read_archived(archive, self._prefix):
            missing.discard(session)
            self._history(session).check(row.message for row in rows)
            found += len(rows)
        for session in missing:
            self.findings.add(Kind.LOST, session, "the archive has no message of it")
        return found

    def _history(self, session: str) -> SessionHistory:
        return self._histories.setdefault(session, SessionHistory(session, self.findings))

    def _writer(self, number: int) -> Client:
        user = f"user-{number}"
        mine = {s: create for s, create in self._creates.items() if user in create.members}
        deliveries = [
            Delivery(session, create, self._messages(user), window=1)
            for session, create in mine.items()
        ]
        habits = Habits(REST_SECONDS, self._note_ack, self._note_refusal)
        url = user_url(self._urls[number % len(self._urls)], user)
        return Client(
            url,
            self._histories,
            self.findings,
            deliveries=deliveries,
            deliveries_max=len(deliveries),
            habits=habits,
        )

    def _messages(self, user: str) -> Iterator[Outgoing]:
        number = 0
        while not self._stopping:
            number += 1
            content = b'{"text":"message %d of %s"}' % (number, user.encode())
            yield Outgoing(f"{user}-{number}", user, content)

    def _note_ack(self, ack: Ack) -> None:
        self.acknowledged += 1
        who, now = ack.ref.rpartition("-")[0], trio.current_time()
        pause = now - self._acked_at.get(who, now)
        self._acked_at[who] = now
        for noticed in (self.noticed, self._since):
            noticed.pauses[ack.session] = max(pause, noticed.pauses.get(ack.session, 0.0))
            noticed.repeats += ack.duplicate

    def _note_refusal(self, error: Error) -> None:
        for noticed in (self.noticed, self._since):
            noticed.refusals[error.code] += 1

    async def _until_shown(self) -> None:
        """Wait until the reader has been shown what every writer was."""
        heads = Counter[str]()
        for writer in self._writers:
            for tail in writer.left:
                heads[tail.session] = max(heads[tail.session], tail.cursor)
        followed: Mapping[str, TailHistory] = self._reader.followed
        while any(followed[session].cursor < head for session, head in heads.items()):  # noqa: ASYNC110
            await trio.sleep(SETTLE_POLL_SECONDS)
