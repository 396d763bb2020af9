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

from edge.cli.failure import CommandError, read_problem, refusal
from edge.cli.output import note
from edge.cli.remote import Remote
from edge.errors import ERRORS

BACKOFF_SECONDS_FIRST = 0.2
BACKOFF_SECONDS_MAX = 5.0
# Above any message that the server accepts (`message_bytes_max`), with its envelope.
FRAME_BYTES_MAX = 4 * 1024 * 1024
# Closed for a reason that another try would meet again: policy, size, data, credential.
FINAL_CLOSE_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 4401})


class _Frame(msgspec.Struct):
    type: str
    ref: str | int | None = None
    seq: int = 0
    head_seq: int = 0
    client_id: str | None = None
    code: str = ""
    message: str = ""
    hint: str = ""


_decode = msgspec.json.Decoder(_Frame).decode


class Follower:
    """Prints a session's messages as they come, and sends lines to it, across broken connections.

    `show` gets each message's line once, in order. With `create` the session is made if it is missing.
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
    ) -> None:
        self._remote = remote
        self._session = session
        self._show = show
        self._user = user
        self._last_seq = last_seq
        self._tail = tail
        self._create = create
        self._unacknowledged: dict[str, bytes] = {}
        self._connection: ClientConnection | None = None
        self._settled = trio.Event()
        self.own: set[str] = set()

    async def run(self, *, live: bool) -> None:
        """Follow for ever, or with `live` off until what was there at the start has been shown.

        Raises:
            CommandError: the server is not there at the first try, or refuses.
        """
        connected = False
        delay = BACKOFF_SECONDS_FIRST
        while True:
            try:
                async with self._open() as connection:
                    connected, delay = True, BACKOFF_SECONDS_FIRST
                    await self._follow(connection, live=live)
                    return
            except InvalidStatus as error:
                answer = error.response
                raise refusal(answer.status_code, read_problem(bytes(answer.body or b""))) from None
            except ConnectionClosed as error:
                _check_not_final(error)
            except (OSError, InvalidHandshake, trio.TooSlowError) as error:
                if not connected:
                    raise self._remote.unreachable(error) from None
            finally:
                self._connection = None
            note(f"the connection is gone; trying again in {delay:.1f} s")
            await trio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311, it spreads clients
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
        if self._user and self._remote.may_name_sender():
            frame["sender"] = self._user
        self.own.add(client_id)
        self._unacknowledged[client_id] = msgspec.json.encode(frame)
        self._settled = trio.Event()
        if self._connection is not None:
            try:
                await self._connection.send(self._unacknowledged[client_id].decode())
            except ConnectionClosed:
                return  # it stays unacknowledged, and goes out with the next connection

    async def wait_acknowledged(self) -> None:
        """Return when everything that was sent is durable."""
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
            frame = _decode(line)
            if frame.type == "joined":
                head_seq = frame.head_seq
                await self._joined(connection, head_seq)
            elif frame.type == "message":
                self._message(frame.seq, line)
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
        for frame in list(self._unacknowledged.values()):
            await connection.send(frame.decode())

    def _message(self, seq: int, line: bytes) -> None:
        if self._last_seq is not None and seq > self._last_seq:
            self._last_seq = seq
            self._show(line)

    def _answer(self, frame: _Frame) -> None:
        if frame.type == "error" and frame.ref == "join":
            problem = {"code": frame.code, "message": frame.message, "hint": frame.hint}
            raise refusal(ERRORS[frame.code].status if frame.code in ERRORS else 400, problem)
        if frame.type == "gap":
            note("some messages are gone: they were erased, or lost with their node")
        if isinstance(frame.ref, str) and self._unacknowledged.pop(frame.ref, None) is not None:
            if frame.type == "error":
                note(f"not sent: {frame.message} ({frame.code}); {frame.hint}")
            if not self._unacknowledged:
                self._settled.set()


def _check_not_final(error: ConnectionClosed) -> None:
    """Raise if another try would be closed for the same reason."""
    if error.rcvd is not None and error.rcvd.code in FINAL_CLOSE_CODES:
        reason = error.rcvd.reason or f"code {error.rcvd.code}"
        raise CommandError("closed", f"the server closed the connection: {reason}") from None
