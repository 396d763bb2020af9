"""The log's promise under every crash: what was acknowledged is there, once, in order, unchanged.

A crash is a power cut at some operation of the disk. What a machine finds then is what was synced, and any
part of the rest. The two tests here drive the real log over a disk that can do that.
"""

import errno
from random import Random
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.commitlog import CommitLog, LogOptions
from storage.errors import LogPoisonedError
from storage.record import StoredRecord
from tests.fakes.directory import CrashingDirectory
from tests.storage.logs import PREFIX, append, open_log, record

TINY = LogOptions(
    segment_bytes=16 * 1024, batch_bytes_max=1024, retention_seconds=0, idle_sync_seconds=0.001
)


async def test_power_cut_at_every_operation_loses_nothing_acknowledged() -> None:
    """Appending through two changes of segment and an archive that follows, cut at each step."""
    cut_at = 0
    finished = False
    while not finished:
        cut_at += 1
        directory = CrashingDirectory()
        directory.faults.power_cut_at = cut_at
        acknowledged = appended = cursor = 0

        def on_commit(items: list[Any]) -> None:
            nonlocal acknowledged
            acknowledged = items[-1] + 1

        try:
            async with open_log(directory, options=TINY, on_commit=on_commit) as (log, _):
                for _ in range(7):
                    append(log, 200)
                    appended = log.next_lsn
                    await log.sync()
                    # The archive may know what was acknowledged, and nothing else.
                    cursor = acknowledged // 2
                    log.release(cursor)
                    await trio.sleep(0.003)  # long enough for a trailing frame
                    await trio.testing.wait_all_tasks_blocked()
                finished = True
        except LogPoisonedError:
            assert directory.dead
        for seed in range(2):
            after = directory.crash(Random(cut_at * 2 + seed))
            async with open_log(after, epoch=2, cursor=cursor, options=TINY) as (log, survivors):
                assert acknowledged <= log.next_lsn <= appended
                assert survivors == [record(lsn) for lsn in range(cursor, log.next_lsn)]
    assert cut_at > 60


Step = tuple[str, int]
work = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 30)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("flush"), st.integers(0, 100)),
        st.tuples(st.just("idle"), st.just(0)),
    ),
    max_size=25,
)
ending = st.one_of(
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("power cut"), st.integers(0, 40)),
    st.tuples(st.just("kill"), st.integers(0, 40)),
    st.tuples(st.just("sync error"), st.integers(1, 3)),
)
# The disk's end is set before the work, and comes in the middle of it; a restart comes after.
life = st.builds(
    lambda steps, last: [*steps, last] if last[0] == "restart" else [last, *steps], work, ending
)


class Machine:
    """One node's log over many lives; knows what it appended, acknowledged and archived."""

    def __init__(self, program: list[Step], seed: int) -> None:
        self.program = program
        self.random = Random(seed)
        self.directory = CrashingDirectory()
        self.epoch = 0
        self.cursor = 0
        self.acknowledged = 0
        self.killed = False
        # By LSN. A body names the life it was written in, so that none comes back from an earlier one.
        self.bodies: list[bytes] = []

    async def run(self) -> None:
        while self.program:
            await self.live()
        await self.live()

    async def live(self) -> None:
        """Start, check what survived, go on with the program until something ends this life."""
        self.epoch += 1
        try:
            async with open_log(
                self.directory,
                epoch=self.epoch,
                cursor=self.cursor,
                options=TINY,
                on_commit=self.on_commit,
            ) as (log, survivors):
                self.check(survivors)
                while self.program:
                    operation, number = self.program.pop(0)
                    if not await self.step(log, operation, number):
                        break
        except LogPoisonedError:
            pass
        if self.directory.dead and not self.killed:
            self.directory = self.directory.crash(self.random)
        else:
            self.directory = self.directory.restart()

    def check(self, survivors: list[StoredRecord]) -> None:
        """What survived is durable from now on: the node may acknowledge and archive it."""
        end = self.cursor + len(survivors)
        assert self.acknowledged <= end
        assert [each.lsn for each in survivors] == list(range(self.cursor, end))
        assert [each.body for each in survivors] == self.bodies[self.cursor : end]
        del self.bodies[end:]
        self.acknowledged = end

    def on_commit(self, items: list[Any]) -> None:
        assert items == list(range(self.acknowledged, items[-1] + 1)), "in order, once"
        self.acknowledged = items[-1] + 1

    async def step(self, log: CommitLog, operation: str, number: int) -> bool:
        if operation == "append":
            for _ in range(number):
                body = b'{"n":%d,"life":%d}' % (log.next_lsn, self.epoch)
                # Long enough that a few appends fill a segment, wherever in a history they stand.
                self.bodies.append(body + b"x" * 400)
                log.append(PREFIX, self.bodies[-1], log.next_lsn)
        elif operation == "sync":
            await log.sync()
            assert self.acknowledged == len(self.bodies)
        elif operation == "turn":
            await trio.lowlevel.checkpoint()
        elif operation == "flush":
            self.cursor += (self.acknowledged - self.cursor) * number // 100
            log.release(self.cursor)
        elif operation == "idle":
            await trio.sleep(0.003)
        elif operation == "restart":
            return False
        elif operation == "sync error":
            self.directory.fail("sync", self.directory.counts["sync"] + number, errno.EIO)
        else:
            self.killed = operation == "kill"
            self.directory.faults.power_cut_at = self.directory.counts["all"] + number
        return True


@settings(max_examples=150, deadline=None)
@given(lives=st.lists(life, max_size=5), seed=st.integers(0, 2**32))
async def test_any_history_of_appends_crashes_flushes_and_restarts_keeps_the_promise(
    lives: list[list[Step]], seed: int
) -> None:
    await Machine([step for life in lives for step in life], seed).run()
