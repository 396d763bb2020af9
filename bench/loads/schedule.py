"""When each message of real conversations is due in a run that is a thousand times shorter.

The data set spans seven months: 7,168 conversations, half of them under five minutes, with long silent stretches
(nights, a whole summer) and a few people who answer after days. One speed for all of it would not do:
what makes the months a minute sends a whole conversation in a few milliseconds, and what leaves a
conversation its pace plays for hours. So there are two time lines:

- **Inside a conversation** each message keeps its distance to the one before, divided by `speed_up`. A pause
  of more than `PAUSE_SECONDS_MAX` counts as that long: one in two hundred does, up to ten days.
- **Conversations begin** in their real order and in their real density: busy days stay busy. On that line a silence
  of more than `SILENCE_SECONDS_MAX` counts as that long.

The second line is drawn over the length of the longest conversation so that all end within it. That
length over `speed_up` is therefore the length of the run. All times are from the start of it, in seconds.

The times of the data set have no fractions, and never step back within a conversation; messages of the same
second are due together, in their order.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import accumulate, chain, pairwise

import msgspec

from bench.conversations import Conversation

PAUSE_SECONDS_MAX = 600.0
"""Ten minutes: longer, and the run would wait for two people who had left for lunch."""

SILENCE_SECONDS_MAX = 3600.0
"""An hour in which nobody began to talk is night, and no burden on anyone."""


class _Written(msgspec.Struct):
    written_at: datetime


_decode_written = msgspec.json.Decoder(_Written).decode


def written_seconds(conversation: Conversation) -> list[float]:
    """Return when its messages were written, in seconds since 1970."""
    return [
        _decode_written(message.metadata).written_at.timestamp()
        for message in conversation.messages
    ]


def due_seconds(written: Sequence[Sequence[float]], speed_up: float) -> list["array[float]"]:
    """Return when each message of each conversation is due; no conversation is empty."""
    offsets = [array("d", accumulate(_capped(times, PAUSE_SECONDS_MAX))) for times in written]
    length = max(each[-1] for each in offsets)
    order = sorted(range(len(written)), key=lambda place: written[place][0])
    begins = list(accumulate(_capped([written[place][0] for place in order], SILENCE_SECONDS_MAX)))
    due = [array("d")] * len(written)
    for place, begin in zip(order, begins, strict=True):
        # One that begins at the end of the line ends at the end of the run; one at its start begins there.
        room = length - offsets[place][-1]
        start = room * begin / begins[-1] if begins[-1] else 0.0
        due[place] = array("d", ((start + offset) / speed_up for offset in offsets[place]))
    return due


def _capped(times: Sequence[float], longest: float) -> Iterable[float]:
    """Return the steps from each to the next, none longer than that; the first is 0."""
    return chain([0.0], (min(longest, after - before) for before, after in pairwise(times)))


def run_seconds(due: Iterable[Sequence[float]]) -> float:
    """Return when the last message of all is due."""
    return max(times[-1] for times in due)


def busiest_second(due: Iterable[Sequence[float]]) -> int:
    """Return how many messages are due in the second in which most are."""
    return max(Counter(int(time) for time in chain.from_iterable(due)).values())
