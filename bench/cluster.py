"""A cluster of real processes: owners, edges, and the one archive that they share.

Each is a `Server` of its own, which may be killed and started again. Nothing of them is left running afterwards.
"""

import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bench.server import Server, ServerOptions, connect_loopback, open_server
from runtime import plan_drain, plan_undrain
from storage import (
    ACTIVE,
    DEAD,
    DRAINED,
    Archive,
    ArchiveUnavailableError,
    PlannedChange,
    Ring,
    RingChangedError,
    open_archive,
)

SETTLE_SECONDS_MAX = 60.0
"""A change moves thousands of slots in a second or two; one that takes this long is stuck."""

SETTLE_POLL_SECONDS = 0.05

LOOPBACK = "127.0.0.1:0"


class UnsettledError(Exception):
    """The ring did not come to rest."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a process runs, and how it and others find each other."""

    archive: str
    link: str = LOOPBACK
    prefix: Sequence[str] = ()
    connect: Callable[[int], Awaitable[trio.SocketStream]] = connect_loopback


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What to start, and where."""

    directory: Path
    archive: str
    owners: int = 2
    edges: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    """More options of each process, by the name of the flag without its dashes."""
    sites: Mapping[str, Site] = field(default_factory=dict)
    """Where processes run that do not simply run here: by their names, `owner-0` or `edge-0`."""


class ClusterRing:
    """The ring of a cluster with so many owners, as its archive has it; one that is away is asked again."""

    def __init__(self, archive: Archive, owners: int) -> None:
        self._archive = archive
        self._owners = owners

    async def read(self) -> Ring:
        """Return it as it is now.

        Raises:
            UnsettledError: The archive does not tell.
        """
        with trio.move_on_after(SETTLE_SECONDS_MAX):
            while True:
                with suppress(ArchiveUnavailableError):
                    return await trio.to_thread.run_sync(self._archive.read_ring)
                await trio.sleep(SETTLE_POLL_SECONDS)
        raise UnsettledError(f"the archive did not answer within {SETTLE_SECONDS_MAX:g} s")

    async def until_settled(self, seconds: float = SETTLE_SECONDS_MAX) -> Ring:
        """Return it when all owners are there, and every slot has the one that it should have.

        Raises:
            UnsettledError: That takes too long.
        """
        with trio.move_on_after(seconds):
            while True:
                ring = await self.read()
                if self._is_calm(ring):
                    return ring
                await trio.sleep(SETTLE_POLL_SECONDS)
        raise UnsettledError(f"the ring did not come to rest within {seconds:g} s")

    async def until_given_away(self, node_id: str, seconds: float = SETTLE_SECONDS_MAX) -> Ring:
        """Return it when a node owns nothing any more, and every slot has an owner.

        Raises:
            UnsettledError: That takes too long.
        """
        with trio.move_on_after(seconds):
            while True:
                ring = await self.read()
                if not {node_id, ""} & set(ring.owners):
                    return ring
                await trio.sleep(SETTLE_POLL_SECONDS)
        raise UnsettledError(f"node {node_id} still owns slots after {seconds:g} s")

    def _is_calm(self, ring: Ring) -> bool:
        # There are more nodes than owners where one came in the place of one that is gone for good.
        return (
            ring.owners == ring.targets
            and len(ring.nodes) >= self._owners
            and all(node.state in {ACTIVE, DRAINED, DEAD} for node in ring.nodes)
        )

    async def change(self, plan: Callable[[Ring], PlannedChange]) -> PlannedChange:
        """Change it; worked out anew if somebody was quicker."""
        while True:
            change = plan(await self.read())
            with suppress(RingChangedError, ArchiveUnavailableError):
                await trio.to_thread.run_sync(self._archive.change_ring, change)
                return change


class Cluster:
    """The processes, and their ring."""

    def __init__(self, owners: list[Server], edges: list[Server], ring: ClusterRing) -> None:
        self.owners = owners
        self.edges = edges
        self.ring = ring

    async def start(self) -> Ring:
        """Start all at once; return when every slot has its owner and every edge serves."""
        await self._start(*self.owners, *self.edges)
        return await self.ring.until_settled()

    async def drain(self, owner: Server) -> PlannedChange:
        """Ask for all that an owner has to be moved."""
        return await self.change(plan_drain, owner)

    async def undrain(self, owner: Server) -> PlannedChange:
        """Ask for an owner to get its share again."""
        return await self.change(plan_undrain, owner)

    async def change(self, plan: Callable[..., PlannedChange], owner: Server) -> PlannedChange:
        """Change an owner's share, as a function of `runtime` plans it."""
        node_id, at_ms = node_id_of(owner.data), time.time_ns() // 1_000_000
        return await self.ring.change(lambda ring: plan(ring, node_id, at_ms=at_ms, actor="bench"))

    async def crash_owners(self) -> None:
        """Kill all owners, and start them again."""
        for owner in self.owners:
            await owner.kill()
        await self._start(*self.owners)
        await self.ring.until_settled()

    async def _start(self, *servers: Server) -> None:
        for server in servers:
            await server.spawn()
        for server in servers:
            await server.wait_ready()

    async def stop(self) -> None:
        """End all processes in good order. By SIGINT, for an owner that gets SIGTERM hands its sessions over first."""
        for server in (*self.edges, *self.owners):
            await server.stop(signal.SIGINT)


@asynccontextmanager
async def open_ring(archive: str, owners: int) -> AsyncIterator[ClusterRing]:
    """Open an archive, made if missing, to look at its ring."""
    opened = await trio.to_thread.run_sync(open_archive, archive)
    try:
        yield ClusterRing(opened, owners)
    finally:
        opened.close()


def node_id_of(data: Path) -> str:
    """Return how the archive calls the node with this data directory, which must have been started."""
    return uuid.UUID((data / "node_id").read_text().strip()).hex


@asynccontextmanager
async def open_cluster(options: ClusterOptions) -> AsyncIterator[Cluster]:
    """Make a cluster whose processes are not started yet."""
    async with AsyncExitStack() as stack:

        async def process(role: str, number: int) -> Server:
            name = f"{role}-{number}"
            own, site = options.directory / name, options.sites.get(name, Site(options.archive))
            own.mkdir()
            settings = {**options.settings, "role": role}
            if role == "owner":
                settings["link"] = site.link
            server = open_server(
                ServerOptions(own, site.archive, settings, prefix=site.prefix, connect=site.connect)
            )
            return await stack.enter_async_context(server)

        ring = await stack.enter_async_context(open_ring(options.archive, options.owners))
        yield Cluster(
            [await process("owner", number) for number in range(options.owners)],
            [await process("edge", number) for number in range(options.edges)],
            ring,
        )
