"""One client on one WebSocket: requests in, answers and messages out. Synchronous, whatever carries it.

The socket pump, the task per TLS connection and the ASGI route all drive this same class through a
`Transport`. A request for a session that is not active, or whose last change is not durable yet, or the first
send to one that was only read so far, waits in that session's queue while a task sees to that, and so do
the requests behind it for the same session: order holds, others pass. A few tasks for each connection do that, so
one that asks for a thousand sessions does not stand before everyone else.

Every request gets exactly one answer (`acked`, `done`, `refused`, or an immediate one); `in_flight`
counts those that have not had theirs, and bounds the queues.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

import structlog
from msgspec import Raw

from edge.access import (
    acting_user,
    check_sees,
    check_token_names,
    open_session,
    session_owner,
    user_of,
)
from edge.auth import Principal
from edge.errors import CLOSE_POLICY, ERRORS, EdgeError, problem_of
from edge.limits import Limits
from edge.protocol import (
    Auth,
    Create,
    Join,
    Leave,
    Ping,
    Read,
    Request,
    Send,
    Stop,
    ack_suffix,
    check_kind,
    check_name,
    clean_content,
    decode_request,
    encode_ack,
    encode_error,
    encode_hello,
    encode_joined,
    encode_ok,
    find_ref,
)
from runtime import (
    Host,
    InvalidFieldError,
    Served,
    SessionDeletedError,
    SessionError,
    SessionExistsError,
    Tail,
    check_cursor,
)
from storage import LogPoisonedError, StorageError

log = structlog.get_logger()


class Transport(Protocol):
    """Where a client's frames go: buffered until `flush`, bounded by whoever writes."""

    buffered: int
    """Bytes that the peer has not taken yet."""

    def write_text(self, payload: bytes) -> None:
        """Queue one text message."""

    def flush(self) -> None:
        """Send what is queued, as far as the peer takes it; callers outside a pass over sockets."""

    def close(self, code: int, reason: str) -> None:
        """Close the WebSocket after what is queued."""

    async def wait_room(self) -> bool:
        """Return True once little is buffered, False if the connection is gone."""


