"""How fast do clients that come back get what they missed: much at once, or the end of a long history?

**All of it.** Sessions are written and archived; then many clients join at once, each at cursor 0, and read to
the head. *Cold*: the server was started anew, so nothing of it is in its memory; nor in the page cache, if we
may drop it. *Warm*: the same again, over new connections.

**The tail.** The last messages of a short session and of a long one, in turn, each on a server that was started
anew and has served one other session, so that what is loaded on first use belongs to neither. The time must
not grow with the history before the tail. The page over HTTP is read after the replay, from a warm cache.

The clients are in this process, which does nothing else meanwhile.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from statistics import median

import trio

from bench.checker import Findings
from bench.histogram import Histogram
from bench.loads.replay import Pass, Readers
from bench.loads.tail import Tail, time_and_check, time_tail_http, time_tail_ws
from bench.loads.written import WrittenSession, write_session
from bench.outage import LIMIT_BYTES_MAX, MESSAGE_BYTES_MAX, wait_caught_up
from bench.probe import Probe
from bench.processes import cpu_seconds
from bench.report import Better, Figure, Report, Round, progress
from bench.scenarios.run import OptionsError, RunOptions, Target, run_rounds

TAIL_MESSAGES = 100
"""What a client misses that was away for a moment; and all of the short session."""

READER_SHARE_MAX = 0.9
"""Of one core: beyond this the clients may be what limits the rate."""

MIB = 1024 * 1024

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions(RunOptions):
    """What to run, as it was resolved."""

    sessions: int = 50
    messages: int = 4_000
    """In each session."""
    content_bytes: int = 200
    clients: int = 50
    """They share the sessions in turn."""
    passes: int = 3
    """Warm ones."""
    long: int = 1_000_000
    """Messages of the long session."""
    tails: int = 5
    """How often each tail is timed; 0 leaves them out."""


@dataclass(slots=True)
class _Passes:
    """What the cold pass was like, or the warm ones together."""

    passes: list[Pass] = field(default_factory=list)
    server_seconds: float = 0.0
    """Processor time of the server."""


async def run_replay(options: ReplayOptions) -> Report:
    """Measure replays, in each round on a fresh server.

    Raises:
        OptionsError: What was asked for makes no sense.
        OutageError, ServerError, WireError: There is nothing to report.
    """
    check(options)
    written = options.sessions * options.messages + (options.long if options.tails else 0)
    limit = max(MIB, written * (options.content_bytes + MESSAGE_BYTES_MAX))
    # Nothing may be refused while the sessions are written, however slow the archive is.
    settings = {"unflushed-bytes-max": str(min(LIMIT_BYTES_MAX, limit))}
    return await run_rounds("replay", options, partial(_measure, options), settings)


def check(options: ReplayOptions) -> None:
    """Refuse what makes no sense.

    Raises:
        OptionsError: It makes none.
    """
    if options.url is not None:
        raise OptionsError("replay starts the server anew to read cold: not with --url")
    if options.tails and options.long < TAIL_MESSAGES:
        raise OptionsError(f"--long: at least {TAIL_MESSAGES}, of which the last are read")


async def _measure(options: ReplayOptions, target: Target) -> Round:
    sessions, tails = await trio.to_thread.run_sync(partial(_write, options, target))
    await wait_archived(target.url)
    findings = Findings()
    await restart(target)
    dropped = drop_page_cache()
    cold = await _read(options, target, sessions, findings, 1)
    warm = await _read(options, target, sessions, findings, options.passes)
    figures = [
        *pass_figures("cold", cold.passes, cold.server_seconds),
        *pass_figures("warm", warm.passes, warm.server_seconds),
        Figure("page cache dropped before cold", int(dropped), "", Better.NEITHER),
    ]
    if tails:
        figures += await _measure_tails(options, target, tails, findings)
    return Round(
        sync=target.sync,
        figures=figures,
        latencies={"replay": latency_of(cold.passes), "replay, warm": latency_of(warm.passes)},
        acked=sum(written.count for written in chain(sessions, tails)),
        verdict=findings.verdict(),
        examples=findings.examples,
        warnings=_warnings([*cold.passes, *warm.passes], dropped=dropped),
    )


def _write(
    options: ReplayOptions, target: Target
) -> tuple[list[WrittenSession], list[WrittenSession]]:
    """Write what is read: the sessions of all clients, then the short session and the long one."""

    def write(name: str, messages: int) -> WrittenSession:
        full = f"bench-{target.run_id}-{name}"
        return write_session(target.url, full, messages, options.content_bytes, progress)

    progress(f"writing {options.sessions} sessions of {options.messages:,} messages")
    sessions = [write(str(place), options.messages) for place in range(options.sessions)]
    lengths = {"short": TAIL_MESSAGES, "long": options.long} if options.tails else {}
    return sessions, [write(name, messages) for name, messages in lengths.items()]


async def wait_archived(url: str) -> None:
    """Return when the archive has everything.

    Raises:
        OutageError: It does not catch up.
    """
    with closing(Probe(url)) as probe:
        await wait_caught_up(probe)


async def restart(target: Target) -> None:
    """Start the server anew: it remembers nothing of any session.

    Raises:
        ServerError: It does not come back.
    """
    await target.own_server.stop()
    await target.own_server.start()


def drop_page_cache(control: Path = _DROP_CACHES) -> bool:
    """Have the kernel forget what it read from disks, and tell whether it did: only root may ask."""
    os.sync()
    try:
        control.write_text("1\n")
    except OSError:
        return False
    return True


async def _read(
    options: ReplayOptions,
    target: Target,
    sessions: Sequence[WrittenSession],
    findings: Findings,
    passes: int,
) -> _Passes:
    """Read everything so often; what was shown is compared after each pass."""
    read = _Passes()
    chosen = list(islice(cycle(sessions), options.clients))
    for _ in range(passes):
        with closing(await trio.to_thread.run_sync(Readers, target.url, chosen)) as readers:
            before = cpu_seconds(target.own_server.pid)
            with _no_collections():
                made = await trio.to_thread.run_sync(readers.read)
            read.server_seconds += cpu_seconds(target.own_server.pid) - before
            read.passes.append(made)
            progress(f"read {made.messages:,} messages in {made.seconds:.2f} s")
            await trio.to_thread.run_sync(readers.check, findings)
    return read


@contextmanager
def _no_collections() -> Iterator[None]:
    """Hundreds of thousands of payloads are kept and none is garbage: a collection would only take time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def pass_figures(name: str, passes: Sequence[Pass], server_seconds: float) -> list[Figure]:
    """Return how fast passes of one kind were, taken together."""
    seconds = sum(each.seconds for each in passes)
    messages = sum(each.messages for each in passes)
    size = sum(each.payload_bytes for each in passes)
    used = sum(each.processor_seconds for each in passes)
    return [
        Figure(f"{name} rate", round(messages / seconds, 1), "/s", Better.HIGHER),
        Figure(f"{name} throughput", round(size / MIB / seconds, 2), "MiB/s", Better.HIGHER),
        Figure(f"{name} server processor", round(server_seconds / seconds, 3), "cores"),
        Figure(f"{name} server processor per pass", round(server_seconds / len(passes), 3), "s"),
        Figure(f"{name} clients processor", round(used / seconds, 3), "cores", Better.NEITHER),
    ]


