"""What does a server cost that has much to know and nothing to do?

**Weighed** on a server of its own, where nothing is put to rest: sessions in memory, then connections that each
follow one of them. What each step adds to the server's resident memory is divided by what the step made.

**Idle**: many sessions are made with one message each and put to rest, so that only the archive has them. Then
many connections join one each and say nothing, while heartbeats go on. Memory after each step, the processor
while everything idles, and how long it takes to join a session that was at rest.

In the end a random sample of the sessions is joined, and each must hold its message, once.
"""

import http.client
import random
import re
import urllib.parse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice

import trio

from bench.checker import Findings
from bench.histogram import Histogram
from bench.loads.idle import IdleConnections
from bench.loads.known import KnownSessions
from bench.outage import LIMIT_BYTES_MAX, MESSAGE_BYTES_MAX, wait_caught_up
from bench.probe import Probe
from bench.processes import family_resident_bytes
from bench.report import MIB, Better, Figure, Report, Round, progress
from bench.scenarios.run import OptionsError, RunOptions, Target, fresh_directory, run_rounds
from bench.server import Server, ServerOptions, open_server, sqlite_url
from bench.usage import Usage, memory_figures, server_readers
from bench.wire import ANSWER_SECONDS_MAX, WireError

CONNECTIONS_MAX = 10_000
"""What a server lets in, of any kind (docs/protocol.md). All else happens before, after, or over one of them."""

IDLE_SECONDS = 1
"""Sessions without traffic are put to rest as soon as a server can be told to."""

ACTIVE_SECONDS = 3600
"""Nothing may be put to rest while it is being weighed."""

WEIGHED_SESSIONS = 20_000
WEIGHED_CONNECTIONS = 2_000
"""Enough that what they take dwarfs what else changes meanwhile."""

SETTLE_SECONDS = 3.0
"""Ten flush intervals: what is durable is archived, and no longer held for the archive."""

REST_SECONDS_MAX = 60.0
"""Some sweeps of an idle server; sessions that are in memory then will stay there."""

LOOK_SECONDS = 0.25

SAMPLED = 1_000
"""Sessions that are looked into in the end."""

JOINS = 200
"""Sessions at rest whose join is timed."""

