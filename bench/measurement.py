"""One server under one load: what the generators saw, and what could be seen beside it meanwhile."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
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
from bench.processes import cpu_seconds, family_cpu_seconds, resident_bytes
from bench.report import RATE, Better, Figure, Round, Second, merge_verdicts

GENERATOR_SHARE_MAX = 0.9
"""Of one core: beyond this the generator may be what limits the rate."""

DRIFT_SECONDS_MIN = 10
"""A shorter run has no beginning and end that could be told apart."""

GENERATOR = "generator processor"

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Watched:
    """What can be looked at beside the load, where it is ours or says so itself."""

    server_pid: int | None = None
    postmaster_pid: int | None = None
    has_metrics: bool = True


async def measure(
    plans: Sequence[Plan], watched: Watched, sync: SyncLatency, *, held_back: Path | None = None
) -> Round:
    """Load a server, with a generator for each plan; hold back its archive meanwhile, if asked.

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
            usage = _Usage(watched, generators)
            before = await probe.look() if watched.has_metrics else None
            measured = _Arrival(generators, MEASURED).wait
            await (probe.watch_until(measured) if watched.has_metrics else measured())
            figures = usage.figures()
            after = await probe.look() if watched.has_metrics else None
            await _Arrival(generators, DRAINED).wait()
            await outage.aclose()
            catch_up_seconds = None if held_back is None else await wait_caught_up(probe)
            await _go_on(generators)
            outcomes = await _outcomes(generators)
    figures += [*sync_figures(before, after), *lag_figures(probe.samples)]
    if catch_up_seconds is not None:
        figures.append(Figure("archive caught up after", round(catch_up_seconds, 1), "s"))
    return make_round(outcomes, figures, sync)


class _Usage:
    """The processor time of all that take part, from now on."""

    def __init__(self, watched: Watched, generators: Sequence[Child]) -> None:
        self._watched = watched
        readers: dict[str, Callable[[], float]] = {}
        if watched.server_pid is not None:
            readers["server processor"] = partial(cpu_seconds, watched.server_pid)
        if watched.postmaster_pid is not None:
            readers["database processor"] = partial(family_cpu_seconds, watched.postmaster_pid)
        pids = [generator.pid for generator in generators]
        readers[GENERATOR] = lambda: max(cpu_seconds(pid) for pid in pids)
        self._readers = readers
        self._start = trio.current_time()
        self._before = {name: read() for name, read in readers.items()}

    def figures(self) -> list[Figure]:
        """Return what was used since, in cores; of several generators that of the busiest."""
        elapsed = trio.current_time() - self._start
        figures = [
            Figure(name, round((read() - self._before[name]) / elapsed, 3), "cores")
            for name, read in self._readers.items()
        ]
        if self._watched.server_pid is not None:
            size = resident_bytes(self._watched.server_pid) / MIB
            figures.append(Figure("server memory", round(size, 1), "MiB"))
        return figures


@asynccontextmanager
async def _generator(plan: Plan) -> AsyncIterator[Child]:
    async with open_child("bench.generator") as generator:
        await generator.send_line(msgspec.json.encode(plan))
        yield generator


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
        warnings=_warnings(figures),
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
    if len(timeline) < DRIFT_SECONDS_MIN:
        return []
    part = len(timeline) // 5
    first, last = (
        sum(second.rate_per_second for second in seconds)
        for seconds in (timeline[:part], timeline[-part:])
    )
    if not first:
        return []
    return [Figure("rate, last fifth over first", round(last / first, 3), "", Better.HIGHER)]


def _warnings(figures: Sequence[Figure]) -> list[str]:
    share = next(each.value for each in figures if each.name == GENERATOR)
    if share <= GENERATOR_SHARE_MAX:
        return []
    said = f"a generator used {share:.2f} of a core: it may be what limits the rate;"
    return [f"{said} give it more processes with --generators, on a machine that has the cores"]


@asynccontextmanager
async def open_bare(directory: Path) -> AsyncIterator[tuple[str, int]]:
    """Start the bare server; yields its address and its process."""
    async with open_child("bench.bare", str(directory)) as bare:
        port = int(await bare.receive_line())
        yield f"ws://127.0.0.1:{port}/v1/ws", bare.pid
        await bare.end()
