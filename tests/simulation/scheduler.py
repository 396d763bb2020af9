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
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

import storage.logopening
import storage.membership
import storage.replica
from runtime import heartbeats, member, node, opening, planning, ring, ringwatch


class Caller(Protocol):
    """The process that asks for a blocking call."""

    name: str
    connections: str
    """What its connections to the archive are called."""
    dies_at: str | None
    """It is killed at the next COMMIT of a transaction whose name has this in it."""

    hangs_at_batch: bool
    """It is paused when it adds a batch, which arrives late."""

    async def step(self) -> None:
        """Come between two things that it does: here it may be held, or die."""

    def pause(self) -> None:
        """Hold it at its next step."""

    def kill(self) -> None:
        """End it where it stands."""

    async def call(self, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Make it, and return what it returned."""


BEAT_SECONDS = 0.35

CLOCKS: tuple[tuple[ModuleType, str, float], ...] = (
    # A third as often as the product looks: most of a schedule's time would go there.
    (ringwatch, "POLL_SECONDS", 0.6),
    # All others are about a third as long, as the outages here are.
    (member, "FLUSH_SECONDS", 0.8),
    (member, "BEAT_SECONDS", BEAT_SECONDS),
    (member, "RETARGET_SECONDS", 3.0),
    (heartbeats, "ALIVE_SECONDS", 3.5 * BEAT_SECONDS),
    (heartbeats, "GAP_SECONDS", 2.5 * BEAT_SECONDS),
    (storage.membership, "STARTING_MS", 3_000),
    (storage.replica, "POLL_SECONDS", 0.3),
    (storage.replica, "STALLED_SECONDS", 0.4),
    (storage.replica, "UNKNOWN_SECONDS", 1.5),
    (node, "UNKNOWN_SECONDS", 1.5),
)
"""Times of the product that are others in a schedule."""

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
            (storage.logopening, "open_sync_thread", _open_sync_thread),
            (opening, "open_sync_thread", _open_sync_thread),
            (planning, "assign", _assign),
            (member, "SlotsFile", _slots_files()),
            *CLOCKS,
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        yield


async def _run_sync(
    call: Callable[..., Any],
    *args: Any,
    limiter: trio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> Any:
    caller = CALLER.get()
    assert caller is not None
    if limiter is None:
        return await caller.call(call, args)
    async with limiter:
        return await caller.call(call, args)


def _slots_files() -> type:
    """Return the product's notes of slots, in memory: those of one schedule."""
    noted: dict[Path, frozenset[int]] = {}

    class SimulatedSlotsFile:
        def __init__(self, data_dir: Path) -> None:
            self._path = data_dir

        async def read(self) -> frozenset[int] | None:
            return noted.get(self._path)

        async def write(self, slots: frozenset[int]) -> None:
            noted[self._path] = slots

    return SimulatedSlotsFile


class SimulatedThread:
    """A `SyncThread` that is a task: one call at a time, always to its end."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._ended: trio.Event | None = None
        self._value: Any = None
        self._error: Exception | None = None

    async def run_sync(self, call: Callable[..., Any], *args: Any) -> Any:
        self.begin(call, *args)
        return await self.finish()

    def begin(self, call: Callable[..., Any], *args: Any) -> None:
        if self._ended is not None:
            raise trio.BusyResourceError
        self._ended = trio.Event()
        self._nursery.start_soon(self._work, self._ended, call, args)

    async def finish(self) -> Any:
        assert self._ended is not None
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        value, error = self._value, self._error
        self._ended = self._value = self._error = None
        if error is not None:
            raise error
        return value

    async def _work(
        self, ended: trio.Event, call: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        try:
            self._value = await _run_sync(call, *args)
        except Exception as error:  # noqa: BLE001 - raised where it is asked for
            self._error = error
        ended.set()


@asynccontextmanager
async def _open_sync_thread() -> AsyncIterator[SimulatedThread]:
    async with trio.open_nursery() as nursery:
        yield SimulatedThread(nursery)


def _assign(weights: dict[str, int], slots: int) -> tuple[str, ...]:
    return _assigned(tuple(sorted(weights.items())), slots)


@cache
def _assigned(weights: tuple[tuple[str, int], ...], slots: int) -> tuple[str, ...]:
    return ring.assign(dict(weights), slots)
