"""What is to be done at which moment of a run that plays conversations: who enters, and who speaks.

Pure: the time is an argument, in seconds from the start of the run, and negative before it.
"""

from array import array
from collections.abc import Sequence

ENTRANCE_SECONDS = 0.5
"""A reader joins so long before the first message; a busy server answers within that."""


class Score:
    """The moments of all conversations, in order. Each is told once."""

    __slots__ = ("_due", "_entered", "_entrances", "_spoken", "_whose")

    def __init__(self, due_seconds: Sequence[Sequence[float]]) -> None:
        """Take when each message of each conversation is due; conversations go by their place."""
        self._entrances = sorted(
            (times[0] - ENTRANCE_SECONDS, number) for number, times in enumerate(due_seconds)
        )
        moments = sorted(
            (time, number) for number, times in enumerate(due_seconds) for time in times
        )
        self._due = array("d", (time for time, _ in moments))
        self._whose = array("q", (number for _, number in moments))
        self._entered = 0
        self._spoken = 0

    def take_entrances(self, now: float) -> list[int]:
        """Return the conversations whose reader is to join now."""
        first = self._entered
        while self._entered < len(self._entrances) and self._entrances[self._entered][0] <= now:
            self._entered += 1
        return [number for _, number in self._entrances[first : self._entered]]

    def take_messages(self, now: float) -> "array[int]":
        """Return the conversations of which a message is due, one entry for each message."""
        first = self._spoken
        while self._spoken < len(self._due) and self._due[self._spoken] <= now:
            self._spoken += 1
        return self._whose[first : self._spoken]

    @property
    def next_seconds(self) -> float:
        """When something is to be done next; infinite if nothing is."""
        entrance = message = float("inf")
        if self._entered < len(self._entrances):
            entrance, _ = self._entrances[self._entered]
        if self._spoken < len(self._due):
            message = self._due[self._spoken]
        return min(entrance, message)
