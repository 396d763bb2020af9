"""The promise of a whole node, under any interleaving of work and crashes.

The log is on a disk that loses what was not synced (`CrashingDirectory`); the archive is SQLite on a real
one, and keeps what it committed. `SessionPromises` watches from outside.
"""

import errno
import functools
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runtime import (
    NodeOptions,
    SessionError,
    SessionServer,
    Tail,
)
from storage import (
    ArchiveUnavailableError,
    FlushOptions,
    LogOptions,
    LogPoisonedError,
    StorageError,
    StorageFullError,
    open_archive,
)
from storage.archiveopening import _open_dialect
from tests.fakes.directory import CrashingDirectory, PowerCutError
from tests.runtime.lives import FailingArchive, Life
from tests.runtime.loop_thread import LoopThread
from tests.runtime.promises import Reader, Reply, SessionPromises

W = "default"
SESSIONS = ("s0", "s1")
HOUR = 3600.0

session_ids = st.sampled_from(SESSIONS)
seeds = st.integers(0, 2**32)
# A batch is a write and a sync: most of what is interesting happens at once.
operation_counts = st.integers(0, 3) | st.integers(0, 20)


class Promise(RuleBasedStateMachine):
    """One node through all its lives."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = LoopThread()
        self.folder = Path(tempfile.mkdtemp(prefix="ringlog-promise-"))
        self.promises = {session: SessionPromises() for session in SESSIONS}
        self.readers = {session: Reader(self.promises[session]) for session in SESSIONS}
        self.directory = CrashingDirectory()
        self.messages = 0

    @initialize(keeps_segments=st.booleans())
    def begin(self, keeps_segments: bool) -> None:
        self.options = NodeOptions(
            data_dir=self.folder,
            log=LogOptions(
                segment_bytes=32 * 1024,
                batch_bytes_max=2048,
                retention_seconds=HOUR if keeps_segments else 0,
                idle_sync_seconds=0.002,
            ),
            # Nothing is flushed for being late: the rules say when.
            flush=FlushOptions(rows_max=8, interval_ms=60_000, backoff_ms=1, backoff_ms_max=2),
            unflushed_bytes_max=160 * 1024,
            idle_seconds=HOUR,
        )
        self.keeps_segments = keeps_segments
        (self.folder / "archive.db").write_bytes(empty_archive())
        self._open_archive()
        self._start()
        for session in SESSIONS:
            info, created = self.loop.run(self._create, session)
            assert created
            self.promises[session].confirm_version(info)

    # What clients do.

    @rule(
        session=session_ids,
        count=st.integers(1, 12),
        padding=st.integers(0, 2_000),
        times=st.integers(1, 2),
    )
    def append(self, session: str, count: int, padding: int = 0, times: int = 1) -> None:
        """Send new messages, perhaps twice in a row, and do not wait for the answers."""
        sent = self.promises[session].sent
        for _ in range(count):
            self.messages += 1
            client_id = f"c{self.messages}"
            sent[client_id] = b'{"n":%d,"padding":"%s"}' % (self.messages, b"x" * padding)
            self._call(self._send, session, client_id, times)

    @rule(session=session_ids, data=st.data())
    def resend(self, session: str, data: st.DataObject) -> None:
        """Send again what was sent before, acknowledged or not."""
        sent = list(self.promises[session].sent)
        if sent:
            index = data.draw(st.integers(0, len(sent) - 1))
            self._call(self._send, session, sent[index])

    @rule()
    def sync(self) -> None:
        self._call(self._sync)

    @rule(session=session_ids)
    def mark_read(self, session: str) -> None:
        self._call(self._mark_read, session)

    @rule(session=session_ids)
    def change(self, session: str) -> None:
        self._call(self._change, session)

    @rule(session=session_ids, room=st.integers(0, 30))
    def read(self, session: str, room: int) -> None:
        self._call(self._give, session, room)

    @rule()
    def replay(self) -> None:
        if not self.archive.is_away:
            self._call(self._check_replays)

    # What happens inside.

    @rule()
    def flush(self) -> None:
        self._call(self._flush)

    @rule()
    def deactivate(self) -> None:
        self._call(self._deactivate)

    @rule()
    def join(self) -> None:
        self._call(self._join)

    @rule(pauses=st.integers(1, 30))
    def let_tasks_run(self, pauses: int) -> None:
        self._call(self._pause, pauses)

    # What goes wrong.

    @rule()
    def archive_goes_away(self) -> None:
        self.archive.is_away = True

    @rule(replies=st.integers(0, 2))
    def archive_is_back(self, replies: int) -> None:
        self.archive.is_away = False
        self.archive.replies_to_lose = replies

    @rule(session=session_ids, operations=operation_counts, seed=seeds)
    def power_cut(self, session: str, operations: int, seed: int) -> None:
        """The power goes during one of the disk's next operations."""
        self.directory.faults.power_cut_at = self.directory.counts["all"] + 1 + operations
        self.append(session, 3)
        self.sync()
        self.loop.run(self.life.crash)
        self._restart(self.directory.crash(Random(seed)))

    @rule(operations=st.integers(0, 25), seed=seeds, killed=st.booleans())
    def power_cut_while_starting(self, operations: int, seed: int, killed: bool) -> None:
        self.loop.run(self.life.crash)
        before = self.directory
        self.directory = before.restart() if killed else before.crash(Random(seed))
        self.directory.faults.power_cut_at = operations
        self.archive.is_away = False
        # It may be full as well, and then a start that has something to recover is refused.
        with suppress(PowerCutError, LogPoisonedError, StorageFullError):
            self._start()
            self.loop.run(self.life.crash)
        self._restart(self.directory.crash(Random(seed + 1)))

    @rule(session=session_ids, operations=operation_counts)
    def kill(self, session: str, operations: int) -> None:
        """`kill -9`: what was written is all there, and nobody knows what of it is durable."""
        self.directory.faults.power_cut_at = self.directory.counts["all"] + 1 + operations
        self.append(session, 3)
        self.sync()
        self.loop.run(self.life.crash)
        self._restart(self.directory.restart())

    @rule(
        session=session_ids,
        operation=st.sampled_from(["write", "sync", "sync_directory"]),
        nth=st.integers(1, 3),
        seed=st.none() | seeds,
    )
    def disk_error(self, session: str, operation: str, nth: int, seed: int | None) -> None:
        """An operation fails: the node gives up by itself, if it comes to that operation."""
        count = self.directory.counts[operation] + nth
        self.directory.fail(operation, count, errno.EIO)
        self.append(session, 3)
        self.sync()
        self.loop.run(self.life.crash)
        after = self.directory.restart() if seed is None else self.directory.crash(Random(seed))
        self._restart(after)

    @rule()
    def disk_is_full(self) -> None:
        used = sum(len(self.directory.content(name)) for name in self.directory.names())
        self.directory.faults.capacity_bytes = used

    @rule()
    def disk_has_space(self) -> None:
        self.directory.faults.capacity_bytes = None

    @rule()
    def stop_and_start(self) -> None:
        self.loop.run(self.life.stop)
        self._restart(self.directory.restart())

    @precondition(lambda self: self.keeps_segments)
    @rule()
    def copy_archive(self) -> None:
        self.loop.run(self.life.crash)
        self.archive.close()
        shutil.copy(self.folder / "archive.db", self.folder / "copy.db")
        self._open_archive()
        self._restart(self.directory.restart())

    @precondition(lambda self: (self.folder / "copy.db").exists())
    @rule()
    def restore_archive(self) -> None:
        """The archive goes back to an older state while the node is down."""
        self.loop.run(self.life.crash)
        self.archive.close()
        shutil.copy(self.folder / "copy.db", self.folder / "archive.db")
        self._open_archive()
        self._restart(self.directory.restart())

    @precondition(lambda self: self.keeps_segments)
    @rule(session=session_ids, active=st.booleans())
    def fail_over(self, session: str, active: bool) -> None:
        """A standby that lacks the last commits takes over, and nobody tells the node."""
        if self.life.ended.is_set():
            return
        self._copy("archive.db", "standby.db")
        self.append(session, 5)
        self.flush()
        if not active:
            self.deactivate()
        self._copy("standby.db", "archive.db")
        self.append(session, 2, times=2)

    # How it ends.

    def teardown(self) -> None:
        try:
            if hasattr(self, "life"):
                self.loop.run(self.life.crash)
                self._restart(self.directory.crash(Random(0)))
                self.loop.run(self._check_archive)
                self.loop.run(self.life.stop)
                self.archive.close()
        finally:
            self.loop.close()
            shutil.rmtree(self.folder)

    def _copy(self, source: str, target: str) -> None:
        with (
            closing(sqlite3.connect(self.folder / source)) as old,
            closing(sqlite3.connect(self.folder / target)) as new,
        ):
            old.backup(new)

    def _open_archive(self) -> None:
        self.archive = FailingArchive(_open_dialect(f"sqlite:///{self.folder}/archive.db"))

    def _start(self) -> None:
        self.life = Life(self.options, self.archive, self.directory)
        self.loop.run(self.loop.nursery.start, self.life.live)

    def _restart(self, directory: CrashingDirectory) -> None:
        """Start on what is left of the disk, and hold the node to all it said."""
        self.directory = directory
        self.directory.faults.capacity_bytes = None
        if self.archive.is_away:
            with pytest.raises(ArchiveUnavailableError):
                self._start()
            self.archive.is_away = False
        self._start()
        self.loop.run(self._check_replays)
        self.loop.run(self._join)

    def _call(self, function: Any, *args: Any) -> None:
        """Do something that a node may refuse, or die of, but not answer wrongly."""
        if not self.life.ended.is_set():
            with suppress(SessionError, StorageError):
                self.loop.run(function, *args)

    # On the loop.

    async def _create(self, session: str) -> Any:
        return await self.life.node.catalog.create(W, session, user_id="alice")

    async def _send(self, session: str, client_id: str, times: int = 1) -> None:
        server = await self.life.node.open(W, session, to_append=True)
        self.life.node.tick()
        promises = self.promises[session]
        content = promises.sent[client_id]
        for _ in range(times):
            reply = Reply(promises, client_id)
            server.append("alice", client_id, "text", content, b"{}", None, reply, None)

    async def _sync(self) -> None:
        await self.life.node.log.sync()

    async def _mark_read(self, session: str) -> None:
        server = await self.life.node.open(W, session)
        seq = server.durable_seq
        await server.move_read_cursor("alice", seq)
        promises = self.promises[session]
        promises.read_seq = max(promises.read_seq, seq)

    async def _change(self, session: str) -> None:
        self.messages += 1
        metadata = b'{"n":%d}' % self.messages
        info = await self.life.node.catalog.change(W, session, metadata=metadata)
        self.promises[session].confirm_version(info)

    async def _give(self, session: str, room: int) -> None:
        self.readers[session].give(room)

    async def _flush(self) -> None:
        await self.life.node.log.sync()
        with trio.move_on_after(0.02 if self.archive.is_away else 5) as scope:
            await self.life.node.flusher.flush_all()
        assert self.archive.is_away or not scope.cancelled_caught

    async def _deactivate(self) -> None:
        node = self.life.node
        for key, server in list(node.active.items()):
            for tail in list(server.tails):
                tail.close()
            if server.is_idle(node.sweeps + 1):
                del node.active[key]

    async def _pause(self, pauses: int) -> None:
        for _ in range(pauses):
            await trio.lowlevel.checkpoint()

    async def _open(self, session: str) -> SessionServer:
        """Open a session, as soon as an archive that went back has caught up."""
        with trio.fail_after(5):
            while True:
                try:
                    return await self.life.node.open(W, session)
                except ArchiveUnavailableError:
                    if self.archive.is_away:
                        raise
                    await trio.sleep(0.001)

    async def _join(self) -> None:
        for session, reader in self.readers.items():
            server = await self._open(session)
            if not server.tails:
                Tail(server, reader, reader.next_seq - 1).start()

    async def _replayed(self, session: str) -> list[bytes]:
        server = await self._open(session)
        bodies: list[bytes] = []
        with trio.fail_after(5):
            while len(bodies) < server.durable_seq:
                try:
                    bodies += (await server.read_after(len(bodies), 50)).bodies
                except ArchiveUnavailableError:
                    if self.archive.is_away:
                        raise
                    await trio.sleep(0.001)
        return bodies

    async def _check_replays(self) -> None:
        for session, promises in self.promises.items():
            if promises.version:
                promises.check(await self._replayed(session))
                server = await self._open(session)
                if self.life.node.is_durable(server.info_lsn_end):
                    promises.check_state(server.info, server.reads)

    async def _check_archive(self) -> None:
        """In the end the archive holds the same as a replay shows."""
        await self.life.node.flusher.flush_all()
        for session, promises in self.promises.items():
            replay = await self._replayed(session)
            rows = self.archive.read_messages(W, session)
            assert rows == list(enumerate(replay, 1))
            promises.check(replay)


@functools.cache
def empty_archive() -> bytes:
    """An archive that is migrated already: making one takes longer than everything else here."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive.db"
        open_archive(f"sqlite:///{path}").close()
        return path.read_bytes()


@pytest.fixture(autouse=True)
def load_client_ids_at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of long sessions; what is joined loads them at once, beside all that follows."""
    monkeypatch.setattr("runtime.archivereader.DEDUPLICATION_AT_ONCE", 1)
    monkeypatch.setattr("runtime.remembering.SOON_SECONDS", 0.0)


def test_any_interleaving_of_work_and_crashes_keeps_the_promise() -> None:
    run_state_machine_as_test(
        Promise, settings=settings(max_examples=25, stateful_step_count=25, deadline=None)
    )


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_thousands_of_interleavings_keep_the_promise() -> None:
    run_state_machine_as_test(
        Promise, settings=settings(max_examples=2_000, stateful_step_count=60, deadline=None)
    )
