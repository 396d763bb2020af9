"""The API described in OpenAPI 3.1: paths by hand, schemas from the structs that are decoded into.

A test walks the app's routes and this document and finds the same operations in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agents import ChangeAgent, CreateAgent
from edge.errors import ERRORS, PROBLEM_CONTENT_TYPE
from edge.http_bodies import (
    Ack,
    Agent,
    AgentPage,
    AppendMessage,
    ChangeNode,
    ChangeSession,
    ChangeWeight,
    CreateSession,
    DispatchPage,
    Health,
    MarkRead,
    MessagePage,
    MintToken,
    ProblemDocument,
    ReadCursor,
    Readiness,
    Rebalance,
    RemoveNode,
    RingChanged,
    RingHistory,
    RingPlan,
    RingState,
    Session,
    SessionPage,
    Token,
)
from edge.version import VERSION
from runtime import Dispatch

JSON = "application/json"

REQUESTS = (
    AppendMessage, ChangeAgent, ChangeNode, ChangeSession, ChangeWeight, CreateAgent, CreateSession, MarkRead,
    MintToken, Rebalance, RemoveNode,
)  # fmt: skip
ANSWERS = (
    Ack, Agent, AgentPage, Dispatch, DispatchPage, Health, MessagePage, ProblemDocument, Readiness, ReadCursor, RingChanged, RingHistory, RingPlan, RingState,
    Session, SessionPage, Token,
)  # fmt: skip
_SCHEMA = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One route: its parameters by name, the struct of its body, the structs of its answers.

    `media` is what an answer without a struct is; `public` needs no credential.
    """

    path: str
    method: str
    summary: str
    parameters: tuple[str, ...] = ()
    body: type | None = None
    answers: Mapping[int, type | None] = field(default_factory=dict)
    media: str | None = None
    public: bool = False


ONE = "/v1/sessions/{session}"
SESSION = ("session",)
AGENT = "/v1/agents/{agent}"
RING = "/v1/ring"

OPERATIONS = (
    Operation(
        "/v1/sessions", "post", "Create a session",
        body=CreateSession, answers={201: Session, 200: Session},
    ),
    Operation(
        "/v1/sessions", "get", "List sessions, newest first",
        ("user_id", "cursor", "limit", "include_archived"), answers={200: SessionPage},
    ),
    Operation(ONE, "get", "Show a session", SESSION, answers={200: Session}),
    Operation(
        ONE, "patch", "Change members, agent or metadata",
        SESSION, ChangeSession, answers={200: Session},
    ),
    Operation(ONE, "delete", "Erase a session", SESSION, answers={204: None}),
    Operation(
        f"{ONE}/archive", "post", "Make a session read-only", SESSION, answers={200: Session}
    ),
    Operation(
        f"{ONE}/unarchive", "post", "Make it writable again", SESSION, answers={200: Session}
    ),
    Operation(
        f"{ONE}/messages", "post", "Append a message; answered when it is durable",
        SESSION, AppendMessage, answers={201: Ack, 200: Ack},
    ),
    Operation(
        f"{ONE}/messages", "get", "Read messages, oldest first",
        (*SESSION, "last_seq", "before_seq", "limit"), answers={200: MessagePage},
    ),
    Operation(
        f"{ONE}/stream", "get", "Follow a session as server-sent events; the id is the seq",
        (*SESSION, "last_seq", "Last-Event-ID", "access_token"),
        answers={200: None}, media="text/event-stream",
    ),
    Operation(
        f"{ONE}/read", "post", "Move a read cursor", SESSION, MarkRead, answers={200: ReadCursor}
    ),
    Operation(
        f"{ONE}/stop", "post", "Stop the answer that an agent is giving", SESSION, answers={204: None}
    ),
    Operation("/v1/users/{user}/inbox", "get", "A user's inbox: not built yet", ("user",)),
    Operation(
        "/v1/tokens", "post", "Mint a user token", body=MintToken, answers={201: Token}
    ),
    Operation("/v1/ws", "get", "Open a WebSocket (docs/protocol.md)", answers={101: None}),
    Operation(
        "/v1/agents", "post", "Create an agent",
        body=CreateAgent, answers={201: Agent, 200: Agent},
    ),
    Operation(
        "/v1/agents", "get", "List agents by id", ("cursor", "limit"), answers={200: AgentPage}
    ),
    Operation(AGENT, "get", "Show an agent", ("agent",), answers={200: Agent}),
    Operation(
        AGENT, "patch", "Change an agent; null removes a header",
        ("agent",), ChangeAgent, answers={200: Agent},
    ),
    Operation(
        AGENT, "delete", "Delete an agent and its secrets",
        ("agent", "expected_version"), answers={204: None},
    ),
    Operation(
        f"{AGENT}/dispatches", "get", "List an agent's dispatches, newest first",
        ("agent", "cursor", "limit"), answers={200: DispatchPage},
    ),
    Operation(
        f"{ONE}/dispatches", "get", "List a session's dispatches, newest first",
        (*SESSION, "cursor", "limit"), answers={200: DispatchPage},
    ),
    Operation(
        "/v1/dispatches/{dispatch}", "get", "Show a dispatch, with every attempt",
        ("dispatch",), answers={200: Dispatch},
    ),
    Operation(
        "/v1/dispatches/{dispatch}/redeliver", "post", "Send it again: not built yet", ("dispatch",)
    ),
    Operation(RING, "get", "The nodes and what they own", ("probe",), answers={200: RingState}),
    Operation(
        f"{RING}/history", "get", "Changes of the ring, newest first",
        ("limit",), answers={200: RingHistory},
    ),
    Operation(
        f"{RING}/plan", "get", "What a change would move",
        ("action", "node_id", "weight", "sessions", "limit"), answers={200: RingPlan},
    ),
    Operation(
        f"{RING}/join", "post", "Give a node its share", body=ChangeNode, answers={200: RingChanged}
    ),
    Operation(
        f"{RING}/drain", "post", "Move all that a node owns to the others",
        body=ChangeNode, answers={200: RingChanged},
    ),
    Operation(
        f"{RING}/undrain", "post", "Give a drained node its share again",
        body=ChangeNode, answers={200: RingChanged},
    ),
    Operation(
        f"{RING}/weight", "post", "Change how large a node's share is",
        body=ChangeWeight, answers={200: RingChanged},
    ),
    Operation(
        f"{RING}/remove", "post", "Take a drained node out",
        body=RemoveNode, answers={200: RingChanged},
    ),
    Operation(
        f"{RING}/rebalance", "post", "Divide the slots anew",
        body=Rebalance, answers={200: RingChanged},
    ),
    Operation("/healthz", "get", "The process answers", answers={200: Health}, public=True),
    Operation(
        "/readyz", "get", "The server should get traffic", answers={200: Readiness}, public=True
    ),
    Operation("/metrics", "get", "Metrics for Prometheus", answers={200: None}, media="text/plain"),
    Operation(
        "/openapi.json", "get", "This document", answers={200: None}, media=JSON, public=True
    ),
)  # fmt: skip


