"""Connections to agents: the address that is connected to is the one that was checked.

A name is resolved once. Every address that it has must be allowed, so that none can be chosen by trying often; then one
after the other is tried. Name, certificate and `Host` stay the URL's. What is connected to later, over a connection that
is kept, is what was checked when it was made.
"""

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore2
import trio

from agents.addresses import Network, check_address
from agents.callerror import CallError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, as text."""

ADDRESSES_MAX = 8
"""Tried for one connection: who has more is as reachable by the first ones."""


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host by the system's resolver."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects as trio does, to addresses that are allowed."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve = resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._trio = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Return a connection.

        Raises:
            CallError: agent_address_refused, or agent_unreachable where the name has no address.
            httpcore2.ConnectError: no address can be connected to.
        """
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise CallError(
                "agent_unreachable", f"{host} has no address: {error}", retryable=True
            ) from None
        for address in addresses:
            check_address(address, self._allowed)
        last: Exception | None = None
        for address in addresses[:ADDRESSES_MAX]:
            try:
                return await self._trio.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore2.ConnectError as error:
                last = error
        raise last or httpcore2.ConnectError(f"{host} has no address")
