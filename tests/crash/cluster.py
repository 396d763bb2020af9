"""A cluster of real processes that is disturbed while clients write through its edge; they judge it afterwards."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from bench.server import Server, ServerOptions, open_server
from runtime import plan_drain, plan_undrain, plan_weight
from storage import (
    ACTIVE,
    DEAD,
    DRAINED,
    Archive,
    PlannedChange,
    Ring,
    RingChangedError,
    open_archive,
)
from tests.crash.rounds import SETTINGS, CrashOptions, CrashResult, Load

SETTLE_SECONDS = 20.0


@dataclass
class Cluster:
    """Processes, and the archive that they share."""

    owners: list[Server]
    edge: Server
    archive: Archive

    async def ring(self) -> Ring:
        return await trio.to_thread.run_sync(self.archive.read_ring)

    async def start(self) -> None:
        """Start all that is needed to serve."""
        for owner in self.owners:
            await owner.start()
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

    async def change(self, plan: Callable[[Ring], PlannedChange]) -> None:
        """Change the ring."""
        while True:
            try:
                await trio.to_thread.run_sync(self.archive.change_ring, plan(await self.ring()))
            except RingChangedError:
                continue
            return

    async def change_something(self, rng: random.Random) -> None:
        """Drain one node, or give it its share again, or another weight."""
        ring = await self.until_settled()
        node = rng.choice(ring.nodes)
        active = [each for each in ring.nodes if each.state == ACTIVE]
        if node.state == DRAINED:
            await self.change(lambda r: plan_undrain(r, node.node_id, at_ms=0, actor="test"))
        elif len(active) > 1 and rng.random() < 0.5:
            await self.change(lambda r: plan_drain(r, node.node_id, at_ms=0, actor="test"))
        else:
            weight = rng.randint(1, 4)
            await self.change(lambda r: plan_weight(r, node.node_id, weight, at_ms=0, actor="test"))


def _is_calm(ring: Ring) -> bool:
    return all(node.state in {ACTIVE, DRAINED, DEAD} for node in ring.nodes)


async def run_cluster(
    directory: Path,
    archive: str,
    disturb: Callable[[Cluster, Load], Awaitable[None]],
    owners: int = 2,
) -> CrashResult:
    """Run clients against a cluster while `disturb` does its worst, and judge what they saw."""
    options = CrashOptions(
        rounds=0, seed=1, directory=directory, archive=archive, writers=4, readers=1, shared=2
    )
    load = Load(options, lambda _: None)
    async with _open_processes(directory, archive, owners) as cluster:

        async def disturb_all(_: Server, load: Load) -> None:
            await cluster.start()
            await disturb(cluster, load)

        await load.suffer(cluster.edge, disturb_all)
        await load.check_replays(cluster.edge)
        await cluster.edge.stop()
        for owner in cluster.owners:
            await owner.stop()
    await trio.to_thread.run_sync(load.check_archive)
    return load.result


@asynccontextmanager
async def _open_processes(directory: Path, archive: str, owners: int) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:

        async def process(name: str, **settings: str) -> Server:
            own = directory / name
            own.mkdir()
            options = ServerOptions(own, archive, SETTINGS | settings)
            return await stack.enter_async_context(open_server(options))

        opened = open_archive(archive)
        stack.callback(opened.close)
        yield Cluster(
            [await process(f"owner-{n}", role="owner", link="127.0.0.1:0") for n in range(owners)],
            await process("edge", role="edge"),
            opened,
        )
