"""The edge's side of its links: one to each owner, made when it is first needed and again after it broke."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

import trio

from runtime.errors import OutcomeUnknownError, OwnerUnavailableError
from runtime.links.handshake import HandshakeError
from runtime.links.messages import (
    Beat,
    Change,
    Changed,
    Create,
    Done,
    FromOwner,
    Refused,
    Settle,
    decode_from_owner,
)
from runtime.links.refusals import error_of
from runtime.links.remote import REQUEST_SECONDS, RemoteSession
from runtime.links.reports import LinkReports
from runtime.links.stream import LinkGarbledError, LinkLostError, LinkStream, greet

CONNECT_SECONDS = 2.0
"""A node that does not even accept for so long is taken for gone."""

Dial = Callable[[str], Awaitable[trio.abc.Stream]]
"""Connects to an address, `host:port`."""


async def dial_tcp(address: str) -> trio.abc.Stream:
    """Connect over TCP.

    Raises:
        OSError, trio.TooSlowError: It does not accept.
    """
    host, _, port = address.rpartition(":")
    with trio.fail_after(CONNECT_SECONDS):
        return await trio.open_tcp_stream(host.strip("[]"), int(port))


class _Call:
    """A question that is about no channel."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Any = None


class OwnerConnection:
    """A link to one owner, whose handshake is done."""

    def __init__(self, link: LinkStream) -> None:
        self.link = link
        self.scope = trio.CancelScope()
        self._sessions: dict[int, RemoteSession] = {}
        self._channels = count(1)
        self._calls: dict[int, _Call] = {}
        self._numbers = count(1)

    async def run(self) -> None:
        """Hand what comes to whom it is for, until the link ends.

        Raises:
            LinkLostError: It always ends so.
        """
        await self.link.run(decode_from_owner, self._receive)

    def lost(self) -> None:
        """Tell all who counted on this link; none may find it again."""
        assert self.link.closed
        for session in list(self._sessions.values()):
            session.channel_lost()
        for call in self._calls.values():
            call.answered.set()

    def open_channel(self, session: RemoteSession) -> int:
        """Return a new channel number, whose messages go to the session."""
        assert not self.link.closed
        number = next(self._channels)
        self._sessions[number] = session
        return number

    def close_channel(self, number: int) -> None:
        """Forget a channel: what still comes on it is for nobody."""
        self._sessions.pop(number, None)

    async def call(self, question: Create | Change | Settle) -> Any:
        """Ask something, and return the answer.

        Raises:
            OutcomeUnknownError: The link broke, or the answer did not come in time.
            SessionError, StorageError: The owner refused.
        """
        if self.link.closed:
            raise OwnerUnavailableError("the link to the owner broke")
        question.number = next(self._numbers)
        call = self._calls[question.number] = _Call()
        try:
            self.link.send(question, 1_024)
            with trio.move_on_after(REQUEST_SECONDS):
                await call.answered.wait()
        finally:
            del self._calls[question.number]
        if call.answer is None:
            raise OutcomeUnknownError("the owner has not answered")
        if isinstance(call.answer, Refused):
            raise error_of(call.answer)
        return call.answer

    def _receive(self, batch: Sequence[FromOwner]) -> None:
        sessions = self._sessions
        for message in batch:
            if isinstance(message, Beat):
                continue
            if isinstance(message, Changed) or not message.channel:
                assert isinstance(message, (Changed, Done, Refused))
                call = self._calls.get(message.number)
                if call is not None:
                    call.answer = message
                    call.answered.set()
                continue
            session = sessions.get(message.channel)
            if session is not None:
                session.receive(message)


class Pool:
    """The links of one edge, by the id of the owner at their other end."""

    def __init__(
        self,
        *,
        secret: bytes,
        node_id: str,
        slots: int,
        start_soon: Callable[[Callable[[], Awaitable[None]]], None],
        received: Callable[[], None],
        reports: LinkReports,
        dial: Dial = dial_tcp,
    ) -> None:
        self.last_errors: dict[str, str] = {}
        """Why an owner cannot be reached, by its id, in words that clients may see."""
        self._secret = secret
        self._node_id = node_id
        self._slots = slots
        self._start_soon = start_soon
        self._received = received
        self._reports = reports
        self._dial = dial
        self._connections: dict[str, OwnerConnection] = {}
        self._dialling: dict[str, trio.Event] = {}

    @property
    def connections(self) -> int:
        """How many links are up."""
        return len(self._connections)

    @property
    def queue_bytes(self) -> int:
        """About how many bytes wait to be sent."""
        return sum(each.link.buffered for each in self._connections.values())

    async def connect(self, node_id: str, address: str) -> OwnerConnection:
        """Return the link to an owner.

        Raises:
            OwnerUnavailableError: It cannot be reached now.
        """
        while True:
            connection = self._connections.get(node_id)
            if connection is not None:
                return connection
            dialling = self._dialling.get(node_id)
            if dialling is None:
                dialling = self._dialling[node_id] = trio.Event()
                self._start_soon(partial(self._run, node_id, address, dialling))
            await dialling.wait()
            if node_id not in self._connections:
                reason = self.last_errors.get(node_id, "it hung up")
                raise OwnerUnavailableError(f"node {node_id} cannot be reached: {reason}")

    def drop(self, node_id: str) -> None:
        """End the link to a node, if there is one: its sessions are another's."""
        connection = self._connections.get(node_id)
        if connection is not None:
            connection.scope.cancel()

    async def _run(self, node_id: str, address: str, dialling: trio.Event) -> None:
        """Dial an owner and serve the link to its end, whatever that is.

        What an operator must see to is told with the address; clients are told nothing of where anything is.
        """
        peer = f"{node_id} at {address}"

        def dialled() -> None:
            # Once: by then another may be dialling.
            if not dialling.is_set():
                del self._dialling[node_id]
                dialling.set()

        try:
            stream = await self._dial(address)
            async with stream:
                link = await greet(stream, self._secret, self._node_id, self._slots, node_id)
                await self._serve(node_id, link, dialled)
        except trio.TooSlowError:
            self.last_errors[node_id] = "it does not answer"
        except OSError:
            self.last_errors[node_id] = "nothing accepts connections at its address"
        except HandshakeError as error:
            self.last_errors[node_id] = error.told
            self._reports.refused(peer, error)
        except LinkGarbledError as error:
            self.last_errors[node_id] = "what it says makes no sense"
            self._reports.refused(peer, error)
        except LinkLostError as error:
            self.last_errors[node_id] = str(error)
        except Exception as error:  # noqa: BLE001 - a bug that one link meets ends no other
            self.last_errors[node_id] = "the link failed"
            self._reports.failed(peer, error)
        finally:
            dialled()

    async def _serve(self, node_id: str, link: LinkStream, dialled: Callable[[], None]) -> None:
        connection = self._connections[node_id] = OwnerConnection(link)
        self.last_errors.pop(node_id, None)
        link.on_received = self._received
        dialled()
        try:
            with connection.scope:
                await connection.run()
        finally:
            # In this order: who is told looks for another link at once.
            del self._connections[node_id]
            connection.lost()
