"""A session followed over a WebSocket that is opened again when it breaks.

This is what `docs/protocol.md` asks of every client: remember the last seq that was printed, join again
from there, resend what was not acknowledged under the same `client_id`, and wait a little longer after
each failure, with jitter, so that a thousand clients do not come back at once.
"""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.trio.client import ClientConnection, connect

from edge.cli.failure import CommandError, read_problem
from edge.cli.hints import refused
from edge.cli.output import note
from edge.cli.remote import Remote
from edge.errors import ERRORS

BACKOFF_SECONDS_FIRST = 0.2
BACKOFF_SECONDS_MAX = 5.0
# Above any message that the server accepts (`message_bytes_max`), with its envelope.
FRAME_BYTES_MAX = 4 * 1024 * 1024
# Closed for a reason that another try would meet again: policy, size, data, credential.
FINAL_CLOSE_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 4401})

# Answers to a handshake that pass: too many, a proxy without its server, a server that starts or stops.
STATUSES_FOR_NOW = frozenset({429, 500, 502, 503, 504})


class _Frame(msgspec.Struct):
    type: str
    ref: str | int | None = None
    seq: int = 0
    to: int = 0
    head_seq: int = 0
    client_id: str | None = None
    code: str = ""
    message: str = ""
    hint: str = ""
    details: dict[str, Any] = {}
    retry_after_ms: int | None = None


class _TryAgainError(Exception):
    """The server cannot do it now, and says that it will."""

    def __init__(self, reason: str, after_ms: int | None) -> None:
        super().__init__(reason)
        self.after_seconds = (after_ms or 0) / 1000


_decode = msgspec.json.Decoder(_Frame).decode


