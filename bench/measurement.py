"""One server under one load: what the generators saw, and what could be seen beside it meanwhile."""

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import trio

from bench.child import Child, open_child
from bench.environment import SyncLatency
from bench.generator import DRAINED, MEASURED, MEASURING, READY, Outcome, Plan
from bench.histogram import Histogram
from bench.outage import hold_archive, wait_caught_up
from bench.probe import Probe, lag_figures, sync_figures
from bench.processes import cpu_seconds, family_cpu_seconds
from bench.report import RATE, Better, Figure, Round, Second, merge_verdicts
from bench.usage import DATABASE, FLUSH, GENERATOR, Usage, memory_figures, server_readers
from bench.watch import TREND_SECONDS_MIN, Watch, server_timeline, trend_figures

GENERATOR_SHARE_MAX = 0.9
"""Of one core: beyond this the generator may be what limits the rate."""

MACHINE_SHARE_MAX = 0.95
"""Of all cores: beyond this nobody gets one when he needs it."""

LATE_US_MAX = 3_000
"""Three ticks of the open loop."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What can be looked at beside the load, where it is ours or says so itself."""

    server_pid: int | None = None
    postmaster_pid: int | None = None
    has_metrics: bool = True
    others: Mapping[str, int] = field(default_factory=dict)
    """More processes that serve, by the name of the figure for their processor time."""


async def measure(
    plans: Sequence[Plan],
    watched: Watched,
    sync: SyncLatency,
    *,
    held_back: Path | None = None,
    crash: Callable[[], Awaitable[None]] | None = None,
    meanwhile: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
) -> Round:
    """Load a server, with a generator for each plan; hold back its archive meanwhile, if asked.

    `meanwhile` is called when the warm-up is over; what it does to the server belongs to the measurement.

    `crash` is called when everything was answered and before anything is replayed: what the server showed
    from its memory would say nothing about what is durable.

    Raises:
        ChildError: A generator gave up.
        OutageError: The archive could not be held back, or did not catch up.
    """
    with closing(Probe(plans[0].url)) as probe:
        async with AsyncExitStack() as stack:
            generators = [await stack.enter_async_context(_generator(plan)) for plan in plans]
            await _Arrival(generators, READY).wait()
            outage = await stack.enter_async_context(AsyncExitStack())
            if held_back is not None:
                await outage.enter_async_context(hold_archive(held_back))
            await _go_on(generators)
            await _Arrival(generators, MEASURING).wait()
            usage = _usage_of(watched, generators)
            before = await probe.look() if watched.has_metrics else None
            measured = _Arrival(generators, MEASURED).wait
            watch = Watch(probe if watched.has_metrics else None, watched.server_pid)
            await _both(partial(watch.until, measured), meanwhile)
            figures = usage.figures()
            if watched.server_pid is not None:
                figures += memory_figures(watched.server_pid)
            figures += trend_figures(watch.looks)
            after = await probe.look() if watched.has_metrics else None
            await _Arrival(generators, DRAINED).wait()
            await outage.aclose()
            catch_up_seconds = None if held_back is None else await wait_caught_up(probe)
            if crash is not None:
                await crash()
            await _go_on(generators)
            outcomes = await _outcomes(generators)
    figures += [*sync_figures(before, after), *lag_figures(watch.samples)]
    if catch_up_seconds is not None:
        figures.append(Figure("archive caught up after", round(catch_up_seconds, 1), "s"))
    made = make_round(outcomes, figures, sync)
    made.server_timeline = server_timeline(watch.looks)
    return made


def _usage_of(watched: Watched, generators: Sequence[Child]) -> Usage:
    pids = [generator.pid for generator in generators]
    readers = {} if watched.server_pid is None else server_readers(watched.server_pid)
    for name, pid in watched.others.items():
        readers[name] = partial(family_cpu_seconds, pid)
    if watched.postmaster_pid is not None:
        readers[DATABASE] = partial(family_cpu_seconds, watched.postmaster_pid)
    return Usage(readers | {GENERATOR: lambda: max(map(cpu_seconds, pids))})


@asynccontextmanager
async def _generator(plan: Plan) -> AsyncIterator[Child]:
    async with open_child("bench.generator") as generator:
        await generator.send_line(msgspec.json.encode(plan))
        yield generator


