"""How many durable appends a second, and how long does one wait for its ack?

With a yardstick if asked: the bare server (`bench/bare.py`) in turn with the real one, on the same disk,
from the same generator. And with the archive held back if asked, as in an outage (`bench/outage.py`).
"""

import resource
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from bench.environment import SyncLatency, measure_sync_ms, read_environment
from bench.generator import Plan
from bench.measurement import Measured, measure, open_bare
from bench.outage import archive_file, unflushed_bytes_max
from bench.report import AppendReport, progress
from bench.rounds import report_rounds
from bench.server import ServerOptions, open_server, sqlite_url

WARMUP_SECONDS = 1.0
"""Until every connection has its window full and the interpreter has specialised the hot code."""

ROUNDS_BESIDE_BARE = 3
"""Enough for a median, so that one disturbed round decides nothing."""


@dataclass(frozen=True, slots=True)
class AppendOptions:
    """What to run, as it was resolved."""

    connections: int
    in_flight: int
    seconds: float
    content_bytes: int
    joined: bool
    directory: Path
    url: str | None = None
    archive: str | None = None
    beside_bare: bool = False
    archive_down: bool = False
    rounds: int = 1


class OptionsError(Exception):
    """These options do not go together."""


async def run_append(options: AppendOptions) -> AppendReport:
    """Measure one server under one load, in each round anew.

    Raises:
        OptionsError: What was asked for makes no sense.
        ChildError, OutageError, ServerError: There is nothing to report.
    """
    _check(options)
    raise_descriptor_limit()
    options.directory.mkdir(parents=True, exist_ok=True)
    environment = read_environment(options.directory)
    config = msgspec.to_builtins(asdict(options) | {"directory": str(options.directory)})
    progress(f"config       {config}")
    progress(f"environment  {asdict(environment)}")
    real: list[Measured] = []
    bare: list[Measured] = []
    with _fresh_directory(options) as kept:
        for number in range(1, options.rounds + 1):
            if options.rounds > 1:
                progress(f"round        {number} of {options.rounds}")
            real.append(await _measure_real(options, kept))
            if options.beside_bare:
                progress("the bare server")
                bare.append(await _measure_bare(options))
    return report_rounds(real, bare, config=config, environment=environment)


def raise_descriptor_limit() -> None:
    """Allow as many sockets as the system lets us have; children inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _check(options: AppendOptions) -> None:
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


async def _measure_real(options: AppendOptions, kept: Path) -> Measured:
    """Measure the server that was named, or one of our own.

    An archive that was named belongs to the first data directory that it saw, so that one is kept for
    all rounds. Otherwise both are new each time.
    """
    with _fresh_directory(options) as fresh:
        sync = _sync(fresh)
        if options.url is not None:
            return await measure(_plan(options, options.url), sync)
        archive = options.archive or sqlite_url(fresh)
        settings = {}
        held_back = None
        if options.archive_down:
            limit = unflushed_bytes_max(options.seconds + WARMUP_SECONDS, options.content_bytes)
            settings["unflushed-bytes-max"] = str(limit)
            held_back = archive_file(archive)
        directory = kept if options.archive else fresh
        async with open_server(ServerOptions(directory, archive, settings)) as server:
            await server.start()
            plan = _plan(options, server.url, server.pid)
            measured = await measure(plan, sync, held_back=held_back)
            await server.stop()
        return measured


async def _measure_bare(options: AppendOptions) -> Measured:
    with _fresh_directory(options) as fresh:
        sync = _sync(fresh)
        async with open_bare(fresh) as (url, pid):
            # It keeps nothing that could be replayed.
            return await measure(_plan(options, url, pid, verify=False), sync, watched=False)


@contextmanager
def _fresh_directory(options: AppendOptions) -> Iterator[Path]:
    """Make a directory on the disk that is measured."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        yield Path(name)


def _sync(directory: Path) -> SyncLatency:
    """Look how fast the disk is by itself."""
    sync = measure_sync_ms(directory)
    progress(f"fdatasync    p50 {sync.p50} ms, p99 {sync.p99} ms")
    return sync


def _plan(options: AppendOptions, url: str, pid: int | None = None, *, verify: bool = True) -> Plan:
    return Plan(
        url=url,
        connections=options.connections,
        in_flight=options.in_flight,
        seconds=options.seconds,
        warmup_seconds=WARMUP_SECONDS,
        content_bytes=options.content_bytes,
        joined=options.joined,
        run_id=secrets.token_hex(4),
        server_pid=pid,
        verify=verify,
    )