def describe() -> bytes:
    """Return the document as JSON."""
    _, schemas = msgspec.json.schema_components((*REQUESTS, *ANSWERS), ref_template=_SCHEMA)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _describe_operation(operation)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Ringlog",
            "version": VERSION,
            "description": "Durable sessions: an acknowledged message is durable and appears exactly "
            "once, at its seq, in every replay.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "parameters": _PARAMETERS,
            "responses": {
                "Problem": {
                    "description": "Refused; `code` is one of: " + ", ".join(sorted(ERRORS)),
                    "content": {PROBLEM_CONTENT_TYPE: {"schema": _ref(ProblemDocument)}},
                }
            },
        },
    }
    return msgspec.json.encode(document)


def _describe_operation(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        response: dict[str, Any] = {"description": operation.summary}
        if answer is not None:
            response["content"] = {JSON: {"schema": _ref(answer)}}
        elif operation.media is not None:
            response["content"] = {operation.media: {}}
        responses[str(status)] = response
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    described: dict[str, Any] = {"summary": operation.summary, "responses": responses}
    if operation.parameters:
        names = [name.replace("-", "_") for name in operation.parameters]
        described["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    if operation.body is not None:
        schema = _ref(operation.body)
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    if operation.public:
        described["security"] = []
    return described


def _ref(struct: type) -> dict[str, str]:
    return {"$ref": _SCHEMA.format(name=struct.__name__)}


def _parameter(name: str, place: str, kind: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": {"type": kind},
    }


_PARAMETERS = {
    "session": _parameter("session", "path", "string", "The session's id"),
    "agent": _parameter("agent", "path", "string", "The agent's id"),
    "expected_version": _parameter(
        "expected_version", "query", "integer", "Only if it is at this version"
    ),
    "user": _parameter("user", "path", "string", "The user's id"),
    "dispatch": _parameter("dispatch", "path", "string", "The dispatch's id"),
    "user_id": _parameter("user_id", "query", "string", "Only this user's sessions"),
    "cursor": _parameter("cursor", "query", "string", "The next_cursor of the page before"),
    "limit": _parameter(
        "limit", "query", "integer", "Rows of one page, 1 to 1000; of agents, to 200"
    ),
    "include_archived": _parameter(
        "include_archived", "query", "boolean", "List archived sessions too"
    ),
    "probe": _parameter("probe", "query", "boolean", "Listen 2.5 seconds who lives"),
    "action": _parameter("action", "query", "string", "What would be asked: drain, for instance"),
    "node_id": _parameter("node_id", "query", "string", "The node, but for rebalance"),
    "weight": _parameter("weight", "query", "integer", "For weight: 1 to 100"),
    "sessions": _parameter("sessions", "query", "boolean", "Name the sessions that would move"),
    "last_seq": _parameter("last_seq", "query", "integer", "Messages after this seq"),
    "before_seq": _parameter(
        "before_seq", "query", "integer", "The newest messages below this seq"
    ),
    "Last_Event_ID": _parameter(
        "Last-Event-ID", "header", "string", "The last seq that was seen; wins over last_seq"
    ),
    "access_token": _parameter(
        "access_token", "query", "string", "A user token, where no header can be sent"
    ),
}