class Follower:
    """Prints a session's messages as they come, and sends lines to it, across broken connections.

    `show` gets each message's line once, in order; a message counts as seen when it returns. `tell` gets what
    a person may want to know. With `create` the session is made if it is missing.
    """

    def __init__(
        self,
        remote: Remote,
        session: str,
        show: Callable[[bytes], None],
        *,
        user: str | None = None,
        last_seq: int | None = None,
        tail: int | None = None,
        create: bool = False,
        tell: Callable[[str], None] = note,
    ) -> None:
        self._remote = remote
        self._session = session
        self._show = show
        self._user = user
        self._last_seq = last_seq
        self._tail = tail
        self._create = create
        self._tell = tell
        self._unacknowledged: dict[str, bytes] = {}
        self._connection: ClientConnection | None = None
        self._settled = trio.Event()
        self._joined_once = trio.Event()
        self.own: set[str] = set()
        self.refusals: list[CommandError] = []

    async def run(self, *, live: bool) -> None:
        """Follow for ever, or with `live` off until what was there at the start has been shown.

        Raises:
            CommandError: the server is not there at the first try, or refuses.
        """
        delay = BACKOFF_SECONDS_FIRST
        while True:
            reason, wait_seconds = "the connection is gone", 0.0
            try:
                async with self._open() as connection:
                    await self._follow(connection, live=live)
                    return
            except InvalidStatus as error:
                self._check_answer(error)
            except _TryAgainError as error:
                reason, wait_seconds = str(error), error.after_seconds
            except ConnectionClosed as error:
                self._check_not_final(error)
            except (OSError, InvalidHandshake, trio.TooSlowError) as error:
                if not self._joined_once.is_set():
                    raise self._unreachable(error) from None
            finally:
                if self._connection is not None:
                    delay = BACKOFF_SECONDS_FIRST
                self._connection = None
            pause = max(wait_seconds, delay)
            self._tell(f"{reason}; trying again in {pause:.1f} s")
            await trio.sleep(max(wait_seconds, delay * random.uniform(0.5, 1.0)))  # noqa: S311, it spreads clients
            delay = min(delay * 2, BACKOFF_SECONDS_MAX)

    async def send(self, client_id: str, text: str) -> None:
        """Send a message; it is resent after a reconnect until it is acknowledged."""
        frame: dict[str, Any] = {
            "type": "send",
            "ref": client_id,
            "session": self._session,
            "client_id": client_id,
            "kind": "text",
            "content": {"text": text},
        }
        if self._user:
            frame["sender"] = (
                self._user
            )  # a user token may name its own user only: the server checks
        self.own.add(client_id)
        self._unacknowledged[client_id] = msgspec.json.encode(frame)
        self._settled = trio.Event()
        if self._connection is not None:
            try:
                await self._connection.send(self._unacknowledged[client_id].decode())
            except ConnectionClosed:
                return  # it stays unacknowledged, and goes out with the next connection

    async def wait_acknowledged(self) -> None:
        """Return when the session was joined, and everything that was sent is durable or refused."""
        await self._joined_once.wait()
        while self._unacknowledged:
            await self._settled.wait()

    def _open(self) -> connect:
        return connect(
            self._remote.socket_url(self._user),
            additional_headers=self._remote.headers,
            max_size=FRAME_BYTES_MAX,
            open_timeout=self._remote.timeout_seconds,
            proxy=None,
        )

    async def _follow(self, connection: ClientConnection, *, live: bool) -> None:
        """Serve one connection until all there is to do is done.

        Raises:
            ConnectionClosed: it ended before that.
            CommandError: the server refuses.
        """
        await connection.send(msgspec.json.encode(self._join()).decode())
        head_seq = None
        while live or head_seq is None or (self._last_seq or 0) < head_seq:
            line = await connection.recv(decode=False)
            frame = self._remote.read(_decode, line)
            if frame.type == "joined":
                head_seq = frame.head_seq
                await self._joined(connection, head_seq)
            elif frame.type == "message":
                self._message(frame.seq, line)
            elif frame.type == "gap":
                self._message(frame.to, line)
            else:
                self._answer(frame)

    def _join(self) -> dict[str, Any]:
        join: dict[str, Any] = {"type": "join", "ref": "join", "session": self._session}
        if self._last_seq is not None:
            join["last_seq"] = self._last_seq
        elif self._tail is not None:
            join["tail"] = self._tail
        if self._create:
            named = self._user is not None and self._remote.may_name_sender()
            join["create"] = {"user_id": self._user} if named else {}
        return join

    async def _joined(self, connection: ClientConnection, head_seq: int) -> None:
        if self._last_seq is None:  # from here on a reconnect resumes, whether anything came or not
            self._last_seq = max(0, head_seq - (self._tail or 0))
        self._connection = connection
        self._joined_once.set()
        for frame in list(self._unacknowledged.values()):
            await connection.send(frame.decode())

    def _message(self, seq: int, line: bytes) -> None:
        if self._last_seq is not None and seq > self._last_seq:
            self._show(line)
            self._last_seq = seq

    def _answer(self, frame: _Frame) -> None:
        own = (
            frame.ref if isinstance(frame.ref, str) and frame.ref in self._unacknowledged else None
        )
        if frame.type == "error" and (frame.ref == "join" or own is not None):
            known = ERRORS.get(frame.code)
            again = frame.retry_after_ms is not None
            if again and (own is not None or self._joined_once.is_set()):
                raise _TryAgainError(frame.message, frame.retry_after_ms)
            problem = {
                "code": frame.code, "message": frame.message, "hint": frame.hint, "details": frame.details,
            }  # fmt: skip
            failure = refused(known.status if known else 400, problem)
            if own is None:
                raise failure
            self.refusals.append(failure)
            self._tell(f"not sent: {failure.message} ({failure.code}); {failure.hint}")
        if own is not None:
            del self._unacknowledged[own]
            if not self._unacknowledged:
                self._settled.set()

    def _unreachable(self, error: Exception) -> CommandError:
        if isinstance(error, trio.TooSlowError):
            return self._remote.timed_out()
        return self._remote.unreachable(error)

    def _check_answer(self, error: InvalidStatus) -> None:
        """Raise what an answer without a WebSocket stands for, unless it is only for now and we were in."""
        answer = error.response
        passing = answer.status_code in STATUSES_FOR_NOW
        if not (passing and self._joined_once.is_set()):
            problem = read_problem(bytes(answer.body or b""))
            raise self._remote.refused(answer.status_code, problem) from None

    def _check_not_final(self, error: ConnectionClosed) -> None:
        """Raise if another try would be closed for the same reason."""
        if error.rcvd is None or error.rcvd.code not in FINAL_CLOSE_CODES:
            return
        code = error.rcvd.reason
        known = ERRORS.get(code)
        if known is None:
            reason = code or f"code {error.rcvd.code}"
            raise CommandError("closed", f"the server closed the connection: {reason}") from None
        if known.retry_after_ms is None:
            message = f"the server closed the connection: {known.title}"
            raise refused(
                known.status, {"code": code, "message": message, "hint": known.hint}
            ) from None
