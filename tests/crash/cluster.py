"""A cluster of real processes that is disturbed while clients write through its edge; they judge it afterwards."""

import random
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trio

from bench.server import Server, ServerOptions, connect_loopback, open_server
from runtime import plan_drain, plan_undrain, plan_weight
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
from tests.crash.crowd import Crowd, CrowdOptions
from tests.crash.rounds import SETTINGS, CrashOptions, CrashResult, Load

SETTLE_SECONDS = 20.0


@dataclass(frozen=True)
class Place:
    """Where a process runs, and how it and others find each other."""

    archive: str
    link: str = "127.0.0.1:0"
    prefix: Sequence[str] = ()
    connect: Callable[[int], Awaitable[trio.SocketStream]] = connect_loopback


class Clients(Protocol):
    """Clients of a cluster, who judge it: `Load`, or `Crowd`."""

    result: CrashResult

    @property
    def acknowledged(self) -> int:
        """How many messages have been acknowledged so far."""
        ...

    async def suffer(self, server: Server, disturb: Callable[..., Awaitable[None]]) -> None:
        """Write while the cluster is disturbed; return when all is answered."""
        ...

    async def check_replays(self, server: Server) -> None:
        """Compare every session with a replay from its beginning."""
        ...

    def check_archive(self) -> None:
        """Compare every session with what the archive has."""
        ...


@dataclass
class Cluster:
    """Processes, and the archive that they share."""

    owners: list[Server]
    edge: Server
    archive: Archive
    node_ids: dict[Server, str] = field(default_factory=dict)

    async def ring(self) -> Ring:
        """Return the ring, as soon as the archive tells."""
        with trio.fail_after(SETTLE_SECONDS):
            while True:
                with suppress(ArchiveUnavailableError):
                    return await trio.to_thread.run_sync(self.archive.read_ring)
                await trio.sleep(0.05)

    async def start(self) -> None:
        """Start all that is needed to serve."""
        for owner in self.owners:
            known = {node.node_id for node in (await self.ring()).nodes}
            await owner.start()
            (self.node_ids[owner],) = {n.node_id for n in (await self.ring()).nodes} - known
        await self.edge.start()
        await self.until_settled()

    async def until_settled(self) -> Ring:
        """Wait until every slot has the owner that it should have."""
        with trio.fail_after(SETTLE_SECONDS):
            while True:
                ring = await self.ring()
                if ring.owners and ring.owners == ring.targets and _is_calm(ring):
                    return ring
                await trio.sleep(0.05)

    async def until_owns_nothing(self, owner: Server) -> None:
        """Wait until none of the slots is this owner's, by the archive."""
        with trio.fail_after(SETTLE_SECONDS):
            while self.node_ids[owner] in (await self.ring()).owners:
                await trio.sleep(0.05)

    async def lose(self, owner: Server) -> None:
        """Kill an owner, and remove its disk."""
        await owner.kill()
        await trio.to_thread.run_sync(shutil.rmtree, owner.data)

    async def replace(self, owner: Server) -> None:
        """Start an owner whose disk was lost: it is another node."""
        known = {node.node_id for node in (await self.ring()).nodes}
        await owner.start()
        (self.node_ids[owner],) = {n.node_id for n in (await self.ring()).nodes} - known

    async def until_served(self) -> None:
        """Wait until every owner serves exactly what is its own by the archive."""
        ring = await self.until_settled()
        with trio.fail_after(SETTLE_SECONDS):
            for owner in self.owners:
                owned = ring.owners.count(self.node_ids[owner])
                while await _slots_served(owner) != owned:
                    await trio.sleep(0.05)

    async def change(self, plan: Callable[[Ring], PlannedChange]) -> None:
        """Change the ring."""
        while True:
            try:
                await trio.to_thread.run_sync(self.archive.change_ring, plan(await self.ring()))
            except (RingChangedError, ArchiveUnavailableError):
                continue
            return

    async def drain(self, owner: Server) -> None:
        """Ask for all that an owner has to be moved."""
        node_id = self.node_ids[owner]
        await self.change(lambda ring: plan_drain(ring, node_id, at_ms=0, actor="test"))

    async def undrain(self, owner: Server) -> None:
        """Ask for an owner to get its share again."""
        node_id = self.node_ids[owner]
        await self.change(lambda ring: plan_undrain(ring, node_id, at_ms=0, actor="test"))

    async def sharers(self) -> list[Server]:
        """Return the owners that have a share: to each the others could hand theirs over."""
        ring = await self.until_settled()
        active = {node.node_id for node in ring.nodes if node.state == ACTIVE}
        return [owner for owner in self.owners if self.node_ids[owner] in active]

    async def change_something(self, rng: random.Random) -> str:
        """Drain one node, or give it its share again, or another weight; return what was done."""
        ring = await self.until_settled()
        node = rng.choice([each for each in ring.nodes if each.state != DEAD])
        active = [each for each in ring.nodes if each.state == ACTIVE]
        if node.state == DRAINED:
            await self.change(lambda r: plan_undrain(r, node.node_id, at_ms=0, actor="test"))
            return "undrained a node"
        if len(active) > 1 and rng.random() < 0.5:
            await self.change(lambda r: plan_drain(r, node.node_id, at_ms=0, actor="test"))
            return "drained a node"
        weight = rng.randint(1, 4)
        await self.change(lambda r: plan_weight(r, node.node_id, weight, at_ms=0, actor="test"))
        return "gave a node another weight"