def latency_of(passes: Sequence[Pass]) -> Histogram:
    """Return the time that each client took, of all passes together."""
    latency = Histogram()
    for each in passes:
        latency.add(each.latency)
    return latency


async def _measure_tails(
    options: ReplayOptions,
    target: Target,
    sessions: Sequence[WrittenSession],
    findings: Findings,
) -> list[Figure]:
    """Time the tails of the short session and the long one in turn, each on a server started anew."""
    name = f"bench-{target.run_id}-first"
    first = await trio.to_thread.run_sync(write_session, target.url, name, 1, options.content_bytes)
    await wait_archived(target.url)
    times: dict[tuple[str, int], list[float]] = {}

    async def time_tail(read: Tail, written: WrittenSession, messages: int) -> float:
        timed = partial(time_and_check, read, target.url, written, messages, findings)
        return await trio.to_thread.run_sync(timed)

    for _ in range(options.tails):
        for written in sessions:
            await restart(target)
            for read in (time_tail_ws, time_tail_http):
                await time_tail(read, first, 1)
            for kind, read in (("replay", time_tail_ws), ("page", time_tail_http)):
                seconds = await time_tail(read, written, TAIL_MESSAGES)
                times.setdefault((kind, written.count), []).append(seconds)
        progress(f"read the tails of {', '.join(f'{each.count:,}' for each in sessions)} messages")
    return tail_figures(times)


def tail_figures(times: dict[tuple[str, int], list[float]]) -> list[Figure]:
    """Return the medians, and what the longest history costs beside the shortest.

    `times` are in seconds, by how the tail was read and how many messages the session has.
    """
    figures = []
    for kind in dict.fromkeys(kind for kind, _ in times):
        medians = {count: median(times[each, count]) for each, count in times if each == kind}
        figures += [
            Figure(f"{kind} of the last {TAIL_MESSAGES} of {count:,}", round(value * 1000, 3), "ms")
            for count, value in medians.items()
        ]
        ratio = medians[max(medians)] / medians[min(medians)]
        figures.append(Figure(f"{kind} of a tail, long over short", round(ratio, 3)))
    return figures


def _warnings(passes: Sequence[Pass], *, dropped: bool) -> list[str]:
    warnings = []
    if not dropped:
        warnings.append(
            "cold: the page cache was not dropped, which needs root; disks were not read"
        )
    share = max(each.processor_seconds / each.seconds for each in passes)
    if share > READER_SHARE_MAX:
        warnings.append(f"the clients used {share:.2f} of a core: they may be what limits the rate")
    return warnings