_ACTIVE = re.compile(rb"^ringlog_sessions_active (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleOptions(RunOptions):
    """What to run, as it was resolved."""

    sessions: int = 1_000_000
    connections: int = 10_000
    seconds: float = 20.0
    """How long everything idles. After 20 s without a word a client is pinged, so this is each once."""
    weighed_sessions: int = WEIGHED_SESSIONS
    weighed_connections: int = WEIGHED_CONNECTIONS
    settle_seconds: float = SETTLE_SECONDS
    seed: int = 0
    """Chooses the samples."""


async def run_idle(options: IdleOptions) -> Report:
    """Weigh, then idle, in each round on fresh servers.

    Raises:
        OptionsError: What was asked for makes no sense.
        OutageError, ServerError, WireError: There is nothing to report.
    """
    check(options)
    limit = max(256 * MIB, options.sessions * MESSAGE_BYTES_MAX)
    settings = {
        "idle-seconds": str(IDLE_SECONDS),
        # Sessions are made faster than an archive may take them; none may be refused.
        "unflushed-bytes-max": str(min(LIMIT_BYTES_MAX, limit)),
    }
    return await run_rounds("idle", options, partial(_measure, options), settings)


def check(options: IdleOptions) -> None:
    """Refuse what makes no sense.

    Raises:
        OptionsError: It makes none.
    """
    if options.url is not None:
        raise OptionsError("idle looks at the memory of the server: not with --url")
    if options.connections > CONNECTIONS_MAX:
        raise OptionsError(f"--connections: a server lets {CONNECTIONS_MAX:,} in")


async def _measure(options: IdleOptions, target: Target) -> Round:
    weights = await _weigh(options)
    chance = random.Random(options.seed)
    known = KnownSessions(f"known-{target.run_id}", options.sessions, SAMPLED, chance)
    figures, joins = await _idle(options, target, known)
    findings = Findings()
    await trio.to_thread.run_sync(known.check, target.url, findings)
    return Round(
        sync=target.sync,
        figures=[*figures, *weights],
        latencies={"join": joins},
        acked=len(known.sample),
        verdict=findings.verdict(),
        examples=findings.examples,
    )


async def _weigh(options: IdleOptions) -> list[Figure]:
    """Return what a session in memory takes, and what an idle connection takes, on a server of their own."""
    with fresh_directory(options) as fresh:
        settings = {"idle-seconds": str(ACTIVE_SECONDS)}
        async with open_server(ServerOptions(fresh, sqlite_url(fresh), settings)) as server:
            await server.start()
            figures = await _weigh_on(options, server)
            await server.stop()
    return figures


async def _weigh_on(options: IdleOptions, server: Server) -> list[Figure]:
    async def settled_bytes() -> int:
        await trio.sleep(options.settle_seconds)
        return family_resident_bytes(server.pid)

    progress(f"weighing {options.weighed_sessions:,} sessions in memory")
    weighed = KnownSessions("weighed", options.weighed_sessions, 0, random.Random(0))
    # One of each first: what is loaded and built on first use belongs to neither.
    first = KnownSessions("first", 1, 0, random.Random(0))
    with closing(IdleConnections(server.url)) as connections:
        await trio.to_thread.run_sync(first.make, server.url, _silence)
        await trio.to_thread.run_sync(connections.add, [first.session(0)], _silence)
        start = await settled_bytes()
        await trio.to_thread.run_sync(weighed.make, server.url, progress)
        with_sessions = await settled_bytes()
        joined = sessions_to_join(weighed, options.weighed_connections)
        await trio.to_thread.run_sync(connections.add, joined, progress)
        with_connections = await settled_bytes()
    return [
        weight("memory of an active session", with_sessions - start, weighed.count),
        weight(
            "memory of an idle joined connection", with_connections - with_sessions, len(joined)
        ),
    ]


def _silence(_: str) -> None:
    """Take what is not worth a line of progress."""


def sessions_to_join(known: KnownSessions, connections: int) -> list[str]:
    """Return a session for each connection: the first ones, in turn if there are too few."""
    return list(islice(cycle(map(known.session, range(known.count))), connections))


def weight(name: str, grown_bytes: int, count: int) -> Figure:
    """Return the share of one in what was added."""
    return Figure(name, round(grown_bytes / count, 1), "bytes")


async def _idle(
    options: IdleOptions, target: Target, known: KnownSessions
) -> tuple[list[Figure], Histogram]:
    """Make the sessions, let them rest, connect, and idle; return the joins in microseconds too."""
    server = target.own_server
    figures = [_memory("at the start", server)]
    began = trio.current_time()
    await trio.to_thread.run_sync(known.make, server.url, progress)
    rate = known.count / (trio.current_time() - began)
    figures.append(Figure("sessions made", round(rate, 1), "/s", Better.HIGHER))
    with closing(Probe(server.url)) as probe:
        await wait_caught_up(probe)
    await wait_at_rest(server.url)
    await trio.sleep(options.settle_seconds)
    figures.append(_memory(f"with {known.count:,} sessions at rest", server))
    joined = sessions_to_join(known, options.connections)
    with closing(IdleConnections(server.url)) as connections:
        await trio.to_thread.run_sync(connections.add, joined, progress)
        await trio.to_thread.run_sync(connections.idle, options.settle_seconds)
        figures += memory_figures(server.pid, f"memory and {options.connections:,} connections")
        progress(f"idling for {options.seconds:.0f} s")
        usage = Usage(server_readers(server.pid))
        await trio.to_thread.run_sync(connections.idle, options.seconds)
        figures += [replace(used, name=f"{used.name} while idle") for used in usage.figures()]
        resting = at_rest(known.sample, joined)
        joins = await trio.to_thread.run_sync(connections.time_joins, resting)
    return figures, joins


def _memory(when: str, server: Server) -> Figure:
    return Figure(f"memory {when}", round(family_resident_bytes(server.pid) / MIB, 1), "MiB")


def at_rest(sample: Sequence[str], joined: Sequence[str]) -> list[str]:
    """Return sessions of a sample that nobody has joined: `JOINS` at most."""
    followed = set(joined)
    return [session for session in sample if session not in followed][:JOINS]


async def wait_at_rest(url: str) -> None:
    """Return when no session is in the server's memory.

    Raises:
        WireError: Some stay there.
    """
    end = trio.current_time() + REST_SECONDS_MAX
    while active := await trio.to_thread.run_sync(_active_sessions, url):
        if trio.current_time() > end:
            raise WireError(f"{active:,} sessions are in memory after {REST_SECONDS_MAX:.0f} s")
        await trio.sleep(LOOK_SECONDS)


def _active_sessions(url: str) -> int:
    host = urllib.parse.urlsplit(url).netloc
    connection = http.client.HTTPConnection(host, timeout=ANSWER_SECONDS_MAX)
    with closing(connection):
        connection.request("GET", "/metrics")
        found = _ACTIVE.search(connection.getresponse().read())
    if found is None:
        raise WireError("the server does not say how many sessions are active")
    return int(float(found[1]))
