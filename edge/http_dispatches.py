"""Dispatches over HTTP: what was asked of an agent, and what came of it.

They are read in the archive, where each state is within a third of a second of its record. Those of an agent are the
operator's; one dispatch is shown to whoever may read its session.
"""

import trio
from quart import Response

from edge.errors import EdgeError
from edge.http_bodies import DispatchPage
from edge.http_request import Query, caller, encode, json_response, open_session
from edge.protocol import check_name
from edge.routes import Route
from edge.services import Services
from runtime import Dispatch, decode_dispatch

DISPATCHES_DEFAULT = 50
"""Dispatches of one page, where the caller does not say."""

DISPATCHES_PAGE_MAX = 200
"""A dispatch with all its attempts has 4 KiB: a page of the largest has less than a megabyte."""

THREADS_MAX = 2
"""Requests that talk to the archive at once."""


class DispatchRoutes:
    """The handlers for dispatches."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._dispatches = services.dispatches
        self._threads = trio.CapacityLimiter(THREADS_MAX)

    def routes(self) -> list[Route]:
        """Return what is served here."""
        return [
            Route("/v1/agents/<agent>/dispatches", "GET", self.list_of_agent),
            Route("/v1/sessions/<session>/dispatches", "GET", self.list_of_session),
            Route("/v1/dispatches/<dispatch>", "GET", self.show),
            Route("/v1/dispatches/<dispatch>/redeliver", "POST", self.redeliver),
        ]

    async def list_of_agent(self, agent: str) -> Response:
        """List the dispatches of an agent, newest first."""
        principal = caller(self._services, "admin")
        check_name(agent, "agent")
        return await self._list(principal.workspace, agent=agent)

    async def list_of_session(self, session: str) -> Response:
        """List the dispatches of a session, newest first."""
        principal = caller(self._services, "read")
        await open_session(self._services, principal, session)
        return await self._list(principal.workspace, session=session)

    async def show(self, dispatch: str) -> Response:
        """Return one dispatch, with every attempt."""
        principal = caller(self._services, "read")
        Query(self._services)
        check_name(dispatch, "dispatch")
        found = await trio.to_thread.run_sync(
            self._dispatches.find, principal.workspace, dispatch, limiter=self._threads
        )
        if found is None:
            raise _not_found(dispatch)
        if "admin" not in principal.scopes:
            await open_session(self._services, principal, found.session)
        return json_response(found.body)

    async def redeliver(self, dispatch: str) -> Response:
        """Refuse: a message that is sent again is a dispatch of its own."""
        caller(self._services, "admin")
        raise EdgeError("not_built", f"dispatch {dispatch} cannot be sent again yet")

    async def _list(
        self, workspace: str, *, agent: str | None = None, session: str | None = None
    ) -> Response:
        query = Query(self._services, "cursor", "limit")
        limit = query.integer("limit", low=1, high=DISPATCHES_PAGE_MAX) or DISPATCHES_DEFAULT
        cursor = query.text("cursor")
        if cursor is not None:
            check_name(cursor, "cursor")
        found = await trio.to_thread.run_sync(
            lambda: self._dispatches.list(
                workspace, agent=agent, session=session, before=cursor, limit=limit + 1
            ),
            limiter=self._threads,
        )
        page: list[Dispatch] = [decode_dispatch(each.body) for each in found[:limit]]
        more = len(found) > limit
        return json_response(
            encode(DispatchPage(page, page[-1].dispatch if more else None, has_more=more))
        )


def _not_found(dispatch: str) -> EdgeError:
    return EdgeError("dispatch_not_found", f"no dispatch {dispatch}", dispatch=dispatch)
