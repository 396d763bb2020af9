"""W3C trace context: the `traceparent` header, made here or forwarded. Pure; randomness is an argument.

::

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    version  trace                      parent span      flags (01: sampled)

A call is a child: it keeps the trace and the flags of what caused it, and has a span of its own. A header that
cannot be understood starts a new trace, as the specification has it; `tracestate` may then not be forwarded.
"""

import re
from dataclasses import dataclass, replace

TRACE_BYTES = 16
SPAN_BYTES = 8
SAMPLED = 0x01

# A later version may say more after a further dash, and is read as this one.
_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Where in which trace something happens; hexadecimal in lower case."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED

    @property
    def header(self) -> str:
        """The value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self, span: bytes) -> "TraceParent":
        """Return the next span in the same trace, named by random bytes."""
        assert len(span) == SPAN_BYTES
        return replace(self, span_id=_non_zero(span))


def begin_trace(trace: bytes, span: bytes) -> TraceParent:
    """Return the first span of a new trace; both are named by random bytes."""
    assert len(trace) == TRACE_BYTES
    assert len(span) == SPAN_BYTES
    return TraceParent(_non_zero(trace), _non_zero(span))


def parse_traceparent(header: str) -> TraceParent | None:
    """Return what a `traceparent` header says, or None for one that is to be ignored."""
    match = _HEADER.fullmatch(header.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    # Flags that this version does not know are not passed on.
    return TraceParent(trace_id, span_id, int(flags, 16) & SAMPLED)


def _non_zero(name: bytes) -> str:
    """All zeros are no name."""
    return name.hex() if any(name) else f"{1:0{len(name) * 2}x}"
