"""One peer under the load, once: what came of it, what it used, and how often it synced."""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from bench.child import Child, open_child
from bench.environment import measure_sync_ms
from bench.generator import DRAINED, MEASURED, MEASURING, READY, Outcome
from bench.histogram import Histogram
from bench.measurement import warnings_of
from bench.peers.appends import PeerPlan
from bench.peers.catalogue import Peer
from bench.peers.generator import FAILED
from bench.peers.program import PeerError, Site
from bench.peers.tracer import Tracer
from bench.processes import cpu_seconds, family_cpu_seconds
from bench.report import RATE, Better, Figure, Round
from bench.scenarios.run import WARMUP_SECONDS, RunOptions
from bench.usage import GENERATOR, SERVER, Usage

SYNCS_SECONDS = 1.5
"""How long a peer is traced, beside the measured rounds: a ratio needs no more."""

SYNCS_WARMUP_SECONDS = 0.5

MESSAGES_MAX = 3_000_000
"""A measurement ends with so many, if not earlier: they are all kept, and all read back."""


class PeerFailedError(Exception):
    """A peer hung up, refused a message, or did not say what it stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersOptions(RunOptions):
    """What to run, as it was resolved."""

    connections: int = 64
    in_flight: int = 1
    seconds: float = 10.0
    content_bytes: int = 200
    only: str | None = None
    """Names of peers with commas between them; all if None."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    outcome: Outcome
    figures: list[Figure]
    start: float
    """By `time.time`, just before the first message."""
    end: float
    """Just after the last ack."""


async def measure_peer(peer: Peer, options: PeersOptions) -> Round:
    """Start a peer afresh and load it; a round that fails says why, and has nothing else."""
    with _fresh_directory(options) as fresh:
        # What the one before has left to the kernel is no burden of this one.
        await trio.to_thread.run_sync(os.sync)
        sync = measure_sync_ms(fresh)
        try:
            async with peer.open(Site(fresh, options.connections)) as running:
                plan = _plan(peer, options, running.url, options.seconds, WARMUP_SECONDS)
                loaded = await _load(plan, running.pids)
        except Exception as error:  # noqa: BLE001  # whatever it was, the other rounds are as good
            return Round(sync, failure=reason_of(error))
    outcome = loaded.outcome
    latencies = {kind: Histogram(latency) for kind, latency in outcome.latencies.items()}
    rate = Figure(RATE, round(outcome.counted / outcome.seconds, 1), "/s", Better.HIGHER)
    return Round(
        sync,
        figures=[rate, *loaded.figures],
        latencies=latencies,
        acked=outcome.acked,
        timeline=outcome.timeline,
        verdict=outcome.verdict,
        examples=outcome.examples,
        warnings=warnings_of(loaded.figures, latencies),
    )


def reason_of(error: Exception) -> str:
    """Return what went wrong, in words; those of a group one after the other."""
    if isinstance(error, ExceptionGroup):
        return "; ".join(map(reason_of, error.exceptions))
    known = isinstance(error, PeerError | PeerFailedError)
    return str(error) if known else f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class Syncs:
    """What a traced pass gave."""

    per_ack: float
    opened_for_sync: set[str]
    """Files whose writes are syncs as well, which are not counted."""


async def count_syncs(peer: Peer, options: PeersOptions) -> Syncs:
    """Load a peer once more, briefly and traced.

    Raises:
        PeerError, PeerFailedError: It did not bear that.
        ChildError: The generator gave up.
    """
    with _fresh_directory(options) as fresh:
        tracer = Tracer(fresh)
        async with peer.open(Site(fresh, options.connections, tracer)) as running:
            plan = _plan(peer, options, running.url, SYNCS_SECONDS, SYNCS_WARMUP_SECONDS)
            loaded = await _load(plan, running.pids)
        counted = tracer.count(loaded.start, loaded.end)
        if counted == 0:
            # Every one of them syncs: it was the tracer that saw nothing, as where ptrace is forbidden.
            raise PeerFailedError("strace saw none")
        if not loaded.outcome.verdict["ok"]:
            raise PeerFailedError(loaded.outcome.examples[0])
        return Syncs(counted / max(1, loaded.outcome.acked), tracer.opened_for_sync())


async def _load(plan: PeerPlan, pids: Sequence[int]) -> _Loaded:
    async with open_child("bench.peers.generator") as generator:
        await generator.send_line(msgspec.json.encode(plan))
        await _reach(generator, READY)
        start = time.time()
        await generator.send_line()
        await _reach(generator, MEASURING)
        usage = _usage(generator.pid, pids)
        await _reach(generator, MEASURED)
        figures = usage.figures()
        await _reach(generator, DRAINED)
        end = time.time()
        await generator.send_line()
        outcome = msgspec.json.decode(await _receive(generator), type=Outcome)
        await generator.end()
    return _Loaded(outcome, figures, start, end)


def _usage(generator: int, server: Sequence[int]) -> Usage:
    return Usage(
        {
            SERVER: lambda: sum(map(family_cpu_seconds, server)),
            GENERATOR: lambda: cpu_seconds(generator),
        }
    )


async def _reach(generator: Child, stage: str) -> None:
    line = await _receive(generator)
    assert line == stage.encode(), line


async def _receive(generator: Child) -> bytes:
    line = await generator.receive_line()
    if line.startswith(FAILED.encode()):
        raise PeerFailedError(line.decode().removeprefix(FAILED))
    return line


def _plan(
    peer: Peer, options: PeersOptions, url: str, seconds: float, warmup_seconds: float
) -> PeerPlan:
    return PeerPlan(
        url=url,
        run_id=secrets.token_hex(4),
        seconds=seconds,
        warmup_seconds=warmup_seconds,
        messages_max=MESSAGES_MAX,
        driver=peer.driver,
        connections=options.connections,
        in_flight=options.in_flight,
        content_bytes=options.content_bytes,
    )


@contextmanager
def _fresh_directory(options: PeersOptions) -> Iterator[Path]:
    """Make a directory on the disk that is measured, which a server's own user can pass through."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        Path(name).chmod(0o711)
        yield Path(name)
