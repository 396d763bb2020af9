from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime import ShuttingDownError
from runtime.gathering import PATIENCE_SECONDS, QUERIES_MAX, Gathering, SessionKey
from storage import ArchiveUnavailableError

BATCH_MAX = 50


def key(number: int) -> SessionKey:
    return ("default", f"s{number}")


class HeldArchive:
    """Knows even numbers; each query waits until the test lets it go, or fails it."""

    def __init__(self) -> None:
        self.queries: list[Sequence[SessionKey]] = []
        self._held: list[trio.Event] = []
        self._errors: dict[int, Exception] = {}

    async def read(self, keys: Sequence[SessionKey]) -> dict[SessionKey, bool]:
        number = len(self.queries)
        self.queries.append(keys)
        self._held.append(trio.Event())
        await self._held[number].wait()
        if number in self._errors:
            raise self._errors[number]
        return {key: True for key in keys if int(key[1][1:]) % 2 == 0}

    async def release(self, number: int, error: Exception | None = None) -> None:
        if error is not None:
            self._errors[number] = error
        self._held[number].set()
        await wait_all_tasks_blocked()


class Asking:
    """Questions that run, and what became of each."""

    def __init__(self, archive: HeldArchive, askers: trio.Nursery, queries: trio.Nursery) -> None:
        self._askers = askers
        self.queries = queries
        self.gathering = Gathering(archive.read, queries.start_soon, BATCH_MAX)
        self.answers: dict[int, bool | str] = {}

    async def ask(self, *numbers: int, scope: trio.CancelScope | None = None) -> None:
        for number in numbers:
            self._askers.start_soon(self._check, number, scope or trio.CancelScope())
        await wait_all_tasks_blocked()

    async def _check(self, number: int, scope: trio.CancelScope) -> None:
        with scope:
            try:
                self.answers[number] = await self.gathering.ask(key(number)) or False
            except (ArchiveUnavailableError, ShuttingDownError, RuntimeError) as error:
                self.answers[number] = f"{type(error).__name__}: {error}"
        if scope.cancelled_caught:
            self.answers[number] = "cancelled"


@asynccontextmanager
async def open_asking(archive: HeldArchive) -> AsyncIterator[Asking]:
    async with trio.open_nursery() as askers, trio.open_nursery() as queries:
        yield Asking(archive, askers, queries)
        askers.cancel_scope.cancel()


async def test_what_is_asked_while_a_query_runs_goes_together_into_the_next(
    mock_clock: MockClock,
) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        await asking.ask(1)
        await asking.ask(2, 3)
        await asking.ask(4)
        assert archive.queries == [[key(1)]]
        await archive.release(0)
        assert asking.answers == {1: False}
        assert [sorted(keys) for keys in archive.queries] == [[key(1)], [key(2), key(3), key(4)]]
        await archive.release(1)
        assert asking.answers == {1: False, 2: True, 3: False, 4: True}
        await asking.ask(6)
        await archive.release(2)
        assert asking.answers[6] is True


async def test_a_question_is_never_answered_by_a_query_that_began_before_it(
    mock_clock: MockClock,
) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        await asking.ask(2)
        await asking.ask(2)
        await archive.release(0)
        assert archive.queries == [[key(2)], [key(2)]]


async def test_a_query_that_fails_fails_all_that_were_in_it_and_nobody_else(
    mock_clock: MockClock,
) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        await asking.ask(1)
        await asking.ask(2, 3)
        await archive.release(0)
        await asking.ask(4, 5)
        await archive.release(1, ArchiveUnavailableError("told to", "look"))
        away = "ArchiveUnavailableError: the archive is not available: told to"
        assert asking.answers == {1: False, 2: away, 3: away}
        await archive.release(2)
        assert asking.answers == {1: False, 2: away, 3: away, 4: True, 5: False}


