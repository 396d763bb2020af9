"""How many durable appends a second, and how long does one wait for its ack?"""

import resource
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import trio

from bench.environment import measure_sync_ms, read_environment
from bench.generator import Outcome, Plan
from bench.report import AppendReport, progress
from bench.server import ServerOptions, open_server, sqlite_url

WARMUP_SECONDS = 1.0
"""Until every connection has its window full and the interpreter has specialised the hot code."""


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


class GeneratorError(Exception):
    """The load generator gave up; it said why on stderr."""


async def run_append(options: AppendOptions) -> AppendReport:
    """Measure one server under one load.

    Raises:
        GeneratorError: There is nothing to report.
    """
    raise_descriptor_limit()
    options.directory.mkdir(parents=True, exist_ok=True)
    environment = read_environment(options.directory)
    config = msgspec.to_builtins(asdict(options) | {"directory": str(options.directory)})
    progress(f"config       {config}")
    progress(f"environment  {asdict(environment)}")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as fresh:
        sync = measure_sync_ms(Path(fresh))
        progress(f"fdatasync    p50 {sync.p50} ms, p99 {sync.p99} ms")
        async with _server(options, Path(fresh)) as (url, pid):
            outcome = await _generate(
                Plan(
                    url=url,
                    connections=options.connections,
                    in_flight=options.in_flight,
                    seconds=options.seconds,
                    warmup_seconds=WARMUP_SECONDS,
                    content_bytes=options.content_bytes,
                    joined=options.joined,
                    run_id=secrets.token_hex(4),
                    server_pid=pid,
                )
            )
    return AppendReport(
        scenario="append",
        config=config,
        environment=environment,
        rate_per_second=outcome.rate_per_second if outcome.verdict["ok"] else None,
        acked=outcome.acked,
        refused=outcome.refused,
        ack_ms=outcome.ack_ms,
        fdatasync_ms=sync,
        server_cpu=outcome.server_cpu,
        server_rss_bytes=outcome.server_rss_bytes,
        generator_cpu=outcome.generator_cpu,
        verdict=outcome.verdict,
        examples=outcome.examples,
    )


def raise_descriptor_limit() -> None:
    """Allow as many sockets as the system lets us have; children inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def _server(options: AppendOptions, fresh: Path) -> AsyncIterator[tuple[str, int | None]]:
    """Start our own server, or take the one that was named."""
    if options.url is not None:
        yield options.url, None
        return
    archive = options.archive or sqlite_url(fresh)
    async with open_server(ServerOptions(fresh, archive)) as server:
        await server.start()
        yield server.url, server.pid
        await server.stop()


async def _generate(plan: Plan) -> Outcome:
    done = await trio.run_process(
        [sys.executable, "-m", "bench.generator"],
        stdin=msgspec.json.encode(plan),
        capture_stdout=True,
        check=False,
    )
    if done.returncode != 0:
        raise GeneratorError(f"the load generator exited with {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Outcome)
