"""A node's place in a cluster: opened over the archive, and over the node itself where it owns sessions.

An owner registers, watches the ring, brings its slots to where the ring wants them and answers the links of edges.
Whoever serves clients has a `Router`. A node that is both has both.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from runtime.links.handshake import LINK_SECRET, SECRET_BYTES_MIN, HandshakeError
from runtime.links.owner import OwnerLink
from runtime.links.pool import Dial, Pool, dial_tcp
from runtime.links.reports import LinkReports, peer_of
from runtime.links.stream import LinkGarbledError, LinkLostError, welcome
from runtime.links.tls import LinkTls
from runtime.member import Member
from runtime.node import Node
from runtime.ringwatch import POLL_SECONDS, RingWatch
from runtime.router import Router
from storage import Archive, Ring, StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """How a node takes part; `listener` is an owner's: where the links of others end."""

    idle_seconds: float = 60.0
    node_id: str = ""
    listener: trio.abc.Listener[trio.abc.Stream] | None = None
    dial: Dial = dial_tcp
    tls: LinkTls | None = None
    """What links are encrypted with, in place of `dial`; without it they are not."""
    link_failed: Callable[[str, Exception], None] = lambda _peer, _error: None
    """Told of links that were refused, or ended by more than a lost connection, and of who is at the other end."""
    taken_over: Callable[[str, int | Exception], None] = lambda _node_id, _outcome: None
    """Told of nodes that this one took over from, with how many slots they had, or why it could not."""
    waiting: Callable[[], None] = lambda: None
    """Called once if there is no ring yet, and this waits for one."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A node's place in its cluster."""

    router: Router
    watch: RingWatch
    member: Member | None
    owner_links: "OwnerLinks | None"
    """The links that others have to this owner."""


@asynccontextmanager
async def open_cluster(
    options: ClusterOptions, archive: Archive, node: Node | None
) -> AsyncIterator[Cluster]:
    """Take part until the block ends.

    Raises:
        StorageError: the archive does not answer; out of the block, if the node is fenced.
    """
    secret = await trio.to_thread.run_sync(archive.secret, LINK_SECRET)
    assert len(secret) >= SECRET_BYTES_MIN
    ring = await _find_ring(archive, options.waiting)
    watch = RingWatch(archive, ring)
    durability = await trio.to_thread.run_sync(archive.read_level)
    member = None if node is None else Member(node, archive, watch, options.taken_over)
    reports = LinkReports(options.link_failed)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        pool = Pool(
            secret=secret,
            node_id=options.node_id,
            slots=len(ring.owners),
            start_soon=nursery.start_soon,
            received=lambda: router.publish(),  # noqa: PLW0108 - made below
            reports=reports,
            dial=options.dial if options.tls is None else options.tls.dial,
        )
        router = Router(
            watch,
            pool,
            archive,
            node=node,
            durability=durability,
            idle_seconds=options.idle_seconds,
            nursery=nursery,
        )
        router.member = member
        nursery.start_soon(watch.run)
        nursery.start_soon(router.sweep)
        nursery.start_soon(router.watch_ring)
        links: OwnerLinks | None = None
        if member is not None and node is not None:
            nursery.start_soon(member.run)
            assert options.listener is not None
            links = OwnerLinks(options, node, secret, len(ring.owners), reports)
            member.unconfirmed = links.drop
            await nursery.start(trio.serve_listeners, links.serve, [options.listener])
        try:
            yield Cluster(router, watch, member, links)
        finally:
            router.end()
            nursery.cancel_scope.cancel()


async def _find_ring(archive: Archive, waiting: Callable[[], None]) -> Ring:
    """Return the ring; an edge may have to wait until there is one."""
    ring = await trio.to_thread.run_sync(archive.read_ring)
    if not ring.owners:
        waiting()
    while not ring.owners:
        await trio.sleep(POLL_SECONDS)
        ring = await trio.to_thread.run_sync(archive.read_ring)
    return ring


class OwnerLinks:
    """Answers the links of other nodes, and of this one to itself."""

    def __init__(
        self, options: ClusterOptions, node: Node, secret: bytes, slots: int, reports: LinkReports
    ) -> None:
        self._node_id = options.node_id
        self._tls = options.tls
        self._node = node
        self._secret = secret
        self._slots = slots
        self._reports = reports
        self._serving: set[OwnerLink] = set()

    @property
    def queue_bytes(self) -> int:
        """About how many bytes wait to be sent."""
        return sum(link.link.buffered for link in self._serving)

    def drop(self) -> None:
        """End every link: who is at its other end finds out where the sessions are now."""
        for link in self._serving:
            link.drop()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end; only what the node itself cannot survive ends more than that."""
        peer = peer_of(stream)
        try:
            if self._tls is not None:
                assert isinstance(stream, trio.SocketStream)
                stream = await self._tls.accept(stream)
            link, _ = await welcome(
                stream, self._secret, self._node_id, self._node.epoch, self._slots
            )
            owner_link = OwnerLink(self._node, link)
            self._serving.add(owner_link)
            try:
                await owner_link.serve()
            finally:
                self._serving.discard(owner_link)
        except HandshakeError as error:
            self._reports.refused(peer, error)
        except LinkLostError:
            return
        except BaseExceptionGroup as group:
            lost, rest = group.split(LinkLostError)
            for cause in _leaves(lost):
                if isinstance(cause, LinkGarbledError):
                    self._reports.refused(peer, cause)
            if rest is None:
                return
            if rest.split(Exception)[1] is not None or rest.split(StorageError)[0] is not None:
                raise
            self._reports.failed(peer, rest)  # type: ignore[arg-type]


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    elif error is not None:
        yield error
