"""One crash run: kill a server at random instants, start it again, and judge what its clients saw.

Writers never stop: each keeps a window full in sessions that several write to, and in sessions of
its own, one after another; what was not acknowledged when the server died is sent again under the
same ``client_id``. Readers follow the shared sessions and join again at their own cursor. Most kills
hit a serving server, some one that is still recovering.

Afterwards the server runs until every message has its ack and every reader is at the head. Then the
checker compares each session's history with a replay over WebSocket, and, once the server has
stopped in good order, with the archive.

What else may happen to a server than being killed can be given to the same run: see `Disturb`.

The seed chooses the content and the instants. It does not choose how the kernel schedules, so a
failure's seed makes it likely again and not certain.
"""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bench.archived import read_archived
from bench.channel import user_url
from bench.checker import Findings, Kind, Replayed, SessionHistory, TailHistory
from bench.client import Client, Habits
from bench.connection import open_connection
from bench.protocol import Join, Joined, Message
from bench.server import Server, ServerOptions, open_server
from tests.crash.traffic import deliveries, shared_sessions

SETTINGS = {
    "segment-bytes": "1MiB",
    # Archived segments go soon, so that deletion is among what a kill interrupts.
    "retention-seconds": "2",
    "retention-bytes": "4MiB",
    "log-level": "warning",
}

LIFE_SECONDS = (0.01, 0.6)
"""Bounds of how long a server may serve: a few commits, or two flush intervals."""

STARTUP_KILL_SHARE = 0.2
"""How many of the kills come while the server is still starting."""

STARTUP_SECONDS = (0.05, 0.9)
"""Bounds of when those come: from importing modules to just after recovery."""

SETTLE_SECONDS_MAX = 60.0
"""How long the last server may take to answer everything."""


CATCH_UP_POLLS = 3000
"""How often it is looked whether the readers are there, in that time."""

REPLAY_SECONDS_MAX = 30.0
"""A replay is a few thousand messages; one that takes this long is not whole."""


@dataclass(frozen=True, slots=True)
class CrashOptions:
    """How hard to try."""

    rounds: int
    seed: int
    directory: Path
    archive: str
    writers: int = 8
    readers: int = 2
    shared: int = 4
    window: int = 8
    rest_seconds: float = 0.0
    """How long each writer sends nothing after an acknowledgement."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Options of the server, over `SETTINGS`."""
    environment: Mapping[str, str] = field(default_factory=dict)


def moderate(directory: Path, archive: str) -> CrashOptions:
    """Return a load for what is about one disturbance after another, and not about how much is written meanwhile.

    More than a third of the time each writer waits for an answer. They write a quarter of what they could: it is all
    replayed and compared in the end.
    """
    return CrashOptions(
        rounds=0,
        seed=1,
        directory=directory,
        archive=archive,
        writers=4,
        readers=1,
        shared=2,
        window=3,
        rest_seconds=0.01,
    )


