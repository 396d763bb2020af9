"""The one table of what can go wrong, and what each medium says about it.

A `code` is stable and the same everywhere: in an `error` frame on a WebSocket, in a problem document
over HTTP (RFC 9457), in the logs. The table gives each code an HTTP status, a title, what to do next,
and, for the few that end a WebSocket, the close code.

Errors of the edge itself are `EdgeError`s. Those of the packages below carry their code on their class
and are only looked up here: this module imports nothing, so that the whole edge may import it.
"""

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

# WebSocket close codes: RFC 6455 §7.4.1, and our own (44xx mirrors HTTP's 4xx).
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_UNSUPPORTED_DATA = 1003
CLOSE_INVALID_DATA = 1007
CLOSE_POLICY = 1008
CLOSE_TOO_BIG = 1009
CLOSE_INTERNAL = 1011
CLOSE_RESTART = 1012
CLOSE_TRY_LATER = 1013
CLOSE_UNAUTHORIZED = 4401
CLOSE_IDLE = 4408

PROBLEM_CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What one code means to a client; `close_code` is None where a WebSocket stays open."""

    status: int
    title: str
    hint: str
    close_code: int | None = None
    retry_after_ms: int | None = None


ERRORS: MappingProxyType[str, ErrorKind] = MappingProxyType(
    {
        # What was sent cannot be read.
        "bad_json": ErrorKind(
            400, "Not JSON", "send one JSON object, as RFC 8259 has it: no NaN, no trailing commas"
        ),
        "bad_utf8": ErrorKind(
            400, "Not UTF-8", "encode the text as UTF-8", close_code=CLOSE_INVALID_DATA
        ),
        "lone_surrogate": ErrorKind(
            400, "A lone surrogate", r"a \ud800 to \udfff escape needs its other half beside it"
        ),
        "too_deep": ErrorKind(400, "Nested too deeply", "nest arrays and objects at most 128 deep"),
        "unknown_type": ErrorKind(
            400, "Unknown type of frame", "see docs/protocol.md for the types of frame"
        ),
        "unknown_field": ErrorKind(400, "Unknown field", "remove the field that is named"),
        "missing_field": ErrorKind(400, "Missing field", "add the field that is named"),
        "invalid_field": ErrorKind(
            400, "Invalid value", "see the field's rules in docs/protocol.md"
        ),
        "bad_request": ErrorKind(400, "Bad request", "send a valid HTTP/1.1 request"),
        "body_timeout": ErrorKind(408, "The body took too long", "send the body without pauses"),
        "header_timeout": ErrorKind(
            408, "The request head took too long", "send the head without pauses"
        ),
        "body_too_large": ErrorKind(
            413, "Body too large", "see the limits in docs/protocol.md; send less in one request"
        ),
        "header_too_large": ErrorKind(
            431, "Request head too large", "send fewer or shorter headers; keep the URL short"
        ),
        "message_too_large": ErrorKind(
            413,
            "Message too large",
            "send less in one message; the limit is in hello.limits",
            close_code=CLOSE_TOO_BIG,
        ),
        "too_many_fragments": ErrorKind(
            413, "Too many fragments", "send a message in one frame", close_code=CLOSE_POLICY
        ),
        "binary_frame": ErrorKind(
            415,
            "Binary frames are not spoken",
            "send JSON in text frames",
            close_code=CLOSE_UNSUPPORTED_DATA,
        ),
        "protocol_error": ErrorKind(
            400,
            "Not a WebSocket frame",
            "send frames as RFC 6455 has them: masked, whole, without extensions",
            close_code=CLOSE_PROTOCOL_ERROR,
        ),
        "unsupported_encoding": ErrorKind(
            415, "The body is encoded", "send the body as it is, without Content-Encoding"
        ),
        # Who is asking.
        "unauthorized": ErrorKind(
            401,
            "Not authenticated",
            "send Authorization: Bearer KEY, with a secret key or a token from POST /v1/tokens",
            close_code=CLOSE_UNAUTHORIZED,
        ),
        "token_expired": ErrorKind(
            401,
            "The token has expired",
            "get a fresh token from POST /v1/tokens",
            close_code=CLOSE_UNAUTHORIZED,
        ),
        "forbidden": ErrorKind(
            403,
            "Not allowed",
            "ask a member of the session, or use a secret key with the right scope",
        ),
        "origin_not_allowed": ErrorKind(
            403, "Origin not allowed", "start the server with --allow-origin ORIGIN"
        ),
        "host_not_allowed": ErrorKind(
            421, "Host not allowed", "start the server with --allow-host HOST"
        ),
        # What is asked for.
        "not_found": ErrorKind(404, "Not found", "the routes are listed in /openapi.json"),
        "method_not_allowed": ErrorKind(
            405, "Method not allowed", "the methods are in the Allow header"
        ),
        "not_built": ErrorKind(
            501,
            "Not built yet",
            "inboxes come later",
        ),
        "upgrade_required": ErrorKind(
            426, "A WebSocket upgrade is required", "open this address with a WebSocket client"
        ),
        "bad_handshake": ErrorKind(
            400, "Not a WebSocket handshake", "send the handshake of RFC 6455, version 13"
        ),
        "unsupported_subprotocol": ErrorKind(
            400, "Unknown subprotocol", 'offer "ringlog.v1", or no subprotocol at all'
        ),
        # Sessions.
        "session_not_found": ErrorKind(
            404, "No such session", 'create it with POST /v1/sessions, or join with "create"'
        ),
        "session_exists": ErrorKind(
            409, "The session exists", "choose another id, or change the session with PATCH"
        ),
        "session_archived": ErrorKind(
            409,
            "The session is archived",
            "unarchive it first: POST /v1/sessions/{id}/unarchive",
        ),
        "session_deleted": ErrorKind(410, "The session was deleted", "use a new session id"),
        "not_joined": ErrorKind(409, "Not joined", "join the session first"),
        "conflict": ErrorKind(
            409, "Conflict", "read up to the actual position, decide again, and resend"
        ),
        "client_id_reused": ErrorKind(
            409,
            "client_id was used for other content",
            "a resend must carry the same content; give a new message a new client_id",
        ),
        "dispatch_not_found": ErrorKind(
            404, "No such dispatch", "they are listed in GET /v1/sessions/{id}/dispatches"
        ),
        "agent_busy": ErrorKind(
            409,
            "The agent is answering",
            "wait until its answer has ended, or stop it; then resend",
            retry_after_ms=1_000,
        ),
        "ahead_of_log": ErrorKind(
            409, "The cursor is beyond the head", "start again from details.head_seq"
        ),
        # Agents.
        "agent_not_found": ErrorKind(
            404,
            "No such agent",
            "the agents are in GET /v1/agents; create one with POST /v1/agents",
        ),
        "agent_exists": ErrorKind(
            409, "The agent exists", "choose another id, or change the agent with PATCH"
        ),
        "agent_built_in": ErrorKind(
            409, "The agent is built in", "create an agent of that type under another id"
        ),
        "secrets_key_missing": ErrorKind(
            503,
            "There is no key for secrets",
            "start every process with the same --secrets-key FILE, or RINGLOG_SECRETS_KEY",
        ),
        "secrets_key_unknown": ErrorKind(
            503, "The key of a secret is not here", "see docs/agents.md on keys that are lost"
        ),
        "invalid_secrets_key": ErrorKind(
            503, "The key for secrets cannot be used", "look at the file that is named"
        ),
        "secrets_damaged": ErrorKind(
            500, "A secret cannot be opened", "give the agent its secrets anew with PATCH"
        ),
        # The ring.
        "no_ring": ErrorKind(404, "There is no ring", "start an owner with --link HOST:PORT"),
        "node_not_found": ErrorKind(404, "No such node", "the nodes are in GET /v1/ring"),
        "ring_refused": ErrorKind(
            409, "The ring cannot be changed so", "look at GET /v1/ring, and ask for something else"
        ),
        "nodes_silent": ErrorKind(
            409,
            "Nodes do not live",
            'start them, or say "force": true',
        ),
        "ring_changed": ErrorKind(
            409, "The ring changes all the time", "repeat the request", retry_after_ms=1_000
        ),
        # Too much.
        "too_many_in_flight": ErrorKind(
            429,
            "Too many requests in flight",
            "wait for answers before sending more",
            retry_after_ms=100,
        ),
        "too_many_subscriptions": ErrorKind(
            429, "Too many sessions joined", "leave a session, or open another connection"
        ),
        "too_many_connections": ErrorKind(
            503,
            "Too many connections",
            "retry with jittered backoff; the operator may raise connections_max",
            close_code=CLOSE_TRY_LATER,
            retry_after_ms=2_000,
        ),
        "rate_limited": ErrorKind(
            429,
            "Too many requests",
            "retry after the given time",
            close_code=CLOSE_POLICY,
            retry_after_ms=1_000,
        ),
        "slow_reader": ErrorKind(
            408,
            "The reader made no progress",
            "reconnect with your last_seq, and read faster",
            close_code=CLOSE_TRY_LATER,
        ),
        "idle_timeout": ErrorKind(
            408,
            "Nothing was heard",
            "answer pings, or send one; reconnect with your last_seq",
            close_code=CLOSE_IDLE,
        ),
        # The server's own state.
        "backpressure": ErrorKind(
            503,
            "Too much waits to be stored",
            "resend with the same client_id after retry_after_ms",
            retry_after_ms=1_000,
        ),
        "storage_full": ErrorKind(
            507,
            "The disk is full",
            "resend later with the same client_id; the operator must free space",
            retry_after_ms=5_000,
        ),
        "shutting_down": ErrorKind(
            503,
            "Shutting down",
            "reconnect with your last_seq and resend with the same client_id",
            close_code=CLOSE_RESTART,
            retry_after_ms=1_000,
        ),
        "moving": ErrorKind(
            503,
            "The session is on its way to another node",
            "resend with the same client_id after retry_after_ms",
            retry_after_ms=250,
        ),
        "owner_unavailable": ErrorKind(
            503,
            "The session's owner does not answer",
            "resend with the same client_id after retry_after_ms",
            retry_after_ms=1_000,
        ),
        "unknown": ErrorKind(
            504,
            "Whether it was stored is unknown",
            "resend with the same client_id: the answer tells",
            retry_after_ms=1_000,
        ),
        "archive_unavailable": ErrorKind(
            503,
            "The archive is not available",
            "retry; live messages and appends to active sessions go on",
            retry_after_ms=1_000,
        ),
        "not_ready": ErrorKind(
            503, "Not ready", "the reasons are in details", retry_after_ms=1_000
        ),
        "log_poisoned": ErrorKind(
            503,
            "The log failed",
            "reconnect with your last_seq and resend with the same client_id",
            close_code=CLOSE_RESTART,
            retry_after_ms=2_000,
        ),
        "fenced": ErrorKind(
            503,
            "Another process took over",
            "reconnect with your last_seq",
            close_code=CLOSE_RESTART,
            retry_after_ms=1_000,
        ),
        "internal": ErrorKind(
            500,
            "Internal error",
            "report it with the time and the request; resend with the same client_id",
            close_code=CLOSE_INTERNAL,
        ),
    }
)


class EdgeError(Exception):
    """A request is refused at the edge: `code` stands in the table, `details` names what a program needs."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        retry_after_ms: int | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        kind = ERRORS[code]
        self.code = code
        self.message = message
        self.hint = kind.hint if hint is None else hint
        self.retry_after_ms = kind.retry_after_ms if retry_after_ms is None else retry_after_ms
        self.details = details


