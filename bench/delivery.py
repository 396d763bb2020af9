"""The messages that one client has for one session, until the last one is acknowledged.

A message is in one of four states, and only the server's word or a lost connection moves it::

    waiting ──take──▶ in flight ──acknowledge──▶ done
                       │    ▲
              refuse,  │    │ take, before anything that waits
              rewind   ▼    │
                      to repeat

What is repeated goes under the same ``client_id``, in the order in which it was first sent, and not
before every other answer is in: so messages keep their order even where a refusal hits the middle
of a pipeline. Only a session with a single writer can promise that to itself; there `ordered` names
the expected seq with each message, and what overtakes a refused one is refused too.

Pure: no socket, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from bench.protocol import Create, Send


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message before it has a seq."""

    client_id: str
    sender: str
    content: bytes
    metadata: bytes = b"{}"


@dataclass(slots=True)
class Delivery:
    """Messages for one session, at most `window` of them in flight."""

    session: str
    create: Create
    messages: Iterator[Outgoing]
    window: int
    ordered: bool = False
    last_seq: int = 0
    """The highest seq acknowledged so far."""

    _in_flight: dict[str, Outgoing] = field(default_factory=dict)
    _to_repeat: dict[str, Outgoing] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)
    _taken: int = 0
    _exhausted: bool = False

    def is_done(self) -> bool:
        """Whether there is nothing left to send and nothing left to hear."""
        return self._exhausted and not self._in_flight and not self._to_repeat

    def take(self) -> list[tuple[Outgoing, Send]]:
        """Return what is to be sent now, oldest first."""
        if self._to_repeat:
            if self._in_flight:
                return []
            repeated = sorted(self._to_repeat.values(), key=lambda m: self._places[m.client_id])
            self._to_repeat.clear()
            return [self._send(message) for message in repeated]
        taken = []
        while len(self._in_flight) < self.window and not self._exhausted:
            message = next(self.messages, None)
            if message is None:
                self._exhausted = True
                break
            self._places[message.client_id] = self._taken
            self._taken += 1
            taken.append(self._send(message))
        return taken

    def _send(self, message: Outgoing) -> tuple[Outgoing, Send]:
        self._in_flight[message.client_id] = message
        place = self._places[message.client_id]
        send = Send(
            ref=f"send {self.session} {message.client_id}",
            session=self.session,
            client_id=message.client_id,
            kind="text",
            content=msgspec.Raw(message.content),
            metadata=msgspec.Raw(message.metadata),
            sender=message.sender,
            expected_seq=place if self.ordered else None,
        )
        return message, send

    def acknowledge(self, client_id: str, seq: int) -> Outgoing:
        """Take a message off the list: it is durable at `seq`."""
        self.last_seq = max(self.last_seq, seq)
        del self._places[client_id]
        return self._in_flight.pop(client_id)

    def refuse(self, client_id: str) -> Outgoing:
        """Put a message back: it was not stored, and may be later."""
        message = self._in_flight.pop(client_id)
        self._to_repeat[client_id] = message
        return message

    def rewind(self) -> None:
        """Put everything back that is in flight: the connection is gone, and its answers with it."""
        self._to_repeat |= self._in_flight
        self._in_flight.clear()