@dataclass(slots=True)
class CrashResult:
    """What was found."""

    kills: int = 0
    kills_while_starting: int = 0
    reconnects: int = 0
    sessions: int = 0
    acknowledged: int = 0
    replayed: int = 0
    archived: int = 0
    findings: Findings = field(default_factory=Findings)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, and there was enough to be wrong."""
        return self.findings.ok and self.acknowledged >= self.kills


async def run_crash(
    options: CrashOptions,
    progress: Callable[[str], None] = lambda line: None,
    disturb: "Disturb | None" = None,
) -> CrashResult:
    """Run all rounds, or what `disturb` does instead of them, and judge.

    Raises:
        ServerError: The server ended by itself, did not start, or did not stop in good order.
    """
    run = Load(options, progress)
    server_options = ServerOptions(
        options.directory,
        options.archive,
        SETTINGS | dict(options.settings),
        options.environment,
    )
    async with open_server(server_options) as server:
        try:
            await run.suffer(server, disturb or run.kill_and_restart)
        except Exception as error:
            error.add_note("\n".join(run.result.findings.examples))
            raise
        await run.check_replays(server)
        await server.stop()
    await trio.to_thread.run_sync(run.check_archive)
    return run.result


class Load:
    """The clients of one run, what they were told, and what was found."""

    def __init__(self, options: CrashOptions, progress: Callable[[str], None]) -> None:
        self.result = CrashResult()
        self._options = options
        self._progress = progress
        self._rng = random.Random(options.seed)
        self._prefix = f"crash-{options.seed}-"
        self._shared = shared_sessions(self._prefix, options.shared, "owner")
        self._histories: dict[str, SessionHistory] = {}
        self._stopping = False
        self._writers: list[Client] = []
        self._readers: list[Client] = []

    @property
    def acknowledged(self) -> int:
        """How many messages have been acknowledged so far."""
        return sum(history.acknowledged_count for history in self._histories.values())

    @property
    def shown(self) -> int:
        """How many messages the readers have been shown so far."""
        return sum(tail.cursor for reader in self._readers for tail in reader.followed.values())

    async def suffer(self, server: Server, disturb: "Disturb") -> None:
        """Disturb the server under load; return when it is up and everything is answered."""
        self._writers = [self._writer(server.url, n) for n in range(self._options.writers)]
        self._readers = [self._reader(server.url, n) for n in range(self._options.readers)]
        async with server.watched(), trio.open_nursery() as readers:
            for reader in self._readers:
                readers.start_soon(reader.run)
            async with trio.open_nursery() as writers:
                for writer in self._writers:
                    writers.start_soon(writer.run)
                await disturb(server, self)
                self._stopping = True
                writers.cancel_scope.deadline = trio.current_time() + SETTLE_SECONDS_MAX
            if writers.cancel_scope.cancelled_caught:
                self._note_unanswered()
            await self._catch_up()
            readers.cancel_scope.cancel()
        clients = self._writers + self._readers
        self.result.reconnects = sum(client.connections - 1 for client in clients)

    def _note_unanswered(self) -> None:
        detail = f"not every message was answered and shown within {SETTLE_SECONDS_MAX:.0f} s"
        self.result.findings.add(Kind.LOST, "of several writers", detail)

    def _writer(self, url: str, number: int) -> Client:
        name = f"writer-{number}"
        rng = random.Random(self._rng.random())
        # Every shared session has half of the writers.
        shared = {s: c for n, (s, c) in enumerate(self._shared.items()) if (n + number) % 2 == 0}
        supply = deliveries(
            self._prefix, name, shared, rng, self._options.window, lambda: self._stopping
        )
        return Client(
            user_url(url, name),
            self._histories,
            self.result.findings,
            deliveries=supply,
            deliveries_max=len(shared) + 1,
            habits=Habits(rest_seconds=self._options.rest_seconds),
            jitter=rng,
        )

    def _reader(self, url: str, number: int) -> Client:
        return Client(
            user_url(url, f"reader-{number}"),
            self._histories,
            self.result.findings,
            follow=self._shared,
            jitter=random.Random(self._rng.random()),
        )

    async def kill_and_restart(self, server: Server, _: "Load") -> None:
        """Kill the server as often as the options say, and leave it running."""
        for number in range(1, self._options.rounds + 1):
            await server.spawn()
            if self._rng.random() < STARTUP_KILL_SHARE:
                await trio.sleep(self._rng.uniform(*STARTUP_SECONDS))
                self.result.kills_while_starting += 1
            else:
                await server.wait_ready()
                await trio.sleep(self._rng.uniform(*LIFE_SECONDS))
            await server.kill()
            self.result.kills += 1
            if number % 10 == 0:
                self._progress(
                    f"{number} of {self._options.rounds} kills, {self.acknowledged:,} acknowledged,"
                    f" {len(self._histories):,} sessions"
                )
        await server.start()

    async def _catch_up(self) -> None:
        """Wait until every reader has been shown what the writers were."""
        heads = dict.fromkeys(self._shared, 0)
        for writer in self._writers:
            for tail in writer.left:
                if tail.session in heads:
                    # Who writes the last message leaves when it was shown, the others before.
                    heads[tail.session] = max(heads[tail.session], tail.cursor)
        # A reader that does not get there is found out by the check of its tail.
        for _ in range(CATCH_UP_POLLS):
            if all(
                tail.cursor >= heads[tail.session]
                for reader in self._readers
                for tail in reader.followed.values()
            ):
                return
            await trio.sleep(SETTLE_SECONDS_MAX / CATCH_UP_POLLS)

    async def check_replays(self, server: Server) -> None:
        """Compare every session with a replay from its beginning."""
        result = self.result
        result.sessions = len(self._histories)
        partial = _by_session([tail for writer in self._writers for tail in writer.left])
        whole = _by_session([t for reader in self._readers for t in reader.followed.values()])
        for session, history in self._histories.items():
            replay = await replay_session(user_url(server.url, "owner"), session)
            history.check(replay)
            for tail in partial.get(session, ()):
                tail.check(replay, complete=False)
            for tail in whole.get(session, ()):
                tail.check(replay, complete=True)
            result.acknowledged += history.acknowledged_count
            result.replayed += len(replay)

    def check_archive(self) -> None:
        """Compare every session with what a server that stopped in good order left in the archive."""
        archived = dict.fromkeys(self._histories, False)
        for session, rows in read_archived(self._options.archive, self._prefix):
            archived[session] = True
            self._histories[session].check(row.message for row in rows)
            self.result.archived += len(rows)
        for session, found in archived.items():
            if not found:
                self._histories[session].check(())


Disturb = Callable[[Server, Load], Awaitable[None]]
"""Starts the server, does to it what it must bear under load, and leaves it running."""


def _by_session(tails: list[TailHistory]) -> dict[str, list[TailHistory]]:
    grouped: dict[str, list[TailHistory]] = {}
    for tail in tails:
        grouped.setdefault(tail.session, []).append(tail)
    return grouped


async def replay_session(url: str, session: str) -> list[Replayed]:
    """Return what a replay shows; one that stops half-way is for the checker to judge."""
    messages: list[Replayed] = []
    head_seq: int | None = None
    with trio.move_on_after(REPLAY_SECONDS_MAX):
        async with open_connection(url) as connection:
            await connection.send(Join(ref="replay", session=session, last_seq=0))
            while head_seq is None or (messages[-1].seq if messages else 0) < head_seq:
                for answer in await connection.receive():
                    if isinstance(answer, Joined):
                        head_seq = answer.head_seq
                    elif isinstance(answer, Message):
                        messages.append(answer.replayed())
    return messages
