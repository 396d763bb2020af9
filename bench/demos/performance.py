"""One demonstration from beginning to end: start a cluster, let clients talk, disturb it, and judge.

Everything is in one directory that is removed in the end, and no process is left running, however this ends.
"""

import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from bench.checker import Findings, Kind
from bench.client import SilentServerError
from bench.cluster import Cluster, ClusterOptions, UnsettledError, open_cluster
from bench.demos.acts import CALM_SECONDS, Act, Stage
from bench.demos.traffic import Noticed, Traffic
from bench.protocol import ProtocolError
from bench.server import ServerError, sqlite_url
from bench.wire import WireError

USERS, SESSIONS = 12, 24
OWNERS, EDGES = 2, 2

DEMO_SECONDS_MAX = 300.0
"""It takes half a minute; what takes this long has hung."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """How it went."""

    acknowledged: int = 0
    replayed: int = 0
    archived: int = 0
    reconnects: int = 0
    seconds: float = 0.0
    noticed: Noticed = field(default_factory=Noticed)
    findings: Findings = field(default_factory=Findings)

    def kinds(self) -> dict[str, int]:
        """Return how much of each kind was found wrong."""
        return {kind.value: self.findings.counts[kind] for kind in Kind}

    def fields(self) -> dict[str, object]:
        """Return all of it, for programs."""
        return {
            "acknowledged": self.acknowledged,
            "replayed": self.replayed,
            "archived": self.archived,
            "connections_lost": self.reconnects,
            "longest_pause_seconds": round(max(self.noticed.pauses.values(), default=0.0), 3),
            "repeats": self.noticed.repeats,
            "refusals": dict(self.noticed.refusals),
            "seconds": round(self.seconds, 1),
            "verdict": {"ok": self.ok, **self.kinds()},
            "examples": self.findings.examples,
        }

    @property
    def ok(self) -> bool:
        """Whether everything that was acknowledged is there, once, in order, unchanged."""
        return self.findings.ok and 0 < self.acknowledged <= self.replayed == self.archived


class HungError(Exception):
    """It took far longer than it can take."""


FAILURES = (
    HungError,
    ProtocolError,
    ServerError,
    SilentServerError,
    UnsettledError,
    WireError,
)
"""Why there may be no verdict; anything else is a bug."""


def perform(act: Act, archive: str | None, directory: Path | None, say: Say) -> Result:
    """Run one demonstration, below a directory or where temporary files are.

    `archive` is the URL of a database that nobody has used; SQLite in the same directory if None.

    Raises:
        Exception: One of `FAILURES`: there is no verdict.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP.
    """
    with tempfile.TemporaryDirectory(prefix="ringlog-demo-", dir=directory) as name:
        place, began = Path(name), time.monotonic()

        def say_when(line: str) -> None:
            say(f"{time.monotonic() - began:5.1f} s  {line}")

        run = partial(_perform, act, archive or sqlite_url(place), place, say_when)
        result = trio.run(_interruptible, run)
    if result is None:
        raise KeyboardInterrupt
    return result


async def _interruptible(run: Callable[[], Awaitable[Result]]) -> Result | None:
    """Return what came of it; None if a signal came first, when all is cleaned up."""
    result: Result | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        try:
            async with trio.open_nursery() as nursery:

                async def wait_for_signal() -> None:
                    await anext(signals)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(wait_for_signal)
                result = await run()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _cause(group) from group
    return result


def _cause(error: BaseException) -> BaseException:
    """Return what went wrong first, in groups within groups; the rest are consequences."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _perform(act: Act, archive: str, directory: Path, say: Say) -> Result:
    began = trio.current_time()
    options = ClusterOptions(directory, archive, OWNERS, EDGES)
    result = Result()
    with trio.move_on_after(DEMO_SECONDS_MAX):
        # Its processes are killed when the block is left early.
        async with open_cluster(options) as cluster:
            say(f"starting a cluster: {OWNERS} owners, {EDGES} edges, one archive, in {directory}")
            ring = await cluster.start()
            shares = " and ".join(str(ring.owners.count(node.node_id)) for node in ring.nodes)
            say(f"   the owners have {shares} of {len(ring.owners)} slots")
            traffic = Traffic([edge.url for edge in cluster.edges], users=USERS, sessions=SESSIONS)
            result.findings, result.noticed = traffic.findings, traffic.noticed
            await _talk(Stage(cluster, traffic, say), act)
            result.acknowledged, result.reconnects = traffic.acknowledged, traffic.reconnects
            say("reading every session again from its beginning")
            check = partial(traffic.check, cluster.edges[0].url)
            result.replayed = await trio.to_thread.run_sync(check)
            await cluster.stop()
            say("all processes have ended; reading the archive with SQL")
            result.archived = await trio.to_thread.run_sync(traffic.check_archive, archive)
        result.seconds = trio.current_time() - began
        return result
    raise HungError(f"it was not done within {DEMO_SECONDS_MAX:.0f} s")


async def _talk(stage: Stage, act: Act) -> None:
    """Let the clients talk, and disturb them."""
    stage.say(f"{USERS} users write and read in {SESSIONS} sessions, through both edges")
    async with _watched(stage.cluster), trio.open_nursery() as nursery:
        nursery.start_soon(stage.traffic.run)
        await trio.sleep(CALM_SECONDS)
        # The first pauses: the sessions had to be made.
        stage.traffic.look()
        await trio.sleep(CALM_SECONDS)
        stage.say(f"   {stage.traffic.acknowledged:,} messages are acknowledged")
        stage.look(set(stage.traffic.sessions), "so far")
        await act(stage)
        await trio.sleep(CALM_SECONDS)
        stage.traffic.stop()


@asynccontextmanager
async def _watched(cluster: Cluster) -> AsyncIterator[None]:
    """Cancel the block as soon as a process ends that nobody told to."""
    async with AsyncExitStack() as stack:
        for server in (*cluster.owners, *cluster.edges):
            await stack.enter_async_context(server.watched())
        yield
