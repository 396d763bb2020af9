import json
from pathlib import Path
from typing import Any

import msgspec

from edge.app import build_app
from edge.errors import ERRORS
from edge.http_bodies import (
    Ack,
    Agent,
    AgentPage,
    MessagePage,
    ProblemDocument,
    ReadCursor,
    SessionPage,
    Token,
)
from edge.openapi import describe
from edge.routes import template_of
from tests.edge.http_client import Answer, open_http
from tests.edge.one_port import open_one_port

DOCUMENT: dict[str, Any] = json.loads(describe())


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*(references(child) for child in value.values()))
    if isinstance(value, list):
        return set().union(*(references(child) for child in value))
    return set()


async def test_the_document_has_every_route_and_no_other(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        app = build_app(edge.services)
        served = {
            (template_of(rule.rule), method.lower())
            for rule in app.url_map.iter_rules()
            for method in rule.methods or ()
            if method not in {"HEAD", "OPTIONS"}
        }
    described = {
        (path, method) for path, operations in DOCUMENT["paths"].items() for method in operations
    }
    assert described == served


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


def test_every_parameter_of_a_path_is_described() -> None:
    for path, operations in DOCUMENT["paths"].items():
        named = {part.strip("{}") for part in path.split("/") if part.startswith("{")}
        for operation in operations.values():
            given = {
                reference["$ref"].rsplit("/", 1)[1] for reference in operation.get("parameters", [])
            }
            assert named <= given, path


def test_every_error_code_is_named() -> None:
    description = DOCUMENT["components"]["responses"]["Problem"]["description"]
    for code in ERRORS:
        assert code in description


def test_only_what_needs_no_credential_is_described_as_public() -> None:
    public = {
        path
        for path, operations in DOCUMENT["paths"].items()
        for operation in operations.values()
        if operation.get("security") == []
    }
    assert public == {"/healthz", "/readyz", "/openapi.json"}


def exactly(answer: Answer, struct: type[Any]) -> None:
    """Check that an answer has the fields of its schema and no others."""
    decoded = msgspec.json.decode(answer.body, type=struct)
    assert set(msgspec.to_builtins(decoded)) == set(answer.json())


async def test_answers_are_what_their_schemas_say(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        assert (await http.get("/openapi.json")).json() == DOCUMENT
        await http.post("/v1/sessions", {"id": "s", "user_id": "u"})
        exactly(await http.post("/v1/sessions/s/messages?user_id=u", {"content": 1}), Ack)
        exactly(await http.get("/v1/sessions/s/messages"), MessagePage)
        exactly(await http.get("/v1/sessions"), SessionPage)
        exactly(await http.post("/v1/sessions/s/read?user_id=u", {"seq": 1}), ReadCursor)
        exactly(await http.post("/v1/tokens", {"user_id": "u"}), Token)
        exactly(await http.get("/v1/sessions/nope"), ProblemDocument)
        exactly(await http.get("/v1/agents/echo"), Agent)
        exactly(await http.get("/v1/agents"), AgentPage)
        webhook = {"id": "a", "type": "webhook", "url": "https://agents.example/"}
        exactly(await http.post("/v1/agents", webhook), Agent)
        (session,) = (await http.get("/v1/sessions")).json()["data"]
        schema = DOCUMENT["components"]["schemas"]["Session"]
        assert set(session) == set(schema["properties"])
