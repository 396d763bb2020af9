"""The ring as this node knows it: read again whenever its version has moved."""

from collections.abc import Callable
from typing import TypeVar

import trio

from storage import Archive, ArchiveUnavailableError, Ring

T = TypeVar("T")

POLL_SECONDS = 0.2
"""How soon a change is noticed by who has no reason to expect one."""

HURRY_SECONDS = 0.02
"""The same for who has: a session was not where the ring said."""


class RingWatch:
    """Polls the archive for the ring."""

    def __init__(self, archive: Archive, ring: Ring) -> None:
        self.ring = ring
        self.went_back = False
        """Whether the archive was once at an older version than before: it was restored."""
        self._archive = archive
        # Two that read at once could put the older ring in the newer one's place.
        self._turn = trio.Lock()
        self._changed = trio.Event()
        self._hurried = trio.Event()

    def owner_of(self, slot: int) -> str:
        """Return the node that owns a slot, "" while it is on its way."""
        return self.ring.owners[slot]

    async def wait_changed(self) -> None:
        """Return when the ring is another one."""
        await self._changed.wait()

    def hurry(self) -> None:
        """Look soon."""
        self._hurried.set()

    async def refresh(self) -> None:
        """Look now.

        Raises:
            ArchiveUnavailableError: it does not answer.
        """
        async with self._turn:
            version = await self._ask(self._archive.read_ring_version)
            if version != self.ring.version:
                ring = await self._ask(self._archive.read_ring)
                self.went_back = self.went_back or ring.version < self.ring.version
                self.ring = ring
                self._changed.set()
                self._changed = trio.Event()

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await trio.sleep(HURRY_SECONDS)
            with trio.move_on_after(POLL_SECONDS - HURRY_SECONDS):
                await self._hurried.wait()
            self._hurried = trio.Event()
            try:
                await self.refresh()
            except ArchiveUnavailableError:
                # What was known stays known: sessions go on where they are.
                await trio.sleep(POLL_SECONDS)

    async def _ask(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call)
