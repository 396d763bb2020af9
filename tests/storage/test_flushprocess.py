"""The flush process: an archive's flush over there is the flush here, and its death loses nothing."""

import io
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import trio

from storage import (
    Archive,
    ArchiveConflictError,
    ArchiveSettingsError,
    ArchiveTooNewError,
    ArchiveUnavailableError,
    CursorMismatchError,
    FencedError,
    Flusher,
    FlushOptions,
    FlushProcess,
    StorageError,
    flushlink,
    open_archive,
    open_flush_process,
)
from storage.sqlite import BUSY_SECONDS
from tests.contracts.archive import NODE
from tests.storage.archive_records import message, messages, read, read_session, session_row
from tests.storage.flushing import FlushedLog, assert_archived, running

ENDED_SECONDS_MAX = 10


@pytest.fixture
async def process(archive: Archive, archive_url: str) -> AsyncIterator[FlushProcess]:
    """A flush process for an archive in which a node has begun its first epoch."""
    await trio.to_thread.run_sync(archive.begin_epoch, NODE, "local")
    async with open_flush_process(archive_url) as process:
        yield process


def kill(process: FlushProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)


async def test_every_kind_of_record_arrives_as_it_was(
    archive: Archive, process: FlushProcess
) -> None:
    bodies = [b'{"seq":1,"content":"\xc3\xa9\\u0000"}', b'{"seq":2}', b"x" * 700_000]
    new = [message(seq, body=body) for seq, body in enumerate(bodies, start=1)]
    await process.flush(NODE, 1, 0, [session_row(members=("bob",)), *new, read("bob", 2)])
    assert archive.read_messages("default", "s1") == list(enumerate(bodies, start=1))
    snapshot = read_session(archive, "default", "s1")
    assert snapshot is not None
    assert snapshot.reads == {"bob": 2}
    assert archive.read_cursor(NODE).cursor == 5


async def test_a_flush_of_any_size_is_one_flush(archive: Archive, process: FlushProcess) -> None:
    cursor = 0
    for count in (0, 1, 5_000):
        await process.flush(NODE, 1, cursor, messages(cursor + 1, cursor + count))
        cursor += count
        assert archive.read_cursor(NODE).cursor == cursor
    assert len(archive.read_messages("default", "s1", limit=cursor + 1)) == cursor


async def test_refusals_are_raised_here_and_the_process_goes_on(
    archive: Archive, process: FlushProcess
) -> None:
    await process.flush(NODE, 1, 0, messages(1, 3))
    with pytest.raises(CursorMismatchError) as mismatch:
        await process.flush(NODE, 1, 7, messages(8, 9))
    assert (mismatch.value.expected, mismatch.value.found) == (7, 3)
    with pytest.raises(ArchiveConflictError):
        await process.flush(NODE, 1, 3, [message(2, body=b'{"seq":"other"}')])
    with pytest.raises(FencedError):
        await process.flush(NODE, 2, 3, messages(4, 5))
    await process.flush(NODE, 1, 3, messages(4, 5))
    assert process.starts == 1
    assert archive.read_cursor(NODE).cursor == 5


@pytest.mark.parametrize(
    "error",
    [
        ArchiveConflictError("messages", "default/s1/2"),
        ArchiveSettingsError("fsync", "off", "on"),
        ArchiveTooNewError("0009", "0002"),
        ArchiveUnavailableError("no route", "ask the network"),
        CursorMismatchError(7, 3),
        FencedError(NODE, 4),
    ],
)
def test_an_error_is_the_same_after_it_was_sent(error: StorageError) -> None:
    sent = io.BytesIO(flushlink.encode(flushlink.refuse(error)))
    reply = flushlink.decode_reply(flushlink.receive(sent))
    assert isinstance(reply, flushlink.Refused)
    received = flushlink.refusal(reply)
    assert type(received) is type(error)
    assert (str(received), received.hint, vars(received)) == (str(error), error.hint, vars(error))


async def test_an_archive_that_is_away_when_the_process_starts_is_used_when_it_is_back(
    tmp_path: Path, sqlite_url: str
) -> None:
    tmp_path.joinpath("archive.db").mkdir()  # no file can be opened there
    async with open_flush_process(sqlite_url) as process:
        with pytest.raises(ArchiveUnavailableError):
            await process.flush(NODE, 1, 0, messages(1, 2))
        tmp_path.joinpath("archive.db").rmdir()
        with pytest.raises(FencedError):  # nobody has begun an epoch in what is there now
            await process.flush(NODE, 1, 0, messages(1, 2))
        assert process.starts == 1


