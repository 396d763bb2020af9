"""How long is a server away when it is killed, and what decides that?

The archive is held back (`bench/blockade.py`) while so many MiB are written, so that the log alone has them;
then the server is killed, the archive let go, and a new process started. Counted from there: when it is ready,
when a client that knocked then has its first answer to a join, and when its first message is acknowledged.

Each amount is tried on a server of its own, with a small archive and with a large one: what was flushed before
must not matter. With nothing unflushed one sees what the start of the process takes by itself. In the end
everything that was acknowledged is replayed.
"""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import product

import trio

from bench.blockade import hold
from bench.checker import Findings
from bench.environment import SyncLatency, read_environment
from bench.loads.written import WrittenSession, open_channel, replay_over, write_session
from bench.outage import LIMIT_BYTES_MAX, MESSAGE_BYTES_MAX, wait_caught_up
from bench.postgres import DURABLE_SETTINGS, PostgresServer, open_private_postgres
from bench.probe import Probe
from bench.protocol import Join, Joined
from bench.report import MIB, Better, Figure, Report, Round, make_report, progress
from bench.scenarios.run import (
    POSTGRES,
    OptionsError,
    RunOptions,
    Target,
    open_archive,
    open_target,
    prepare,
    resolved,
)

SESSION_MESSAGES = 10_000
"""What is written is cut into sessions of so many."""

RECORD_BYTES = 14
"""What the log adds to the line of a message (docs/operations.md)."""

UNFLUSHED_MIB = (0, 16, 64)
"""Nothing, a second under full load, and what an outage of the archive leaves."""

