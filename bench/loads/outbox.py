"""What one client sent, each time it did, and what it was told.

A message that has no answer is sent again, and a refused one too; so it may have reached the server at any of these
times, and nobody knows at which. Its place among the sender's messages is therefore not fixed when it is sent:
it is found at the end, from the seqs that were acknowledged. The messages in the order of their seqs must fit to
sends that follow one another::

    sends      1 2 3 | 1 2 3 4             the client hung up after 3, and repeated what had no answer
    by seq     2 3 1 4                     2 and 3 were stored at first; 1 was refused, unseen, and stored then
    fits       . 2 3   1 . . 4             4 2 3 1 would not: 2 was never sent after 4

For each message, by seq, the first send is taken that follows the one taken before. If there is none, the
checker is told the last, and finds the order broken.
"""

from array import array
from collections.abc import Iterable, Sequence

from bench.checker import SessionHistory
from bench.writer import content_of


class Outbox:
    """The messages of one client, by number. A run may have a million, so they are kept as columns."""

    __slots__ = (
        "_acked_ids", "_acked_numbers", "_acked_seqs", "_content_bytes", "_sends", "_started", "_unanswered",
        "user",
    )  # fmt: skip

    def __init__(self, user: str, content_bytes: int) -> None:
        self.user = user
        self._content_bytes = content_bytes
        self._started = array("d")
        self._sends = array("q")
        self._unanswered: dict[int, bool] = {}
        """In order; whether an answer is owed, or it was refused."""
        self._acked_numbers = array("q")
        self._acked_seqs = array("q")
        self._acked_ids: list[str] = []

    @property
    def acked(self) -> int:
        """How many messages were acknowledged."""
        return len(self._acked_seqs)

    @property
    def unanswered(self) -> list[int]:
        """What was not acknowledged, in order."""
        return list(self._unanswered)

    @property
    def count(self) -> int:
        """How many messages were not acknowledged."""
        return len(self._unanswered)

    @property
    def has_refused(self) -> bool:
        """Whether something was refused and waits to be sent again."""
        return not all(self._unanswered.values())

    @property
    def is_owed(self) -> bool:
        """Whether an answer is to come."""
        return any(self._unanswered.values())

    def add(self, count: int) -> list[int]:
        """Return the numbers of so many new messages, which are to be sent."""
        first = len(self._started)
        self._started.extend([0.0] * count)
        return list(range(first, first + count))

    def send(self, numbers: list[int], now: float) -> None:
        """Note that these go out, the first time or again."""
        self._sends.extend(numbers)
        for number in numbers:
            self._started[number] = now
            self._unanswered[number] = True

    def started(self, number: int) -> float | None:
        """Return when a message last went out; None if there is no such message."""
        return self._started[number] if number < len(self._started) else None

    def acknowledge(self, number: int, seq: int, id: str) -> float:
        """Note an answer; return when the message last went out."""
        self._unanswered.pop(number, None)
        self._acked_numbers.append(number)
        self._acked_seqs.append(seq)
        self._acked_ids.append(id)
        return self._started[number]

    def refuse(self, number: int) -> None:
        """Note that a message is to be sent again."""
        self._unanswered[number] = False

    def note(self, history: SessionHistory) -> None:
        """Tell the checker what was sent, each message in its place, and what was answered."""
        by_seq = sorted(zip(self._acked_seqs, self._acked_numbers, strict=True))
        for number in order_of(self._sends, (number for _, number in by_seq)):
            history.send(self._key(number), content_of(number, self._content_bytes))
        for place, number in enumerate(self._acked_numbers):
            answer = self._acked_seqs[place], self._acked_ids[place]
            history.acknowledge(self._key(number), *answer)

    def _key(self, number: int) -> tuple[str, str]:
        return self.user, f"{number:010}"


def order_of(sends: Sequence[int], by_seq: Iterable[int]) -> list[int]:
    """Return each message once, at a send at which it may have been stored."""
    times: dict[int, list[int]] = {}
    for time, number in enumerate(sends):
        times.setdefault(number, []).append(time)
    taken = {number: each[-1] for number, each in times.items()}
    latest = -1
    for number in by_seq:
        taken[number] = next((time for time in times[number] if time > latest), times[number][-1])
        latest = max(latest, taken[number])
    return sorted(taken, key=taken.__getitem__)
