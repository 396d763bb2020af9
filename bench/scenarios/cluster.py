"""What does it cost to reach a session over a link, and what does a second owner bring?

The same load on three deployments in turn, in each round: an edge with one owner, one process that is both, and an
edge with two owners. All of them, and the generator, share the cores of this machine: on two, a second owner
takes what the others lack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.environment import read_environment
from bench.loads.append import AppendPlan
from bench.measurement import Watched, measure
from bench.report import RATE, Better, Figure, Report, Round, make_report, progress
from bench.scenarios.deployment import (
    MakeArchive,
    open_archives,
    open_cluster_at,
    open_place,
    watched_cluster,
)
from bench.scenarios.run import RunOptions, prepare, resolved
from bench.server import ServerOptions, open_server

ONE_PROCESS = "one process"
TWO_OWNERS = "two owners"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLoadOptions(RunOptions):
    """What to run, as it was resolved."""

    connections: int
    in_flight: int = 1
    seconds: float
    content_bytes: int = 200
    sessions: int | None = None
    """Altogether; one for each connection if None."""


async def run_cluster(options: ClusterLoadOptions) -> Report:
    """Measure the three in each round, each on fresh processes.

    Raises:
        ChildError, OptionsError, ServerError, UnsettledError, WireError: There is nothing to report.
    """
    prepare(options)
    environment, config = read_environment(options.directory), resolved(options)
    rounds: dict[str, list[Round]] = {"cluster": [], ONE_PROCESS: [], TWO_OWNERS: []}
    with open_archives(options) as make_archive:
        for number in range(1, options.rounds + 1):
            progress(f"round {number} of {options.rounds}: {ONE_PROCESS}")
            alone = await _measure_alone(options, make_archive)
            progress("an edge and one owner")
            one = await _measure_cluster(options, make_archive, owners=1)
            progress("an edge and two owners")
            two = await _measure_cluster(options, make_archive, owners=2)
            one.figures[1:1] = [
                _ratio("ratio to one process", one, alone),
                _ratio("two owners over one", two, one),
            ]
            for name, made in zip(rounds, (one, alone, two), strict=True):
                rounds[name].append(made)
    report, *beside = (
        make_report(name, made, config=config, environment=environment)
        for name, made in rounds.items()
    )
    report.beside.extend(beside)
    return report


def _plans(options: ClusterLoadOptions, url: str) -> Sequence[AppendPlan]:
    return [
        AppendPlan(
            url=url,
            run_id="cluster",
            connections=options.connections,
            sessions=options.sessions or options.connections,
            in_flight=options.in_flight,
            seconds=options.seconds,
            warmup_seconds=options.warmup_seconds,
            content_bytes=options.content_bytes,
        )
    ]


async def _measure_alone(options: ClusterLoadOptions, make_archive: MakeArchive) -> Round:
    with open_place(options, make_archive) as place:
        async with open_server(ServerOptions(place.directory, place.archive)) as server:
            await server.start()
            watched = Watched(server.pid, place.postmaster_pid)
            plans = _plans(options, server.url)
            made = await measure(plans, watched, place.sync, crash=server.crash)
            await server.stop()
    return made


async def _measure_cluster(
    options: ClusterLoadOptions, make_archive: MakeArchive, *, owners: int
) -> Round:
    with open_place(options, make_archive) as place:
        # The same level as the one process has.
        settings = {"durability": "local"}
        async with open_cluster_at(place, owners=owners, settings=settings) as cluster:
            (edge,) = cluster.edges
            watched = watched_cluster(cluster, place)
            plans = _plans(options, edge.url)
            return await measure(plans, watched, place.sync, crash=cluster.crash_owners)


def _ratio(name: str, one: Round, other: Round) -> Figure:
    """Return the ratio of their rates."""
    rate = one.figure(RATE) / max(1.0, other.figure(RATE))
    return Figure(name, round(rate, 3), "", Better.HIGHER)
