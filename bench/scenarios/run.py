"""What every scenario does around its measurement: fresh directories, a server, rounds, one report."""

import resource
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.environment import SyncLatency, measure_sync_ms, read_environment
from bench.measurement import Watched
from bench.outage import archive_file
from bench.postgres import DURABLE_SETTINGS, open_private_postgres
from bench.processes import find_postmaster
from bench.report import Report, Round, make_report, progress
from bench.server import Server, ServerOptions, open_server, sqlite_url

POSTGRES = "postgres"
"""As an archive: a private PostgreSQL of the run's own, on the disk that is measured."""

WARMUP_SECONDS = 1.0
"""Until every connection has its window full and the interpreter has specialised the hot code."""


class OptionsError(Exception):
    """These options do not go together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What every scenario can be told."""

    directory: Path
    """Where fresh data directories are made: on the disk that is to be measured."""
    url: str | None = None
    """A server that runs already, instead of one of our own."""
    archive: str | None = None
    """An URL, or `POSTGRES`; SQLite in the data directory if None."""
    rounds: int = 1
    warmup_seconds: float = WARMUP_SECONDS


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured in one round."""

    url: str
    sync: SyncLatency
    server: Server | None = None
    """None if it is not ours."""
    archive: str | None = None
    postmaster_pid: int | None = None
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def watched(self) -> Watched:
        """What can be looked at from outside."""
        return Watched(self.server.pid if self.server else None, self.postmaster_pid)

    @property
    def own_server(self) -> Server:
        """The server, where the scenario made sure that it is ours."""
        assert self.server is not None
        return self.server

    @property
    def crash(self) -> Callable[[], Awaitable[None]] | None:
        """Kill the server and start it again, if it is ours."""
        return None if self.server is None else self.server.crash

    @property
    def archive_file(self) -> Path | None:
        """The file of an SQLite archive."""
        return None if self.archive is None else archive_file(self.archive)


async def run_rounds(
    scenario: str,
    options: RunOptions,
    one_round: Callable[[Target], Awaitable[Round]],
    settings: Mapping[str, str] | None = None,
    after_round: Callable[[Round], Awaitable[None]] | None = None,
) -> Report:
    """Measure so often, each time on a fresh server, and report.

    `after_round` is called when that server is gone, with what was found.

    Raises:
        ChildError, OptionsError, OutageError, ServerError, WireError: There is nothing to report.
    """
    if options.url is not None:
        _check_url(options.url)
    prepare(options)
    environment = read_environment(options.directory)
    config = resolved(options)
    progress(f"{scenario}: {_words(config)}")
    progress(f"on {_words(asdict(environment))}")
    rounds = []
    async with open_archive(options) as archive:
        for number in range(1, options.rounds + 1):
            if options.rounds > 1:
                progress(f"round {number} of {options.rounds}")
            async with open_target(options, archive, settings or {}) as target:
                made = await one_round(target)
            if after_round is not None:
                await after_round(made)
            rounds.append(made)
    return make_report(scenario, rounds, config=config, environment=environment)


def prepare(options: RunOptions) -> None:
    """Make room: a directory, and as many sockets as the system lets us have; children inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options.directory.mkdir(parents=True, exist_ok=True)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    try:
        known = parts.scheme == "ws" and parts.hostname and parts.port
    except ValueError:
        known = False
    if not known:
        raise OptionsError(f"--url {url}: give ws://HOST:PORT/v1/ws")


def resolved(options: RunOptions) -> dict[str, str | int | float | bool | None]:
    """Return every option with its value, as a report carries it.

    But for the directory: of that the file system counts, and the environment names it.
    """
    config: dict[str, str | int | float | bool | None] = msgspec.to_builtins(
        {name: value for name, value in asdict(options).items() if name != "directory"}
    )
    return config


@dataclass(frozen=True, slots=True)
class _Archive:
    """Where all rounds keep their messages, if they share it, and the data directory that goes with it."""

    url: str
    directory: Path


@asynccontextmanager
async def open_archive(options: RunOptions) -> AsyncIterator[_Archive | None]:
    """Yield the archive that all rounds share; None if each has one of its own.

    An archive belongs to the first data directory that it saw, so that one is kept for all rounds.
    """
    if options.archive is None or options.url is not None:
        yield None
        return
    with fresh_directory(options) as kept:
        if options.archive != POSTGRES:
            yield _Archive(options.archive, kept)
            return
        with open_private_postgres(DURABLE_SETTINGS, parent=options.directory) as postgres:
            yield _Archive(postgres.url(postgres.create_database()), kept)


@asynccontextmanager
async def open_target(
    options: RunOptions, archive: _Archive | None, settings: Mapping[str, str]
) -> AsyncIterator[Target]:
    """Start a server, or take the one that is named; it must end well."""
    async with AsyncExitStack() as stack:
        fresh = stack.enter_context(fresh_directory(options))
        sync = measure_sync_ms(fresh)
        progress(f"fdatasync alone p50 {sync.p50} ms, p99 {sync.p99} ms")
        if options.url is not None:
            yield Target(options.url, sync)
            return
        url = sqlite_url(fresh) if archive is None else archive.url
        directory = fresh if archive is None else archive.directory
        server = await stack.enter_async_context(
            open_server(ServerOptions(directory, url, settings))
        )
        await server.start()
        yield Target(server.url, sync, server, url, find_postmaster(url))
        await server.stop()


@contextmanager
def fresh_directory(options: RunOptions) -> Iterator[Path]:
    """Make a directory on the disk that is measured."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        yield Path(name)


def _words(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
