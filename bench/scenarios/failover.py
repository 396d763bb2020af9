"""How long are the sessions of an owner away when it is killed?

A cluster runs under its supervisor (`ringlog up`), which starts again what ends. Clients write at a constant rate into
many sessions, through the edge; one owner after the other gets SIGKILL. Of each of its sessions it is taken when the
first message that was due since is acknowledged, counted from the signal. What is in that: the supervisor's pause,
the start of the process, its recovery, the edge that finds it again. Of the sessions of the others: their longest wait
meanwhile.
"""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from bench.cluster import ClusterRing, UnsettledError, node_id_of, open_ring
from bench.environment import read_environment
from bench.loads.append import AppendPlan
from bench.measurement import Watched, measure
from bench.pauses import first_answers, histogram_of, longest_waits
from bench.report import Better, Figure, Report, Round, make_report, progress
from bench.scenarios.deployment import MakeArchive, Place, open_archives, open_place
from bench.scenarios.run import OptionsError, RunOptions, prepare, resolved
from bench.server import Server, ServerOptions, open_server
from runtime import slot_of

WORKSPACE = "default"

RESTART_SECONDS_MAX = 30.0
RESTART_POLL_SECONDS = 0.05

FIRST = "away"
OTHERS = "pause of others"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverOptions(RunOptions):
    """What to run, as it was resolved."""

    owners: int = 2
    """Each of them is killed once."""
    connections: int = 20
    sessions: int = 200
    """Altogether."""
    per_second: float
    seconds: float
    """From one kill to the next."""
    content_bytes: int = 200


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: when, by the machine's own clock, and which slots it took away."""

    at: float
    slots: frozenset[int]


class Supervised:
    """A cluster under its supervisor, whose processes are known by their data directories."""

    def __init__(self, server: Server, ring: ClusterRing, owners: int) -> None:
        self.server = server
        self.ring = ring
        self._owners = [server.data / f"owner-{number}" for number in range(owners)]

    async def kill_each(self, every_seconds: float, kills: list[Kill]) -> None:
        """Kill one owner after the other; the last one has as much time as the others."""
        for owner in self._owners:
            ring = await self.ring.read()
            node_id = node_id_of(owner)
            slots = frozenset(n for n, held_by in enumerate(ring.owners) if held_by == node_id)
            at = time.perf_counter()
            os.kill(_pid(owner), signal.SIGKILL)
            kills.append(Kill(at, slots))
            progress(f"kill -9 of the owner of {len(slots)} slots")
            await trio.sleep(every_seconds)

    async def crash_owners(self) -> None:
        """Kill all owners; return when others have taken their place.

        Raises:
            UnsettledError: They do not come back.
        """
        before = [_pid(owner) for owner in self._owners]
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        with trio.move_on_after(RESTART_SECONDS_MAX):
            for owner, pid in zip(self._owners, before, strict=True):
                while _read_pid(owner) in {None, pid}:  # noqa: ASYNC110 - of another process
                    await trio.sleep(RESTART_POLL_SECONDS)
            return
        raise UnsettledError(
            f"the owners were not started again within {RESTART_SECONDS_MAX:.0f} s"
        )


async def run_failover(options: FailoverOptions) -> Report:
    """Measure in each round anew.

    Raises:
        ChildError, OptionsError, ServerError, UnsettledError, WireError: There is nothing to report.
    """
    if options.sessions < options.connections:
        raise OptionsError("--sessions: each connection needs one of its own at least")
    prepare(options)
    environment, rounds = read_environment(options.directory), []
    with open_archives(options) as make_archive:
        for number in range(1, options.rounds + 1):
            progress(f"round {number} of {options.rounds}")
            rounds.append(await _measure(options, make_archive))
    return make_report("failover", rounds, config=resolved(options), environment=environment)


async def _measure(options: FailoverOptions, make_archive: MakeArchive) -> Round:
    kills: list[Kill] = []
    with open_place(options, make_archive) as place:
        async with _open_supervised(place, options.owners) as supervised:
            made = await measure(
                [_plan(options, supervised.server.url)],
                Watched(None, place.postmaster_pid, has_metrics=False),
                place.sync,
                crash=supervised.crash_owners,
                meanwhile=partial(supervised.kill_each, options.seconds, kills),
            )
            slots = len((await supervised.ring.read()).owners)
    first: list[float] = []
    others: list[float] = []
    for kill in kills:
        taken = {each for each in made.waits if slot_of(WORKSPACE, each, slots) in kill.slots}
        first += first_answers(made.waits, taken, kill.at)
        kept = {session: each for session, each in made.waits.items() if session not in taken}
        others += longest_waits(kept, kill.at, kill.at + options.seconds)
    made.latencies |= {FIRST: histogram_of(first), OTHERS: histogram_of(others)}
    made.figures.append(Figure("kill -9", len(kills), "", Better.NEITHER))
    return made


@asynccontextmanager
async def _open_supervised(place: Place, owners: int) -> AsyncIterator[Supervised]:
    """Start a cluster with one edge under its supervisor, and stop it in good order."""
    settings = {"owners": str(owners), "edges": "1"}
    options = ServerOptions(place.directory, place.archive, settings, command="up")
    async with open_ring(place.archive, owners) as ring, open_server(options) as server:
        await server.start()
        await ring.until_settled()
        yield Supervised(server, ring, owners)
        await server.stop()


def _plan(options: FailoverOptions, url: str) -> AppendPlan:
    return AppendPlan(
        url=url,
        run_id="failover",
        connections=options.connections,
        sessions=options.sessions,
        per_second=options.per_second,
        seconds=options.seconds * options.owners,
        warmup_seconds=options.warmup_seconds,
        content_bytes=options.content_bytes,
        timed=True,
    )


def _pid(owner: Path) -> int:
    """Return the process that serves a data directory."""
    pid = _read_pid(owner)
    assert pid is not None, f"{owner} is served by nobody"
    return pid


def _read_pid(owner: Path) -> int | None:
    text = (owner / "log" / "lock").read_text().strip()
    return int(text) if text else None
