"""The linear history checker: is what the server holds what the clients were promised?

A client writes down what it sent, in order, and what was acknowledged. Afterwards the session is
replayed from its beginning, and the two are compared in one pass. For a server that keeps its
promise this finds nothing:

- *lost*: acknowledged, and not in the replay; or missing from a live tail.
- *duplicated*: one message at two seqs, one seq twice, or one message acknowledged at two seqs.
- *reordered*: the replay steps back, a message is not at its acknowledged seq, or two messages of
  one sender changed places.
- *changed*: other content, kind or metadata than was sent, another id than was acknowledged, or a live
  tail that showed something else than the replay.
- *phantom*: a message that nobody sent.
- *gap*: a seq between the first and the last that no message has.

A message that was sent and not acknowledged may be there or not, but at most once. A message is
known by its sender and ``client_id``; content and metadata are compared as bytes. Nothing here reads a socket, a
file or a clock, and one `Findings` collects the verdict of many sessions.
"""

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

EXAMPLES_MAX = 20
"""Examples kept for each kind: enough to start debugging, and a broken run cannot fill memory."""

GAP_MAX = 1_000_000
"""Longest gap that a tail skips; a seq further on is not a gap but nonsense, and is ignored."""

Key = tuple[str, str | None]
"""Sender and client_id."""


