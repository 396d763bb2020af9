"""One conversation as it is played: what is due, what is on the way, what was answered, what was shown.

Its messages go over one connection, each with the seq that it expects (`expected_seq`): so where one is refused,
those that followed it are refused too, and the order holds. All are then sent again, once every answer is
in and the pause is over::

    due ≥ sent ≥ acked + refused        nothing is sent before the reader has joined, which makes the session
"""

from array import array
from dataclasses import dataclass, field

import msgspec

from bench.checker import Findings, SessionHistory, TailHistory
from bench.conversations import Conversation
from bench.protocol import Create, Send, encode
from bench.wire import client_frame

KIND = "text"


@dataclass(slots=True)
class Part:
    """A conversation, and how far it is."""

    number: int
    conversation: Conversation
    due_seconds: "array[float]"
    """By message, from the start of the run."""
    frames: list[bytes]
    """One for each message, ready to be sent."""
    tail: TailHistory
    due: int = 0
    sent: int = 0
    refused: int = 0
    pause_seconds: float = 0.0
    """How long the server wants to be left alone after what it refused."""
    is_open: bool = False
    """Whether its reader has joined, and no refusal is to be waited for."""
    is_left: bool = False
    """Whether its reader has seen enough."""
    answers: list[tuple[int, int, str]] = field(default_factory=list)
    """Number, seq and id of what was acknowledged."""

    @property
    def length(self) -> int:
        """How many messages it has."""
        return len(self.frames)

    @property
    def acked(self) -> int:
        """How many of them were acknowledged."""
        return len(self.answers)

    @property
    def is_over(self) -> bool:
        """Whether all of it was acknowledged, and shown to its reader."""
        return len(self.answers) == len(self.frames) and self.tail.cursor >= len(self.frames)

    @property
    def is_answered(self) -> bool:
        """Whether nothing is on the way."""
        return self.sent == len(self.answers) + self.refused

    def take(self) -> list[bytes]:
        """Return what is to be sent now, in order."""
        if not self.is_open:
            return []
        taken = self.frames[self.sent : self.due]
        self.sent = self.due
        return taken

    def refuse(self, pause_seconds: float) -> None:
        """Note that a message was refused, and send no more."""
        self.is_open = False
        self.refused += 1
        self.pause_seconds = max(self.pause_seconds, pause_seconds)

    def rewind(self) -> None:
        """Go back to the first message that was refused; those before it were acknowledged."""
        assert self.is_answered
        self.sent = self.acked
        self.refused = 0
        self.pause_seconds = 0.0
        self.is_open = True

    def create(self) -> Create:
        """Return how its session is made."""
        owner, *others = dict.fromkeys(message.sender for message in self.conversation.messages)
        return Create(user_id=owner, members=tuple(others))

    def history(self, findings: Findings) -> SessionHistory:
        """Return what the checker compares with a replay."""
        history = SessionHistory(self.conversation.session, findings)
        for message in self.conversation.messages[: self.sent]:
            history.send(
                (message.sender, message.client_id),
                message.content,
                kind=KIND,
                metadata=message.metadata,
            )
        for number, seq, message_id in self.answers:
            message = self.conversation.messages[number]
            history.acknowledge((message.sender, message.client_id), seq, message_id)
        return history


def make_part(
    number: int, conversation: Conversation, due_seconds: "array[float]", findings: Findings
) -> Part:
    """Prepare a conversation; the ref of a message is the part's number and its own."""
    frames = [
        client_frame(
            encode(
                Send(
                    ref=f"{number} {place}",
                    session=conversation.session,
                    client_id=message.client_id,
                    kind=KIND,
                    content=msgspec.Raw(message.content),
                    metadata=msgspec.Raw(message.metadata),
                    sender=message.sender,
                    expected_seq=place,
                )
            )
        )
        for place, message in enumerate(conversation.messages)
    ]
    tail = TailHistory(conversation.session, findings)
    return Part(number, conversation, due_seconds, frames, tail)
