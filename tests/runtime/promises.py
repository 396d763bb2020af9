"""What a node has promised so far, kept by whoever watches it from outside, and checked after every crash.

What binds a node: a message that it acknowledged, at its seq and under its id; a message that it showed to
anyone, at its seq, byte for byte; a read cursor and a version of a session that it said are durable. A
message that was neither acknowledged nor shown may be there or not, but at most once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from runtime import Ack, Served, SessionError, SessionInfo, Tail


@dataclass
class SessionPromises:
    """What one session's clients sent, were told and were shown."""

    sent: dict[str, bytes] = field(default_factory=dict)
    acknowledged: dict[str, Ack] = field(default_factory=dict)
    shown: dict[int, bytes] = field(default_factory=dict)
    read_seq: int = 0
    version: int = 0
    metadata: dict[int, bytes] = field(default_factory=dict)

    def acknowledge(self, client_id: str, ack: Ack) -> None:
        """Note an answer; the answer to a resend must be the first one again."""
        assert ack.client_id == client_id
        first = self.acknowledged.get(client_id)
        if first is None:
            seqs = {each.seq: other for other, each in self.acknowledged.items()}
            assert ack.seq not in seqs, f"{client_id} and {seqs[ack.seq]} are both at {ack.seq}"
            self.acknowledged[client_id] = ack
        else:
            assert ack.duplicate, f"{client_id} was stored again at {ack.seq}"
            assert (ack.seq, ack.id) == (first.seq, first.id)

    def show(self, body: bytes) -> None:
        """Note a message that somebody saw: its seq never holds another."""
        seq = json.loads(body)["seq"]
        assert self.shown.setdefault(seq, body) == body, f"seq {seq} has two contents"

    def confirm_version(self, info: SessionInfo) -> None:
        """Note a state of the session that is durable."""
        assert self.metadata.setdefault(info.version, info.metadata) == info.metadata
        self.version = max(self.version, info.version)

    def check(self, replay: Sequence[bytes]) -> None:
        """Compare with a replay from the beginning."""
        messages: list[dict[str, Any]] = [json.loads(body) for body in replay]
        assert [message["seq"] for message in messages] == list(range(1, len(replay) + 1))
        assert len(replay) >= max(self.shown, default=0), "what was shown is gone"
        for body in replay:
            self.show(body)
        places = {message["client_id"]: message for message in messages}
        assert len(places) == len(messages), "a message is there twice"
        for client_id, message in places.items():
            assert message["content"] == json.loads(self.sent[client_id])
        for client_id, ack in self.acknowledged.items():
            message = places.get(client_id, {})
            assert message.get("seq") == ack.seq, f"{client_id}, acknowledged, is not at {ack.seq}"
            assert message["id"] == ack.id

    def check_state(self, info: SessionInfo, reads: dict[str, int]) -> None:
        """Compare with the session's own state after a restart."""
        assert info.version >= self.version
        self.confirm_version(info)
        assert reads.get("alice", 0) >= self.read_seq


class Reply:
    """Writes down what a client is told, at the moment it is told."""

    user = None

    def __init__(self, promises: SessionPromises, client_id: str) -> None:
        self._promises = promises
        self._client_id = client_id

    def acked(
        self,
        ref: Any,
        server: Served,
        seq: int,
        id: str,
        client_id: str | None,
        duplicate: bool,
    ) -> None:
        self._promises.acknowledge(self._client_id, Ack(seq, id, client_id, duplicate))

    def done(self, ref: Any) -> None:
        raise AssertionError("a message is not just done")

    def refused(self, ref: Any, error: SessionError) -> None:
        raise AssertionError("nothing here may be refused late") from error


class Reader:
    """A client that follows a session with little room, and comes back at its own cursor."""

    def __init__(self, promises: SessionPromises) -> None:
        self.room = 0
        self.next_seq = 1
        self._promises = promises
        self._changed = trio.Event()

    def show(self, tail: Tail, frame: bytes, place: int) -> bool:
        raise AssertionError

    def deliver(self, tail: Tail, body: bytes) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self._promises.show(body)
        assert b'"seq":%d,' % self.next_seq in body
        self.next_seq += 1
        return True

    def page_delivered(self) -> None:
        pass

    async def wait_room(self) -> bool:
        while self.room == 0:
            await self._changed.wait()
        return True

    def moved(self, tail: Tail) -> None:
        raise AssertionError

    def failed(self, tail: Tail, error: Exception) -> None:
        raise error

    def ended(self, tail: Tail, error: SessionError) -> None:
        raise AssertionError("nobody erased this session") from error

    def give(self, room: int) -> None:
        self.room = room
        self._changed.set()
        self._changed = trio.Event()
