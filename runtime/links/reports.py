"""What operators are told of links that were refused: once in a while, however often they are tried."""

from collections.abc import Callable

import trio

REPEAT_SECONDS = 60.0
"""How long nothing more is said of the same trouble with the same peer."""

REMEMBERED_MAX = 256
"""Troubles that are remembered at once: whoever connects from many places makes no more of them."""


class LinkReports:
    """Passes troubles on to `tell`, each with its peer: who it is, or where it connects from."""

    def __init__(self, tell: Callable[[str, Exception], None]) -> None:
        self._tell = tell
        self._told_at: dict[tuple[str, str], float] = {}

    def refused(self, peer: str, error: Exception) -> None:
        """Tell of an error that has a `code`, unless that was told just before."""
        now = trio.current_time()
        key = (peer, str(getattr(error, "code", "")))
        told_at = self._told_at.get(key)
        if told_at is not None and now - told_at < REPEAT_SECONDS:
            return
        self._told_at.pop(key, None)
        if len(self._told_at) >= REMEMBERED_MAX:
            del self._told_at[next(iter(self._told_at))]
        self._told_at[key] = now
        self._tell(peer, error)

    def failed(self, peer: str, error: Exception) -> None:
        """Tell of a bug, each time."""
        self._tell(peer, error)


def peer_of(stream: trio.abc.Stream) -> str:
    """Return the host that a connection comes from; "?" where that is no more known."""
    if isinstance(stream, trio.SSLStream):
        return peer_of(stream.transport_stream)
    if not isinstance(stream, trio.SocketStream):
        return "?"
    try:
        host: str = stream.socket.getpeername()[0]
    except OSError:
        return "?"
    return host
