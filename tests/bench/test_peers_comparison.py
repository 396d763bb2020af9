"""Whole runs beside peers: real processes, a real disk, and no word about how fast."""

import dataclasses
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from bench.child import ChildError
from bench.peers import comparison, measurement, program
from bench.peers.catalogue import PEERS, Peer, Postgres, PostgresNotify, Ringlog
from bench.peers.comparison import RATIO, SYNCS, VERSION, report_absent, run_peers
from bench.peers.measurement import PeerFailedError, PeersOptions, count_syncs, measure_peer
from bench.peers.program import (
    INSTALL_COMMAND,
    NotInstalledError,
    PeerError,
    Running,
    Site,
    find_program,
    open_program,
    wait_listening,
)
from bench.peers.table import print_comparison
from bench.peers.tracer import Tracer
from bench.report import read_report, write_json
from bench.scenarios.run import OptionsError
from tests.fakes.redis import honest, open_fake_redis

OPTIONAL = [peer for peer in PEERS if not isinstance(peer, Postgres)]
"""The tests bring a PostgreSQL with them, and nothing else."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the user of a PostgreSQL started by root can reach: `tmp_path` is not."""
    with tempfile.TemporaryDirectory(prefix="ringlog-peers-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run finds here is never a figure, so it need not take long."""
    for name in ("WARMUP_SECONDS", "SYNCS_SECONDS", "SYNCS_WARMUP_SECONDS"):
        monkeypatch.setattr(measurement, name, 0.1)


def options(directory: Path) -> PeersOptions:
    return PeersOptions(directory=directory, connections=3, seconds=0.2)


class FakePeer(Peer):
    """A peer that is a thread, and may lie."""

    name = "fake"
    driver = "redis"
    note = "nothing"

    def __init__(self, fake: AbstractContextManager[str]) -> None:
        self._fake = fake

    def version(self) -> str:
        return "0"

    @asynccontextmanager
    async def open(self, site: Site) -> AsyncIterator[Running]:
        with self._fake as url:
            yield Running(url, ())


class MissingPeer(FakePeer):
    name = "missing"

    def version(self) -> str:
        return find_program("no-such-program", "apt-get install no-such-program")


@pytest.mark.postgres
async def test_postgres_does_the_same_work_and_keeps_its_word(directory: Path) -> None:
    made = await measure_peer(Postgres(), options(directory))
    assert made.verdict["ok"], made.examples
    assert made.acked > 0


@pytest.mark.postgres
async def test_a_whole_run_compares_rates_and_syncs(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = PostgresNotify()
    report = await run_peers(options(directory), [peer])
    (other,) = report.beside
    assert report.ok, (report.examples, other.examples)
    assert report.acked > 0
    assert other.acked > 0
    assert other.metric(RATIO) is not None
    if Tracer.is_installed():
        for each in (report, other):
            syncs = each.metric(SYNCS)
            assert syncs is not None
            assert 0 < syncs.median <= 1.5
    else:
        assert "syncs not counted: apt-get install strace" in other.warnings
    write_json(report, directory / "report.json")
    assert read_report(directory / "report.json").beside[0].config[VERSION] == peer.version()
    print_comparison(report)
    printed = capsys.readouterr().out
    for name in ("ringlog", peer.name, "syncs/ack", "kept"):
        assert name in printed


@pytest.mark.parametrize("peer", OPTIONAL, ids=lambda peer: peer.name)
async def test_an_optional_peer_does_the_same_work_or_is_named_with_its_command(
    directory: Path, peer: Peer
) -> None:
    try:
        peer.version()
    except NotInstalledError as error:
        assert str(error).startswith(("apt-get install ", INSTALL_COMMAND))  # noqa: PT017
        return
    made = await measure_peer(peer, options(directory))
    assert made.verdict["ok"], made.examples
    assert made.acked > 0


async def test_a_peer_that_lost_what_it_acknowledged_is_caught(directory: Path) -> None:
    liar = FakePeer(open_fake_redis(lambda contents: contents[:-1]))
    made = await measure_peer(liar, options(directory))
    assert made.verdict["ok"] is False
    assert made.verdict["lost"] == 3


async def test_the_others_are_measured_when_one_fails(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = FakePeer(open_fake_redis(honest, refuse_after=5))
    report = await run_peers(options(directory), [refusing, MissingPeer(open_fake_redis())])
    (other,) = report.beside
    assert not report.ok
    assert report.verdict["ok"]
    assert report.rate_per_second
    assert (other.rate_per_second, other.metrics) == (None, [])
    assert "OOM" in other.failures[0]
    print_comparison(report)
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert "OOM" in printed
    assert "not installed: apt-get install no-such-program" in printed


class OddPeer(FakePeer):
    """A peer that fails in one round, if in any, in a way that nobody thought of."""

    def __init__(self, name: str, fails: int | None = None) -> None:
        self.name = name
        self._fails = fails
        self._rounds = 0

    @asynccontextmanager
    async def open(self, site: Site) -> AsyncIterator[Running]:
        self._rounds += 1
        async with trio.open_nursery():
            if self._rounds == self._fails:
                raise ChildError("the generator exited with -11")
            with open_fake_redis() as url:
                yield Running(url, ())


async def test_one_odd_failure_discards_nothing_else(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "_RINGLOG", OddPeer("ringlog"))
    monkeypatch.setattr(Tracer, "is_installed", lambda: False)
    thrice = dataclasses.replace(options(directory), rounds=3)
    report = await run_peers(thrice, [OddPeer("fake", fails=2)])
    (other,) = report.beside
    assert report.ok
    assert not report.is_whole
    assert report.failures == []
    assert other.failures == ["round 2 of 3 failed: ChildError: the generator exited with -11"]
    rate, ratio = other.metric("rate"), other.metric(RATIO)
    assert rate is not None
    assert ratio is not None
    assert (len(rate.values), rate.missing) == (2, [2])
    assert (len(ratio.values), ratio.missing) == (2, [2])
    print_comparison(report)
    printed = capsys.readouterr().out
    assert "kept in 2 of 3 rounds" in printed
    assert "the generator exited with -11" in printed


async def test_a_tracer_that_saw_nothing_is_no_peer_that_never_syncs(directory: Path) -> None:
    with pytest.raises(PeerFailedError, match="strace saw none"):
        await count_syncs(FakePeer(open_fake_redis()), options(directory))


async def test_what_cannot_be_measured_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "INSTALLED", directory / "nothing")
    monkeypatch.setenv("PATH", str(directory / "nothing"))
    absent = {}
    for peer in PEERS:
        try:
            peer.version()
        except NotInstalledError as error:
            absent[peer.name] = str(error)
    commands = {
        "redis": "apt-get install redis-server",
        "redis-gateway": "apt-get install nodejs",
        "nats": "bench/peers/install.sh",
        "durable-streams": "apt-get install nodejs",
        "rakaia": "bench/peers/install.sh",
    }
    assert commands.items() <= absent.items()
    assert (Path(__file__).parent.parent.parent / program.INSTALL_COMMAND).stat().st_mode & 0o111


async def test_a_protocol_with_one_message_on_the_way_is_not_given_more(directory: Path) -> None:
    class Slow(FakePeer):
        pipelines = False

    more = PeersOptions(directory=directory, connections=2, in_flight=16, seconds=0.1, only="fake")
    report = await run_peers(more, [Slow(open_fake_redis())])
    assert report.beside == []
    assert report.ok
    assert report_absent(report)["fake"].startswith("n/a")


async def test_a_name_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    unknown = PeersOptions(directory=tmp_path, only="redis,mongo")
    with pytest.raises(OptionsError, match="there is no mongo; there are redis, redis-gateway"):
        await run_peers(unknown)
    assert list(tmp_path.iterdir()) == []


async def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such option')"]
    with (
        open_program(command, tmp_path) as process,
        pytest.raises(PeerError, match="no such option"),
    ):
        await wait_listening(process, 1, tmp_path)


async def test_no_peer_is_left_behind_when_a_run_is_cancelled(tmp_path: Path) -> None:
    pids: list[int] = []
    with trio.CancelScope() as run:
        async with Ringlog().open(Site(tmp_path, 1)) as running:
            pids += running.pids
            with open_program(["sleep", "100"], tmp_path) as process:
                pids.append(process.pid)
                run.cancel()
                await trio.sleep_forever()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_no_peer_outlives_a_bench_that_is_killed(tmp_path: Path) -> None:
    pid = start_and_kill_a_bench(tmp_path)
    with trio.fail_after(10):
        while runs(pid):
            await trio.sleep(0.02)


def start_and_kill_a_bench(directory: Path) -> int:
    """Return the process that was its peer."""
    script = (
        "import sys, pathlib\n"
        "from bench.peers.program import open_program\n"
        "with open_program(['sleep', '100'], pathlib.Path(sys.argv[1])) as process:\n"
        "    print(process.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
        # As if a shell had put it into the background.
        preexec_fn=lambda: signal.signal(signal.SIGQUIT, signal.SIG_IGN),  # noqa: PLW1509
    ) as bench:
        assert bench.stdout is not None
        pid = int(bench.stdout.readline())
        bench.send_signal(signal.SIGKILL)
    return pid


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
