"""Bytes as they come from an agent, and the lines that are whole. Pure.

JSONL has a value a line. An event stream has them in `data:` lines; its comments, its other fields and its empty lines
carry nothing here, and several `data:` lines in a row are several values: those who stream JSON write each on one.

A line ends with LF, or CR LF. The last one may lack its end, so what is left when the answer ends is a line too.
Whatever the pieces, each byte is looked at once.
"""

from collections.abc import Iterator

from agents.answererror import AnswerError

LINE_BYTES_MAX = 256 * 1024
"""As long as a user's message may be: one chunk is a small part of an answer, one legacy line a message."""

_BOM = b"\xef\xbb\xbf"
_DATA = b"data:"


class LineSplitter:
    """Cuts what comes into lines; holds less than one."""

    def __init__(self, bytes_max: int = LINE_BYTES_MAX) -> None:
        self.number = 0
        """Of the line that was returned last, from 1."""
        self._bytes_max = bytes_max
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each line that is whole now, without its end.

        Raises:
            AnswerError: answer_line_too_long.
        """
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data[start:end])
            start = end + 1
            yield self._take()
        self._hold(data[start:])

    def end(self) -> Iterator[bytes]:
        """Yield what is left: a last line without an end."""
        if self._held:
            yield self._take()

    def _hold(self, data: bytes) -> None:
        if len(self._held) + len(data) > self._bytes_max:
            self.number += 1
            raise AnswerError(
                "answer_line_too_long", f"longer than {self._bytes_max} bytes", self.number
            )
        self._held += data

    def _take(self) -> bytes:
        line = bytes(self._held)
        self._held.clear()
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(_BOM)
        return line.removesuffix(b"\r")


def value_of_line(line: bytes) -> bytes | None:
    """Return the value on a line of JSONL; None of an empty one."""
    return line.strip(b" \t\r") or None


def value_of_event(line: bytes) -> bytes | None:
    """Return the value on a line of an event stream; None where it has none."""
    if not line.startswith(_DATA):
        return None
    return line[len(_DATA) :].strip(b" \t\r") or None
