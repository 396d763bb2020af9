"""What does a second copy of every batch in PostgreSQL cost, before it is acknowledged?

The same load on one process in turn: with `local` durability, and with `replicated`. Both flush into the same
PostgreSQL, on the same two cores and the same disk as the server and the load: each batch is synced twice to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.environment import read_environment
from bench.loads.append import AppendPlan
from bench.measurement import Watched, measure
from bench.report import RATE, Better, Figure, Report, Round, make_report, progress
from bench.scenarios.deployment import MakeArchive, open_archives, open_place
from bench.scenarios.run import POSTGRES, RunOptions, prepare, resolved
from bench.server import ServerOptions, open_server

LOCAL, REPLICATED = "local", "replicated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedOptions(RunOptions):
    """What to run, as it was resolved."""

    connections: int
    in_flight: int = 1
    seconds: float
    content_bytes: int = 200
    archive: str | None = POSTGRES


async def run_replicated(options: ReplicatedOptions) -> Report:
    """Measure both in each round, each on a fresh process.

    Raises:
        ChildError, OptionsError, ServerError, WireError: There is nothing to report.
    """
    prepare(options)
    environment, config = read_environment(options.directory), resolved(options)
    rounds: dict[str, list[Round]] = {REPLICATED: [], LOCAL: []}
    with open_archives(options) as make_archive:
        for number in range(1, options.rounds + 1):
            progress(f"round {number} of {options.rounds}: {LOCAL}")
            local = await _measure(options, make_archive, LOCAL)
            progress(REPLICATED)
            replicated = await _measure(options, make_archive, REPLICATED)
            rate = replicated.figure(RATE) / max(1.0, local.figure(RATE))
            ratio = Figure("ratio to local", round(rate, 3), "", Better.HIGHER)
            replicated.figures.insert(1, ratio)
            rounds[LOCAL].append(local)
            rounds[REPLICATED].append(replicated)
    report, beside = (
        make_report(name, made, config=config, environment=environment)
        for name, made in rounds.items()
    )
    report.beside.append(beside)
    return report


def _plans(options: ReplicatedOptions, url: str) -> Sequence[AppendPlan]:
    return [
        AppendPlan(
            url=url,
            run_id="replicated",
            connections=options.connections,
            sessions=options.connections,
            in_flight=options.in_flight,
            seconds=options.seconds,
            warmup_seconds=options.warmup_seconds,
            content_bytes=options.content_bytes,
        )
    ]


async def _measure(options: ReplicatedOptions, make_archive: MakeArchive, level: str) -> Round:
    with open_place(options, make_archive) as place:
        settings = {"durability": level}
        async with open_server(ServerOptions(place.directory, place.archive, settings)) as server:
            await server.start()
            watched = Watched(server.pid, place.postmaster_pid)
            made = await measure(
                _plans(options, server.url), watched, place.sync, crash=server.crash
            )
            await server.stop()
    return made
