"""`ringlog.v1`: what clients send, parsed and checked once, and what they get, encoded by joining bytes.

Frames are decoded straight into the structs below; unknown fields are refused by name. `content` and
`metadata` stay the client's own bytes: they are checked here (`clean_content`) and never parsed again.
What the structs cannot say (alphabets, depth) is checked here too, so nothing past this module asks.
"""

import re
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta, Raw

from edge.errors import EdgeError, Problem, problem_of
from edge.limits import Limits
from runtime import (
    DEPTH_MAX,
    IDENTIFIER_RULE,
    KIND_RULE,
    is_identifier,
    is_kind,
    is_too_deep,
    one_line,
)

PROTOCOL = "ringlog.v1"

REF_BYTES_MAX = 128
"""A ref is echoed in every answer; clients use counters or UUIDs."""

TAIL_MAX = 1_000
"""Messages a join may ask for from the end; who wants more has a cursor to replay from."""

_NULL = Raw(b"null")
_EMPTY = Raw(b"{}")
_Name = Annotated[str, Meta(min_length=1, max_length=128)]
_Kind = Annotated[str, Meta(min_length=1, max_length=64)]
_Position = Annotated[int, Meta(ge=0, le=(1 << 53))]


class Frame(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, gc=False):
    """What every request has: a `ref` that its one answer repeats."""

    ref: Raw = _NULL


class Send(Frame, tag="send", kw_only=True):
    """Append a message."""

    session: _Name
    content: Raw
    client_id: _Name | None = None
    kind: _Kind = "text"
    metadata: Raw = _EMPTY
    expected_seq: _Position | None = None
    sender: _Name | None = None


class Create(msgspec.Struct, forbid_unknown_fields=True):
    """How a join creates a session that does not exist yet."""

    user_id: _Name | None = None
    members: tuple[_Name, ...] = ()
    agent_id: _Name | None = None
    metadata: Raw = _EMPTY


class Join(Frame, tag="join", kw_only=True):
    """Follow a session from a cursor, or from its end; or an inbox."""

    session: _Name | None = None
    inbox: _Name | None = None
    last_seq: _Position | None = None
    tail: Annotated[int, Meta(ge=0, le=TAIL_MAX)] | None = None
    create: Create | None = None


class Read(Frame, tag="read", kw_only=True):
    """Move a read cursor forward."""

    session: _Name
    seq: _Position
    user_id: _Name | None = None


class Leave(Frame, tag="leave", kw_only=True):
    """Stop following a session."""

    session: _Name


class Stop(Frame, tag="stop", kw_only=True):
    """Stop the answer that an agent is giving."""

    session: _Name


class Ping(Frame, tag="ping"):
    """Ask whether the other side is there."""


class Auth(Frame, tag="auth", kw_only=True):
    """Present a fresh token before the old one expires."""

    token: Annotated[str, Meta(min_length=1, max_length=8192)]


Request = Send | Join | Read | Leave | Stop | Ping | Auth


class _OnlyRef(msgspec.Struct):
    ref: Raw = _NULL


_decode = msgspec.json.Decoder(Request).decode
_decode_ref = msgspec.json.Decoder(_OnlyRef).decode


def decode_request(data: bytes) -> Request:
    """Return the request in one text frame.

    Raises:
        EdgeError: bad_utf8, bad_json, lone_surrogate, too_deep, unknown_type, unknown_field,
            missing_field, invalid_field.
    """
    try:
        data.decode()
        request: Request = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse_json(data, error)
    if request.ref is not _NULL:
        check_ref(bytes(request.ref))
    return request


def find_ref(data: bytes) -> bytes:
    """Return the ref of a frame that could not be decoded, or null if it has none that can be told."""
    try:
        ref = bytes(_decode_ref(data).ref)
    except (msgspec.DecodeError, RecursionError):
        # No JSON: NaN, a lone surrogate. What stands before the first nested value is told apart even so.
        found = _EARLY_REF.match(data)
        ref = found[1] if found and data.count(b'"ref"') == 1 else b"null"
    try:
        ref.decode()
        check_ref(ref)
    except (UnicodeDecodeError, EdgeError):
        return b"null"
    return ref


# From the start of the frame, members whose values are no object or array, and then the ref. A second ref,
# wherever it is, would make it a guess.
_EARLY_REF = re.compile(
    rb'\s*\{\s*(?:"[a-z_]{1,16}"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[-+.\w]{1,64})\s*,\s*)*?'
    rb'"ref"\s*:\s*("[^"\\\x00-\x1f]*"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*[,}]',
    re.DOTALL,
)


def check_ref(ref: bytes) -> None:
    """Raise `invalid_field` unless a ref is a string or a number of at most `REF_BYTES_MAX` bytes."""
    if len(ref) > REF_BYTES_MAX or ref[0] not in _REF_STARTS:
        raise EdgeError(
            "invalid_field",
            f"ref must be a string or a number of at most {REF_BYTES_MAX} bytes",
            field="ref",
        )


_REF_STARTS = b'"-0123456789n'


