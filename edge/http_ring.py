"""The ring over HTTP: what `ringlog ring` shows and changes, for keys with the scope `admin`.

It is the archive that is asked and changed, so any process of a cluster will do, also an edge. Session ids of
other workspaces than the key's own are counted, never named.
"""

import uuid
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar, get_args

import msgspec
import trio
from quart import Response

from edge.errors import EdgeError
from edge.http_bodies import ChangeNode, ChangeWeight, Rebalance, RemoveNode
from edge.http_request import Query, caller, encode, json_response, read_body
from edge.ringview import view_change, view_history, view_plan, view_ring
from edge.routes import Route
from edge.services import Services
from runtime import (
    LISTEN_LOOKS,
    LISTEN_SECONDS,
    WEIGHT_MAX,
    Action,
    Ask,
    NoRingError,
    Plan,
    RollCall,
    SessionCount,
    carry_out,
    check_lives,
    read_ring,
    work_out,
)
from storage import Archive

P = ParamSpec("P")
T = TypeVar("T")

SESSIONS_COUNTED_MAX = 1_000_000
"""By one request: a few seconds. `ringlog ring plan` counts all."""

THREADS_MAX = 2
"""Requests that talk to the archive at once: none of them may starve what serves sessions."""

ACTIONS: tuple[Action, ...] = get_args(Action)

_decode_node = msgspec.json.Decoder(ChangeNode)
_decode_weight = msgspec.json.Decoder(ChangeWeight)
_decode_removal = msgspec.json.Decoder(RemoveNode)
_decode_rebalance = msgspec.json.Decoder(Rebalance)


