"""How fast do clients that come back get what they missed: much at once, or the end of a long history?

**All of it.** Sessions are written and archived; then many clients join at once, each at cursor 0, and read to
the head. *Cold*: the server was started anew, so nothing of it is in its memory; nor in the page cache, if we
may drop it; PostgreSQL keeps what it has. *Warm*: the same again, over new connections.

**The tail.** The last messages of a short session and of a long one; see `bench.scenarios.tails`.

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

import trio

from bench.checker import Findings
from bench.histogram import Histogram
from bench.loads.replay import Pass, Readers
from bench.loads.tail import time_and_check, time_tail_ws
from bench.loads.written import WrittenSession, write_session
from bench.outage import LIMIT_BYTES_MAX, MESSAGE_BYTES_MAX
from bench.processes import family_cpu_seconds
from bench.report import MIB, Better, Figure, Report, Round, progress
from bench.scenarios.run import OptionsError, RunOptions, Target, run_rounds
from bench.scenarios.tails import TAIL_MESSAGES, measure_tails, restart

READER_SHARE_MAX = 0.9
"""Of one core: beyond this the clients may be what limits the rate."""

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
    short: int = TAIL_MESSAGES
    """Messages of the short session."""
    long: int = 1_000_000
    """Messages of the long session."""
    tails: int = 15
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
    written = options.sessions * options.messages + options.short + options.long
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
    if options.tails and not TAIL_MESSAGES <= options.short < options.long:
        raise OptionsError(f"--short and --long: {TAIL_MESSAGES} at least, and not the same")


async def _measure(options: ReplayOptions, target: Target) -> Round:
    sessions, tails = await trio.to_thread.run_sync(_write, options, target)
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
        figures += await measure_tails(target, tails, sessions[0], findings, options.tails)
        await _check_whole(target, tails, findings)
    return Round(
        sync=target.sync,
        figures=figures,
        latencies={"replay": latency_of(cold.passes), "replay, warm": latency_of(warm.passes)},
        # Of several sessions for each client the rest is not read.
        acked=sum(written.count for written in chain(sessions[: options.clients], tails)),
        verdict=findings.verdict(),
        examples=findings.examples,
        warnings=_warnings([*cold.passes, *warm.passes], dropped=dropped),
    )


async def _check_whole(target: Target, tails: Sequence[WrittenSession], findings: Findings) -> None:
    """Read the sessions whose ends were timed from their beginnings, too."""
    for written in tails:
        progress(f"checking all {written.count:,} messages of {written.name}")
        await trio.to_thread.run_sync(
            time_and_check, time_tail_ws, target.url, written, written.count, findings
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
    lengths = {"short": options.short, "long": options.long} if options.tails else {}
    return sessions, [write(name, messages) for name, messages in lengths.items()]


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
            before = family_cpu_seconds(target.own_server.pid)
            with _no_collections():
                made = await trio.to_thread.run_sync(readers.read)
            read.server_seconds += family_cpu_seconds(target.own_server.pid) - before
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
