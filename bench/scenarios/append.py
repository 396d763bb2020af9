"""How many durable appends a second, and how long does one wait for its ack?

With a yardstick if asked: the bare server (`bench/bare.py`) in turn with the real one, on the same disk,
from the same generator. And with the archive held back if asked, as in an outage (`bench/outage.py`).
"""

from dataclasses import dataclass

from bench.environment import measure_sync_ms
from bench.loads.append import AppendPlan
from bench.measurement import Watched, drift_figures, measure, open_bare
from bench.outage import archive_file, unflushed_bytes_max
from bench.report import RATE, Better, Figure, Report, Round, make_report, progress
from bench.scenarios.run import (
    OptionsError,
    RunOptions,
    Target,
    fresh_directory,
    run_rounds,
)

ROUNDS_BESIDE_BARE = 3
"""Enough for a median, so that one disturbed round decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendOptions(RunOptions):
    """What to run, as it was resolved."""

    connections: int
    in_flight: int = 1
    seconds: float
    content_bytes: int = 200
    sessions: int | None = None
    """Altogether; one for each connection if None."""
    messages_max: int | None = None
    per_second: float | None = None
    """Open loop, at this rate."""
    generators: int = 1
    joined: bool = False
    beside_bare: bool = False
    archive_down: bool = False


async def run_append(options: AppendOptions, scenario: str = "append") -> Report:
    """Measure one server under one load, in each round anew.

    Raises:
        OptionsError: What was asked for makes no sense.
        ChildError, OutageError, ServerError, WireError: There is nothing to report.
    """
    check(options)
    settings = {}
    if options.archive_down:
        limit = unflushed_bytes_max(options.seconds + options.warmup_seconds, options.content_bytes)
        settings["unflushed-bytes-max"] = str(limit)
    bare: list[Round] = []

    async def one_round(target: Target) -> Round:
        made = await measure(
            plans(options, target.url, target.run_id),
            target.watched,
            target.sync,
            held_back=target.archive_file if options.archive_down else None,
            crash=target.crash,
        )
        if options.per_second is None:
            made.figures += drift_figures(made.timeline)
        return made

    async def after_round(made: Round) -> None:
        if options.beside_bare:
            progress("the bare server")
            bare.append(await _measure_bare(options))
            made.figures.insert(1, _ratio(made, bare[-1]))

    report = await run_rounds(scenario, options, one_round, settings, after_round)
    if bare:
        beside = make_report("bare", bare, config=report.config, environment=report.environment)
        report.beside.append(beside)
    return report


def check(options: AppendOptions) -> None:
    """Refuse what makes no sense.

    Raises:
        OptionsError: It makes none.
    """
    if options.sessions is not None and options.sessions < options.connections:
        raise OptionsError("--sessions: each connection needs one of its own at least")
    if options.generators > options.connections:
        raise OptionsError("--generators: each needs a connection at least")
    if options.archive_down:
        if options.url is not None:
            raise OptionsError("--archive-down needs a server that is started here: not with --url")
        if options.archive is not None and archive_file(options.archive) is None:
            raise OptionsError("--archive-down holds SQLite's write lock: only with sqlite:///…")
    if options.beside_bare:
        if options.url is not None:
            raise OptionsError("--beside-bare compares on one disk and machine: not with --url")
        if options.joined:
            raise OptionsError(
                "--beside-bare has nothing to compare: the bare server shows no messages"
            )


def plans(
    options: AppendOptions, url: str, run_id: str, *, verify: bool = True
) -> list[AppendPlan]:
    """Return what each generator is told: its part of the connections, the sessions and the rate."""
    generators = options.generators
    sessions = options.sessions or options.connections
    return [
        AppendPlan(
            url=url,
            run_id=f"{run_id}-{place}" if generators > 1 else run_id,
            connections=len(range(place, options.connections, generators)),
            sessions=len(range(place, sessions, generators)),
            in_flight=options.in_flight,
            per_second=options.per_second and options.per_second / generators,
            seconds=options.seconds,
            warmup_seconds=options.warmup_seconds,
            messages_max=options.messages_max and -(-options.messages_max // generators),
            content_bytes=options.content_bytes,
            joined=options.joined,
            verify=verify,
        )
        for place in range(generators)
    ]


async def _measure_bare(options: AppendOptions) -> Round:
    with fresh_directory(options) as fresh:
        sync = measure_sync_ms(fresh)
        async with open_bare(fresh) as (url, pid):
            # It keeps nothing that could be replayed.
            plan = plans(options, url, "bare", verify=False)
            return await measure(plan, Watched(pid, has_metrics=False), sync)


def _ratio(real: Round, bare: Round) -> Figure:
    rates = [each.figure(RATE) for each in (real, bare)]
    return Figure("ratio to bare", round(rates[0] / max(1.0, rates[1]), 3), "", Better.HIGHER)
