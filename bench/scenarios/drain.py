"""How long does a session pause when it moves?

Clients write at a constant rate into many sessions, through an edge, in three phases of equal length: nothing happens;
an owner is drained, so that all its sessions move to the others; it gets its share back, as one that joins does. Of
each session the longest wait in each phase is taken: from when a message was due to when it was acknowledged.
The first phase tells what such a wait is when nothing moves.
"""

import time
from dataclasses import dataclass, field

import trio

from bench.cluster import Cluster
from bench.environment import read_environment
from bench.loads.append import AppendPlan
from bench.measurement import measure
from bench.pauses import histogram_of, longest_waits
from bench.report import Better, Figure, Report, Round, make_report, progress
from bench.scenarios.deployment import (
    MakeArchive,
    open_archives,
    open_cluster_at,
    open_place,
    watched_cluster,
)
from bench.scenarios.run import OptionsError, RunOptions, prepare, resolved

PHASES = ("steady", "drain", "join")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOptions(RunOptions):
    """What to run, as it was resolved."""

    owners: int = 3
    connections: int = 50
    sessions: int = 500
    """Altogether."""
    per_second: float
    seconds: float
    """Of each phase."""
    content_bytes: int = 200


@dataclass(slots=True)
class Moves:
    """What was done to the ring, and when, by the machine's own clock."""

    began: list[float] = field(default_factory=list)
    """When each phase began."""
    slots: list[int] = field(default_factory=list)
    """How many each change moved."""
    seconds: list[float] = field(default_factory=list)
    """How long each change took until everything had moved."""


async def run_drain(options: DrainOptions) -> Report:
    """Measure in each round anew.

    Raises:
        ChildError, OptionsError, ServerError, UnsettledError, WireError: There is nothing to report.
    """
    check(options)
    prepare(options)
    environment, rounds = read_environment(options.directory), []
    with open_archives(options) as make_archive:
        for number in range(1, options.rounds + 1):
            progress(f"round {number} of {options.rounds}")
            rounds.append(await _measure(options, make_archive))
    return make_report("drain", rounds, config=resolved(options), environment=environment)


def check(options: DrainOptions) -> None:
    """Refuse what makes no sense.

    Raises:
        OptionsError: It makes none.
    """
    if options.owners < 2:
        raise OptionsError("--owners: one that is drained needs another one")
    if options.sessions < options.connections:
        raise OptionsError("--sessions: each connection needs one of its own at least")


async def _measure(options: DrainOptions, make_archive: MakeArchive) -> Round:
    moves = Moves()
    with open_place(options, make_archive) as place:
        async with open_cluster_at(place, owners=options.owners) as cluster:
            made = await measure(
                [_plan(options, cluster.edges[0].url)],
                watched_cluster(cluster, place),
                place.sync,
                crash=cluster.crash_owners,
                meanwhile=lambda: _move(cluster, options.seconds, moves),
            )
    made.latencies |= {
        f"pause, {phase}": histogram_of(longest_waits(made.waits, begin, end))
        for phase, begin, end in zip(
            PHASES, moves.began, [*moves.began[1:], float("inf")], strict=True
        )
    }
    for phase, slots, seconds in zip(PHASES[1:], moves.slots, moves.seconds, strict=True):
        made.figures += [
            Figure(f"slots moved, {phase}", slots, "", Better.NEITHER),
            Figure(f"all moved after, {phase}", round(seconds, 2), "s"),
        ]
    return made


def _plan(options: DrainOptions, url: str) -> AppendPlan:
    return AppendPlan(
        url=url,
        run_id="drain",
        connections=options.connections,
        sessions=options.sessions,
        per_second=options.per_second,
        seconds=options.seconds * len(PHASES),
        warmup_seconds=options.warmup_seconds,
        content_bytes=options.content_bytes,
        timed=True,
    )


async def _move(cluster: Cluster, phase_seconds: float, moves: Moves) -> None:
    """Drain an owner, and give it its share again, each at the beginning of a phase.

    Raises:
        UnsettledError: What moves has not moved by the end of its phase.
    """
    start = trio.current_time()
    moves.began.append(time.perf_counter())
    for number, move in enumerate((cluster.drain, cluster.undrain), 1):
        await trio.sleep_until(start + number * phase_seconds)
        began = time.perf_counter()
        moves.began.append(began)
        change = await move(cluster.owners[0])
        await cluster.ring.until_settled(phase_seconds)
        moves.slots.append(len(change.targets))
        moves.seconds.append(time.perf_counter() - began)
        progress(f"{change.action}: {len(change.targets)} slots in {moves.seconds[-1]:.2f} s")
