"""How long a session paused: from the waits of its messages. Pure.

A message is due at its time whatever the server does, and has waited from then until it was acknowledged. So a pause
of a session is seen by the messages that are due in it; one that is shorter than the time between two of them may be
met by none, and is seen in other sessions.
"""

from collections.abc import Collection, Iterable

from bench.histogram import Histogram
from bench.report import Waits


def longest_waits(waits: Waits, begin: float, end: float) -> list[float]:
    """Return for each session the longest wait, in seconds, of its messages that were due from `begin` and before `end`.

    A session that had none due then is left out.
    """
    found = []
    for each in waits.values():
        within = [acked - due for due, acked in each if begin <= due < end]
        if within:
            found.append(max(within))
    return found


def first_answers(waits: Waits, sessions: Collection[str], after: float) -> list[float]:
    """Return for each of these how long after an instant the first message that was due since was acknowledged.

    What was on its way at that instant does not count: its answer may have been sent before.
    """
    found = []
    for session in sessions:
        answers = [acked for due, acked in waits[session] if due >= after]
        if answers:
            found.append(min(answers) - after)
    return found


def histogram_of(seconds: Iterable[float]) -> Histogram:
    """Return waits as reports carry them, in whole microseconds.

    Cut off and not rounded, as every load counts: one wait is one number wherever it is told.
    """
    histogram = Histogram()
    for each in seconds:
        histogram.record(int(each * 1e6))
    return histogram
