"""A client as the protocol's documentation asks for: it outlives its server.

It keeps a few deliveries going over one connection, and follows their sessions. When the connection
is lost it comes back after a short, jittered pause, joins every session at its own cursor, and
sends again what was not acknowledged, under the same ``client_id``. What it saw and what it was told
goes to the histories that the checker judges.
"""

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import trio

from bench.checker import Findings, Kind, SessionHistory, TailHistory
from bench.connection import Connection, ConnectionLostError, open_connection
from bench.delivery import Delivery
from bench.protocol import (
    Ack,
    Answer,
    Create,
    Error,
    Gap,
    Hello,
    Join,
    Joined,
    Leave,
    Message,
    ProtocolError,
    Send,
)

Request = Join | Leave | Send

RECONNECT_SECONDS = (0.01, 0.05)
"""Bounds of the pause before the next attempt: these servers are back within a second."""

SILENT_SECONDS_MAX = 20.0
"""A live server that owes an answer for this long has lost the request."""


CONFLICTS_MAX = 1000
"""Conflicts without an ack between them: more than any window overtakes, so the seqs are wrong."""


class SilentServerError(Exception):
    """The connection is up and an answer is owed, but none comes."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What a client does beside its work."""

    rest_seconds: float = 0.0
    """How long it sends nothing after each ack."""
    on_ack: Callable[[Ack], None] = lambda _: None
    on_refusal: Callable[[Error], None] = lambda _: None


NO_HABITS = Habits()


class Client:
    """One client and all its connections, one after the other."""

    def __init__(
        self,
        url: str,
        histories: dict[str, SessionHistory],
        findings: Findings,
        *,
        deliveries: Iterable[Delivery] = (),
        deliveries_max: int = 1,
        follow: Mapping[str, Create] | None = None,
        habits: Habits = NO_HABITS,
        jitter: random.Random | None = None,
    ) -> None:
        self.followed = {session: TailHistory(session, findings) for session in follow or {}}
        """Tails of the sessions that are followed for their own sake, to the end."""
        self.left: list[TailHistory] = []
        """Tails of the sessions that were followed while there was something to deliver."""
        self.connections = 0
        self._follow = dict(follow or {})
        self._url = url
        self._histories = histories
        self._findings = findings
        self._waiting = iter(deliveries)
        self._deliveries_max = deliveries_max
        self._habits = habits
        self._jitter = jitter or random.Random()
        self._open: dict[str, Delivery] = {}
        self._tails = dict(self.followed)
        self._joined: set[str] = set()
        self._to_join: list[str] = []
        self._paused_until = -math.inf
        self._owed = 0
        self._conflicts = 0

    async def run(self) -> None:
        """Return when all is delivered, through any number of crashes; a mere follower never does."""
        while True:
            try:
                async with open_connection(self._url) as connection:
                    self.connections += 1
                    await self._converse(connection)
                    return
            except ConnectionLostError:
                await trio.sleep(self._jitter.uniform(*RECONNECT_SECONDS))

    async def _converse(self, connection: Connection) -> None:
        """Talk over one connection until all is delivered or the connection is lost."""
        self._joined.clear()
        self._owed = 0
        for delivery in list(self._open.values()):
            delivery.rewind()
            if self._is_over(delivery):
                self._close(delivery)
        self._to_join = list(self._tails)
        while True:
            if requests := self._next_requests():
                self._owed += len(requests)
                await connection.send(*requests)
            if not self._open and not self._follow:
                return
            for answer in await self._receive(connection):
                self._handle(answer)

    async def _receive(self, connection: Connection) -> list[Answer]:
        """Wait for answers: not past the end of a pause, and not for ever where one is owed."""
        pause = self._paused_until - trio.current_time()
        patience = SILENT_SECONDS_MAX if self._owed or self._open else math.inf
        with trio.move_on_after(pause if pause > 0 else patience):
            return await connection.receive()
        if pause > 0:
            return []
        raise SilentServerError(f"{self._owed} answers owed, none in {patience:.0f} s")

    def _next_requests(self) -> list[Request]:
        if trio.current_time() < self._paused_until:
            return []
        requests: list[Request] = []
        # Sends come first: it takes a look for another message to know that there is none.
        for session, delivery in self._open.items():
            if session in self._joined:
                for message, send in delivery.take():
                    key = (message.sender, message.client_id)
                    self._history(session).send(
                        key, message.content, kind=send.kind, metadata=message.metadata
                    )
                    requests.append(send)
        for delivery in [d for d in self._open.values() if self._is_over(d)]:
            self._close(delivery)
            requests.append(Leave(ref=f"leave {delivery.session}", session=delivery.session))
        for delivery in islice(self._waiting, self._deliveries_max - len(self._open)):
            self._open[delivery.session] = delivery
            self._tails[delivery.session] = TailHistory(delivery.session, self._findings)
            self._to_join.append(delivery.session)
        requests += [self._join(session) for session in self._to_join]
        self._to_join.clear()
        return requests

    def _is_over(self, delivery: Delivery) -> bool:
        """Tell whether all was acknowledged, and shown to us as well."""
        return delivery.is_done() and self._tails[delivery.session].cursor >= delivery.last_seq

    def _close(self, delivery: Delivery) -> None:
        del self._open[delivery.session]
        self._joined.discard(delivery.session)
        self.left.append(self._tails.pop(delivery.session))

    def _join(self, session: str) -> Join:
        create = self._open[session].create if session in self._open else self._follow[session]
        cursor = self._tails[session].cursor
        return Join(ref=f"join {session}", session=session, last_seq=cursor, create=create)

    def _history(self, session: str) -> SessionHistory:
        if session not in self._histories:
            self._histories[session] = SessionHistory(session, self._findings)
        return self._histories[session]

    def _handle(self, answer: Answer) -> None:
        if isinstance(answer, Message):
            # What was on its way when we left is still shown, and no concern of ours.
            if answer.session in self._tails:
                self._tails[answer.session].see(answer.replayed())
        elif isinstance(answer, Gap):
            detail = f"the server shows a gap: {answer}"
            self._findings.add(Kind.GAP, answer.session, detail)
        elif not isinstance(answer, Hello):
            self._owed -= 1
            if isinstance(answer, Ack):
                self._acknowledge(answer)
            elif isinstance(answer, Joined):
                self._joined.add(answer.session)
            elif isinstance(answer, Error):
                self._refuse(answer)

    def _acknowledge(self, ack: Ack) -> None:
        client_id = ack.ref.rpartition(" ")[2]
        message = self._open[ack.session].acknowledge(client_id, ack.seq)
        self._history(ack.session).acknowledge((message.sender, ack.client_id), ack.seq, ack.id)
        self._conflicts = 0
        self._habits.on_ack(ack)
        if self._habits.rest_seconds:
            self._rest(self._habits.rest_seconds)

    def _refuse(self, error: Error) -> None:
        """Repeat later what may be repeated; anything else is the end."""
        self._habits.on_refusal(error)
        request, _, rest = (error.ref or "").partition(" ")
        session, _, client_id = rest.partition(" ")
        overtaken = error.code == "conflict" and request == "send" and self._open[session].ordered
        self._conflicts += overtaken
        if (error.retry_after_ms is None and not overtaken) or self._conflicts > CONFLICTS_MAX:
            raise ProtocolError(error)
        if request == "send":
            self._open[session].refuse(client_id)
        elif request == "join":
            self._to_join.append(session)
        self._rest((error.retry_after_ms or 0) / 1000)

    def _rest(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, trio.current_time() + seconds)