@dataclass(frozen=True, slots=True)
class Problem:
    """What a client is told about an error, whatever raised it and whatever carries it."""

    code: str
    message: str
    hint: str
    retry_after_ms: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> ErrorKind:
        """The code's row in the table."""
        return ERRORS[self.code]


INTERNAL = Problem("internal", "something failed inside the server", ERRORS["internal"].hint)


def problem_of(error: BaseException) -> Problem:
    """Return what a client may be told about `error`; anything unexpected is `internal`, without detail.

    Errors of the packages below are known by the `code` of their class.
    """
    code = getattr(error, "code", None)
    if not isinstance(code, str) or code not in ERRORS:
        return INTERNAL
    kind = ERRORS[code]
    retry_after_ms = getattr(error, "retry_after_ms", None)
    return Problem(
        code,
        str(error) or kind.title,
        getattr(error, "hint", "") or kind.hint,
        kind.retry_after_ms if retry_after_ms is None else retry_after_ms,
        getattr(error, "details", None) or {},
    )


def encode_problem(problem: Problem, instance: str | None = None) -> bytes:
    """Return the problem document (RFC 9457); `instance` is the path that was asked for."""
    kind = problem.kind
    document: dict[str, Any] = {
        "type": f"urn:ringlog:error:{problem.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.message,
        "code": problem.code,
        "hint": problem.hint,
    }
    if problem.retry_after_ms is not None:
        document["retry_after_ms"] = problem.retry_after_ms
    if problem.details:
        document["details"] = problem.details
    if instance is not None:
        document["instance"] = instance
    return msgspec.json.encode(document)


def problem_headers(problem: Problem) -> dict[str, str]:
    """Return the headers that go with a problem document."""
    headers = {"Content-Type": PROBLEM_CONTENT_TYPE, "Cache-Control": "no-store"}
    if problem.retry_after_ms is not None:
        headers["Retry-After"] = str(math.ceil(problem.retry_after_ms / 1000))
    if problem.kind.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ringlog"'
    return headers
