"""A dispatch: one call to a session's agent, from the message that caused it to the answer's end. Pure.

Its states, and what leads from one to another::

    queued ──▶ sent ──▶ streaming      to be sent when it is due · the agent was called · its answer comes
       ▲         │          │
       └─────────┴──────────┘          another attempt is due
                 │          │
                 └────┬─────┘
                      ▼
         done                          the answer is stored
         interrupted                   its stream or its owner broke; what had come is kept
         cancelled                     somebody stopped it; what had come is kept
         failed                        no attempt brought an answer

Each change is a record in the session's log, and the frame that clients see of it is that record's body. A session has
at most one dispatch that was sent, and one behind it that was not.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from runtime.identifiers import format_time, parse_time
from storage import DispatchRecord

AGENT_PREFIX = "agent:"
"""How the sender of an agent's messages begins; no user's name does."""

QUEUE, INTERRUPT, REJECT = "queue", "interrupt", "reject"
"""What becomes of a message that comes while the agent answers: it waits for the next dispatch; it ends the answer, and
the next dispatch follows at once; it is refused."""

ERROR_LENGTH_MAX = 500
"""Of the reason why an attempt failed: enough to find it; the rest may be a page of HTML."""


class DispatchState(enum.StrEnum):
    """Where a dispatch is."""

    QUEUED = "queued"
    SENT = "sent"
    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


_S = DispatchState

NEXT: Mapping[DispatchState, frozenset[DispatchState]] = MappingProxyType(
    {
        _S.QUEUED: frozenset({_S.SENT, _S.FAILED, _S.CANCELLED}),
        _S.SENT: frozenset(
            {_S.STREAMING, _S.QUEUED, _S.DONE, _S.FAILED, _S.INTERRUPTED, _S.CANCELLED}
        ),
        _S.STREAMING: frozenset({_S.QUEUED, _S.DONE, _S.FAILED, _S.INTERRUPTED, _S.CANCELLED}),
        _S.DONE: frozenset(),
        _S.FAILED: frozenset(),
        _S.INTERRUPTED: frozenset(),
        _S.CANCELLED: frozenset(),
    }
)
"""Which states may follow each one; from those that nothing follows, the dispatch is closed."""


class IllegalStateError(Exception):
    """A bug: a dispatch cannot go from one of these states to the other."""


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to the agent. Times are RFC 3339; `bytes` and `chunks` count what came of the answer."""

    number: int
    sent_at: str
    first_byte_at: str | None = None
    ended_at: str | None = None
    status: int | None = None
    bytes: int = 0
    chunks: int = 0
    code: str | None = None
    error: str | None = None


class Dispatch(msgspec.Struct, frozen=True, tag_field="type", tag="dispatch"):
    """The state of a dispatch, as clients, the API and the log have it.

    `from_seq` is the message that caused it. `to_seq` is the last one that the agent is shown: known once it is sent, and
    the same in every attempt. `policy` is what happens to messages that come while it is answered.
    """

    session: str
    dispatch: str
    agent_id: str
    state: DispatchState
    version: int
    from_seq: int
    created_at: str
    updated_at: str
    to_seq: int | None = None
    due_at: str | None = None
    policy: str | None = None
    code: str | None = None
    error: str | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether anything is still to come of it."""
        return bool(NEXT[self.state])

    @property
    def is_in_flight(self) -> bool:
        """Whether the agent may be at work on it."""
        return self.state in {DispatchState.SENT, DispatchState.STREAMING}

    @property
    def attempt(self) -> int:
        """The number of the attempt that is under way or was the last one; 0 before the first."""
        return len(self.attempts)

    @property
    def sender(self) -> str:
        """Who the messages of its answer are from."""
        return sender_of(self.agent_id)


def sender_of(agent_id: str) -> str:
    """Return the sender of an agent's messages."""
    return f"{AGENT_PREFIX}{agent_id}"


def queue_dispatch(
    session: str, dispatch: str, agent_id: str, from_seq: int, at_ms: int
) -> Dispatch:
    """Return a dispatch that a message has just caused."""
    at = format_time(at_ms)
    return Dispatch(
        session, dispatch, agent_id, DispatchState.QUEUED, 1, from_seq, at, at, due_at=at
    )


