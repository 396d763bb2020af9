"""Connections to agents: look the name up once, check every address, connect to one that was checked.

A name is looked up here and nowhere else, and what is connected to is an address from that one answer. So a
name that resolves to something else a moment later (DNS rebinding) gains nothing, and no spelling of an
address matters: `0x7f.1` is checked as what it resolves to. TLS and the Host header still use the name of the
URL. One refused address refuses the name: a public name with a private address beside it is a mistake or an
attack. Whatever is connected to is asked for its address once more before a byte is sent.

`Dialer` is the network backend of one connection of httpcore2, and `Wire` its byte stream. Deadlines are not
kept here: whoever waits has a cancel scope. A wire is always closed at once, without goodbyes that a silent
peer could hold up.
"""

import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore2
import trio

from agents.addresses import Address, AddressRules, read_address
from agents.callerror import CallError

# Returns the addresses of a host, each in the usual form of an address. Raises OSError when there are none.
Resolve = Callable[[str], Awaitable[Sequence[str]]]

LOOKUPS_MAX = 16
"""Threads that may wait for name servers; a slow one holds up no other thread of the process."""

ADDRESSES_TRIED_MAX = 4
"""Of a name with more, the first ones; each gets its share of the time there is to connect."""


class Resolver:
    """Asks the system for addresses, in threads of its own."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(LOOKUPS_MAX)

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of `host`.

        Raises:
            OSError: There are none, or nobody knows.
        """
        # The thread outlives a caller that is cancelled, and keeps its place until the name server has answered.
        return await trio.to_thread.run_sync(
            _look_up, host, abandon_on_cancel=True, limiter=self._limiter
        )


def _look_up(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Wire(httpcore2.AsyncNetworkStream):
    """The bytes of one connection. Ignores httpcore2's timeouts: the caller's cancel scope has the deadline."""

    def __init__(self, stream: trio.SocketStream, connected: Callable[[], None]) -> None:
        self._socket = stream.socket
        self._stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = stream
        self._connected: Callable[[], None] | None = connected
        self.received = 0
        """Bytes so far."""
        self.reads = 0
        self.ended = False
        """Whether the agent has ended or broken the connection."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed here."""
        return self._socket.fileno() < 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109
        """Return what comes, or nothing once the agent has ended the connection."""
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.ended = True
            raise CallError("agent_disconnected", "the agent broke the connection") from error
        self.reads += 1
        self.received += len(data)
        self.ended = not data
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Send all of it.

        Raises:
            httpcore2.WriteError: As httpcore2 knows it: it still reads what the agent may have answered.
        """
        if not buffer:
            return
        if self._connected is not None:
            self._connected()
            self._connected = None
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.ended = True
            raise httpcore2.WriteError("the agent broke the connection") from error

    async def aclose(self) -> None:
        """Close it as `close` does."""
        self.close()

    def close(self) -> None:
        """Close it now, whatever the agent does."""
        self._socket.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        """Shake hands; the agent's certificate must be for the name in the URL.

        Raises:
            CallError: agent_tls, or agent_unreachable where the agent hung up.
        """
        assert isinstance(self._stream, trio.SocketStream)
        secured = trio.SSLStream(
            self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            self.close()
            raise _refused_handshake(error) from error
        except BaseException:
            self.close()
            raise
        self._stream = secured
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore2 asks for: the protocol that TLS settled on, and whether something came."""
        if info == "ssl_object" and isinstance(self._stream, trio.SSLStream):
            return self._stream  # which answers selected_alpn_protocol() as an ssl.SSLObject does
        if info == "is_readable":
            return self.is_closed or self._socket.is_readable()
        return None


class Dialer(httpcore2.AsyncNetworkBackend):
    """Makes the one TCP connection of one connection of httpcore2.

    `connected` is called once, when the first byte of the first request is about to be sent.
    """

    def __init__(
        self, rules: AddressRules, resolve: Resolve, connected: Callable[[], None]
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._connected = connected
        self.wire: Wire | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to `host`, if all of its addresses may be connected to.

        Raises:
            CallError: agent_address_refused, agent_unreachable.
        """
        assert local_address is None
        assert not socket_options
        addresses = await self._find(host)
        refusal: CallError | None = None
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # The caller's cancel scope ends the last one.
            share = (trio.current_effective_deadline() - trio.current_time()) / left
            patience = share if left > 1 else float("inf")
            try:
                with trio.fail_after(max(patience, 0)):
                    self.wire = Wire(await self._connect(address, port), self._connected)
                    return self.wire
            except (OSError, trio.TooSlowError) as error:
                number = error.errno if isinstance(error, OSError) else None
                reason = "no answer" if number is None else os.strerror(number).lower()
                message = f"cannot connect to {host}, port {port}: {reason}"
                refusal = CallError("agent_unreachable", message)
        assert refusal is not None
        raise refusal

    async def _find(self, host: str) -> list[Address]:
        """Return the addresses of `host`, all of them checked."""
        literal = read_address(host)
        if literal is not None:
            addresses = [literal]
        else:
            try:
                texts = await self._resolve(host)
            except (OSError, UnicodeError) as error:
                raise CallError("agent_unreachable", f"the name {host} has no address") from error
            addresses = [self._read(host, text) for text in texts]
            if not addresses:
                raise CallError("agent_unreachable", f"the name {host} has no address")
        for address in addresses:
            self._check(host, address)
        return addresses[:ADDRESSES_TRIED_MAX]

    def _read(self, host: str, text: str) -> Address:
        address = read_address(text)
        if address is None:
            raise CallError("agent_address_refused", f"{host} resolves to what is no address")
        return address

    def _check(self, host: str, address: Address) -> None:
        """Refuse in words that do not tell which addresses a name inside the operator's network has."""
        kind = self._rules.refusal(address)
        if kind is not None:
            verb = "resolves to" if read_address(host) is None else "is"
            message = f"{host} {verb} an address that agents may not have here: {kind}"
            raise CallError("agent_address_refused", message)

    async def _connect(self, address: Address, port: int) -> trio.SocketStream:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connecting = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            await connecting.connect((str(address), port))
            peer = read_address(str(connecting.getpeername()[0]))
            assert peer is not None
            self._check(str(address), peer)
            return trio.SocketStream(connecting)
        except BaseException:
            connecting.close()
            raise


def _refused_handshake(error: trio.BrokenResourceError) -> CallError:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return CallError(
            "agent_tls", f"the agent's certificate is not accepted: {cause.verify_message}"
        )
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        reason = (cause.reason or str(cause)).lower().replace("_", " ")
        return CallError("agent_tls", f"TLS with the agent failed: {reason}")
    return CallError("agent_unreachable", "the agent hung up during the TLS handshake")
