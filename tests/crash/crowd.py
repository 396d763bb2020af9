"""Clients who say something at their own pace, whatever becomes of it: many sessions over few connections.

Nothing slows them down: what is due is sent when it is due, also while answers are missing. So how long a session had to
wait is measured from when its message was due, and a pause is felt by every message in it.

What has no answer when a connection is lost is sent again on the next one, and what was refused, after the pause that was
asked for, always under the same ``client_id``. Some sessions have readers, who follow them through everything.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import trio

from bench.archived import read_archived
from bench.channel import Channel, user_url
from bench.checker import Kind, Replayed, SessionHistory
from bench.client import RECONNECT_SECONDS, Client
from bench.connection import Connection, ConnectionLostError, open_connection
from bench.loads.outbox import Outbox
from bench.protocol import Ack, Answer, Create, Error, Join, Joined, Leave, ProtocolError, Send
from bench.server import Server
from bench.writer import content_of
from tests.crash.rounds import SETTLE_SECONDS_MAX, CrashResult

TICK_SECONDS = 0.02
"""How finely messages are spread over time."""

CONTENT_BYTES = 200

SILENT_SECONDS_MAX = 40.0
"""An answer that is owed for so long does not come any more: four times what an edge may take for one."""

FLOW_SECONDS_MAX = 60.0
"""Within so long after a fault is over every session goes on."""

OWNER = "owner"


@dataclass(frozen=True)
class CrowdOptions:
    """How many talk, and how fast: `rate` messages a second, all sessions together."""

    archive: str
    sessions: int = 512
    connections: int = 8
    rate: float = 1_000.0
    followed: int = 8
    prefix: str = "crowd-"


class Talk:
    """One session: what was said in it, and how long it had to wait."""

    def __init__(self, session: str, user: str, due_at: float) -> None:
        self.session = session
        self.outbox = Outbox(user, CONTENT_BYTES)
        self.due_at = due_at
        self.longest_wait = 0.0
        """From when a message was due to its acknowledgement."""
        self.recent_wait = 0.0
        """The longest one since somebody last asked."""
        self.asked: dict[int, float] = {}
        """When each message without an acknowledgement was due."""
        self.refused: dict[int, float] = {}
        """When those that were refused may be sent again."""
        self.exists = False

    def fall_due(self, now: float, every: float) -> list[int]:
        """Return the new messages that are due by now."""
        numbers = []
        while self.due_at <= now:
            (number,) = self.outbox.add(1)
            self.asked[number] = self.due_at
            self.due_at += every
            numbers.append(number)
        return numbers

    def take_refused(self, now: float) -> list[int]:
        """Return what was refused, in order, once all of it may be sent again."""
        if not self.refused or max(self.refused.values()) > now:
            return []
        numbers = sorted(self.refused)
        self.refused.clear()
        return numbers

    def heard(self, number: int, now: float) -> bool:
        """Note that a message was acknowledged; return False if it had been before."""
        asked = self.asked.pop(number, None)
        if asked is None:
            return False
        self.longest_wait = max(self.longest_wait, now - asked)
        self.recent_wait = max(self.recent_wait, now - asked)
        return True

    def waits_until(self, now: float) -> float:
        """Return how long the oldest message waits that has no acknowledgement."""
        return now - min(self.asked.values(), default=now)


class Part:
    """One connection after another, and the sessions that are talked in over it."""

    def __init__(
        self, url: str, talks: list[Talk], every: float, on_ack: Callable[[], None]
    ) -> None:
        self.talks = {talk.session: talk for talk in talks}
        self.connections = 0
        self.stopping = False
        self._url = url
        self._every = every
        self._on_ack = on_ack
        self._jitter = random.Random(url)

    async def run(self) -> None:
        """Talk until told to stop, and everything is acknowledged."""
        while True:
            try:
                async with open_connection(self._url) as connection:
                    self.connections += 1
                    await self._converse(connection)
                    return
            except ConnectionLostError:
                await trio.sleep(self._jitter.uniform(*RECONNECT_SECONDS))

    async def _converse(self, connection: Connection) -> None:
        missing = [talk for talk in self.talks.values() if not talk.exists]
        create = Create(user_id=OWNER)
        await connection.send(
            *(Join(ref=talk.session, session=talk.session, create=create) for talk in missing)
        )
        requests: list[Join | Leave | Send] = []
        now = trio.current_time()
        for talk in self.talks.values():
            talk.refused.clear()
            requests += self._say(talk, talk.outbox.unanswered, now)
        heard_at = now
        while True:
            requests += self._due_requests(now)
            if requests:
                await connection.send(*requests)
            if self.stopping and not any(talk.asked for talk in self.talks.values()):
                return
            requests = []
            with trio.move_on_after(TICK_SECONDS):
                for answer in await connection.receive():
                    requests += self._handle(answer)
                heard_at = trio.current_time()
            now = trio.current_time()
            if now > heard_at + SILENT_SECONDS_MAX:
                raise ConnectionLostError("the server says nothing")

    def _due_requests(self, now: float) -> list[Send]:
        requests = []
        for talk in self.talks.values():
            if talk.exists:
                due = [] if self.stopping else talk.fall_due(now, self._every)
                requests += self._say(talk, talk.take_refused(now) + due, now)
        return requests

    def _say(self, talk: Talk, numbers: list[int], now: float) -> list[Send]:
        talk.outbox.send(numbers, now)
        return [
            Send(
                ref=f"{talk.session} {number}",
                session=talk.session,
                client_id=f"{number:010}",
                kind="text",
                content=msgspec.Raw(content_of(number, CONTENT_BYTES)),
                sender=talk.outbox.user,
            )
            for number in numbers
        ]

    def _handle(self, answer: Answer) -> list[Leave]:
        if isinstance(answer, Ack):
            talk = self.talks[answer.session]
            number = int(answer.ref.rpartition(" ")[2])
            talk.outbox.acknowledge(number, answer.seq, answer.id)
            # A second answer, of a message that was sent again, is for the checker alone.
            if talk.heard(number, trio.current_time()):
                self._on_ack()
        elif isinstance(answer, Joined):
            talk = self.talks[answer.session]
            talk.exists = True
            talk.due_at = trio.current_time() + self._jitter.uniform(0, self._every)
            return [Leave(ref="leave", session=answer.session)]
        elif isinstance(answer, Error):
            self._refuse(answer)
        return []

    def _refuse(self, error: Error) -> None:
        session, _, number = (error.ref or "").partition(" ")
        if error.retry_after_ms is None or session not in self.talks:
            raise ProtocolError(error)
        if not number:
            # Its session could not be made: everything is tried again.
            raise ConnectionLostError(str(error))
        talk = self.talks[session]
        talk.outbox.refuse(int(number))
        talk.refused[int(number)] = trio.current_time() + error.retry_after_ms / 1000


class Crowd:
    """All clients of a run."""

    def __init__(self, options: CrowdOptions) -> None:
        self.result = CrashResult()
        self.acknowledged = 0
        """Messages that were acknowledged so far."""
        self.pauses: list[float] = []
        """The longest wait of each session in each round."""
        self.waits: list[float] = []
        """The longest wait of each session while it was measured, ascending."""
        self.rate = 0.0
        """Messages acknowledged a second meanwhile."""
        self._options = options
        self._parts: list[Part] = []
        self._readers: list[Client] = []
        self._measured_from = 0.0
        self._acknowledged_before = 0

    @property
    def talks(self) -> list[Talk]:
        """Every session."""
        return [talk for part in self._parts for talk in part.talks.values()]

    def begin_measuring(self) -> None:
        """Forget the waits until now, and what they were waited for."""
        for talk in self.talks:
            talk.longest_wait = talk.recent_wait = 0.0
        self._measured_from = trio.current_time()
        self._acknowledged_before = self.acknowledged

    def recent_wait(self) -> float:
        """Return the longest wait of any session since this was last asked."""
        now = trio.current_time()
        longest = [max(talk.recent_wait, talk.waits_until(now)) for talk in self.talks]
        for talk in self.talks:
            talk.recent_wait = 0.0
        self.pauses += longest
        return max(longest)

    def end_measuring(self) -> None:
        """Note what was measured: what still waits counts with how long it did until now."""
        now = trio.current_time()
        self.waits = sorted(max(t.longest_wait, t.waits_until(now)) for t in self.talks)
        acknowledged = self.acknowledged - self._acknowledged_before
        self.rate = acknowledged / (now - self._measured_from)

    async def until_flowing(self) -> float:
        """Wait until every session has had another message acknowledged; return how long that took."""
        began = trio.current_time()
        before = {talk: talk.outbox.acked for talk in self.talks}
        with trio.fail_after(FLOW_SECONDS_MAX):
            while any(talk.outbox.acked == acked for talk, acked in before.items()):
                await trio.sleep(TICK_SECONDS)
        return trio.current_time() - began

    async def suffer(
        self, server: Server, disturb: Callable[[Server, "Crowd"], Awaitable[None]]
    ) -> None:
        """Talk while the server is disturbed; return when all is acknowledged and shown."""
        options = self._options
        every = options.sessions / options.rate
        for number in range(options.connections):
            user = f"part-{number}"
            names = range(number, options.sessions, options.connections)
            talks = [Talk(f"{options.prefix}{name}", user, 0.0) for name in names]
            part = Part(user_url(server.url, user), talks, every, self._note_ack)
            self._parts.append(part)
        followed = {talk.session: Create(user_id=OWNER) for talk in self.talks[: options.followed]}
        url = user_url(server.url, "reader")
        self._readers = [Client(url, {}, self.result.findings, follow=followed)]
        async with server.watched(), trio.open_nursery() as readers:
            for reader in self._readers:
                readers.start_soon(reader.run)
            async with trio.open_nursery() as writers:
                for part in self._parts:
                    writers.start_soon(part.run)
                await disturb(server, self)
                for part in self._parts:
                    part.stopping = True
                writers.cancel_scope.deadline = trio.current_time() + SETTLE_SECONDS_MAX
            if writers.cancel_scope.cancelled_caught:
                detail = f"not every message was answered within {SETTLE_SECONDS_MAX:.0f} s"
                self.result.findings.add(Kind.LOST, "of several clients", detail)
            await self._catch_up()
            readers.cancel_scope.cancel()
        self.result.reconnects = sum(part.connections - 1 for part in self._parts)

    async def _catch_up(self) -> None:
        """Wait until the readers were shown all; who is not is found out by the check of its tail."""
        heads = {talk.session: talk.outbox.acked for talk in self.talks}
        with trio.move_on_after(SETTLE_SECONDS_MAX):
            while any(
                tail.cursor < heads[tail.session]
                for reader in self._readers
                for tail in reader.followed.values()
            ):
                await trio.sleep(TICK_SECONDS)

    async def check_replays(self, server: Server) -> None:
        """Compare every session with a replay from its beginning."""
        for part in self._parts:
            await trio.to_thread.run_sync(self._check_part, server, part)

    def _check_part(self, server: Server, part: Part) -> None:
        tails = {t.session: t for reader in self._readers for t in reader.followed.values()}
        channel = Channel(user_url(server.url, OWNER))
        with channel.socket:
            for talk in part.talks.values():
                replay = list(channel.replay(talk.session))
                channel.leave(talk.session)
                history = self._history(talk)
                history.check(replay)
                if talk.session in tails:
                    tails[talk.session].check(replay, complete=True)
                self.result.sessions += 1
                self.result.acknowledged += history.acknowledged_count
                self.result.replayed += len(replay)

    def check_archive(self) -> None:
        """Compare every session with what owners that stopped in good order left in the archive."""
        archived: dict[str, list[Replayed]] = {}
        for session, rows in read_archived(self._options.archive, self._options.prefix):
            archived[session] = [row.message for row in rows]
            self.result.archived += len(rows)
        for talk in self.talks:
            self._history(talk).check(archived.get(talk.session, []))

    def _history(self, talk: Talk) -> SessionHistory:
        history = SessionHistory(talk.session, self.result.findings)
        talk.outbox.note(history)
        return history

    def _note_ack(self) -> None:
        self.acknowledged += 1