def clean_content(raw: Raw | bytes) -> bytes:
    """Return valid JSON as one line of the client's own bytes.

    A raw line break can only stand between tokens; it becomes a space, and nothing else is ever changed.

    Raises:
        EdgeError: too_deep.
    """
    if raw is _EMPTY:
        return b"{}"
    content = bytes(raw)
    if is_too_deep(content):
        raise EdgeError("too_deep", f"content is nested more than {DEPTH_MAX} deep")
    return one_line(content)


def check_name(name: str, field: str) -> None:
    """Raise `invalid_field` unless a caller-chosen id keeps to its alphabet."""
    if not is_identifier(name):
        raise EdgeError("invalid_field", f"{field} must be {IDENTIFIER_RULE}", field=field)


def check_kind(kind: str) -> None:
    """Raise `invalid_field` unless a message's kind keeps to its alphabet."""
    if not is_kind(kind):
        raise EdgeError("invalid_field", f"kind must be {KIND_RULE}", field="kind")


# Why JSON was refused.

_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89aAbB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89aAbB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_NAMED = re.compile(r"(?:field `(?P<name>[^`]*)`)|(?:at `\$\.?(?P<path>[^`]*)`)")


def refuse_json(data: bytes, error: Exception, *, tagged: bool = True) -> NoReturn:
    """Raise the `EdgeError` for bytes that `msgspec` did not take; `error` is what it said.

    `tagged`: `type` says what they are, as it does in a frame, and not in a body.
    """
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        raise EdgeError("bad_utf8", f"not valid UTF-8 at byte {error.start}") from None
    if isinstance(error, RecursionError):
        raise EdgeError("too_deep", f"nested more than {DEPTH_MAX} deep") from None
    if not isinstance(error, msgspec.ValidationError):
        if _LONE_SURROGATE.search(data):
            raise EdgeError("lone_surrogate", "an escaped surrogate stands alone") from None
        raise EdgeError("bad_json", f"the JSON cannot be read: {text}") from None
    found = _NAMED.search(text)
    field = (found["name"] or found["path"] or "") if found else ""
    if "unknown field" in text:
        raise EdgeError("unknown_field", f"field {field} is not known here", field=field) from None
    if "missing required" in text:
        raise EdgeError("missing_field", f"field {field} is missing", field=field) from None
    if field == "type" and tagged:
        raise EdgeError(
            "unknown_type", f"{text.partition(' - ')[0]} of type", field=field
        ) from None
    raise EdgeError("invalid_field", text, field=field) from None


# What clients get.


def encode_hello(user_id: str | None, workspace: str, durability: str, limits: Limits) -> bytes:
    """Return the first frame on every connection."""
    return msgspec.json.encode(
        {
            "type": "hello",
            "protocol": PROTOCOL,
            "user": user_id,
            "workspace": workspace,
            "durability": durability,
            "limits": {
                "message_bytes_max": limits.message_bytes_max,
                "in_flight_max": limits.in_flight_max,
                "subscriptions_max": limits.subscriptions_max,
                "depth_max": DEPTH_MAX,
                "tail_max": TAIL_MAX,
            },
            "heartbeat_ms": int(limits.heartbeat_seconds * 1000),
        }
    )


def encode_joined(ref: Raw, session: str, head_seq: int) -> bytes:
    """Return the answer to a join."""
    return b'{"type":"joined","ref":%b,"session":"%b","head_seq":%d}' % (
        ref,
        session.encode(),
        head_seq,
    )


def ack_suffix(durability: str) -> bytes:
    """Return how every ack of a node ends; made once per connection."""
    return f',"durability":"{durability}"}}'.encode()


def encode_ack(
    ref: Raw,
    session: str,
    seq: int,
    id: str,
    client_id: str | None,
    duplicate: bool,  # noqa: FBT001
    suffix: bytes,
) -> bytes:
    """Return the answer to a message that is durable."""
    quoted = "null" if client_id is None else f'"{client_id}"'
    place = f',"session":"{session}","seq":{seq},"id":"{id}","client_id":{quoted},"duplicate":'
    return b"".join(
        (b'{"type":"ack","ref":', ref, place.encode(), b"true" if duplicate else b"false", suffix)
    )


def encode_ok(ref: Raw) -> bytes:
    """Return the answer to a request that has nothing to tell."""
    return b'{"type":"ok","ref":%b}' % (ref,)


def encode_error(problem: Problem, ref: Raw | bytes = b"null", session: str | None = None) -> bytes:
    """Return the answer to a request that was refused, or the reason why something ended."""
    frame: dict[str, Any] = {"type": "error", "ref": Raw(bytes(ref)), "code": problem.code}
    if session is not None:
        frame["session"] = session
    frame |= {"message": problem.message, "hint": problem.hint}
    if problem.retry_after_ms is not None:
        frame["retry_after_ms"] = problem.retry_after_ms
    if problem.details:
        frame["details"] = problem.details
    return msgspec.json.encode(frame)


def encode_refusal(error: BaseException, ref: Raw | bytes = b"null") -> bytes:
    """Return the error frame for what a request raised."""
    return encode_error(problem_of(error), ref)
