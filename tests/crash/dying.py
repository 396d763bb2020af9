"""Owners that die at each step of what they do: armed at a failpoint, led there, and started again."""

import random
import signal
from collections.abc import Awaitable, Callable, Sequence

from bench.cluster import Cluster, node_id_of
from bench.server import Server
from edge.config import FAILPOINT_VARIABLE
from storage import FAILPOINTS

DEATH_SECONDS_MAX = 30.0
"""How long it may take until an armed process gets to its point: it starts, and is led there."""

STARTING = (
    "epoch.written",
    "epoch.committed",
    "start.recovered",
    "start.flushed",
    "serve.begun",
    "beat.written",
    "beat.committed",
)
FLUSHING = ("flush.received", "flush.written", "flush.committed", "flush.known")
LEAVING = (
    "handoff.asked",
    "handoff.stopped",
    "handoff.flushed",
    "release.written",
    "release.committed",
    "handoff.released",
    "change.written",
    "change.committed",
)
"""While it is drained; the last two when it has nothing left."""
COMING = ("claim.written", "claim.committed", "serve.begun")
"""While it gets its share again."""

TAKING_OVER = (
    "seal.written",
    "seal.committed",
    "takeover.sealed",
    "inherit.written",
    "inherit.committed",
    "takeover.archived",
    "takeover.written",
    "takeover.committed",
)
"""While it takes over from another; on PostgreSQL, with nobody else who could."""

TIMES_MAX = {name: 3 for name in FAILPOINTS if name.startswith(("flush.", "beat."))} | {
    "handoff.asked": 2,
    "handoff.stopped": 2,
    "handoff.flushed": 2,
}
"""Points that an owner gets to often, and how often it may before it dies: a drain of one of three takes six
releases."""


class Deaths:
    """Kills one owner of a cluster at one point after the other."""

    def __init__(self, cluster: Cluster, victim: Server, rng: random.Random) -> None:
        self.counts = dict.fromkeys(FAILPOINTS, 0)
        self._cluster = cluster
        self._victim = victim
        self._rng = rng

    async def die_while_serving(self, points: Sequence[str]) -> None:
        """Die at each point of a start, or of flushing."""
        await self._die_in_turn(points)
        await self._victim.start()
        await self._cluster.ring.until_settled()

    async def die_while_leaving(self, points: Sequence[str] = LEAVING) -> None:
        """Die at each point of a drain, which goes on after each start, and be drained in the end."""
        await self._cluster.ring.until_settled()
        await self._die_in_turn(points, self._cluster.drain)
        await self._victim.start()
        await self._cluster.ring.until_settled()

    async def die_while_coming(self, points: Sequence[str] = COMING) -> None:
        """Die at each point of getting a share, and have it in the end."""
        await self._die_in_turn(points, self._cluster.undrain)
        await self._victim.start()
        await self._cluster.ring.until_settled()

    async def die_while_taking_over(self, points: Sequence[str], lost: Server) -> None:
        """Die at each point of taking over from `lost`, which goes on after each start, and take over in the end."""
        await self._die_in_turn(points, lambda _: lost.kill())
        await self._victim.start()
        await self._cluster.ring.until_given_away(node_id_of(lost.data))
        await lost.start()
        await self._cluster.ring.until_settled()

    async def _die_in_turn(
        self, points: Sequence[str], lead: Callable[[Server], Awaitable[object]] | None = None
    ) -> None:
        await self._victim.kill()
        if lead is not None:
            await lead(self._victim)
        for point in points:
            await self._die_at(point, self._rng.randint(1, TIMES_MAX.get(point, 1)))

    async def _die_at(self, point: str, times: int) -> None:
        await self._victim.spawn({FAILPOINT_VARIABLE: f"{point}:{times}"})
        code = await self._victim.wait_ended(DEATH_SECONDS_MAX)
        assert code == -signal.SIGKILL, f"{point}: exit code {code}"
        self.counts[point] += 1