HISTORY_MESSAGES = (0, 200_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverOptions(RunOptions):
    """What to run, as it was resolved."""

    unflushed: Sequence[int] = UNFLUSHED_MIB
    """MiB in the log that the archive does not have."""
    history: Sequence[int] = HISTORY_MESSAGES
    """Messages in the archive before that."""
    content_bytes: int = 200


@dataclass(frozen=True, slots=True)
class Case:
    """What a server has when it is killed."""

    unflushed_mib: int
    archived: int
    """Messages."""

    def __str__(self) -> str:
        return f"{self.unflushed_mib} MiB unflushed, {self.archived:,} archived"


@dataclass(slots=True)
class Recovery:
    """One server that came back: seconds since its process was started."""

    records: int
    """That the archive did not have."""
    ready: float
    joined: float
    acked: float


@dataclass(slots=True)
class _Written:
    """What was promised before the server was killed."""

    sessions: list[WrittenSession] = field(default_factory=list)

    def write(self, target: Target, messages: int, content_bytes: int) -> None:
        """Write sessions with so many messages altogether."""
        for count in session_lengths(messages):
            name = f"bench-{target.run_id}-{len(self.sessions)}"
            self.sessions.append(write_session(target.url, name, count, content_bytes))


async def run_recover(options: RecoverOptions) -> Report:
    """Measure each case in each round, on a fresh server.

    Raises:
        OptionsError: What was asked for makes no sense.
        OutageError, ServerError, WireError: There is nothing to report.
    """
    check(options)
    prepare(options)
    environment = read_environment(options.directory)
    rounds = []
    with _open_postgres(options) as postgres:
        for number in range(1, options.rounds + 1):
            progress(f"recover: round {number} of {options.rounds}")
            rounds.append(await _measure(options, postgres))
    config = {name: _flat(value) for name, value in resolved(options).items()}
    return make_report("recover", rounds, config=config, environment=environment)


def check(options: RecoverOptions) -> None:
    """Refuse what makes no sense.

    Raises:
        OptionsError: It makes none.
    """
    if options.url is not None:
        raise OptionsError("recover kills the server: not with --url")
    if options.archive not in {None, POSTGRES}:
        raise OptionsError(
            "recover needs a fresh archive for each case: --archive postgres makes some, no URL does"
        )
    if not options.unflushed or not options.history:
        raise OptionsError("--unflushed and --history: one value each at least")


def _flat(value: object) -> str | int | float | bool | None:
    """Return a list as it is given on the command line: a report carries no lists."""
    if isinstance(value, list | tuple):
        return " ".join(str(each) for each in value)
    assert value is None or isinstance(value, str | int | float)
    return value


@contextmanager
def _open_postgres(options: RecoverOptions) -> Iterator[PostgresServer | None]:
    """Start the database server for all cases; None if their archives are files."""
    if options.archive is None:
        yield None
        return
    with open_private_postgres(DURABLE_SETTINGS, parent=options.directory) as postgres:
        yield postgres


@asynccontextmanager
async def _open_case(
    options: RecoverOptions, case: Case, postgres: PostgresServer | None
) -> AsyncIterator[Target]:
    """Start a server with an archive that no other case has seen."""
    url = None if postgres is None else postgres.url(postgres.create_database())
    own = replace(options, archive=url)
    settings = settings_for(case, options.content_bytes)
    async with open_archive(own) as archive, open_target(own, archive, settings) as target:
        yield target


async def _measure(options: RecoverOptions, postgres: PostgresServer | None) -> Round:
    findings = Findings()
    recoveries: dict[Case, Recovery] = {}
    syncs: list[SyncLatency] = []
    acked = 0
    for archived, mib in product(options.history, options.unflushed):
        case = Case(mib, archived)
        async with _open_case(options, case, postgres) as target:
            written = _Written()
            recoveries[case] = await _recover(case, options.content_bytes, target, written)
            await trio.to_thread.run_sync(check_all, target.url, written.sessions, findings)
        syncs.append(target.sync)
        acked += sum(session.count for session in written.sessions)
        progress(f"{case}: ready after {recoveries[case].ready:.2f} s")
    return Round(
        sync=syncs[0],
        figures=recovery_figures(recoveries),
        acked=acked,
        verdict=findings.verdict(),
        examples=findings.examples,
    )


def settings_for(case: Case, content_bytes: int) -> Mapping[str, str]:
    """Return settings with which nothing is refused: neither history nor what waits for the archive."""
    # No message is shorter than its content, so this is more of them than there can be.
    messages = case.archived + case.unflushed_mib * MIB // content_bytes
    limit = max(MIB, messages * (content_bytes + MESSAGE_BYTES_MAX))
    return {"unflushed-bytes-max": str(min(LIMIT_BYTES_MAX, limit))}


def session_lengths(messages: int) -> Iterator[int]:
    """Yield how many messages each session gets."""
    for first in range(0, messages, SESSION_MESSAGES):
        yield min(SESSION_MESSAGES, messages - first)


async def _recover(case: Case, content_bytes: int, target: Target, written: _Written) -> Recovery:
    """Fill the archive, then the log; kill, and time the start."""
    assert target.archive is not None

    async def write(messages: int) -> None:
        await trio.to_thread.run_sync(written.write, target, messages, content_bytes)

    # There is one message at least: a session to join afterwards, whatever the case.
    await write(max(1, case.archived))
    line_bytes = await trio.to_thread.run_sync(_line_bytes, target.url, written.sessions[0])
    with closing(Probe(target.url)) as probe:
        await wait_caught_up(probe)
        async with hold(target.archive):
            await write(case.unflushed_mib * MIB // (line_bytes + RECORD_BYTES))
            sample = await probe.look()
            records = 0 if sample is None else sample.backlog_records
            await target.own_server.kill()
    began = time.perf_counter()
    await target.own_server.spawn()
    await target.own_server.wait_ready()
    ready = time.perf_counter() - began
    joined, acked = await trio.to_thread.run_sync(_knock, target.url, written.sessions[-1])
    return Recovery(records, ready, joined - began, acked - began)


def _line_bytes(url: str, written: WrittenSession) -> int:
    """Return how long the line of a message is: it is shown as it is stored."""
    with open_channel(url, written.user) as channel:
        channel.send(Join(ref="line", session=written.name, last_seq=0))
        channel.wait_for(Joined)
        return len(next(channel.payloads()))


def _knock(url: str, written: WrittenSession) -> tuple[float, float]:
    """Join a session at its head and append to it; return when each was answered."""
    with open_channel(url, written.user) as channel:
        channel.send(Join(ref="join", session=written.name, last_seq=written.count))
        channel.wait_for(Joined)
        joined = time.perf_counter()
        written.append(channel, 1)
        return joined, time.perf_counter()


def check_all(url: str, sessions: Sequence[WrittenSession], findings: Findings) -> None:
    """Compare a replay of each with what was acknowledged, before and after the server was killed."""
    for written in sessions:
        written.check(replay_over(url, written), findings)


def recovery_figures(recoveries: Mapping[Case, Recovery]) -> list[Figure]:
    """Return each case's times, and what the largest archive costs beside the smallest."""
    figures = []
    for case, recovery in recoveries.items():
        seconds = asdict(recovery)
        records = seconds.pop("records")
        figures += [
            Figure(f"{name} with {case}", round(value, 3), "s") for name, value in seconds.items()
        ]
        figures.append(Figure(f"waited with {case}", records, "records", Better.NEITHER))
    archived = [case.archived for case in recoveries]
    small, large = min(archived), max(archived)
    if small == large:
        return figures
    for mib in dict.fromkeys(case.unflushed_mib for case in recoveries):
        ratio = recoveries[Case(mib, large)].ready / recoveries[Case(mib, small)].ready
        name = f"ready with {mib} MiB unflushed, large archive over small"
        figures.append(Figure(name, round(ratio, 3)))
    return figures