class Kind(enum.StrEnum):
    """What can be wrong with a history."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    CHANGED = "changed"
    PHANTOM = "phantom"
    GAP = "gap"


TEXT = "text"
NO_METADATA = b"{}"
"""What a message has that names no metadata."""


class Sent(NamedTuple):
    """What must come back of a message as it was sent."""

    content: bytes
    kind: str = TEXT
    metadata: bytes = NO_METADATA


class Replayed(NamedTuple):
    """A message as a replay, a live tail or the archive showed it."""

    seq: int
    id: str
    sender: str
    client_id: str | None
    content: bytes
    kind: str = TEXT
    metadata: bytes = NO_METADATA


class Acknowledged(NamedTuple):
    """Where an ack said that a message is."""

    seq: int
    id: str


@dataclass(slots=True)
class Findings:
    """How often each kind was found, and the first few examples."""

    counts: Counter[Kind] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, kind: Kind, session: str, detail: str) -> None:
        """Count one finding."""
        self.counts[kind] += 1
        if self.counts[kind] <= EXAMPLES_MAX:
            self.examples.append(f"{kind}: session {session}: {detail}")

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def verdict(self) -> dict[str, bool | int]:
        """Return the counts as the reports print them."""
        return {"ok": self.ok} | {kind.value: self.counts[kind] for kind in Kind}


class SessionHistory:
    """What the clients of one session sent and what they were told."""

    __slots__ = ("_acknowledged", "_findings", "_sent", "session")

    def __init__(self, session: str, findings: Findings) -> None:
        self.session = session
        self._findings = findings
        self._sent: dict[Key, Sent] = {}
        self._acknowledged: dict[Key, Acknowledged] = {}

    def send(
        self, key: Key, content: bytes, *, kind: str = TEXT, metadata: bytes = NO_METADATA
    ) -> None:
        """Note a message on its first way out; or again after a refusal, which forfeits its place."""
        self._sent.pop(key, None)
        self._sent[key] = Sent(content, kind, metadata)

    def acknowledge(self, key: Key, seq: int, id: str) -> None:
        """Note an answer. A second answer for the same message must be the first one again."""
        answer = Acknowledged(seq, id)
        first = self._acknowledged.setdefault(key, answer)
        if first != answer:
            self._findings.add(
                Kind.DUPLICATED, self.session, f"{key} acknowledged as {first} and as {answer}"
            )

    @property
    def acknowledged_count(self) -> int:
        """How many messages have an answer."""
        return len(self._acknowledged)

    def check(self, replay: Iterable[Replayed]) -> int:
        """Compare with a replay from the beginning and return how many messages it had."""
        checking = _Replay(self.session, self._sent, self._acknowledged, self._findings)
        for message in replay:
            checking.see(message)
        return checking.finish()


class _Replay:
    """The state of one pass over a replay."""

    __slots__ = (
        "_acknowledged",
        "_findings",
        "_latest",
        "_place",
        "_seen",
        "_sent",
        "_seq",
        "_session",
    )

    def __init__(
        self,
        session: str,
        sent: dict[Key, Sent],
        acknowledged: dict[Key, Acknowledged],
        findings: Findings,
    ) -> None:
        self._session = session
        self._sent = sent
        self._acknowledged = acknowledged
        self._findings = findings
        self._place = {key: place for place, key in enumerate(sent)}
        self._latest: dict[str, int] = {}
        self._seen: dict[Key, int] = {}
        self._seq = 0

    def see(self, message: Replayed) -> None:
        self._check_seq(message.seq)
        key = (message.sender, message.client_id)
        sent = self._sent.get(key)
        if sent is None:
            self._add(Kind.PHANTOM, f"seq {message.seq}: nobody sent {key}")
        elif key in self._seen:
            self._add(Kind.DUPLICATED, f"{key} at seq {self._seen[key]} and at seq {message.seq}")
        else:
            self._seen[key] = message.seq
            if sent != (message.content, message.kind, message.metadata):
                self._add(Kind.CHANGED, f"seq {message.seq}: {_difference(sent, message)}")
            self._check_place(key, message)

    def _check_seq(self, seq: int) -> None:
        if seq == self._seq + 1:
            self._seq = seq
        elif seq > self._seq:
            self._add(Kind.GAP, f"seq {self._seq} is followed by {seq}")
            self._seq = seq
        elif seq == self._seq:
            self._add(Kind.DUPLICATED, f"seq {seq} twice")
        else:
            self._add(Kind.REORDERED, f"seq {self._seq} is followed by {seq}")

    def _check_place(self, key: Key, message: Replayed) -> None:
        place = self._place[key]
        if place < self._latest.get(message.sender, -1):
            self._add(Kind.REORDERED, f"seq {message.seq}: {key} was sent before its predecessor")
        else:
            self._latest[message.sender] = place
        answer = self._acknowledged.get(key)
        if answer is None:
            return
        if answer.seq != message.seq:
            self._add(
                Kind.REORDERED, f"{key} acknowledged at seq {answer.seq}, is at {message.seq}"
            )
        elif answer.id != message.id:
            self._add(Kind.CHANGED, f"{key} acknowledged as {answer.id}, is {message.id}")

    def finish(self) -> int:
        for key, answer in self._acknowledged.items():
            if key not in self._seen:
                self._add(Kind.LOST, f"{key} acknowledged at seq {answer.seq}")
        return len(self._seen)

    def _add(self, kind: Kind, detail: str) -> None:
        self._findings.add(kind, self._session, detail)


def _difference(sent: Sent, message: Replayed) -> str:
    found = Sent(message.content, message.kind, message.metadata)
    return ", ".join(
        f"sent {name} {ours[:80]!r}, found {theirs[:80]!r}"
        for name, ours, theirs in zip(Sent._fields, sent, found, strict=True)
        if ours != theirs
    )


class TailHistory:
    """What one subscriber saw of a session over all its connections: each seq once, in order."""

    __slots__ = ("_findings", "_first", "_shown", "cursor", "session")

    def __init__(self, session: str, findings: Findings, after_seq: int = 0) -> None:
        self.session = session
        self.cursor = after_seq
        self._first = after_seq + 1
        self._shown: list[int | None] = []
        """The hash of each message by seq; None in a gap."""
        self._findings = findings

    def see(self, message: Replayed) -> None:
        """Note a message; it must be the one after the cursor. A gap is noted once and skipped."""
        if message.seq != self.cursor + 1:
            missing = message.seq - self.cursor - 1
            kind = Kind.GAP if missing > 0 else Kind.DUPLICATED
            detail = f"a tail at seq {self.cursor} was shown {message.seq}"
            self._add(kind, detail)
            if not 0 < missing <= GAP_MAX:
                return
            self._shown += [None] * missing
        self.cursor = message.seq
        self._shown.append(hash(message))

    def check(self, replay: Iterable[Replayed], *, complete: bool) -> None:
        """Compare with a replay from the beginning; if `complete`, all of it must have been shown."""
        seen = 0
        for message in replay:
            place = message.seq - self._first
            if place < 0 or (place >= len(self._shown) and not complete):
                continue
            shown = self._shown[place] if place < len(self._shown) else None
            seen += shown is not None
            if shown is None:
                self._add(Kind.LOST, f"no tail showed seq {message.seq}")
            elif shown != hash(message):
                self._add(Kind.CHANGED, f"the tail showed another seq {message.seq}")
        if seen < len(self._shown) - self._shown.count(None):
            self._add(Kind.PHANTOM, "the tail showed more than the replay")

    def _add(self, kind: Kind, detail: str) -> None:
        self._findings.add(kind, self.session, detail)
