"""What many ask the archive about sessions at once, answered by few queries.

A query of its own for each is a hop to a thread and back, and on both ways it waits for the interpreter's lock behind
a busy loop, up to 5 ms each time: many creations, or many sessions that came from another node, were bound by that
alone. So whoever asks while a query runs is gathered, and all of them go together into the next one::

    ask ─▶ gathered ─▶ [query] ─▶ answers, or one failure for exactly those who were in it
              ▲            │
              └── meanwhile┘

Invariants: a question goes into a query that begins after it was asked, so no answer is older than its
question; nothing is remembered between two queries; whoever stops waiting takes nothing from the others.

A query that does not come back (a connection that a firewall forgot) must not hold up everyone for as long
as it takes to be given up: after `PATIENCE_SECONDS` those who wait begin another. One that fails for another reason
than that the archive is away is repeated for each question alone: it may be about one session's own rows.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Generic, TypeVar

import trio

from runtime.errors import ShuttingDownError
from storage import ArchiveUnavailableError

SessionKey = tuple[str, str]
"""workspace, session."""

T = TypeVar("T")

Read = Callable[[Sequence[SessionKey]], Awaitable[Mapping[SessionKey, T]]]
"""Returns what is known of these sessions; nothing of one that the archive does not know."""

StartSoon = Callable[[Callable[[], Awaitable[None]]], None]

QUERIES_MAX = 4
"""Queries at once: as many as the archive's readers, so that slow ones block no sooner than theirs would."""

PATIENCE_SECONDS = 1.0
"""How long a question waits for a query that others began: many times what one takes on a busy machine."""


class _Question(Generic[T]):
    """One key, and what became of it."""

    __slots__ = ("answer", "answered", "error", "key")

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        self.answered = trio.Event()
        self.answer: T | None = None
        self.error: Exception | None = None


class Gathering(Generic[T]):
    """Asks the archive one thing about sessions, for all who want to know at the moment."""

    def __init__(self, read: Read[T], start_soon: StartSoon, batch_max: int) -> None:
        self._read = read
        self._start_soon = start_soon
        self._batch_max = batch_max
        self._gathered: dict[_Question[T], None] = {}
        self._queries = 0

    async def ask(self, key: SessionKey) -> T | None:
        """Return what the archive knows of this session, None if it does not know it.

        Raises:
            ArchiveUnavailableError: it is away, or lacks what was flushed into it.
            ShuttingDownError: the node ended meanwhile.
        """
        question = _Question[T](key)
        self._gathered[question] = None
        if not self._queries or len(self._gathered) > self._batch_max:
            self._begin()
        try:
            with trio.move_on_after(PATIENCE_SECONDS):
                await question.answered.wait()
            if not question.answered.is_set():
                self._begin()
                await question.answered.wait()
        finally:
            self._gathered.pop(question, None)
        if question.error is not None:
            raise _own(question.error) from question.error
        return question.answer

    def _begin(self) -> None:
        if self._gathered and self._queries < QUERIES_MAX:
            self._queries += 1
            self._start_soon(self._query)

    async def _query(self) -> None:
        """Ask until there is nothing left to ask."""
        batch: list[_Question[T]] = []
        try:
            while self._gathered:
                batch = list(islice(self._gathered, self._batch_max))
                for question in batch:
                    del self._gathered[question]
                await self._answer(batch)
        finally:
            # Only if this was cancelled is anyone left: nobody else would tell them.
            self._queries -= 1
            _end(batch, ShuttingDownError("the node is stopping"))
            if not self._queries:
                _end(list(self._gathered), ShuttingDownError("the node is stopping"))

    async def _answer(self, batch: Sequence[_Question[T]]) -> None:
        try:
            found = await self._read([question.key for question in batch])
        except ArchiveUnavailableError as error:
            _end(batch, error)
        except Exception as error:  # noqa: BLE001 - the root of this task: it fails who asked
            if len(batch) == 1:
                _end(batch, error)
                return
            for question in batch:
                await self._answer([question])
        else:
            for question in batch:
                question.answer = found.get(question.key)
                question.answered.set()


def _end(questions: Sequence[_Question[T]], error: Exception) -> None:
    """Fail those that have no answer yet."""
    for question in questions:
        if not question.answered.is_set():
            question.error = error
            question.answered.set()


def _own(error: Exception) -> Exception:
    """Return the error that one of many raises: a shared one would gather the tracebacks of all."""
    if isinstance(error, ArchiveUnavailableError):
        return ArchiveUnavailableError(error.reason, error.hint)
    if isinstance(error, ShuttingDownError):
        return ShuttingDownError(error.message)
    return RuntimeError("asking the archive for sessions failed")
