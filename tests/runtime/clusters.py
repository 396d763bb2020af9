"""Clusters within one process: nodes with links over loopback TCP, on one archive."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from runtime import (
    Cluster,
    ClusterOptions,
    LinkTls,
    Node,
    NodeOptions,
    Router,
    open_cluster,
    open_node,
)
from storage import Archive, Directory, FlushOptions, LogOptions, Place, PlannedChange, Ring

SMALL_LOG = LogOptions(segment_bytes=1 << 20, first_segment_bytes=1 << 20)

DEFAULT_FLUSH = FlushOptions()

SLOTS = 64
"""Fewer than a real cluster has: each move of a slot is the same."""


@dataclass
class Member:
    """A node of a cluster under test."""

    cluster: Cluster
    node: Node

    @property
    def node_id(self) -> str:
        return self.node.flusher.node_id

    @property
    def router(self) -> Router:
        return self.cluster.router


@asynccontextmanager
async def open_member(
    data_dir: Path,
    archive: Archive,
    *,
    slots: int = SLOTS,
    weight: int = 1,
    durability: str = "local",
    patience_ms: int = 0,
    flush: FlushOptions = DEFAULT_FLUSH,
    directory: Directory | None = None,
    told: list[tuple[str, Exception]] | None = None,
    tls: LinkTls | None = None,
) -> AsyncIterator[Member]:
    """Run an owner that serves clients too; its log is in `directory`, if there is one.

    No link may fail, unless what its operator is told of them is gathered in `told`.
    """
    failures: list[tuple[str, Exception]] = []
    gathered = failures if told is None else told
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    place = Place(f"127.0.0.1:{listener.socket.getsockname()[1]}", weight, slots, patience_ms)
    node_options = NodeOptions(
        data_dir=data_dir, log=SMALL_LOG, place=place, durability=durability, flush=flush
    )
    async with listener, open_node(node_options, archive, directory, tls=tls) as node:
        options = ClusterOptions(
            node_id=node.flusher.node_id,
            listener=listener,
            tls=tls,
            link_failed=lambda peer, error: gathered.append((peer, error)),
        )
        async with open_cluster(options, archive, node) as cluster:
            yield Member(cluster, node)
    assert not failures, failures


@asynccontextmanager
async def open_edge(
    archive: Archive,
    *,
    told: list[tuple[str, Exception]] | None = None,
    tls: LinkTls | None = None,
) -> AsyncIterator[Router]:
    """Run an edge that owns nothing; `told` gathers what its operator is told of links."""
    gathered = [] if told is None else told
    options = ClusterOptions(
        tls=tls,
        link_failed=lambda peer, error: gathered.append((peer, error)),
    )
    async with open_cluster(options, archive, None) as cluster:
        yield cluster.router


@asynccontextmanager
async def open_members(
    directory: Path, archive: Archive, count: int
) -> AsyncIterator[list[Member]]:
    """Run several owners, and wait until each has its share."""
    async with AsyncExitStack() as stack:
        members = []
        for number in range(count):
            data_dir = directory / f"node-{number}"
            data_dir.mkdir(exist_ok=True)
            members.append(await stack.enter_async_context(open_member(data_dir, archive)))
        await until_settled(archive, members)
        yield members


async def until_settled(archive: Archive, members: list[Member], seconds: float = 20) -> Ring:
    """Wait until every slot is where it should be, and served there; return the ring."""
    with trio.fail_after(seconds):
        while True:
            ring = await trio.to_thread.run_sync(archive.read_ring)
            served = {
                member.node_id: member.node.slots.served for member in members if member.node.slots
            }
            settled = all(
                owner == target and slot in served.get(owner, ())
                for slot, (owner, target) in enumerate(zip(ring.owners, ring.targets, strict=True))
            ) and all(node.state in {"active", "drained"} for node in ring.nodes)
            # What was read may be newer than the version that was read before it.
            version = await trio.to_thread.run_sync(archive.read_ring_version)
            if settled and version == ring.version:
                return ring
            await trio.sleep(0.02)


async def change(archive: Archive, planned: PlannedChange) -> None:
    """Carry out a planned change."""
    await trio.to_thread.run_sync(archive.change_ring, planned)
