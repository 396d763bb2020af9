"""A server whose disk fails, under real clients: all they were told stays true."""

import time
from pathlib import Path

import pytest
import trio

from bench.channel import user_url
from bench.server import Server, sqlite_url
from tests.crash.rounds import CrashResult, Disturb, Load, replay_session
from tests.e2e.faults import Faults
from tests.e2e.under_load import SESSION, more, readiness, run_under_load, until_readiness
from tests.edge.server_process import server_process

pytestmark = pytest.mark.timeout(120)

RECOVERY_OPERATIONS = 12
"""After the lock: from removing the old spare to making the new one."""


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults")


async def run(tmp_path: Path, faults: Faults, disturb: Disturb) -> CrashResult:
    return await run_under_load(
        tmp_path, sqlite_url(tmp_path), disturb, environment=faults.environment
    )


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
            await until_readiness(server, "storage_full")
            # What is reserved is used up, and then nothing is acknowledged any more.
            stuck = -1
            while stuck < load.acknowledged:
                stuck = load.acknowledged
                await trio.sleep(0.7)
            assert "storage_full" in await readiness(server)
            replay = await replay_session(user_url(server.url, "owner"), SESSION)
            assert [message.seq for message in replay] == list(range(1, len(replay) + 1))
            assert len(replay) > 20
        # The server asks the disk every second; its clients come back after the five that it told them.
        assert await more(load) < 7

    await run(tmp_path, faults, disturb)


async def test_a_log_file_that_takes_no_more_lines_ends_nothing(
    tmp_path: Path, faults: Faults
) -> None:
    """Very likely it is on the disk that is full."""
    (tmp_path / "server.log").symlink_to("/dev/full")

    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        with faults.during("full"):
            await until_readiness(server, "storage_full")
        await more(load)

    result = await run(tmp_path, faults, disturb)
    assert result.reconnects == 0


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
