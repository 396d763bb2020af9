"""Seven thousand real conversations: the `chitchat-dataset` package, as sessions to be played.

One conversation becomes one session, each of its utterances one message by its own sender: the text
is the content, the time it was written goes along as metadata.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

import msgspec

from bench.delivery import Delivery, Outgoing
from bench.protocol import Create


class _Utterance(msgspec.Struct):
    text: str
    timestamp: str
    sender: str


class _Entry(msgspec.Struct):
    messages: list[list[_Utterance]]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of the data set and the session that it is played into."""

    session: str
    messages: tuple[Outgoing, ...]

    def delivery(self, window: int) -> Delivery:
        """Return what a client needs to play it from its beginning."""
        senders = dict.fromkeys(message.sender for message in self.messages)
        owner, *others = senders
        create = Create(user_id=owner, members=tuple(others))
        return Delivery(self.session, create, iter(self.messages), window, ordered=True)


def load_conversations(prefix: str, limit: int | None = None) -> list[Conversation]:
    """Return the conversations, longest first, so that none is still going when all others are done.

    Each session's id is the conversation's, after `prefix`: runs into one archive stay apart.
    """
    path = files("chitchat_dataset") / "dataset.json"
    entries = msgspec.json.decode(path.read_bytes(), type=dict[str, _Entry])
    conversations = [
        Conversation(f"{prefix}{name}", tuple(_messages(entry)))
        for name, entry in list(entries.items())[:limit]
    ]
    return sorted(conversations, key=lambda conversation: -len(conversation.messages))


def _messages(entry: _Entry) -> Iterator[Outgoing]:
    utterances = (utterance for turn in entry.messages for utterance in turn)
    for number, utterance in enumerate(utterances):
        yield Outgoing(
            client_id=str(number),
            sender=utterance.sender,
            content=msgspec.json.encode({"text": utterance.text}),
            metadata=msgspec.json.encode({"written_at": utterance.timestamp}),
        )
