"""What a cluster must bear beside kills: a database that goes away, and owners that are paused."""

import os
import random
import signal

import trio
import trio.testing

from bench.cluster import Cluster, node_id_of
from bench.postgres import PrivatePostgresServer
from bench.processes import family
from bench.server import Server
from tests.crash.cluster import change_something
from tests.fakes.proxy import Cut, CuttingProxy

OUTAGE_SECONDS = (0.0, 2.5)
"""Bounds of how long the database stays away."""

CUTS = 4
"""Commits that are cut in one round, while slots move."""

CUT_SECONDS_MAX = 20.0
"""Owners flush and beat: the next commit is never far."""

PAUSE_SECONDS = (4.5, 6.5)
"""Longer than the others wait for a beat (3.5 s) or for a word on a link (4 s)."""


FENCED_SECONDS_MAX = 20.0
"""How long an owner that was taken over may take to notice."""

EXIT_FENCED = 70


class Database:
    """The archive's PostgreSQL behind a proxy, and what may happen to it."""

    def __init__(
        self, postgres: PrivatePostgresServer, name: str, proxy: CuttingProxy, rng: random.Random
    ) -> None:
        self._postgres = postgres
        self._name = name
        self._proxy = proxy
        self._rng = rng
        proxy.crash = lambda: postgres.stop(immediate=True)

    async def stop(self) -> None:
        """Shut it down in order, and start it."""
        # In this thread, as the start is: the database dies with the thread that started it.
        self._postgres.stop()
        await self._come_back()

    async def crash_in_flush(self) -> None:
        """Crash it when it has begun to take the rows of a flush, and start it."""
        await self._cut(b"COPY messages", Cut.CRASH)
        await self._come_back()

    async def crash_at_commit(self) -> None:
        """Crash it when it has just been sent a COMMIT, and start it."""
        await self._cut(b"COMMIT", Cut.CRASH)
        await self._come_back()

    async def end_connections(self) -> None:
        """End every connection, as an operator would."""
        await trio.to_thread.run_sync(self._postgres.terminate_connections, self._name)

    async def cut_commits(self, cluster: Cluster) -> None:
        """While slots move, lose commits on the way there, or the word that they were done."""
        await change_something(cluster, self._rng)
        for _ in range(CUTS):
            await self._cut(b"COMMIT", self._rng.choice((Cut.REPLY, Cut.REQUEST)))

    async def _cut(self, marker: bytes, cut: Cut) -> None:
        before = self._proxy.cuts
        self._proxy.marker, self._proxy.cut = marker, cut
        with trio.fail_after(CUT_SECONDS_MAX):
            while self._proxy.cuts == before:
                await trio.sleep(0.005)

    async def _come_back(self) -> None:
        await trio.sleep(self._rng.uniform(*OUTAGE_SECONDS))
        self._postgres.start()


async def pause_owner(
    cluster: Cluster, victim: Server, seconds: float, *, whole: bool, taken_over: bool = False
) -> None:
    """Stop an owner in its tracks for a while; `whole`: its flush process too.

    `taken_over`: the others take its slots meanwhile. Then it finds itself fenced, ends, and is started again.
    """
    pids = family(victim.pid) if whole else [victim.pid]
    async with trio.open_nursery() as nursery:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await trio.sleep(seconds)
            if taken_over:
                await cluster.ring.until_given_away(node_id_of(victim.data))
                # Before it goes on: nobody may be surprised by its end.
                nursery.start_soon(_end_fenced, victim)
                await trio.testing.wait_all_tasks_blocked()
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
    if taken_over:
        await victim.start()


async def _end_fenced(victim: Server) -> None:
    code = await victim.wait_ended(FENCED_SECONDS_MAX)
    assert code == EXIT_FENCED, f"exit code {code}"
