"""A WebSocket server that speaks enough of ``ringlog.v1`` to break its promise in a chosen way.

It keeps everything in memory and acknowledges at once, so it is good for nothing but to show that
what watches a real server would notice.
"""

import json
import logging
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

Frame = dict[str, Any]
Lie = Callable[[list[Frame]], list[Frame]]
"""What a replay shows, made from what was acknowledged."""


def honest(messages: list[Frame]) -> list[Frame]:
    return messages


class Liar:
    """The sessions of one such server."""

    def __init__(self, lie: Lie, *, refuse_every: int | None = None) -> None:
        self._lie = lie
        self._refuse_every = refuse_every
        self._sends = 0
        self._sessions: dict[str, list[Frame]] = {}
        self._lock = threading.Lock()

    def serve(self, connection: ServerConnection) -> None:
        """Answer one client until it goes."""
        assert connection.request is not None
        query = urllib.parse.urlsplit(connection.request.path).query
        user = urllib.parse.parse_qs(query)["user_id"][0]
        _say(connection, {"type": "hello", "user": user})
        try:
            for received in connection:
                with self._lock:
                    for answer in self._answer(user, json.loads(received)):
                        _say(connection, answer)
        except ConnectionClosed:
            return

    def _answer(self, user: str, request: Frame) -> Iterator[Frame]:
        ref, session = request["ref"], request["session"]
        if request["type"] == "join":
            messages = self._lie(self._sessions.setdefault(session, []))
            head = max((message["seq"] for message in messages), default=0)
            yield {"type": "joined", "ref": ref, "session": session, "head_seq": head}
            yield from messages
        elif request["type"] == "leave":
            yield {"type": "ok", "ref": ref}
        else:
            self._sends += 1
            if self._refuse_every and self._sends % self._refuse_every == 0:
                yield {"type": "error", "ref": ref, "code": "backpressure", "retry_after_ms": 1}
            else:
                yield self._append(user, request)

    def _append(self, user: str, request: Frame) -> Frame:
        messages = self._sessions[request["session"]]
        seq = len(messages) + 1
        where = {"session": request["session"], "seq": seq, "id": f"id-{seq}"}
        sent = {"client_id": request["client_id"], "content": request["content"]}
        messages.append({"type": "message", "sender": user} | where | sent)
        return {"type": "ack", "ref": request["ref"], "client_id": request["client_id"]} | where


@contextmanager
def open_liar(lie: Lie = honest, *, refuse_every: int | None = None) -> Iterator[str]:
    """Serve until the block ends; yields the address."""
    liar = Liar(lie, refuse_every=refuse_every)
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