class Client:
    """The sessions that one connection follows, and its requests in flight."""

    __slots__ = (
        "_ack_suffix",
        "_activations",
        "_authenticate",
        "_errors",
        "_host",
        "_limits",
        "_queues",
        "_tails",
        "_transport",
        "_waiting",
        "closed",
        "in_flight",
        "principal",
    )

    def __init__(
        self,
        host: Host,
        principal: Principal,
        limits: Limits,
        transport: Transport,
        authenticate: Callable[[str], Principal],
        errors: Counter[str],
    ) -> None:
        self._host = host
        self._limits = limits
        self._transport = transport
        self._authenticate = authenticate
        self._errors = errors
        self._tails: dict[str, Tail] = {}
        self._queues: dict[str, deque[Request]] = {}
        self._waiting: deque[str] = deque()
        self._activations = 0
        self._ack_suffix = ack_suffix(host.durability)
        self.principal = principal
        self.in_flight = 0
        self.closed = False

    # The connection.

    def open(self) -> None:
        """Greet: the first frame says who the client is here and what it may do."""
        principal = self.principal
        self._transport.write_text(
            encode_hello(
                principal.user_id, principal.workspace, self._host.durability, self._limits
            )
        )

    def receive(self, data: bytes) -> None:
        """Handle one text message; nothing once the connection is gone.

        Raises:
            LogPoisonedError: the process must end.
        """
        if self.closed:
            return
        try:
            request = decode_request(data)
        except EdgeError as error:
            if ERRORS[error.code].close_code is None:
                self._refuse(error, find_ref(data))
            else:
                self.cut(error)
            return
        if self.in_flight >= self._limits.in_flight_max:
            self._refuse_in_flight(request)
            return
        self.in_flight += 1
        session_id: str | None = getattr(request, "session", None)
        if session_id is None:
            self._handle(request, None)
        elif session_id in self._queues:
            self._queues[session_id].append(request)
        else:
            server = self._host.find(self.principal.workspace, session_id)
            kind = type(request)
            if server is None:
                ready = kind is Leave
            else:
                ready = server.is_ready(to_append=kind is Send, to_follow=kind is Join)
            if ready:
                self._handle(request, server)
            else:
                self._queue(session_id, request)

    def _queue(self, session_id: str, request: Request) -> None:
        """Begin a session's queue, and see to it that a task works it off."""
        self._queues[session_id] = deque((request,))
        self._waiting.append(session_id)
        if self._activations < self._limits.activations_max:
            self._activations += 1
            self._host.start_soon(self._activate)

    def close(self) -> None:
        """The connection is gone: follow nothing, answer nobody."""
        self.closed = True
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()
        self._queues.clear()
        self._waiting.clear()

    def cut(self, error: BaseException) -> None:
        """Tell the client why, and close with the code that goes with it."""
        problem = problem_of(error)
        self._errors[problem.code] += 1
        self._transport.write_text(encode_error(problem))
        self._transport.close(problem.kind.close_code or CLOSE_POLICY, problem.code)

    def _fail(self, error: Exception) -> None:
        """Log a bug that this client met, tell it, and close."""
        log.error("connection_failed", exc_info=error)
        self.cut(EdgeError("internal", "something failed inside the server"))
        self._transport.flush()

    # Requests.

    def _handle(self, request: Request, server: Served | None) -> None:
        """Handle a request whose session, if it names one, is active and durable as it is."""
        try:
            match request:
                case Send():
                    assert server is not None
                    self._send(request, server)
                case Join():
                    self._join(request, server)
                case Read():
                    assert server is not None
                    self._read(request, server)
                case Leave():
                    self._leave(request)
                case Ping():
                    self.done(request.ref)
                case Auth():
                    self._reauthenticate(request)
                case Stop():
                    assert server is not None
                    self._stop(request, server)
        except LogPoisonedError:
            raise
        except (SessionError, StorageError, EdgeError) as error:
            self.refused(request.ref, error)

    def _send(self, request: Send, server: Served) -> None:
        principal = self.principal
        check_sees(principal, server.info)
        principal.require("write")
        sender = principal.user_id
        if sender is None or request.sender is not None:
            sender = acting_user(principal, request.sender, field="sender")
        if request.client_id is not None:
            check_name(request.client_id, "client_id")
        if request.kind != "text":
            check_kind(request.kind)
        server.append(
            sender,
            request.client_id,
            request.kind,
            clean_content(request.content),
            clean_content(request.metadata),
            request.expected_seq,
            self,
            request.ref,
        )

    def _join(self, request: Join, server: Served | None) -> None:
        if server is None:
            if request.inbox is not None:
                raise EdgeError("not_built", "there are no inboxes yet")
            raise EdgeError("missing_field", "field session is missing", field="session")
        check_sees(self.principal, server.info)
        self.principal.require("read")
        server.check_not_deleted()
        if request.last_seq is not None and request.tail is not None:
            raise InvalidFieldError("give last_seq or tail, not both", field="tail")
        if request.last_seq is not None:
            check_cursor(request.last_seq, server.durable_seq)
        session_id = server.info.session
        if session_id not in self._tails and len(self._tails) >= self._limits.subscriptions_max:
            raise EdgeError(
                "too_many_subscriptions",
                f"{len(self._tails)} sessions are joined, the most allowed",
                subscriptions_max=self._limits.subscriptions_max,
            )
        self._start_tail(request, server)

    def _start_tail(self, request: Join, server: Served) -> None:
        session_id = server.info.session
        head_seq = server.durable_seq
        after_seq = head_seq if request.last_seq is None else request.last_seq
        if request.tail is not None:
            after_seq = max(0, head_seq - request.tail)
        old = self._tails.pop(session_id, None)
        if old is not None:
            old.close()
        self.in_flight -= 1
        self._transport.write_text(encode_joined(request.ref, session_id, head_seq))
        tail = self._tails[session_id] = Tail(server, self, after_seq, self.user)
        tail.start()

    def _read(self, request: Read, server: Served) -> None:
        check_sees(self.principal, server.info)
        self.principal.require("write")
        user_id = acting_user(self.principal, request.user_id, field="user_id")
        server.mark_read(user_id, request.seq, self, request.ref)

    def _stop(self, request: Stop, server: Served) -> None:
        check_sees(self.principal, server.info)
        self.principal.require("write")
        server.stop(self, request.ref)

    def _leave(self, request: Leave) -> None:
        tail = self._tails.pop(request.session, None)
        if tail is None:
            raise EdgeError("not_joined", f"session {request.session} is not joined")
        tail.close()
        self.done(request.ref)

    def _reauthenticate(self, request: Auth) -> None:
        fresh = self._authenticate(request.token)
        old = self.principal
        if (fresh.kind, fresh.workspace, fresh.user_id) != (old.kind, old.workspace, old.user_id):
            raise EdgeError(
                "forbidden",
                "the token is another user's",
                hint="open another connection for another user",
            )
        self.principal = fresh
        for session_id, tail in list(self._tails.items()):
            try:
                check_token_names(fresh, session_id)
            except SessionError as error:
                tail.end(error)
        self.done(request.ref)

    def _refuse_in_flight(self, request: Request) -> None:
        error = EdgeError(
            "too_many_in_flight",
            f"{self.in_flight} requests are in flight, the most allowed",
            in_flight_max=self._limits.in_flight_max,
        )
        self._refuse(error, request.ref)

    # Activation.

    async def _activate(self) -> None:
        """Work off the queues of sessions that were not active, one session after the other."""
        try:
            while self._waiting:
                session_id = self._waiting.popleft()
                await self._work_off(session_id, self._queues[session_id])
        except LogPoisonedError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug that one client meets ends nobody else
            self._fail(error)
        finally:
            self._activations -= 1

    async def _work_off(self, session_id: str, queue: deque[Request]) -> None:
        while queue and not self.closed:
            request = queue[0]
            # What was answered so far must not wait for the archive with it.
            self._transport.flush()
            try:
                server = await self._open(session_id, request)
            except LogPoisonedError:
                raise
            except (SessionError, StorageError, EdgeError) as error:
                queue.popleft()
                self.refused(request.ref, error)
            else:
                # No checkpoint since it was opened: it is active, and what follows in the queue
                # stays behind this request.
                queue.popleft()
                if not self.closed:
                    self._host.tick()
                    self._handle(request, server)
        if self._queues.get(session_id) is queue:
            del self._queues[session_id]
        if not self.closed:
            self._transport.flush()

    async def _open(self, session_id: str, request: Request) -> Served:
        check_name(session_id, "session")
        check_token_names(self.principal, session_id)
        if type(request) is Join and request.create is not None:
            await self._create(session_id, request.create)
        return await open_session(
            self._host,
            self.principal,
            session_id,
            to_append=type(request) is Send,
            to_follow=type(request) is Join,
        )

    async def _create(self, session_id: str, create: Create) -> None:
        principal = self.principal
        principal.require("write")
        owner = session_owner(principal, session_id, create.user_id)
        try:
            await self._host.catalog.create(
                principal.workspace,
                session_id,
                user_id=owner,
                members=create.members,
                agent_id=create.agent_id,
                metadata=clean_content(create.metadata),
            )
        except (SessionExistsError, SessionDeletedError):
            # Joining creates what is missing; what exists is joined as it is, if the caller may.
            return

    # Reply: the answers to requests.

    @property
    def user(self) -> str | None:
        """Who must be allowed to do what is asked; nobody where a secret key answers for it."""
        return user_of(self.principal)

    def acked(
        self,
        ref: Raw,
        server: Served,
        seq: int,
        id: str,
        client_id: str | None,
        duplicate: bool,  # noqa: FBT001
    ) -> None:
        """Answer a send whose message is durable."""
        if self.closed:
            return
        self.in_flight -= 1
        session = server.info.session
        self._transport.write_text(
            encode_ack(ref, session, seq, id, client_id, duplicate, self._ack_suffix)
        )

    def done(self, ref: Raw) -> None:
        """Answer a request whose change is durable, or that changed nothing."""
        if not self.closed:
            self.in_flight -= 1
            self._transport.write_text(encode_ok(ref))

    def refused(self, ref: Raw, error: BaseException) -> None:
        """Answer a request that was refused."""
        if not self.closed:
            self.in_flight -= 1
            self._refuse(error, ref)

    def _refuse(self, error: BaseException, ref: Raw | bytes) -> None:
        problem = problem_of(error)
        self._errors[problem.code] += 1
        self._transport.write_text(encode_error(problem, ref))

    # Sink: the messages of the sessions that are followed.

    def deliver(self, tail: Tail, body: bytes) -> bool:  # noqa: ARG002
        """Take a message for the peer, unless it has much to read already."""
        transport = self._transport
        if transport.buffered > self._limits.connection_buffer_bytes_max // 2:
            return False
        transport.write_text(body)
        return True

    def show(self, tail: Tail, frame: bytes, place: int) -> bool:  # noqa: ARG002
        """Take a frame of an answer for the peer, like a message."""
        return self.deliver(tail, frame)

    def page_delivered(self) -> None:
        """Send what a page of a replay brought."""
        self._transport.flush()

    async def wait_room(self) -> bool:
        """Wait until the peer has taken what was queued for it."""
        return await self._transport.wait_room()

    def moved(self, tail: Tail) -> None:
        """Have the node find out where the tail goes on."""
        tail.server.rehome(tail)

    def failed(self, tail: Tail, error: Exception) -> None:  # noqa: ARG002
        """Close the connection, as after any bug that it met."""
        if not self.closed:
            self._fail(error)

    def ended(self, tail: Tail, error: SessionError) -> None:
        """Tell the peer that a session it follows is gone."""
        session_id = tail.server.info.session
        if self._tails.get(session_id) is tail:
            del self._tails[session_id]
        self._transport.write_text(encode_error(problem_of(error), session=session_id))
        self._transport.flush()
