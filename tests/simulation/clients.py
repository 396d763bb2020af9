"""Those who write to sessions and read them: at whatever node thinks that it serves them, also twice at once.

A message is sent again, with its `client_id`, until it is acknowledged; what was sent before may arrive later, elsewhere
or never. So a client does what an edge does, but is less careful.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import trio

from bench.checker import Findings, Kind, Replayed, SessionHistory, TailHistory
from bench.protocol import Message
from runtime import SessionError
from runtime.history import read_after
from storage import LogPoisonedError, StorageError
from tests.simulation.process import Process

WORKSPACE = "default"
PAGE = 5

_decode_body = msgspec.json.Decoder(Message).decode

Note = Callable[[str], None]


class Conversation:
    """One session as its clients know it."""

    def __init__(self, name: str, findings: Findings, note: Note) -> None:
        self.name = name
        self.history = SessionHistory(name, findings)
        self.tail = TailHistory(name, findings)
        self.unanswered = 0
        """Messages that were sent or will be, and have no acknowledgement."""
        self.note = note
        self._findings = findings
        self._at_seq: dict[int, str] = {}

    @property
    def key(self) -> tuple[str, str]:
        return (WORKSPACE, self.name)

    def acknowledge(self, process: Process, sender: str, client_id: str, seq: int, id: str) -> None:
        """A node has said that a message is durable: whether anyone hears of it or not."""
        self.note(f"{process.name} acknowledges {self.name}/{client_id} at {seq}")
        self.history.acknowledge((sender, client_id), seq, id)
        other = self._at_seq.setdefault(seq, client_id)
        if other != client_id:
            self._findings.add(
                Kind.DUPLICATED, self.name, f"seq {seq} is {other} and {client_id}, by their acks"
            )

    def check(self, bodies: list[bytes]) -> int:
        """Compare what was promised and shown with what is archived; return how many messages that is."""
        replay = [replayed(body) for body in bodies]
        self.tail.check(replay, complete=False)
        return self.history.check(replay)


class Attempt:
    """A message on its way to one node; its answer, if one comes."""

    user = None

    def __init__(
        self, conversation: Conversation, process: Process, sender: str, number: int
    ) -> None:
        self.answered = trio.Event()
        self.acknowledged = False
        self._conversation = conversation
        self._process = process
        self._sender = sender
        self._client_id = f"{sender}-{number}"
        self._content = b'"%b"' % self._client_id.encode()

    async def arrive(self, after_seconds: float) -> None:
        """Be handled by the node, in one of its tasks."""
        await trio.sleep(after_seconds)
        await self._process.step()
        node = self._process.node
        assert node is not None
        try:
            server = await node.open(*self._conversation.key, to_append=True)
            node.tick()
            server.append(
                self._sender, self._client_id, "text", self._content, b"{}", None, self, None
            )
        except LogPoisonedError:
            raise
        except (SessionError, StorageError):
            self.answered.set()

    def acked(
        self, ref: Any, server: Any, seq: int, id: str, client_id: str | None, duplicate: bool
    ) -> None:
        if not self._process.dead:
            self._conversation.acknowledge(self._process, self._sender, self._client_id, seq, id)
            self.acknowledged = True
            self.answered.set()

    def done(self, ref: Any) -> None:
        raise AssertionError

    def refused(self, ref: Any, error: SessionError) -> None:
        self.answered.set()


class Clients:
    """All of them."""

    def __init__(
        self, random: Random, find_servers: Callable[[tuple[str, str]], list[Process]]
    ) -> None:
        self.lost_answers = 0.0
        """How often an acknowledgement does not reach who waits for it."""
        self.lost_requests = 0.0
        self._random = random
        self._find_servers = find_servers

    async def write(
        self, conversation: Conversation, sender: str, count: int, pause_seconds: float
    ) -> None:
        """Send messages, one after the other, each until it is acknowledged."""
        random = self._random
        for number in range(count):
            await trio.sleep(random.uniform(0, pause_seconds))
            key = (sender, f"{sender}-{number}")
            conversation.history.send(key, b'"%b"' % key[1].encode())
            while not await self._try(conversation, sender, number):
                await trio.sleep(random.uniform(0.02, 0.2))
            conversation.unanswered -= 1

    async def read(self, conversation: Conversation) -> None:
        """Read the session again and again from where the last page ended, for ever."""
        while True:
            await trio.sleep(self._random.uniform(0.2, 1.4))
            process = self._pick(conversation)
            if process is not None:
                process.start_soon(self._read_page, conversation, process)

    async def _try(self, conversation: Conversation, sender: str, number: int) -> bool:
        random = self._random
        process = self._pick(conversation)
        if process is None:
            return False
        attempt = Attempt(conversation, process, sender, number)
        if random.random() >= self.lost_requests:
            late = random.uniform(0, 2.0) if random.random() < 0.1 else 0.0
            process.start_soon(attempt.arrive, late)
        with trio.move_on_after(random.uniform(0.2, 1.2)):
            await attempt.answered.wait()
        return attempt.acknowledged and random.random() >= self.lost_answers

    async def _read_page(self, conversation: Conversation, process: Process) -> None:
        await process.step()
        node = process.node
        assert node is not None
        try:
            server = await node.open(*conversation.key)
            page = await read_after(server, conversation.tail.cursor, PAGE)
        except LogPoisonedError:
            raise
        except (SessionError, StorageError):
            return
        if process.dead or process.paused:
            return
        for body in page.bodies:
            message = replayed(body)
            # Two that read at once are shown the same.
            if message.seq > conversation.tail.cursor:
                conversation.tail.see(message)

    def _pick(self, conversation: Conversation) -> Process | None:
        servers = self._find_servers(conversation.key)
        return self._random.choice(servers) if servers else None


def replayed(body: bytes) -> Replayed:
    """Return a message as the checker compares it."""
    return _decode_body(body).replayed()