async def _both(*calls: Callable[[], Awaitable[None]]) -> None:
    """Run both to their end; what one raises ends the other, and is raised."""
    try:
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)
    except ExceptionGroup as group:
        raise _first(group) from None


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return what went wrong first; the rest are consequences."""
    return group.exceptions[0]


class _Arrival:
    """Generators that are on their way to a stage; a wait for them may be cancelled and repeated."""

    def __init__(self, generators: Sequence[Child], stage: str) -> None:
        self._stage = stage.encode()
        self._missing = list(generators)

    async def wait(self) -> None:
        """Return when all are there."""
        while self._missing:
            line = await self._missing[-1].receive_line()
            assert line == self._stage, line
            self._missing.pop()


async def _go_on(generators: Sequence[Child]) -> None:
    for generator in generators:
        await generator.send_line()


async def _outcomes(generators: Sequence[Child]) -> list[Outcome]:
    outcomes = []
    for generator in generators:
        outcomes.append(msgspec.json.decode(await generator.receive_line(), type=Outcome))
        await generator.end()
    return outcomes


def make_round(outcomes: Sequence[Outcome], figures: list[Figure], sync: SyncLatency) -> Round:
    """Put together what several generators saw of one server."""
    latencies = {kind: Histogram() for kind in outcomes[0].latencies}
    for outcome in outcomes:
        for kind, packed in outcome.latencies.items():
            latencies[kind].add(Histogram(packed))
    rate = sum(outcome.counted / outcome.seconds for outcome in outcomes)
    timeline = _timeline([outcome.timeline for outcome in outcomes])
    return Round(
        sync=sync,
        figures=[Figure(RATE, round(rate, 1), "/s", Better.HIGHER), *figures],
        latencies=latencies,
        acked=sum(outcome.acked for outcome in outcomes),
        refused=sum((Counter(outcome.refused) for outcome in outcomes), Counter[str]()),
        timeline=timeline,
        verdict=merge_verdicts(outcome.verdict for outcome in outcomes),
        examples=[example for outcome in outcomes for example in outcome.examples],
        warnings=warnings_of(figures, latencies),
        waits={session: each for outcome in outcomes for session, each in outcome.waits.items()},
    )


def _timeline(timelines: Sequence[Sequence[Second]]) -> list[Second]:
    """Add the rates of several generators, second by second; of latencies keep the longest."""
    return [
        Second(
            second=seconds[0].second,
            rate_per_second=round(sum(each.rate_per_second for each in seconds), 1),
            ack_p50_ms=max(each.ack_p50_ms for each in seconds),
            ack_p99_ms=max(each.ack_p99_ms for each in seconds),
        )
        for seconds in zip(*timelines, strict=False)
    ]


def drift_figures(timeline: Sequence[Second]) -> list[Figure]:
    """Return the rate of the last fifth of a run over that of the first: 1 if cost does not grow."""
    if len(timeline) < TREND_SECONDS_MIN:
        return []
    part = len(timeline) // 5
    first, last = (
        sum(second.rate_per_second for second in seconds)
        for seconds in (timeline[:part], timeline[-part:])
    )
    if not first:
        return []
    return [Figure("rate, last fifth over first", round(last / first, 3), "", Better.HIGHER)]


def warnings_of(figures: Sequence[Figure], latencies: Mapping[str, Histogram]) -> list[str]:
    """Say what else than the server may be what limits these figures."""
    shares = {
        each.name: each.value for each in figures if each.unit == "cores" and each.name != FLUSH
    }
    late, cores = latencies.get("late"), len(os.sched_getaffinity(0))
    warnings = []
    if shares[GENERATOR] > GENERATOR_SHARE_MAX:
        warnings.append(
            f"a generator used {shares[GENERATOR]:.2f} of a core: it may be what limits the rate;"
            " append and rate take --generators, on a machine that has the cores"
        )
    if sum(shares.values()) > MACHINE_SHARE_MAX * cores:
        warnings.append(
            f"{sum(shares.values()):.2f} of {cores} cores were in use: the load competes with the server"
        )
    if late is not None and late.percentile(99) > LATE_US_MAX:
        warnings.append(
            f"messages left up to {late.percentile(99) / 1000:.0f} ms (p99) after they were due, by the"
            " generator's own doing: as much of each latency is not the server's"
        )
    return warnings


@asynccontextmanager
async def open_bare(directory: Path) -> AsyncIterator[tuple[str, int]]:
    """Start the bare server; yields its address and its process."""
    async with open_child("bench.bare", str(directory)) as bare:
        port = int(await bare.receive_line())
        yield f"ws://127.0.0.1:{port}/v1/ws", bare.pid
        await bare.end()
