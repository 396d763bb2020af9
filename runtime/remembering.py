"""When a session learns which `client_id`s it has seen: before the first send, and not before the first read.

They are a thousand rows of the archive, and who only reads does not need them: so a long session is activated without
them. For one that is followed they are loaded soon after, one session at a time, so that it takes messages also when
the archive is away later. A send that comes earlier waits for its session's own.

They are all in the archive: without them nothing was appended since the session was activated.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Protocol

import trio

from runtime.session import Session
from storage import ArchiveUnavailableError, Recent

SOON_SECONDS = 0.1
"""What a session was joined for, such as the first page of a replay, goes before; who leaves by then had enough."""

RETRY_SECONDS = 1.0
"""How often an archive that is away is asked again: by one session, while the others wait behind it."""


class Followed(Protocol):
    """What is known of an active session: `SessionServer`."""

    session: Session

    @property
    def tails(self) -> Collection[Any]:
        """Who follows it."""
        ...


class Remembering:
    """Loads the `client_id`s of active sessions, once for each."""

    def __init__(self, read: Callable[[Session], Awaitable[Sequence[Recent]]]) -> None:
        self._read = read
        self._loading: dict[Session, trio.Event] = {}
        self._joined: deque[tuple[float, Followed]] = deque()
        self._wake = trio.Event()

    def remember_soon(self, server: Followed) -> None:
        """Load them if the session is still followed after `SOON_SECONDS`."""
        self._joined.append((trio.current_time(), server))
        self._wake.set()

    async def remember(self, session: Session) -> None:
        """Load them now, if nobody did; return when that is done, or has failed for somebody else.

        Raises:
            ArchiveUnavailableError: from here, as anything else that the archive raises.
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
            while self._joined:
                joined_at, server = self._joined.popleft()
                await trio.sleep_until(joined_at + SOON_SECONDS)
                if server.tails:
                    await self._try(server)
            self._wake = trio.Event()
            await self._wake.wait()

    async def _try(self, server: Followed) -> None:
        # Rows of one session that cannot be read end nothing here: whoever sends to it meets them, and is told.
        with suppress(Exception):
            try:
                await self.remember(server.session)
            except ArchiveUnavailableError:
                await trio.sleep(RETRY_SECONDS)
                self.remember_soon(server)