async def test_the_error_is_each_ones_own(mock_clock: MockClock) -> None:
    archive = HeldArchive()
    caught: list[ArchiveUnavailableError] = []

    async def check(gathering: Gathering[bool], number: int) -> None:
        with pytest.raises(ArchiveUnavailableError) as refused:
            await gathering.ask(key(number))
        caught.append(refused.value)

    async with open_asking(archive) as asking, trio.open_nursery() as nursery:
        await asking.ask(1)
        for number in (2, 3):
            nursery.start_soon(check, asking.gathering, number)
        await wait_all_tasks_blocked()
        await archive.release(0)
        await archive.release(1, ArchiveUnavailableError("told to", "look"))
    assert caught[0] is not caught[1]
    assert [(error.reason, error.hint) for error in caught] == [("told to", "look")] * 2


async def test_a_bug_in_a_query_is_told_and_does_not_end_the_next(mock_clock: MockClock) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        await asking.ask(1)
        await archive.release(0, ValueError("a bug"))
        assert asking.answers[1] == "RuntimeError: asking the archive for sessions failed"
        await asking.ask(2)
        await archive.release(1)
        assert asking.answers[2] is True


async def test_what_one_session_makes_fail_fails_only_who_asked_for_it(
    mock_clock: MockClock,
) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        await asking.ask(1)
        await asking.ask(2, 4)
        await archive.release(0)
        await archive.release(1, ValueError("one row is damaged"))
        assert asking.answers == {1: False}
        assert archive.queries[2:] == [[key(2)]] or archive.queries[2:] == [[key(4)]]
        await archive.release(2)
        await archive.release(3, ValueError("this one"))
        assert sorted(map(str, asking.answers.values())) == [
            "False",
            "RuntimeError: asking the archive for sessions failed",
            "True",
        ]


async def test_those_who_fill_a_query_do_not_wait_for_one_that_runs(mock_clock: MockClock) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        await asking.ask(1)
        await asking.ask(*range(10, 10 + BATCH_MAX))
        assert len(archive.queries) == 1
        await asking.ask(2)
        assert [len(keys) for keys in archive.queries] == [1, BATCH_MAX]
        await archive.release(1)
        assert [len(keys) for keys in archive.queries] == [1, BATCH_MAX, 1]


async def test_whoever_stops_waiting_takes_nothing_from_the_others(mock_clock: MockClock) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        first, gathered = trio.CancelScope(), trio.CancelScope()
        await asking.ask(1, scope=first)
        await asking.ask(2, scope=gathered)
        await asking.ask(4)
        first.cancel()
        gathered.cancel()
        await wait_all_tasks_blocked()
        assert asking.answers == {1: "cancelled", 2: "cancelled"}
        await archive.release(0)
        assert archive.queries == [[key(1)], [key(4)]]
        await archive.release(1)
        assert asking.answers[4] is True


async def test_a_query_that_does_not_come_back_holds_up_nobody_for_long(
    mock_clock: MockClock,
) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        await asking.ask(1)
        await asking.ask(2, 4)
        mock_clock.jump(PATIENCE_SECONDS / 2)
        await wait_all_tasks_blocked()
        assert len(archive.queries) == 1
        mock_clock.jump(PATIENCE_SECONDS)
        await wait_all_tasks_blocked()
        assert [sorted(keys) for keys in archive.queries] == [[key(1)], [key(2), key(4)]]
        await archive.release(1)
        assert asking.answers == {2: True, 4: True}
        await archive.release(0)
        assert asking.answers[1] is False


async def test_queries_at_once_and_keys_in_one_are_bounded(mock_clock: MockClock) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        for number in range(QUERIES_MAX + 2):
            await asking.ask(number)
            mock_clock.jump(2 * PATIENCE_SECONDS)
            await wait_all_tasks_blocked()
        assert len(archive.queries) == QUERIES_MAX
        await asking.ask(*range(10, 10 + BATCH_MAX))
        await archive.release(0)
        assert len(archive.queries[QUERIES_MAX]) == BATCH_MAX
        await archive.release(QUERIES_MAX)
        assert len(archive.queries[QUERIES_MAX + 1]) == 2


async def test_the_end_of_the_node_leaves_nobody_waiting(mock_clock: MockClock) -> None:
    archive = HeldArchive()
    async with open_asking(archive) as asking:
        await asking.ask(1)
        await asking.ask(2)
        asking.queries.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        ended = f"{ShuttingDownError.__name__}: the node is stopping"
        assert asking.answers == {1: ended, 2: ended}
