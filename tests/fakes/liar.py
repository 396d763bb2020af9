"""A WebSocket server that speaks enough of ``ringlog.v1`` to break its promise in a chosen way.

It keeps everything in memory and acknowledges at once, so it is good for nothing but to show that
what watches a real server would notice.
"""

import contextlib
import json
import logging
import threading
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

Frame = dict[str, Any]
Lie = Callable[[list[Frame]], list[Frame]]
"""What a replay shows, made from what was acknowledged."""
Tell = Callable[[str, Frame], list[Frame]]
"""What a user is shown instead of a new message."""
CatchUp = Callable[[str, list[Frame]], list[Frame]]
"""What a user is shown instead of the messages after a cursor."""


def honest(messages: list[Frame]) -> list[Frame]:
    return messages


def tell_the_truth(user: str, message: Frame) -> list[Frame]:
    return [message]


def show_all(user: str, missed: list[Frame]) -> list[Frame]:
    return missed


class Liar:
    """The sessions of one such server."""

    def __init__(
        self,
        lie: Lie = honest,
        *,
        tell: Tell = tell_the_truth,
        catch_up: CatchUp = show_all,
        refuse_every: int | None = None,
        forgets: bool = False,
        acks: int = 1,
    ) -> None:
        """Refuse each so-many-eth message; if it `forgets`, store each repeat again; say each ack so often."""
        self._lie = lie
        self._tell = tell
        self._catch_up = catch_up
        self._refuse_every = refuse_every
        self._forgets = forgets
        self._acks = acks
        self._stored: dict[tuple[str, str, str], Frame] = {}
        self._sends = 0
        self._sessions: dict[str, list[Frame]] = {}
        self._followers: dict[str, dict[ServerConnection, str]] = defaultdict(dict)
        self._lock = threading.Lock()

    def serve(self, connection: ServerConnection) -> None:
        """Answer one client until it goes."""
        assert connection.request is not None
        query = urllib.parse.urlsplit(connection.request.path).query
        user = urllib.parse.parse_qs(query)["user_id"][0]
        try:
            _say(connection, {"type": "hello", "user": user})
            for received in connection:
                with self._lock:
                    for answer in self._answer(connection, user, json.loads(received)):
                        _say(connection, answer)
        except ConnectionClosed:
            return
        finally:
            with self._lock:
                for followers in self._followers.values():
                    followers.pop(connection, None)

    def _answer(self, connection: ServerConnection, user: str, request: Frame) -> Iterator[Frame]:
        ref, session = request["ref"], request["session"]
        if request["type"] == "join":
            messages = self._lie(self._sessions.setdefault(session, []))
            head = max((message["seq"] for message in messages), default=0)
            cursor = request.get("last_seq")
            yield {"type": "joined", "ref": ref, "session": session, "head_seq": head}
            missed = [m for m in messages if cursor is not None and m["seq"] > cursor]
            yield from self._catch_up(user, missed)
            self._followers[session][connection] = user
        elif request["type"] == "leave":
            self._followers[session].pop(connection, None)
            yield {"type": "ok", "ref": ref}
        else:
            yield from [self._append(user, request)] * self._acks

    def _append(self, user: str, request: Frame) -> Frame:
        """Store a message, or refuse it; a repeat gets its first answer again."""
        session, sender = request["session"], request.get("sender", user)
        messages, client_id = self._sessions[session], request["client_id"]
        ack = {"type": "ack", "ref": request["ref"], "client_id": client_id}
        stored = self._stored.get((session, sender, client_id))
        if stored is not None and not self._forgets:
            where = {name: stored[name] for name in ("session", "seq", "id")}
            return ack | where | {"duplicate": True}
        self._sends += 1
        if self._refuse_every and self._sends % self._refuse_every == 0:
            error = {"code": "backpressure", "retry_after_ms": 1}
            return {"type": "error", "ref": request["ref"]} | error
        if request.get("expected_seq", len(messages)) != len(messages):
            return {"type": "error", "ref": request["ref"], "code": "conflict"}
        seq = len(messages) + 1
        where = {"session": session, "seq": seq, "id": f"id-{seq}"}
        sent = {name: request[name] for name in ("client_id", "kind", "content")}
        sent["metadata"] = request.get("metadata", {})
        message = {"type": "message", "sender": sender} | where | sent
        messages.append(message)
        self._stored[session, sender, client_id] = message
        self._show(message)
        return ack | where

    def _show(self, message: Frame) -> None:
        for connection, user in self._followers[message["session"]].items():
            for frame in self._tell(user, message):
                with contextlib.suppress(ConnectionClosed):
                    _say(connection, frame)


@contextmanager
def open_liar(
    lie: Lie = honest, *, refuse_every: int | None = None, liar: Liar | None = None
) -> Iterator[str]:
    """Serve until the block ends, this one or one of that kind; yields the address."""
    liar = liar or Liar(lie, refuse_every=refuse_every)
    quiet = logging.getLogger("liar")
    quiet.setLevel(logging.CRITICAL)
    with serve(liar.serve, "127.0.0.1", 0, compression=None, logger=quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.socket.getsockname()[1]
            yield f"ws://127.0.0.1:{port}/v1/ws"
        finally:
            server.shutdown()
            thread.join()


def _say(connection: ServerConnection, frame: Frame) -> None:
    connection.send(json.dumps(frame, separators=(",", ":")))
