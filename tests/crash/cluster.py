"""A cluster of real processes that is disturbed while clients write through its edge; they judge it afterwards."""

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import trio

from bench.cluster import Cluster, ClusterOptions, node_id_of, open_cluster
from bench.server import Server
from runtime import plan_drain, plan_undrain, plan_weight
from storage import ACTIVE, DEAD, DRAINED
from tests.crash.crowd import Crowd, CrowdOptions
from tests.crash.rounds import SETTINGS, CrashResult, Load, moderate

SERVED_SECONDS_MAX = 20.0
"""How long an owner may take to serve what is its own by the archive."""


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


async def until_served(cluster: Cluster) -> None:
    """Wait until every owner serves exactly what is its own by the archive."""
    ring = await cluster.ring.until_settled()
    with trio.fail_after(SERVED_SECONDS_MAX):
        for owner in cluster.owners:
            owned = ring.owners.count(node_id_of(owner.data))
            while await _slots_served(owner) != owned:
                await trio.sleep(0.05)


async def _slots_served(owner: Server) -> int:
    (served,) = re.findall(
        rb"^ringlog_slots_served (\d+)", await owner.fetch("/metrics"), re.MULTILINE
    )
    return int(served)


async def sharers(cluster: Cluster) -> list[Server]:
    """Return the owners that have a share: to each the others could hand theirs over."""
    ring = await cluster.ring.until_settled()
    active = {node.node_id for node in ring.nodes if node.state == ACTIVE}
    return [owner for owner in cluster.owners if node_id_of(owner.data) in active]


async def change_something(cluster: Cluster, rng: random.Random) -> str:
    """Drain one node, or give it its share again, or another weight; return what was done."""
    ring = await cluster.ring.until_settled()
    node = rng.choice([each for each in ring.nodes if each.state != DEAD])
    active = [each for each in ring.nodes if each.state == ACTIVE]
    change = cluster.ring.change
    if node.state == DRAINED:
        await change(lambda r: plan_undrain(r, node.node_id, at_ms=0, actor="test"))
        return "undrained a node"
    if len(active) > 1 and rng.random() < 0.5:
        await change(lambda r: plan_drain(r, node.node_id, at_ms=0, actor="test"))
        return "drained a node"
    weight = rng.randint(1, 4)
    await change(lambda r: plan_weight(r, node.node_id, weight, at_ms=0, actor="test"))
    return "gave a node another weight"


async def run_cluster(
    directory: Path,
    archive: str,
    disturb: Callable[[Cluster, Load], Awaitable[None]],
    owners: int = 2,
    settings: Mapping[str, str] | None = None,
) -> CrashResult:
    """Run clients against a cluster while `disturb` does its worst, and judge what they saw."""
    load = Load(moderate(directory, archive), lambda _: None)
    options = ClusterOptions(directory, archive, owners, settings=settings or {})
    return await run_clients(options, load, lambda cluster: disturb(cluster, load))


async def run_crowd(
    directory: Path,
    options: CrowdOptions,
    disturb: Callable[[Cluster, Crowd], Awaitable[None]],
    owners: int = 2,
    settings: Mapping[str, str] | None = None,
) -> CrashResult:
    """Do the same with clients that keep their own pace."""
    crowd = Crowd(options)

    async def disturb_flowing(cluster: Cluster) -> None:
        await crowd.until_flowing()
        await disturb(cluster, crowd)

    cluster_options = ClusterOptions(directory, options.archive, owners, settings=settings or {})
    return await run_clients(cluster_options, crowd, disturb_flowing)


async def run_clients(
    options: ClusterOptions,
    clients: Clients,
    disturb: Callable[[Cluster], Awaitable[None]],
) -> CrashResult:
    """Do the same with clients of any kind, and processes anywhere; the archive is as it is reached from here.

    Raises:
        ServerError: A process ended that nobody told to.
    """
    options = replace(options, settings={**SETTINGS, **options.settings})
    async with open_cluster(options) as cluster:
        (edge,) = cluster.edges

        async def disturb_all(*_: object) -> None:
            await cluster.start()
            await disturb(cluster)

        async with AsyncExitStack() as watches:
            for owner in cluster.owners:
                await watches.enter_async_context(owner.watched())
            try:
                await clients.suffer(edge, disturb_all)
            except Exception as error:
                error.add_note("\n".join(clients.result.findings.examples))
                raise
            await clients.check_replays(edge)
        # By SIGTERM: each owner hands over to those that are left, and the last one has nobody.
        for server in (edge, *cluster.owners):
            await server.stop()
    await trio.to_thread.run_sync(clients.check_archive)
    return clients.result
