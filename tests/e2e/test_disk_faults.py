"""A server whose disk fails, under real clients: all they were told stays true."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from bench.channel import user_url
from bench.server import Server, sqlite_url
from tests.crash.rounds import CrashOptions, CrashResult, Disturb, Load, replay_session, run_crash
from tests.e2e.faults import Faults
from tests.edge.server_process import server_process

pytestmark = pytest.mark.timeout(120)

WAIT_SECONDS_MAX = 20.0

SESSION = "crash-1-shared-0"
"""One that several clients write to."""

RECOVERY_OPERATIONS = 12
"""After the lock: from removing the old spare to making the new one."""


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults")


async def run(tmp_path: Path, faults: Faults, disturb: Disturb, **settings: str) -> CrashResult:
    """Run clients against a server while `disturb` does its worst; nothing may be wrong."""
    options = CrashOptions(
        0,
        seed=1,
        directory=tmp_path,
        archive=sqlite_url(tmp_path),
        writers=4,
        readers=1,
        shared=2,
        settings={name.replace("_", "-"): value for name, value in settings.items()},
        environment=faults.environment,
    )
    result = await run_crash(options, disturb=disturb)
    assert result.findings.ok, result.findings.examples
    assert 100 < result.acknowledged <= result.replayed == result.archived
    return result


async def until(condition: Callable[[], bool]) -> float:
    """Wait for what clients see happen; return how many seconds that took."""
    began = trio.current_time()
    with trio.fail_after(WAIT_SECONDS_MAX):
        while not condition():
            await trio.sleep(0.01)
    return trio.current_time() - began


async def more(load: Load, messages: int = 50) -> float:
    """Wait until so many more messages are acknowledged; return how long that took."""
    enough = load.acknowledged + messages
    return await until(lambda: load.acknowledged >= enough)


async def readiness(server: Server) -> str:
    """Return what /readyz says."""

    def ask() -> str:
        url = server.url.replace("ws:", "http:").replace("/v1/ws", "/readyz")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                text: bytes = response.read()
        except urllib.error.HTTPError as refusal:
            text = refusal.read()
            refusal.close()
        return text.decode()

    return await trio.to_thread.run_sync(ask)


async def test_a_failed_sync_ends_the_server_and_nothing_it_said_is_lost(
    tmp_path: Path, faults: Faults
) -> None:
    async def disturb(server: Server, load: Load) -> None:
        for _ in range(3):
            await server.start()
            await more(load)
            faults.set("sync_error")
            began = time.monotonic()
            assert await server.wait_ended(5) == 70
            # A second, and what it takes to get there on a machine that does other things too.
            assert time.monotonic() - began < 2
        await server.start()
        await more(load)

    result = await run(tmp_path, faults, disturb)
    assert result.reconnects >= 3


async def test_a_full_disk_refuses_and_resumes_by_itself_while_readers_go_on(
    tmp_path: Path, faults: Faults
) -> None:
    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        await more(load)
        with faults.during("full"):
            while "storage_full" not in await readiness(server):
                await trio.sleep(0.05)
            # What is reserved is used up, and then nothing is acknowledged any more.
            stuck = -1
            while stuck < load.acknowledged:
                stuck = load.acknowledged
                await trio.sleep(0.7)
            assert "storage_full" in await readiness(server)
            replay = await replay_session(user_url(server.url, "owner"), SESSION)
            assert [message.seq for message in replay] == list(range(1, len(replay) + 1))
            assert len(replay) > 20
        assert await more(load) < 5

    await run(tmp_path, faults, disturb)


async def test_short_writes_are_continued(tmp_path: Path, faults: Faults) -> None:
    async def disturb(server: Server, load: Load) -> None:
        faults.set("short_writes")
        for _ in range(2):
            await server.start()
            await more(load)
            await server.kill()
        await server.start()
        await more(load)

    await run(tmp_path, faults, disturb)


async def test_a_slow_disk_delays_answers_and_nothing_else(tmp_path: Path, faults: Faults) -> None:
    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        await more(load)
        with faults.during("slow_sync", 0.7):
            await more(load, 10)
            for _ in range(5):
                began = time.monotonic()
                await readiness(server)
                assert time.monotonic() - began < 0.5
            await more(load, 10)
            # Killed in the middle of a sync, most likely.
            await server.kill()
        await server.start()
        await more(load)

    await run(tmp_path, faults, disturb)


async def test_kills_at_every_step_of_a_start_lose_nothing(tmp_path: Path, faults: Faults) -> None:
    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        await more(load)
        # What is acknowledged now is in the log alone: the next starts have something to recover.
        await server.kill()
        for operation in range(RECOVERY_OPERATIONS):
            with faults.during("kill_at", 2 + operation):
                await server.spawn()
                assert await server.wait_ended(10) == -9
        await server.start()
        await more(load)

    await run(tmp_path, faults, disturb)


async def test_a_second_process_is_refused_and_the_first_feels_nothing(
    tmp_path: Path, faults: Faults
) -> None:
    def start_second() -> tuple[int, list[str]]:
        with server_process(tmp_path / "data", f"--archive={sqlite_url(tmp_path)}") as second:
            return second.wait(), second.lines

    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        await more(load)
        for _ in range(3):
            code, lines = await trio.to_thread.run_sync(start_second)
            assert code == 1
            assert f"is in use by process {server.pid}" in lines[-1]
        await more(load)

    result = await run(tmp_path, faults, disturb)
    assert result.reconnects == 0
