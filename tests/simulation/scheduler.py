"""Runs trio so that one seed is one schedule: virtual time, a seeded order of tasks, no threads.

Whatever the product would do in a worker thread is a call of the `Process` that asks for it: a *step*, where
it may be killed, paused or made to wait. A call that returns a coroutine (the archive's do) is awaited there, so that
what a thread does can be interleaved too.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Protocol

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

import storage.commitlog
from runtime import member, planning, ring, ringwatch


class Caller(Protocol):
    """The process that asks for a blocking call."""

    name: str
    dies_at_commit: bool

    async def step(self) -> None:
        """Come between two things that it does: here it may be held, or die."""

    def kill(self) -> None:
        """End it where it stands."""

    async def call(self, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Make it, and return what it returned."""


POLL_SECONDS = 0.6
"""The ring is looked at a third as often as by the product: most of a schedule's time would go there."""

FLUSH_SECONDS = 0.8
"""How long sessions that are to move may pause; the outages here are as short."""

CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""The process that a task belongs to; None for those who watch from outside."""


def run_seeded(seed: int, main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` to its end. Twice with one seed is twice the same, to the last task switch."""
    with _seeded(seed), _no_threads():
        trio.run(main, clock=MockClock(autojump_threshold=0))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let trio take ready tasks in an order of the seed's, as its plugin for hypothesis does.

    The flusher's jitter comes from the global generator.
    """
    kept = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate(), random.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = kept[0]  # type: ignore[misc]
        trio_run._r.setstate(kept[1])
        random.setstate(kept[2])


@contextmanager
def _no_threads() -> Iterator[None]:
    with ExitStack() as stack:
        # The product's own, with its answers remembered: a ring takes longer to make than a schedule to run.
        for module, name, value in (
            (trio.to_thread, "run_sync", _run_sync),
            (storage.commitlog, "open_sync_thread", _open_sync_thread),
            (planning, "assign", _assign),
            (ringwatch, "POLL_SECONDS", POLL_SECONDS),
            (member, "FLUSH_SECONDS", FLUSH_SECONDS),
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        yield


async def _run_sync(
    call: Callable[..., Any], *args: Any, limiter: trio.CapacityLimiter | None = None
) -> Any:
    caller = CALLER.get()
    assert caller is not None
    if limiter is None:
        return await caller.call(call, args)
    async with limiter:
        return await caller.call(call, args)


@asynccontextmanager
async def _open_sync_thread() -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    yield _run_sync


def _assign(weights: dict[str, int], slots: int) -> tuple[str, ...]:
    return _assigned(tuple(sorted(weights.items())), slots)


@cache
def _assigned(weights: tuple[tuple[str, int], ...], slots: int) -> tuple[str, ...]:
    return ring.assign(dict(weights), slots)
