"""What does an active session cost the server, and what an idle connection?

First many sessions are made with one message each, over one connection that follows none of them.
Then many connections each join one of those sessions and stay silent. The growth of the server's
resident memory over each step is divided by what the step made.
"""

import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from bench.channel import Channel, user_url
from bench.environment import read_environment, resident_bytes
from bench.protocol import Ack, Create, Error, Join, Joined, Leave, Send, decode_answer
from bench.report import MemoryReport, progress
from bench.scenarios.append import raise_descriptor_limit
from bench.server import Server, ServerOptions, open_server, sqlite_url
from bench.wire import WireError

BATCH_SESSIONS = 100
"""Sessions made per round trip: three requests each, well below what a connection may have waiting."""

SETTLE_SECONDS = 3.0
"""Ten flush intervals: what is durable is archived, and no longer held for the archive."""

IDLE_SECONDS = 3600
"""Nothing may be put to rest while it is being weighed."""

USER = "owner"


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """How many of each."""

    sessions: int
    connections: int
    directory: Path
    settle_seconds: float = SETTLE_SECONDS


async def run_memory(options: MemoryOptions) -> MemoryReport:
    """Weigh sessions, then connections."""
    raise_descriptor_limit()
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        fresh = Path(name)
        settings = {"idle-seconds": str(IDLE_SECONDS)}
        async with open_server(ServerOptions(fresh, sqlite_url(fresh), settings)) as server:
            await server.start()
            report = await _weigh(options, server)
            await server.stop()
    return report


async def _weigh(options: MemoryOptions, server: Server) -> MemoryReport:
    url = user_url(server.url, USER)
    # One of each first: what is loaded and built on first use belongs to neither.
    await trio.to_thread.run_sync(_make_sessions, url, "first", 1)
    start = await _settled_bytes(options, server)
    await trio.to_thread.run_sync(_make_sessions, url, "session", options.sessions)
    with_sessions = await _settled_bytes(options, server)
    with ExitStack() as stack:
        await trio.to_thread.run_sync(_connect, url, options, stack)
        with_connections = await _settled_bytes(options, server)
    return MemoryReport(
        scenario="memory",
        environment=read_environment(options.directory),
        sessions=options.sessions,
        connections=options.connections,
        start_rss_bytes=start,
        rss_bytes=with_connections,
        session_bytes=(with_sessions - start) / options.sessions,
        connection_bytes=(with_connections - with_sessions) / options.connections,
    )


async def _settled_bytes(options: MemoryOptions, server: Server) -> int:
    await trio.sleep(options.settle_seconds)
    return resident_bytes(server.pid)


def _make_sessions(url: str, name: str, count: int) -> None:
    content = msgspec.Raw(b'{"text":"hello"}')
    channel = Channel(url)
    with closing(channel.socket):
        for first in range(0, count, BATCH_SESSIONS):
            sessions = [f"{name}-{n}" for n in range(first, min(count, first + BATCH_SESSIONS))]
            create = Create(user_id=USER)
            channel.send(*(Join(ref=s, session=s, create=create) for s in sessions))
            _expect(channel, Joined, len(sessions))
            channel.send(*(Leave(ref=s, session=s) for s in sessions))
            channel.send(
                *(
                    Send(ref=s, session=s, client_id="1", kind="text", content=content)
                    for s in sessions
                )
            )
            _expect(channel, Ack, len(sessions))
            progress(f"{first + len(sessions):,} of {count:,} sessions")


def _connect(url: str, options: MemoryOptions, stack: ExitStack) -> None:
    for number in range(options.connections):
        channel = Channel(url)
        stack.enter_context(closing(channel.socket))
        session = f"session-{number % options.sessions}"
        channel.send(Join(ref="join", session=session))
        channel.wait_for(Joined)
    progress(f"{options.connections:,} connections")


def _expect(channel: Channel, kind: type[Joined] | type[Ack], count: int) -> None:
    for payload in channel.payloads():
        answer = decode_answer(payload)
        if isinstance(answer, Error):
            raise WireError(f"refused: {answer}")
        count -= isinstance(answer, kind)
        if count == 0:
            return
