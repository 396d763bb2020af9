import errno
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from storage.errors import (
    LogPoisonedError,
)
from storage.recovery import examine
from tests.fakes.directory import CrashingDirectory
from tests.fakes.run_sync import HeldRunSync
from tests.storage.logs import (
    NODE_ID,
    PREFIX,
    append,
    batches_on_disk,
    open_log,
    record,
    until_cancelled,
)


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_failed_commit_poisons_the_log_and_is_never_retried_or_acknowledged(
    operation: str,
) -> None:
    directory = CrashingDirectory()
    got: list[Any] = []
    log = None
    with pytest.raises(LogPoisonedError, match="Input/output error") as caught:
        async with open_log(directory, on_commit=got.extend) as (log, _):
            await trio.testing.wait_all_tasks_blocked()
            append(log, 2)
            await log.sync()
            directory.fail(operation, directory.counts[operation] + 1, errno.EIO)
            counts = directory.counts.copy()
            append(log, 2)
            with pytest.raises(LogPoisonedError):
                await log.wait_durable(4)
            await until_cancelled()
    assert isinstance(caught.value.__cause__, OSError)
    assert got == [0, 1]
    assert (directory.counts - counts)["sync"] == (operation == "sync")
    assert (directory.counts - counts)["write"] == 1
    assert log is not None
    assert (log.durable_lsn, log.statistics().poisoned) == (2, True)


async def test_everything_raises_after_the_log_failed() -> None:
    directory = CrashingDirectory()
    with pytest.raises(LogPoisonedError):
        async with open_log(directory) as (log, _):
            await trio.testing.wait_all_tasks_blocked()
            directory.fail("sync", directory.counts["sync"] + 1, errno.EIO)
            append(log)
            with trio.CancelScope(shield=True):
                with pytest.raises(LogPoisonedError):
                    await log.wait_durable(1)
                with pytest.raises(LogPoisonedError):
                    log.append(PREFIX, b"{}", None)
                with pytest.raises(LogPoisonedError):
                    log.after_commit(None)
                with pytest.raises(LogPoisonedError):
                    log.check_room(1)
                with pytest.raises(LogPoisonedError):
                    await log.sync()


async def test_after_a_failed_sync_the_page_cache_is_not_believed() -> None:
    """The kernel shows the lost records to the next process; that one writes them again, or not at all."""
    directory = CrashingDirectory()
    with pytest.raises(LogPoisonedError):
        async with open_log(directory) as (log, _):
            await trio.testing.wait_all_tasks_blocked()
            append(log, 2)
            await log.sync()
            directory.fail("sync", directory.counts["sync"] + 1, errno.EIO)
            append(log, 2)
            await until_cancelled()
    after = directory.restart()
    async with open_log(after, epoch=2) as (log, survivors):
        assert survivors == [record(lsn) for lsn in range(4)]
        append(log, 1)
        await log.sync()
        for seed in range(5):
            found = examine(after.crash(Random(seed)), node_id=NODE_ID, cursor=0)
            assert found.records == [record(lsn) for lsn in range(5)]


async def test_an_error_while_a_spare_is_made_poisons_the_log() -> None:
    directory = CrashingDirectory()
    directory.fail("allocate", 2, errno.EIO)
    with pytest.raises(LogPoisonedError, match="Input/output"):
        async with open_log(directory):
            await until_cancelled()


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_directory"])
async def test_an_error_while_opening_is_named(operation: str) -> None:
    directory = CrashingDirectory()
    directory.fail(operation, 1, errno.EIO)
    with pytest.raises(LogPoisonedError, match="Input/output"):
        async with open_log(directory):
            pytest.fail("it opened")


async def test_an_error_while_closing_is_named() -> None:
    directory = CrashingDirectory()
    with pytest.raises(LogPoisonedError, match="Input/output"):
        async with open_log(directory) as (log, _):
            await trio.testing.wait_all_tasks_blocked()
            append(log)
            await log.sync()
            directory.fail("sync", directory.counts["sync"] + 1, errno.EIO)  # the trailing frame


async def test_an_error_of_the_caller_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_log(CrashingDirectory()):
            raise KeyError


async def test_an_error_in_on_commit_ends_the_log() -> None:
    def on_commit(items: list[Any]) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        async with open_log(CrashingDirectory(), on_commit=on_commit) as (log, _):
            append(log)
            await until_cancelled()


async def test_a_closed_log_refuses_appends() -> None:
    async with open_log(CrashingDirectory()) as (log, _):
        pass
    with pytest.raises(LogPoisonedError, match="closed"):
        append(log)


async def test_a_commit_in_flight_is_finished_and_acknowledged_when_cancelled() -> None:
    directory = CrashingDirectory()
    held = HeldRunSync()
    got: list[Any] = []
    with trio.CancelScope() as scope:
        async with open_log(directory, on_commit=got.extend, run_sync=held) as (log, _):
            await trio.testing.wait_all_tasks_blocked()
            held.held = True
            append(log, 1)
            await trio.testing.wait_all_tasks_blocked()
            append(log, 1)
            scope.cancel()
            held.held = False
            held.release()
            await until_cancelled()
    assert got == [0]
    assert batches_on_disk(directory) == [1, 0]
