from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.codec import make_session
from runtime.remembering import RETRY_SECONDS, SOON_SECONDS, Remembering
from runtime.session import Session
from storage import ArchiveUnavailableError, Recent

ID = "01a1fdc6-1381-78a0-a020-51c2dacf8834"


class HeldArchive:
    """Every session has seen one `client_id`; each read waits until the test lets it go, or fails it."""

    def __init__(self) -> None:
        self.reads: list[Session] = []
        self._held: list[trio.Event] = []
        self._errors: dict[int, Exception] = {}

    async def read(self, session: Session) -> list[Recent]:
        number = len(self.reads)
        self.reads.append(session)
        self._held.append(trio.Event())
        await self._held[number].wait()
        if number in self._errors:
            raise self._errors[number]
        return [("alice", "c1", 1, ID, 7)]

    async def release(self, number: int, error: Exception | None = None) -> None:
        if error is not None:
            self._errors[number] = error
        self._held[number].set()
        await wait_all_tasks_blocked()


class Remembered:
    """Sends that wait for what their session remembers, and what became of each."""

    def __init__(self, remembering: Remembering, senders: trio.Nursery) -> None:
        self.remembering = remembering
        self.answers: list[str] = []
        self._senders = senders

    async def ask(self, session: Session, scope: trio.CancelScope | None = None) -> None:
        self._senders.start_soon(self._remember, session, scope or trio.CancelScope())
        await wait_all_tasks_blocked()

    async def _remember(self, session: Session, scope: trio.CancelScope) -> None:
        with scope:
            try:
                while session.window is None:
                    await self.remembering.remember(session)
            except ArchiveUnavailableError:
                self.answers.append("away")
            else:
                self.answers.append("done")


@dataclass(eq=False)
class Followed:
    """An active session, and who follows it."""

    session: Session
    tails: set[Any]


@asynccontextmanager
async def open_remembering(archive: HeldArchive) -> AsyncIterator[Remembered]:
    remembering = Remembering(archive.read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(remembering.run)
        yield Remembered(remembering, nursery)
        nursery.cancel_scope.cancel()


def activated(name: str = "s1") -> Session:
    return Session(
        "default",
        make_session(
            name,
            user_id="alice",
            members=(),
            agent_id=None,
            metadata=b"{}",
            state="active",
            created_at_ms=1,
            updated_at_ms=1,
            version=1,
        ),
    )


def knows(session: Session) -> bool:
    return session.window is not None and session.window.find("alice", "c1") is not None


async def test_all_who_wait_for_one_session_wait_for_one_read(mock_clock: MockClock) -> None:
    archive, session = HeldArchive(), activated()
    async with open_remembering(archive) as remembered:
        for _ in range(3):
            await remembered.ask(session)
        assert (archive.reads, remembered.answers) == ([session], [])
        await archive.release(0)
        assert remembered.answers == ["done"] * 3
        assert knows(session)
        await remembered.ask(session)
        assert archive.reads == [session]


async def test_a_read_that_fails_is_told_to_who_began_it_and_the_others_try_themselves(
    mock_clock: MockClock,
) -> None:
    archive, session = HeldArchive(), activated()
    async with open_remembering(archive) as remembered:
        await remembered.ask(session)
        await remembered.ask(session)
        await archive.release(0, ArchiveUnavailableError("told to", "look"))
        assert remembered.answers == ["away"]
        await archive.release(1)
        assert remembered.answers == ["away", "done"]


async def test_a_sender_that_leaves_takes_nobody_with_it(mock_clock: MockClock) -> None:
    archive, session = HeldArchive(), activated()
    async with open_remembering(archive) as remembered:
        leaves = trio.CancelScope()
        await remembered.ask(session, leaves)
        await remembered.ask(session)
        leaves.cancel()
        await wait_all_tasks_blocked()
        await archive.release(1)
        assert remembered.answers == ["done"]
        assert knows(session)


async def test_what_is_followed_remembers_soon_one_after_the_other(mock_clock: MockClock) -> None:
    archive, sessions = HeldArchive(), [activated(f"s{n}") for n in range(3)]
    async with open_remembering(archive) as remembered:
        for session in sessions:
            remembered.remembering.remember_soon(Followed(session, {1}))
        mock_clock.jump(SOON_SECONDS / 2)
        await wait_all_tasks_blocked()
        assert archive.reads == []
        mock_clock.jump(SOON_SECONDS)
        await wait_all_tasks_blocked()
        assert archive.reads == sessions[:1]
        for number in range(3):
            await archive.release(number)
            assert archive.reads == sessions[: number + 2]
        assert all(map(knows, sessions))
        late = activated("late")
        remembered.remembering.remember_soon(Followed(late, {1}))
        mock_clock.jump(2 * SOON_SECONDS)
        await wait_all_tasks_blocked()
        await archive.release(3)
        assert knows(late)


async def test_an_archive_that_is_away_is_asked_again_while_a_session_is_followed(
    mock_clock: MockClock,
) -> None:
    archive, session = HeldArchive(), activated()
    async with open_remembering(archive) as remembered:
        followed = Followed(session, {1})
        remembered.remembering.remember_soon(followed)
        for number in range(3):
            mock_clock.jump(RETRY_SECONDS)
            await wait_all_tasks_blocked()
            mock_clock.jump(2 * SOON_SECONDS)
            await wait_all_tasks_blocked()
            assert len(archive.reads) == number + 1
            if number < 2:
                await archive.release(number, ArchiveUnavailableError("told to", "look"))
                assert len(archive.reads) == number + 1
        await archive.release(2)
        assert knows(session)


async def test_what_nobody_follows_any_more_is_left_alone(mock_clock: MockClock) -> None:
    archive = HeldArchive()
    left, followed = Followed(activated("left"), {1}), Followed(activated("followed"), {1})
    async with open_remembering(archive) as remembered:
        remembered.remembering.remember_soon(left)
        remembered.remembering.remember_soon(followed)
        left.tails.clear()
        mock_clock.jump(2 * SOON_SECONDS)
        await wait_all_tasks_blocked()
        assert archive.reads == [followed.session]


async def test_what_a_send_has_loaded_is_not_loaded_again(mock_clock: MockClock) -> None:
    archive, session = HeldArchive(), activated()
    async with open_remembering(archive) as remembered:
        remembered.remembering.remember_soon(Followed(session, {1}))
        await remembered.ask(session)
        await archive.release(0)
        mock_clock.jump(2 * SOON_SECONDS)
        await wait_all_tasks_blocked()
        assert archive.reads == [session]


async def test_rows_that_cannot_be_read_end_nobody_else_and_are_told_to_who_sends(
    mock_clock: MockClock,
) -> None:
    archive, damaged, sound = HeldArchive(), activated("damaged"), activated("sound")
    remembering = Remembering(archive.read)
    with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remembering.run)
            remembering.remember_soon(Followed(damaged, {1}))
            remembering.remember_soon(Followed(sound, {1}))
            mock_clock.jump(2 * SOON_SECONDS)
            await wait_all_tasks_blocked()
            await archive.release(0, ZeroDivisionError())
            await archive.release(1)
            assert (knows(damaged), knows(sound)) == (False, True)
            nursery.start_soon(remembering.remember, damaged)
            await wait_all_tasks_blocked()
            await archive.release(2, ZeroDivisionError())
