"""The ring as this node knows it: read again whenever its version has moved.

The archive is asked for the version again and again. Where it is PostgreSQL it says by itself that it has moved; then
asking is for what was not heard.
"""

from collections.abc import Callable
from contextlib import closing, suppress
from typing import TypeVar

import trio

from storage import Archive, ArchiveUnavailableError, Ring, RingNotices

T = TypeVar("T")

POLL_SECONDS = 0.2
"""How soon a change is noticed by who has no reason to expect one."""

LISTENING_POLL_SECONDS = 1.0
"""The same where the archive tells of changes."""

HURRY_SECONDS = 0.02
"""How soon who has reason to expect a change looks: a session was not where the ring said, or there was a notice."""

NOTICE_SECONDS, NOTICE_SECONDS_PER_NODE = 0.03, 0.002
"""From one notice that is heeded to the next: a move makes many, and all nodes read the ring."""

RECONNECT_SECONDS = 1.0


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
        self._listening = False

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
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            await self._poll()

    async def _listen(self) -> None:
        """Look soon after each notice, for ever; return where there are none."""
        while True:
            with suppress(ArchiveUnavailableError):
                notices = await self._ask(self._archive.open_notices)
                if notices is None:
                    return
                with closing(notices):
                    await self._heed(notices)
            await trio.sleep(RECONNECT_SECONDS)

    async def _heed(self, notices: RingNotices) -> None:
        self._listening = True
        # What changed before was told to nobody.
        self.hurry()
        try:
            while True:
                await trio.lowlevel.wait_readable(notices.fileno())
                if notices.take():
                    self.hurry()
                    pause = NOTICE_SECONDS_PER_NODE * len(self.ring.nodes)
                    await trio.sleep(max(NOTICE_SECONDS, pause))
        finally:
            self._listening = False

    async def _poll(self) -> None:
        while True:
            await trio.sleep(HURRY_SECONDS)
            seconds = LISTENING_POLL_SECONDS if self._listening else POLL_SECONDS
            with trio.move_on_after(seconds - HURRY_SECONDS):
                await self._hurried.wait()
            self._hurried = trio.Event()
            try:
                await self.refresh()
            except ArchiveUnavailableError:
                # What was known stays known: sessions go on where they are.
                await trio.sleep(POLL_SECONDS)

    async def _ask(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call)