async def test_a_system_without_an_open_file_left_is_an_archive_that_is_away(
    archive: Archive, process: FlushProcess
) -> None:
    kill(process)
    with pytest.raises(ArchiveUnavailableError, match="SIGKILL"):
        await process.flush(NODE, 1, 0, messages(1, 3))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(ArchiveUnavailableError, match="no flush process"):
            await process.flush(NODE, 1, 0, messages(1, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await process.flush(NODE, 1, 0, messages(1, 3))
    assert archive.read_cursor(NODE).cursor == 3


# A process that dies


async def test_a_process_that_was_killed_is_said_to_be_and_replaced(
    archive: Archive, process: FlushProcess
) -> None:
    await process.flush(NODE, 1, 0, messages(1, 3))
    kill(process)
    with pytest.raises(ArchiveUnavailableError, match="SIGKILL"):
        await process.flush(NODE, 1, 3, messages(4, 6))
    await process.flush(NODE, 1, 3, messages(4, 6))
    assert process.starts == 2
    assert archive.read_cursor(NODE).cursor == 6


async def test_wherever_the_process_is_killed_every_record_arrives_once(
    archive: Archive, process: FlushProcess
) -> None:
    log = FlushedLog()
    options = FlushOptions(rows_max=1_000, interval_ms=1, backoff_ms=1, backoff_ms_max=10)
    flusher = Flusher(
        process, NODE, 1, 0, on_flushed=log.on_flushed, reread=log.reread, options=options
    )
    async with running(flusher):
        for kills in range(6):
            flusher.extend(log.append(2_000))
            # At another point of a flush every time: while it is sent, applied, committed, answered.
            await trio.sleep(0.008 * kills)
            with suppress(ProcessLookupError, AssertionError):
                kill(process)
            await flusher.flush_all()
    assert process.starts > 3
    assert log.rereads == []  # nothing was taken for committed that was not
    assert_archived(archive, log)


async def test_a_mistake_in_the_process_is_fatal_and_not_repeated(process: FlushProcess) -> None:
    with pytest.raises(RuntimeError, match="exit code 1"):
        await process.flush(NODE, 1, 0, ["no record"])  # type: ignore[list-item]


async def test_a_flush_that_was_begun_is_waited_for_whatever_is_cancelled(
    archive: Archive, process: FlushProcess
) -> None:
    with trio.move_on_after(0.005):
        await process.flush(NODE, 1, 0, messages(1, 5_000))
    assert archive.read_cursor(NODE).cursor == 5_000


# Its end


@contextmanager
def started() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A flush process as it is started, and the server's end of its socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "storage.flushworker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()
            process.communicate()


def test_it_ends_with_the_server_however_that_ends(sqlite_url: str) -> None:
    with started() as (process, link):
        link.sendall(flushlink.encode(flushlink.OpenArchive(sqlite_url)))
        request = flushlink.encode(flushlink.Flush(NODE, 1, 0, messages(1, 250)))
        link.sendall(request[: len(request) // 2])  # and the server dies
        link.close()
        assert process.wait(ENDED_SECONDS_MAX) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_database_that_hangs_does_not_keep_it_when_the_server_ends(
    tmp_path: Path, sqlite_url: str
) -> None:
    with closing(open_archive(sqlite_url)) as archive:
        archive.begin_epoch(NODE, "local")
    lock = sqlite3.connect(tmp_path / "archive.db", isolation_level=None)
    with closing(lock), started() as (process, link):
        link.sendall(flushlink.encode(flushlink.OpenArchive(sqlite_url)))
        link.sendall(flushlink.encode(flushlink.Flush(NODE, 1, 0, messages(1, 1))))
        assert link.recv(100) == flushlink.encode(flushlink.Flushed())
        lock.execute("BEGIN IMMEDIATE")
        link.sendall(flushlink.encode(flushlink.Flush(NODE, 1, 1, messages(2, 2))))
        link.settimeout(0.5)
        with pytest.raises(TimeoutError):
            link.recv(1)  # it waits for the lock
        link.close()
        process.wait(BUSY_SECONDS / 2)


def test_no_signal_ends_it_before_the_server(archive: Archive, archive_url: str) -> None:
    archive.begin_epoch(NODE, "local")
    with started() as (process, link):
        link.sendall(flushlink.encode(flushlink.OpenArchive(archive_url)))
        link.sendall(flushlink.encode(flushlink.Flush(NODE, 1, 0, messages(1, 1))))
        assert link.recv(100) == flushlink.encode(flushlink.Flushed())  # its signals are set by now
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        link.sendall(flushlink.encode(flushlink.Flush(NODE, 1, 1, messages(2, 2))))
        assert link.recv(100) == flushlink.encode(flushlink.Flushed())
    assert archive.read_cursor(NODE).cursor == 2


async def test_a_process_that_hangs_does_not_keep_the_server_from_ending(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.flushprocess.CLOSE_SECONDS", 0.1)
    async with open_flush_process(sqlite_url) as process:
        pid = process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