def _is_calm(ring: Ring) -> bool:
    return all(node.state in {ACTIVE, DRAINED, DEAD} for node in ring.nodes)


async def _slots_served(owner: Server) -> int:
    (served,) = re.findall(
        rb"^ringlog_slots_served (\d+)", await owner.fetch("/metrics"), re.MULTILINE
    )
    return int(served)


async def run_cluster(
    directory: Path,
    archive: str,
    disturb: Callable[[Cluster, Load], Awaitable[None]],
    owners: int = 2,
    settings: Mapping[str, str] | None = None,
) -> CrashResult:
    """Run clients against a cluster while `disturb` does its worst, and judge what they saw."""
    options = CrashOptions(
        rounds=0, seed=1, directory=directory, archive=archive, writers=4, readers=1, shared=2
    )
    load = Load(options, lambda _: None)
    places = [Place(archive)] * owners

    async def disturb_all(cluster: Cluster) -> None:
        await disturb(cluster, load)

    return await run_clients(directory, archive, places, load, disturb_all, settings)


async def run_crowd(
    directory: Path,
    options: CrowdOptions,
    disturb: Callable[[Cluster, Crowd], Awaitable[None]],
    owners: int = 2,
    settings: Mapping[str, str] | None = None,
) -> CrashResult:
    """Do the same with clients that keep their own pace."""
    crowd = Crowd(options)
    places = [Place(options.archive)] * owners

    async def disturb_all(cluster: Cluster) -> None:
        await crowd.until_flowing()
        await disturb(cluster, crowd)

    return await run_clients(directory, options.archive, places, crowd, disturb_all, settings)


async def run_clients(
    directory: Path,
    archive: str,
    places: Sequence[Place],
    clients: Clients,
    disturb: Callable[[Cluster], Awaitable[None]],
    settings: Mapping[str, str] | None = None,
    edge: Place | None = None,
) -> CrashResult:
    """Do the same with clients of any kind, and owners and edge anywhere; `archive` is how it is reached from here.

    Raises:
        ServerError: A process ended that nobody told to.
    """
    edge = edge or Place(archive)
    async with _open_processes(directory, archive, places, edge, settings or {}) as cluster:

        async def disturb_all(*_: object) -> None:
            await cluster.start()
            await disturb(cluster)

        async with AsyncExitStack() as watches:
            for owner in cluster.owners:
                await watches.enter_async_context(owner.watched())
            try:
                await clients.suffer(cluster.edge, disturb_all)
            except Exception as error:
                error.add_note("\n".join(clients.result.findings.examples))
                raise
            await clients.check_replays(cluster.edge)
        await cluster.edge.stop()
        for owner in cluster.owners:
            await owner.stop()
    await trio.to_thread.run_sync(clients.check_archive)
    return clients.result


@asynccontextmanager
async def _open_processes(
    directory: Path,
    archive: str,
    places: Sequence[Place],
    edge: Place,
    settings: Mapping[str, str],
) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:

        async def process(name: str, place: Place, own: Mapping[str, str]) -> Server:
            home = directory / name
            home.mkdir()
            told = {**SETTINGS, **settings, **own}
            options = ServerOptions(
                home, place.archive, told, prefix=place.prefix, connect=place.connect
            )
            return await stack.enter_async_context(open_server(options))

        opened = open_archive(archive)
        stack.callback(opened.close)
        yield Cluster(
            [
                await process(f"owner-{n}", place, {"role": "owner", "link": place.link})
                for n, place in enumerate(places)
            ],
            await process("edge", edge, {"role": "edge"}),
            opened,
        )
