"""Agents over HTTP: create, list, look at, change, delete; for keys with the scope `admin`.

An agent says where messages go, and with which credentials, so it is the operator's. It is the archive that is
asked and changed: any process of a cluster will do, and each sees a change at once. No answer holds a secret, but
for a signing secret in the answer to the request that it was made for.
"""

import base64
import binascii
from collections.abc import Callable
from functools import partial
from typing import Literal, ParamSpec, TypeVar

import msgspec
import trio
from msgspec.structs import replace
from quart import Response

from agents import ChangeAgent, CreateAgent, Registered, Saved
from edge.errors import EdgeError
from edge.http_bodies import Agent, AgentPage
from edge.http_request import Query, caller, encode, json_response, no_content, read_body
from edge.protocol import check_name, clean_content
from edge.routes import Route
from edge.services import Services
from runtime import format_time, is_identifier

P = ParamSpec("P")
T = TypeVar("T")

AGENTS_DEFAULT = 50
"""Agents of one page, where the caller does not say."""

AGENTS_PAGE_MAX = 200
"""An agent may have 35 KiB: a page of the largest has 7 MiB."""

THREADS_MAX = 2
"""Requests that talk to the archive at once: none of them may starve what serves sessions."""

_decode_create = msgspec.json.Decoder(CreateAgent)
_decode_change = msgspec.json.Decoder(ChangeAgent)


class AgentRoutes:
    """The handlers for /v1/agents."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._agents = services.agents
        self._threads = trio.CapacityLimiter(THREADS_MAX)

    def routes(self) -> list[Route]:
        """Return what is served here."""
        one = "/v1/agents/<agent>"
        return [
            Route("/v1/agents", "POST", self.create),
            Route("/v1/agents", "GET", self.list_agents),
            Route(one, "GET", self.show),
            Route(one, "PATCH", self.change),
            Route(one, "DELETE", self.delete),
        ]

    async def create(self) -> Response:
        """Create an agent: 201; the same again: 200; the id with another configuration: 409."""
        principal = caller(self._services, "admin")
        Query(self._services)
        body = await read_body(_decode_create)
        body = replace(body, metadata=msgspec.Raw(clean_content(body.metadata)))
        saved = await self._run(self._agents.create, principal.workspace, body)
        return _answer(saved, 201 if saved.new else 200)

    async def list_agents(self) -> Response:
        """List the agents of the workspace by id, the built-in ones too."""
        principal = caller(self._services, "admin")
        query = Query(self._services, "cursor", "limit")
        limit = query.integer("limit", low=1, high=AGENTS_PAGE_MAX) or AGENTS_DEFAULT
        after = _decode_cursor(query.text("cursor"))
        found = await self._run(self._agents.list, principal.workspace, after, limit + 1)
        more = len(found) > limit
        cursor = _encode_cursor(found[limit - 1].agent.id) if more else None
        page = AgentPage([_view(each) for each in found[:limit]], cursor, more)
        return json_response(encode(page))

    async def show(self, agent: str) -> Response:
        """Return one agent."""
        workspace = self._enter(agent)
        Query(self._services)
        return json_response(encode(_view(await self._run(self._agents.show, workspace, agent))))

    async def change(self, agent: str) -> Response:
        """Change what is given; the next call of the agent is made so."""
        workspace = self._enter(agent)
        Query(self._services)
        body = await read_body(_decode_change)
        if bytes(body.metadata):
            body = replace(body, metadata=msgspec.Raw(clean_content(body.metadata)))
        return _answer(await self._run(self._agents.change, workspace, agent, body), 200)

    async def delete(self, agent: str) -> Response:
        """Delete an agent, and its secrets at once; it is called no more."""
        workspace = self._enter(agent)
        query = Query(self._services, "expected_version")
        expected = query.integer("expected_version")
        await self._run(self._agents.delete, workspace, agent, expected)
        return no_content()

    def _enter(self, agent: str) -> str:
        """Return the workspace of the caller, who may see and change its agents."""
        principal = caller(self._services, "admin")
        check_name(agent, "agent")
        return principal.workspace

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call to its end; a few at a time."""
        return await trio.to_thread.run_sync(partial(call, *args, **kwargs), limiter=self._threads)


def _answer(saved: Saved, status: Literal[200, 201]) -> Response:
    """Return the agent; with a signing secret that was made for this request, which nobody may keep by accident."""
    view = _view(saved.registered)
    headers = {"Location": f"/v1/agents/{view.id}"} if status == 201 else {}
    if saved.signing_secret is not None:
        view.signing_secret = saved.signing_secret
        headers["Cache-Control"] = "no-store"
    return json_response(encode(view), status, headers)


def _view(registered: Registered) -> Agent:
    agent, built_in = registered.agent, registered.built_in
    own = {name: getattr(agent, name) for name in agent.__struct_fields__}
    return Agent(
        **own,
        header_names=registered.sealed.header_names,
        signing_secrets=registered.sealed.signing_count,
        built_in=built_in,
        version=registered.version,
        created_at=None if built_in else format_time(registered.created_at_ms),
        updated_at=None if built_in else format_time(registered.updated_at_ms),
    )


def _encode_cursor(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        after = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        after = ""
    if not is_identifier(after):
        raise EdgeError(
            "invalid_field", "cursor must be a next_cursor of an earlier page", field="cursor"
        )
    return after
