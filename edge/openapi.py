"""The API described in OpenAPI 3.1: paths by hand, schemas from the structs that are decoded into.

A test walks the app's routes and this document and finds the same operations in both.
"""

from typing import Any

import msgspec

from edge.errors import ERRORS, PROBLEM_CONTENT_TYPE
from edge.http_bodies import (
    Ack,
    AppendMessage,
    ChangeSession,
    CreateSession,
    Health,
    MarkRead,
    MessagePage,
    MintToken,
    ProblemDocument,
    ReadCursor,
    Session,
    SessionPage,
    Token,
)
from edge.version import VERSION

JSON = "application/json"
EVENTS = "text/event-stream"
METRICS = "text/plain"

REQUESTS = (AppendMessage, ChangeSession, CreateSession, MarkRead, MintToken)
ANSWERS = (Ack, Health, MessagePage, ProblemDocument, ReadCursor, Session, SessionPage, Token)
_SCHEMA = "#/components/schemas/{name}"

Operation = dict[str, Any]


def describe() -> bytes:
    """Return the document as JSON."""
    _, schemas = msgspec.json.schema_components((*REQUESTS, *ANSWERS), ref_template=_SCHEMA)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Ringlog",
            "version": VERSION,
            "description": "Durable sessions: an acknowledged message is durable and appears exactly "
            "once, at its seq, in every replay.",
        },
        "security": [{"bearer": []}],
        "paths": _paths(),
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


def _paths() -> dict[str, dict[str, Any]]:
    one = "/v1/sessions/{session}"
    return {
        "/v1/sessions": {
            "post": _operation(
                "Create a session", body=CreateSession,
                answers={201: Session, 200: Session},
            ),
            "get": _operation(
                "List sessions, newest first", "user_id", "cursor", "limit", "include_archived",
                answers={200: SessionPage},
            ),
        },
        one: {
            "get": _operation("Show a session", "session", answers={200: Session}),
            "patch": _operation(
                "Change members, agent or metadata", "session", body=ChangeSession,
                answers={200: Session},
            ),
            "delete": _operation("Erase a session", "session", answers={204: None}),
        },
        f"{one}/archive": {
            "post": _operation("Make a session read-only", "session", answers={200: Session})
        },
        f"{one}/unarchive": {
            "post": _operation("Make it writable again", "session", answers={200: Session})
        },
        f"{one}/messages": {
            "post": _operation(
                "Append a message; answered when it is durable", "session", body=AppendMessage,
                answers={201: Ack, 200: Ack},
            ),
            "get": _operation(
                "Read messages, oldest first", "session", "last_seq", "before_seq", "limit",
                answers={200: MessagePage},
            ),
        },
        f"{one}/stream": {
            "get": _operation(
                "Follow a session as server-sent events; the id is the seq",
                "session", "last_seq", "Last-Event-ID", "access_token",
                answers={200: None}, media=EVENTS,
            )
        },
        f"{one}/read": {
            "post": _operation(
                "Move a read cursor", "session", body=MarkRead, answers={200: ReadCursor}
            )
        },
        f"{one}/stop": {"post": _not_built("Stop an agent's answer", "session")},
        "/v1/users/{user}/inbox": {"get": _not_built("A user's inbox", "user")},
        "/v1/tokens": {
            "post": _operation("Mint a user token", body=MintToken, answers={201: Token})
        },
        "/v1/ws": {
            "get": _operation("Open a WebSocket (docs/protocol.md)", answers={101: None})
        },
        **{
            path: {method: _not_built(name) for method in ("get", "post", "patch", "delete")}
            for path, name in (("/v1/agents", "Agents"), ("/v1/ring", "The ring"))
        },
        **{
            path: {method: _not_built(name, "rest") for method in ("get", "post", "patch", "delete")}
            for path, name in (("/v1/agents/{rest}", "Agents"), ("/v1/ring/{rest}", "The ring"))
        },
        "/healthz": {"get": _operation("The process answers", answers={200: Health}, public=True)},
        "/readyz": {
            "get": _operation("The node should get traffic", answers={200: Health}, public=True)
        },
        "/metrics": {
            "get": _operation("Metrics for Prometheus", answers={200: None}, media=METRICS)
        },
        "/openapi.json": {
            "get": _operation("This document", answers={200: None}, media=JSON, public=True)
        },
    }  # fmt: skip


def _operation(
    summary: str,
    *parameters: str,
    answers: dict[int, type | None],
    body: type | None = None,
    media: str | None = None,
    public: bool = False,
) -> Operation:
    responses: dict[str, Any] = {}
    for status, answer in answers.items():
        response: dict[str, Any] = {"description": summary}
        if answer is not None:
            response["content"] = {JSON: {"schema": _ref(answer)}}
        elif media is not None:
            response["content"] = {media: {}}
        responses[str(status)] = response
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    operation: Operation = {"summary": summary, "responses": responses}
    if parameters:
        names = [name.replace("-", "_") for name in parameters]
        operation["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(body)}}}
    if public:
        operation["security"] = []
    return operation


def _not_built(summary: str, *parameters: str) -> Operation:
    return _operation(f"{summary}: not built yet", *parameters, answers={})


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
    "user": _parameter("user", "path", "string", "The user's id"),
    "rest": _parameter("rest", "path", "string", "Anything below"),
    "user_id": _parameter("user_id", "query", "string", "Only this user's sessions"),
    "cursor": _parameter("cursor", "query", "string", "The next_cursor of the page before"),
    "limit": _parameter("limit", "query", "integer", "Rows of one page, 1 to 1000"),
    "include_archived": _parameter(
        "include_archived", "query", "boolean", "List archived sessions too"
    ),
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
