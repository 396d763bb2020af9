"""Whether the archive knows a session: asked by many creations at once, answered by few queries.

Each creation must know whether its id was ever used. A query of its own for each is a hop to a thread and
back, and on both ways it waits for the interpreter's lock behind a busy loop, up to 5 ms each time: many
creations at once were bound by that alone. So whoever asks while a query runs is gathered, and all of them
go together into the next one::

    check ─▶ gathered ─▶ [query] ─▶ answers, or one failure for exactly those who were in it
               ▲            │
               └── meanwhile┘

Invariants: a question goes into a query that begins after it was asked, so no answer is older than its
question; nothing is remembered between two queries; whoever stops waiting takes nothing from the others.

A query that does not come back (a connection that a firewall forgot) must not hold up everyone for as long
as it takes to be given up: after `PATIENCE_SECONDS` those who wait begin another.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import trio

from runtime.errors import ShuttingDownError
from storage import ArchiveUnavailableError

SessionKey = tuple[str, str]
"""workspace, session."""

Find = Callable[[Sequence[SessionKey]], Awaitable[set[SessionKey]]]
"""Returns which of these sessions the archive knows."""

StartSoon = Callable[[Callable[[], Awaitable[None]]], None]

BATCH_MAX = 1_000
"""Keys in one query: a statement of 100 KB, answered in 2 ms."""

QUERIES_MAX = 4
"""Queries at once: as many as the archive's readers, so that slow ones block no sooner than theirs would."""

PATIENCE_SECONDS = 1.0
"""How long a question waits for a query that others began: many times what one takes on a busy machine."""


class _Question:
    """One key, and what became of it."""

    __slots__ = ("answered", "error", "exists", "key")

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        self.answered = trio.Event()
        self.exists = False
        self.error: Exception | None = None


class Existence:
    """Asks the archive which sessions it knows, for all who want to know at the moment."""

    def __init__(self, find: Find, start_soon: StartSoon) -> None:
        self._find = find
        self._start_soon = start_soon
        self._gathered: dict[_Question, None] = {}
        self._queries = 0

    async def check(self, key: SessionKey) -> bool:
        """Return whether the archive knows this session.

        Raises:
            ArchiveUnavailableError: it is away, or lacks what was flushed into it.
            ShuttingDownError: the node ended meanwhile.
        """
        question = _Question(key)
        self._gathered[question] = None
        if not self._queries:
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
        return question.exists

    def _begin(self) -> None:
        if self._gathered and self._queries < QUERIES_MAX:
            self._queries += 1
            self._start_soon(self._ask)

    async def _ask(self) -> None:
        """Ask until there is nothing left to ask."""
        batch: list[_Question] = []
        try:
            while self._gathered:
                batch = list(islice(self._gathered, BATCH_MAX))
                for question in batch:
                    del self._gathered[question]
                await self._answer(batch)
        finally:
            # Only if this was cancelled is anyone left: nobody else would tell them.
            self._queries -= 1
            _end(batch, ShuttingDownError("the node is stopping"))
            if not self._queries:
                _end(list(self._gathered), ShuttingDownError("the node is stopping"))

    async def _answer(self, batch: list[_Question]) -> None:
        try:
            found = await self._find([question.key for question in batch])
        except Exception as error:  # noqa: BLE001 - the root of this task: it fails who asked
            _end(batch, error)
            return
        for question in batch:
            question.exists = question.key in found
            question.answered.set()


def _end(questions: list[_Question], error: Exception) -> None:
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