def send_dispatch(dispatch: Dispatch, at_ms: int, *, to_seq: int, policy: str) -> Dispatch:
    """Return it with another attempt under way; what the first one showed the agent, each shows."""
    _check(dispatch, DispatchState.SENT)
    at = format_time(at_ms)
    return _go(
        dispatch,
        DispatchState.SENT,
        at_ms,
        due_at=None,
        to_seq=to_seq if dispatch.to_seq is None else dispatch.to_seq,
        policy=policy,
        attempts=(*dispatch.attempts, Attempt(dispatch.attempt + 1, at)),
    )


def stream_dispatch(dispatch: Dispatch, at_ms: int, status: int | None) -> Dispatch:
    """Return it with the first of its answer there."""
    _check(dispatch, DispatchState.STREAMING)
    return _go(
        dispatch,
        DispatchState.STREAMING,
        at_ms,
        attempts=_last(dispatch, first_byte_at=format_time(at_ms), status=status),
    )


class Ending(msgspec.Struct, frozen=True):
    """What an attempt came to: `code` and `error` tell why, unless all went well."""

    code: str | None = None
    error: str | None = None
    status: int | None = None
    bytes: int = 0
    chunks: int = 0


def retry_dispatch(dispatch: Dispatch, at_ms: int, due_at_ms: int, ending: Ending) -> Dispatch:
    """Return it with its attempt over, and another due later."""
    _check(dispatch, DispatchState.QUEUED)
    return _go(
        dispatch,
        DispatchState.QUEUED,
        at_ms,
        due_at=format_time(due_at_ms),
        attempts=_ended(dispatch, at_ms, ending),
    )


def close_dispatch(
    dispatch: Dispatch, state: DispatchState, at_ms: int, ending: Ending
) -> Dispatch:
    """Return it closed: nothing more comes of it."""
    assert not NEXT[state]
    _check(dispatch, state)
    return _go(
        dispatch,
        state,
        at_ms,
        due_at=None,
        code=ending.code,
        error=_short(ending.error),
        attempts=_ended(dispatch, at_ms, ending) if dispatch.is_in_flight else dispatch.attempts,
    )


def due_at_ms(dispatch: Dispatch) -> int:
    """Return when it should be sent, in milliseconds since 1970."""
    assert dispatch.due_at is not None
    return parse_time(dispatch.due_at)


def encode_dispatch(dispatch: Dispatch) -> bytes:
    """Return its one line of JSON."""
    return msgspec.json.encode(dispatch)


decode_dispatch = msgspec.json.Decoder(Dispatch).decode


def dispatch_record(workspace: str, dispatch: Dispatch, body: bytes) -> DispatchRecord:
    """Return the record that makes this state durable."""
    return DispatchRecord(
        workspace,
        dispatch.session,
        dispatch.dispatch,
        dispatch.agent_id,
        dispatch.state,
        dispatch.is_open,
        parse_time(dispatch.created_at),
        parse_time(dispatch.updated_at),
        dispatch.version,
        body,
    )


def _go(dispatch: Dispatch, state: DispatchState, at_ms: int, **changes: object) -> Dispatch:
    return msgspec.structs.replace(
        dispatch,
        state=state,
        version=dispatch.version + 1,
        updated_at=format_time(max(at_ms, parse_time(dispatch.updated_at))),
        **changes,
    )


def _check(dispatch: Dispatch, state: DispatchState) -> None:
    if state not in NEXT[dispatch.state]:
        raise IllegalStateError(f"dispatch {dispatch.dispatch}: {dispatch.state} to {state}")


def _last(dispatch: Dispatch, **changes: object) -> tuple[Attempt, ...]:
    *earlier, last = dispatch.attempts
    return (*earlier, msgspec.structs.replace(last, **changes))


def _ended(dispatch: Dispatch, at_ms: int, ending: Ending) -> tuple[Attempt, ...]:
    last = dispatch.attempts[-1]
    return _last(
        dispatch,
        ended_at=format_time(at_ms),
        status=last.status if ending.status is None else ending.status,
        bytes=ending.bytes,
        chunks=ending.chunks,
        code=ending.code,
        error=_short(ending.error),
    )


def _short(text: str | None) -> str | None:
    return None if text is None else text[:ERROR_LENGTH_MAX]
