"""When a session learns which `client_id`s it has seen: before the first send, and not before the first read.

They are a thousand rows of the archive, and who only reads does not need them: so a session is activated without
them. Soon after that they are loaded, one session at a time, so that it takes messages also when the archive
is away by then. A send that comes earlier waits for its session's own.

They are all in the archive: without them nothing was appended since the session was activated.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import trio

from runtime.session import Session
from storage import ArchiveUnavailableError, Recent

SOON_SECONDS = 0.1
"""What a session was activated for, such as the first page of a replay, goes before."""


class Remembering:
    """Loads the `client_id`s of active sessions, once for each."""

    def __init__(self, read: Callable[[Session], Awaitable[Sequence[Recent]]]) -> None:
        self._read = read
        self._loading: dict[Session, trio.Event] = {}
        self._activated: deque[tuple[float, Session]] = deque()
        self._wake = trio.Event()

    def remember_soon(self, session: Session) -> None:
        """Load them when the session was active for `SOON_SECONDS`."""
        self._activated.append((trio.current_time(), session))
        self._wake.set()

    async def remember(self, session: Session) -> None:
        """Load them now, if nobody did; return when that is done, or has failed for somebody else.

        Raises:
            ArchiveUnavailableError: from here.
        """
        if session.window is not None:
            return
        loading = self._loading.get(session)
        if loading is not None:
            await loading.wait()
            return
        loading = self._loading[session] = trio.Event()
        try:
            session.remember(await self._read(session))
        finally:
            del self._loading[session]
            loading.set()

    async def run(self) -> None:
        """Load what was asked for, for ever."""
        while True:
            while self._activated:
                activated_at, session = self._activated.popleft()
                await trio.sleep_until(activated_at + SOON_SECONDS)
                # Whoever sends to it asks again, and is told.
                with suppress(ArchiveUnavailableError):
                    await self.remember(session)
            self._wake = trio.Event()
            await self._wake.wait()
