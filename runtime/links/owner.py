"""The owner's side of a link: one edge, and the sessions that it has open here.

Requests on a channel are handled in their order. One that must wait (its session is not active, or does not know
its `client_id`s yet) is waited for by a task, and what comes after it on the channel queues behind it; other
channels pass.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from runtime.errors import (
    OutcomeUnknownError,
    SessionError,
    SessionNotFoundError,
    SlotMovedError,
)
from runtime.history import MessagePage, read_after
from runtime.links.messages import (
    NO_NUMBER,
    Acked,
    Append,
    Beat,
    Change,
    Changed,
    Close,
    Create,
    Delivered,
    Done,
    Fetch,
    Follow,
    FromEdge,
    Gone,
    Info,
    MarkRead,
    Open,
    Opened,
    Page,
    Settle,
    Shown,
    Stop,
    decode_from_edge,
)
from runtime.links.refusals import refuse
from runtime.links.stream import LinkLostError, LinkStream
from runtime.node import Node
from runtime.served import Served
from runtime.server import SessionServer
from runtime.session import check_cursor
from runtime.tail import Tail
from storage import LogPoisonedError, StorageError

LEAVING_POLL_SECONDS = 0.01
"""How soon it is noticed that a session which is being given up is gone, or stays."""

OnChannel = Open | Follow | Append | MarkRead | Fetch | Stop | Close


class OwnerLink:
    """What one edge asks of this node."""

    def __init__(self, node: Node, link: LinkStream) -> None:
        self.node = node
        self.link = link
        self._channels: dict[int, Channel] = {}
        self._nursery: trio.Nursery

    async def serve(self) -> None:
        """Answer until the link ends.

        Raises:
            LinkLostError: It always ends so; perhaps in a group.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                await self.link.run(decode_from_edge, self._receive)
        finally:
            for channel in list(self._channels.values()):
                channel.close()

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that ends with the link."""
        self._nursery.start_soon(task)

    def fail(self, error: Exception) -> None:
        """End the link with an error."""

        async def raise_it() -> None:
            raise error

        if not self.link.closed:
            self.start_soon(raise_it)

    def drop(self) -> None:
        """End the link, as if it had broken."""
        self.fail(LinkLostError("this node may have been taken over from"))

    def forget(self, channel: int) -> None:
        """A channel is over."""
        self._channels.pop(channel, None)

    def _receive(self, batch: Sequence[FromEdge]) -> None:
        self.node.tick()
        channels = self._channels
        for message in batch:
            if isinstance(message, OnChannel):
                channel = channels.get(message.channel)
                if channel is not None:
                    channel.receive(message)
                elif type(message) is Open:
                    channels[message.channel] = Channel(self, message)
            elif type(message) is Create:
                self.start_soon(partial(self._answer, message.number, self._create(message)))
            elif type(message) is Change:
                self.start_soon(partial(self._answer, message.number, self._change(message)))
            elif type(message) is Settle:
                self.start_soon(partial(self._answer, message.number, self._settle(message)))
            else:
                assert type(message) is Beat

    async def _answer(self, number: int, answer: Awaitable[Any]) -> None:
        try:
            self.link.send(await answer)
        except LogPoisonedError:
            raise
        except (SessionError, StorageError) as error:
            self.link.send(refuse(0, number, error))

    async def _create(self, wanted: Create) -> Changed:
        info, created = await self.node.catalog.create(
            wanted.workspace,
            wanted.session,
            user_id=wanted.user_id,
            members=wanted.members,
            agent_id=wanted.agent_id,
            metadata=wanted.metadata,
        )
        return Changed(wanted.number, info.body, created)

    async def _change(self, wanted: Change) -> Changed:
        catalog = self.node.catalog
        if wanted.delete:
            await catalog.delete(wanted.workspace, wanted.session)
            return Changed(wanted.number, b"", created=False)
        info = await catalog.change(
            wanted.workspace,
            wanted.session,
            state=wanted.state,
            members=wanted.members,
            metadata=wanted.metadata,
            agent_id=wanted.agent_id,
            clear_agent=wanted.clear_agent,
            expected_version=wanted.expected_version,
        )
        return Changed(wanted.number, info.body, created=False)

    async def _settle(self, wanted: Settle) -> Done:
        await self.node.wait_sessions_flushed()
        return Done(0, wanted.number, 0)


class Channel:
    """A session that the edge has open: its requests, their answers, and what is published."""

    __slots__ = ("_link", "_number", "_owner", "_queue", "_server", "_tail", "_who", "closed")

    user = None
    """Each request says for itself on whose behalf it is."""

    def __init__(self, owner: OwnerLink, opening: Open) -> None:
        self._owner = owner
        self._link = owner.link
        self._number = opening.channel
        self._who = (opening.workspace, opening.session)
        self._server: SessionServer | None = None
        self._tail: Tail | None = None
        self._queue: deque[OnChannel] | None = None
        self.closed = False
        self.receive(opening)

    def receive(self, message: OnChannel) -> None:
        """Handle a request now, or behind those that wait."""
        if self._queue is not None:
            self._queue.append(message)
            return
        server = self._owner.node.find(*self._who)
        if server is not None and server.is_ready(to_append=type(message) is Append):
            self._handle(message, server)
        else:
            self._queue = deque((message,))
            self._owner.start_soon(self._work_off)

    def close(self) -> None:
        """The edge hears and says nothing more on this channel."""
        if self.closed:
            return
        self.closed = True
        self._owner.forget(self._number)
        if self._tail is not None:
            self._tail.close()
        if self._server is not None:
            self._server.unwatch(self)

    async def _work_off(self) -> None:
        assert self._queue is not None
        node = self._owner.node
        while self._queue and not self.closed:
            message = self._queue[0]
            try:
                server = await node.open(*self._who, to_append=type(message) is Append)
            except SlotMovedError:
                if self._who in node.leaving:
                    # What was accepted is still to be answered here, before `Gone`; and it may stay after all.
                    await trio.sleep(LEAVING_POLL_SECONDS)
                    continue
                self.moved()
                return
            except LogPoisonedError:
                raise
            except (SessionError, StorageError) as error:
                self._queue.popleft()
                self._refuse(message, error)
            else:
                # No checkpoint since: it is active, and what follows in the queue stays behind this.
                self._queue.popleft()
                if not self.closed:
                    node.tick()
                    self._handle(message, server)
        self._queue = None

    def _handle(self, message: OnChannel, server: SessionServer) -> None:
        try:
            match message:
                case Append():
                    _check_allowed(message.user, server)
                    self._append(message, server)
                case Open():
                    self._open(message, server)
                case Follow():
                    if self._tail is None:
                        self._follow(server, server.durable_seq)
                    self._link.send(Done(self._number, message.number, server.durable_seq))
                case MarkRead():
                    _check_allowed(message.user, server)
                    ref = (message.number, message.reader)
                    server.mark_read(message.reader, message.seq, self, ref)
                case Fetch():
                    _check_allowed(message.user, server)
                    self._owner.start_soon(partial(self._fetch, message, server))
                case Stop():
                    _check_allowed(message.user, server)
                    server.stop(self, (message.number, ""))
                case Close():
                    self.close()
        except LogPoisonedError:
            raise
        except (SessionError, StorageError) as error:
            self._refuse(message, error)

    def _append(self, message: Append, server: SessionServer) -> None:
        repeated = message.repeated_after >= 0
        if repeated and server.session.may_have_forgotten(
            message.sender, message.client_id, message.repeated_after
        ):
            name = server.info.session
            raise OutcomeUnknownError(f"too much was written to {name} since it was sent first")
        try:
            server.append(
                message.sender,
                message.client_id,
                message.kind,
                message.content,
                message.metadata,
                message.expected_seq,
                self,
                message.number,
            )
        except LogPoisonedError:
            raise
        except (SessionError, StorageError) as error:
            self._link.send(refuse(self._number, message.number, error, decided=True))

    def _open(self, opening: Open, server: SessionServer) -> None:
        server.check_not_deleted()
        if opening.after_seq >= 0:
            check_cursor(opening.after_seq, server.durable_seq)
        self._server = server
        server.watch(self)
        answer = server.answer
        dispatch = "" if answer is None or answer.end is not None else answer.dispatch
        self._link.send(
            Opened(self._number, server.info.body, server.durable_seq, dispatch),
            len(server.info.body),
        )
        if opening.after_seq >= 0:
            self._follow(server, opening.after_seq)

    def _follow(self, server: SessionServer, after_seq: int) -> None:
        self._tail = Tail(server, self, after_seq)
        self._tail.start()

    async def _fetch(self, wanted: Fetch, server: SessionServer) -> None:
        page: MessagePage
        try:
            # What is read for one waits until what others asked for has left.
            if not await self._link.wait_room():
                return
            if wanted.before_seq:
                page = await server.read_before(wanted.before_seq, wanted.limit)
                first_seq = 0
            else:
                page = await read_after(server, wanted.after_seq, wanted.limit, wanted.bytes_max)
                first_seq = wanted.after_seq + 1
        except LogPoisonedError:
            raise
        except (SessionError, StorageError) as error:
            self._refuse(wanted, error)
            return
        answer = Page(
            self._number, wanted.number, first_seq, page.bodies, page.head_seq, page.has_more
        )
        self._link.send(answer, sum(map(len, page.bodies)))

    def _refuse(self, message: OnChannel, error: Exception) -> None:
        if isinstance(message, Open):
            self._link.send(refuse(self._number, NO_NUMBER, error))
            self.close()
        elif not isinstance(message, Close):
            self._link.send(refuse(self._number, message.number, error))

    # Watcher: what becomes of the session.

    def changed(self, body: bytes) -> None:
        """Tell the edge of the session's new state."""
        self._link.send(Info(self._number, body), len(body))

    def moved(self, tail: Tail | None = None) -> None:  # noqa: ARG002
        """Tell the edge that the session is not here any more."""
        if not self.closed:
            self._link.send(Gone(self._number))
            self.close()

    # Reply: the answers to requests.

    def acked(
        self,
        ref: int,
        server: Served,  # noqa: ARG002
        seq: int,
        id: str,
        client_id: str | None,  # noqa: ARG002
        duplicate: bool,  # noqa: FBT001
    ) -> None:
        """Answer an append."""
        if not self.closed:
            self._link.send(Acked(self._number, ref, seq, id, duplicate))

    def done(self, ref: tuple[int, str]) -> None:
        """Answer a read cursor with where it stands."""
        if not self.closed:
            number, user = ref
            assert self._server is not None
            self._link.send(Done(self._number, number, self._server.reads.get(user, 0)))

    def refused(self, ref: int | tuple[int, str], error: SessionError) -> None:
        """Answer what was refused."""
        if not self.closed:
            number = ref if isinstance(ref, int) else ref[0]
            self._link.send(refuse(self._number, number, error, decided=True))

    # Sink: what is published.

    def deliver(self, tail: Tail, body: bytes) -> bool:
        """Send a message, unless much waits already."""
        if self._link.is_full:
            return False
        self._link.send(Delivered(self._number, tail.next_seq, body), len(body) + 32)
        return True

    def show(self, tail: Tail, frame: bytes, place: int) -> bool:
        """Send a frame of an answer, unless much waits already."""
        if self._link.is_full:
            return False
        answer = tail.server.answer
        assert answer is not None
        self._link.send(Shown(self._number, answer.dispatch, place, frame), len(frame) + 64)
        return True

    def page_delivered(self) -> None:
        """Nothing to do: what was queued leaves by itself."""

    async def wait_room(self) -> bool:
        """Wait until little waits on the link."""
        return await self._link.wait_room()

    def ended(self, tail: Tail, error: SessionError) -> None:
        """Nothing to do: the edge was told of the session's new state."""

    def failed(self, tail: Tail, error: Exception) -> None:  # noqa: ARG002
        """A bug ended the tail: it ends the link, and whoever serves that hears of it."""
        self._owner.fail(error)


def _check_allowed(user: str | None, server: SessionServer) -> None:
    """Refuse what the edge allowed by what it knew, which may have changed meanwhile."""
    if user is not None and not server.info.allows(user):
        name = server.info.session
        raise SessionNotFoundError(f"no session {name}", session=name)