class RingRoutes:
    """The handlers of `/v1/ring`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._threads = trio.CapacityLimiter(THREADS_MAX)

    def routes(self) -> list[Route]:
        """Return what is served here."""
        return [
            Route("/v1/ring", "GET", self.show),
            Route("/v1/ring/history", "GET", self.history),
            Route("/v1/ring/plan", "GET", self.plan),
            Route("/v1/ring/join", "POST", self.join),
            Route("/v1/ring/drain", "POST", self.drain),
            Route("/v1/ring/undrain", "POST", self.undrain),
            Route("/v1/ring/weight", "POST", self.weigh),
            Route("/v1/ring/remove", "POST", self.remove),
            Route("/v1/ring/rebalance", "POST", self.rebalance),
        ]

    async def show(self) -> Response:
        """Return the nodes, what each owns, and how much is on its way."""
        caller(self._services, "admin")
        query = Query(self._services, "probe")
        archive = self._archive()
        beats = await self._listen(archive) if query.flag("probe") else None
        ring = await self._run(read_ring, archive)
        return json_response(encode(view_ring(ring, beats)))

    async def history(self) -> Response:
        """Return the changes that were made, newest first."""
        services = self._services
        caller(services, "admin")
        query = Query(services, "limit")
        limit = query.integer("limit", low=1, high=services.limits.page_rows_max)
        archive = self._archive()
        changes = await self._run(
            archive.list_ring_changes, limit or services.limits.page_rows_default
        )
        return json_response(encode(view_history(changes)))

    async def plan(self) -> Response:
        """Return what a change would move; nothing is changed."""
        services = self._services
        principal = caller(services, "admin")
        query = Query(services, "action", "node_id", "weight", "sessions", "limit")
        ask = _ask_in(query)
        listed = query.flag("sessions")
        limit = query.integer("limit", low=1, high=services.limits.page_rows_max)
        archive = self._archive()
        plan = await self._run(_work_out, archive, ask)
        keep = (limit or services.limits.page_rows_default) if listed else 0
        count = SessionCount(
            archive,
            plan.moves,
            len(plan.ring.owners),
            keep=keep,
            workspace=principal.workspace,
        )
        while await self._run(count.read_page):
            if count.counted >= SESSIONS_COUNTED_MAX:
                break
        return json_response(encode(view_plan(plan, count, listed=listed)))

    async def join(self) -> Response:
        """Give a node that waits its share."""
        return await self._change_node("join")

    async def drain(self) -> Response:
        """Move everything that a node owns to the others."""
        return await self._change_node("drain")

    async def undrain(self) -> Response:
        """Give a node that was drained its share again."""
        return await self._change_node("undrain")

    async def weigh(self) -> Response:
        """Change how large a node's share is."""
        actor = self._enter()
        body = await read_body(_decode_weight)
        ask = Ask("weight", _node_id(body.node_id), body.weight)
        return await self._change(ask, actor, force=body.force)

    async def remove(self) -> Response:
        """Take a node that was drained and stopped out of the ring."""
        actor = self._enter()
        body = await read_body(_decode_removal)
        return await self._change(Ask("remove", _node_id(body.node_id)), actor, force=False)

    async def rebalance(self) -> Response:
        """Give every slot the owner that it would have if the ring were made anew."""
        actor = self._enter()
        body = await read_body(_decode_rebalance)
        return await self._change(Ask("rebalance"), actor, force=body.force)

    async def _change_node(self, action: Action) -> Response:
        actor = self._enter()
        body = await read_body(_decode_node)
        return await self._change(Ask(action, _node_id(body.node_id)), actor, force=body.force)

    def _enter(self) -> str:
        """Return in whose name the ring is changed.

        Raises:
            EdgeError: the caller may not; the query is not empty.
        """
        principal = caller(self._services, "admin")
        Query(self._services)
        return principal.name or principal.user_id or principal.kind

    async def _change(self, ask: Ask, actor: str, *, force: bool) -> Response:
        """Make a change; the slots move afterwards."""
        archive = self._archive()
        beats = None
        plan = await self._run(_work_out, archive, ask)
        if not force:
            beats = await self._listen(archive, plan.looked_at)
            check_lives(plan, beats)
        plan, version = await self._run(carry_out, archive, ask, actor, beats)
        return json_response(encode(view_change(plan, version)))

    async def _listen(self, archive: Archive, until_heard: set[str] | None = None) -> RollCall:
        """Listen to the nodes, until these were heard of, or for as long as one that lives may take."""
        beats = RollCall(await self._run(archive.read_beats))
        for _ in range(LISTEN_LOOKS):
            if until_heard is not None and beats.heard(until_heard):
                break
            await trio.sleep(LISTEN_SECONDS)
            beats.hear(await self._run(archive.read_beats))
        return beats

    def _archive(self) -> Archive:
        """Return the archive that holds this process's ring.

        Raises:
            NoRingError: it is alone.
        """
        archive = self._services.ring_archive
        if archive is None:
            raise NoRingError("this node is alone: it owns every session by itself")
        return archive

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call to its end; a few at a time."""
        return await trio.to_thread.run_sync(partial(call, *args, **kwargs), limiter=self._threads)


def _work_out(archive: Archive, ask: Ask) -> Plan:
    return work_out(read_ring(archive), ask, "")


def _ask_in(query: Query) -> Ask:
    """Return what a query asks for.

    Raises:
        EdgeError: missing_field, invalid_field, unknown_field.
    """
    named = query.text("action")
    if named is None:
        raise _missing("action")
    action = next((each for each in ACTIONS if each == named), None)
    if action is None:
        raise EdgeError(
            "invalid_field", f"action must be one of {', '.join(ACTIONS)}", field="action"
        )
    node_id = query.text("node_id")
    weight = query.integer("weight", low=1, high=WEIGHT_MAX)
    if (node_id is None) != (action == "rebalance"):
        raise _missing("node_id") if node_id is None else _needless("node_id", action)
    if (weight is None) == (action == "weight"):
        raise _missing("weight") if weight is None else _needless("weight", action)
    return Ask(action, "" if node_id is None else _node_id(node_id), weight or 0)


def _missing(field: str) -> EdgeError:
    return EdgeError("missing_field", f"parameter {field} is missing", field=field)


def _needless(field: str, action: str) -> EdgeError:
    return EdgeError("unknown_field", f"{action} takes no {field}", field=field)


def _node_id(text: str) -> str:
    """Return the id as the archive writes it; the file `node_id` has it with dashes."""
    try:
        return uuid.UUID(text).hex
    except ValueError:
        raise EdgeError(
            "invalid_field", f"{text} is no node id", hint="see GET /v1/ring", field="node_id"
        ) from None
