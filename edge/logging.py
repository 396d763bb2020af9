r"""What the process says while it runs: structlog, for a person on a terminal, as JSON otherwise.

One event is one line on stderr, written at once: stdout belongs to data. Nothing a client sent can break a
line or drive a terminal: control characters are escaped as \u001b. Nor does a credential get in, wherever a
client has put it. A line that cannot be written (the log is on the disk that is full, its reader is gone) is
dropped: a server does not end for want of words. Everything is synchronous; structlog's `a…` methods need asyncio. Log lines of libraries
(Hypercorn, Quart, SQLAlchemy) take the same way out.
"""

import io
import json
import logging
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from edge.printable import escape, redact_credentials

# Longer values are cut in the pretty form only; a JSON line keeps all.
PRETTY_VALUE_CHARACTERS_MAX = 400
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Libraries are chatty below this level, and what they say there is of no use to an operator.
LIBRARY_LEVEL = logging.WARNING


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send every log line to `stream` (stderr by default) in the given form: pretty, json or auto."""
    out = stream or sys.stderr
    pretty = form == "pretty" or (form == "auto" and out.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
            structlog.processors.format_exc_info,
            _pretty if pretty else _json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Forgiving(out))),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    root.setLevel(max(LEVELS[level], LIBRARY_LEVEL))


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    line = {"at": event.pop("timestamp"), "level": event.pop("level"), "event": event.pop("event")}
    # The standard library's encoder, because it escapes all that is not ASCII (but for DEL), even lone
    # surrogates, on which orjson raises: a log line must never be what fails.
    return redact_credentials(escape(json.dumps(line | dict(event), default=str)))


def _pretty(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    at, level, name = event.pop("timestamp"), event.pop("level"), event.pop("event")
    trace = event.pop("exception", "")
    pairs = " ".join(f"{escape(key)}={_brief(value)}" for key, value in event.items())
    lines = [f"{at} {level:<7} {escape(str(name))}  {pairs}".rstrip()]
    lines += [f"  {escape(line)}" for line in trace.splitlines()]
    return redact_credentials("\n".join(lines))


def _brief(value: object) -> str:
    text = escape(str(value))
    if len(text) > PRETTY_VALUE_CHARACTERS_MAX:
        text = text[:PRETTY_VALUE_CHARACTERS_MAX] + "…"
    return f'"{text}"' if " " in text or not text else text


class _Forgiving(io.TextIOBase):
    """Drops what its stream does not take.

    It writes past the stream's buffer: what cannot be written now must not fail when the process ends.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        try:
            self._descriptor: int | None = out.fileno()
        except OSError:
            self._descriptor = None

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            if self._descriptor is None:
                self._out.write(text)
            else:
                os.write(self._descriptor, text.encode(errors="backslashreplace"))
        return len(text)


class _LibraryHandler(logging.Handler):
    """Hands a line of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger()
        error = {"exc_info": record.exc_info} if record.exc_info else {}
        method = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(logger, method)(record.getMessage(), logger=record.name, **error)
