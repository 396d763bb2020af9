"""The three standard streams, made so that a command can use them without a care.

What stdout does not take is an `OutputError`, never an OSError: no command can mistake it for a broken
connection or a bad disk. One that was closed by the caller (`>&-`) fails when it is used, and its number is
not given to a file that the command opens. What has no place in the encoding of stdout is escaped.
"""

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from edge.cli.failure import CommandError, ExitCode

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputError(CommandError):
    """Stdout takes no more."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            "output",
            f"cannot write the output: {error.strerror}",
            "see what stdout is connected to, and whether its disk is full",
        )
        # The reader has left (`ringlog session export x | head`): that is no failure.
        self.reader_left = isinstance(error, BrokenPipeError)
        if self.reader_left:
            self.exit_code = ExitCode.OK


class _Stdout(io.FileIO):
    """Descriptor 1."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from None


def prepare_streams() -> None:
    """Set up the streams of this process; those that a caller put in their place stay."""
    # Opened for the other direction, a closed one fails when it is used.
    for number, name, flags in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):  # fmt: skip
        if getattr(sys, name) is None:
            _fill(number, flags)
            stream = open(number, "r" if number == 0 else "w", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _checked_stdout(sys.stdout)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="strict")


def flush_stdout() -> None:
    """Write what is still in the buffer.

    Raises:
        OutputError: stdout does not take it.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from None


def abandon(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, so that Python does not fail to write it on its way out."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """Print a line on stderr; where that is not possible, there is nobody to tell."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        abandon(sys.stderr)


def _fill(number: int, flags: int) -> None:
    opened = os.open(os.devnull, flags)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def _checked_stdout(stdout: Any) -> TextIO:
    raw = _Stdout(stdout.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stdout.encoding,
        errors="backslashreplace",
        line_buffering=stdout.line_buffering,
    )
