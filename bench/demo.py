"""The demo: real conversations through a server that is killed on the way, and nothing is missing.

A handful of clients play the conversations of the `chitchat-dataset` package, each in its own
session, many at a time. Twice the server is killed with SIGKILL and started again; the clients come
back by themselves and send again what was not acknowledged. At the end the archive is read with SQL
and compared with the source, message by message.
"""

import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.archived import Archived, read_archived
from bench.channel import user_url
from bench.checker import Findings, Kind, SessionHistory
from bench.client import Client, Habits
from bench.conversations import Conversation, load_conversations
from bench.protocol import Ack
from bench.server import Server, ServerOptions, open_server, sqlite_url

WINDOW = 4
"""Messages of one conversation on the way at once; the order holds all the same."""

SESSIONS_PER_CLIENT = 16
"""Conversations that one connection carries at a time."""

DEMO_SECONDS_MAX = 900.0
"""It takes well below two minutes; what takes this long has hung."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to play, and into what."""

    directory: Path
    archive: str | None = None
    conversations: int | None = None
    clients: int = 8
    kills: int = 2
    seed: int = 0


@dataclass(slots=True)
class DemoResult:
    """How it went."""

    conversations: int
    messages: int
    kills: int = 0
    reconnects: int = 0
    play_seconds: float = 0.0
    archived: int = 0
    findings: Findings = field(default_factory=Findings)


async def run_demo(options: DemoOptions) -> DemoResult:
    """Play, kill, compare.

    Raises:
        ServerError: The server did not come back, or did not stop as it should.
    """
    prefix = f"chitchat-{random.Random().randbytes(3).hex()}-"
    conversations = load_conversations(prefix, options.conversations)
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="demo-", dir=options.directory) as name:
        archive = options.archive or sqlite_url(Path(name))
        async with open_server(ServerOptions(Path(name), archive)) as server:
            with trio.fail_after(DEMO_SECONDS_MAX):
                play = _Play(options, conversations, server)
                await play.run()
        with play.progress:
            await trio.to_thread.run_sync(play.compare, archive, prefix)
    return play.result


class _Play:
    """One performance."""

    def __init__(
        self, options: DemoOptions, conversations: list[Conversation], server: Server
    ) -> None:
        total = sum(len(conversation.messages) for conversation in conversations)
        self.result = DemoResult(len(conversations), total)
        self.progress = _make_progress()
        self._conversations = conversations
        self._server = server
        self._histories: dict[str, SessionHistory] = {}
        self._bar = self.progress.add_task("acknowledged", total=total)
        self._acked = 0
        rng = random.Random(options.seed)
        self._kill_at = _kill_points(total, options.kills, rng)
        self._kill_now = trio.Event()
        # All clients draw from one supply, so that they finish together.
        supply = (conversation.delivery(WINDOW) for conversation in conversations)
        self._clients = [
            Client(
                user_url(server.url, f"demo-{number}"),
                self._histories,
                self.result.findings,
                deliveries=supply,
                deliveries_max=SESSIONS_PER_CLIENT,
                habits=Habits(on_ack=self._count_ack),
                jitter=random.Random(rng.random()),
            )
            for number in range(options.clients)
        ]

    async def run(self) -> None:
        """Play everything; the server is stopped afterwards, and all is in the archive."""
        await self._server.start()
        start = time.monotonic()
        with self.progress:
            async with self._server.watched(), trio.open_nursery() as nursery:
                nursery.start_soon(self._kill_and_restart)
                for client in self._clients:
                    nursery.start_soon(client.run)
        self.result.play_seconds = time.monotonic() - start
        self.result.reconnects = sum(client.connections - 1 for client in self._clients)
        await self._server.stop()

    def compare(self, archive: str, prefix: str) -> None:
        """Compare the archive with the source, and with what the clients were told and shown."""
        findings = self.result.findings
        sources = {conversation.session: conversation for conversation in self._conversations}
        tails = {tail.session: tail for client in self._clients for tail in client.left}
        bar = self.progress.add_task("compared", total=self.result.messages)
        for session, rows in read_archived(archive, prefix):
            source = sources.pop(session)
            _compare_with_source(source, rows, findings)
            messages = [row.message for row in rows]
            self._histories[session].check(messages)
            tails[session].check(messages, complete=True)
            self.result.archived += len(rows)
            self.progress.advance(bar, len(rows))
        for session in sources:
            findings.add(Kind.LOST, session, "the archive has no message of it")

    def _count_ack(self, _: Ack) -> None:
        self._acked += 1
        self.progress.advance(self._bar)
        if self._kill_at and self._acked >= self._kill_at[0]:
            self._kill_at.pop(0)
            self._kill_now.set()

    async def _kill_and_restart(self) -> None:
        for _ in range(len(self._kill_at)):
            await self._kill_now.wait()
            self._kill_now = trio.Event()
            await self._server.kill()
            self.result.kills += 1
            if self.progress.console.is_terminal:
                self.progress.console.print(f"kill -9 after {self._acked:,} acknowledgements")
            await self._server.start()


def _compare_with_source(source: Conversation, rows: list[Archived], findings: Findings) -> None:
    """Note where a session's rows are not exactly its source, in its order."""
    expected = [(m.sender, m.client_id, m.content, m.metadata) for m in source.messages]
    found = [
        (row.message.sender, row.message.client_id, row.message.content, row.metadata)
        for row in rows
    ]
    if found == expected and [row.message.seq for row in rows] == list(range(1, len(rows) + 1)):
        return
    detail = f"{len(rows)} messages are not the source's {len(expected)}"
    findings.add(Kind.CHANGED, source.session, detail)


def _kill_points(total: int, kills: int, rng: random.Random) -> list[int]:
    """Return after how many acknowledgements to kill: spread evenly, never at a round number."""
    step = total / (kills + 1)
    return [int(step * (number + rng.uniform(-0.3, 0.3))) for number in range(1, kills + 1)]


def _make_progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:>12}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
