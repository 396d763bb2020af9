"""Sessions over HTTP: create, list, look at, change, archive, erase; and the read cursors in them."""

import msgspec
from msgspec import UNSET
from quart import Response

from edge.access import acting_user, check_owns, is_stranger_to, session_owner, user_of
from edge.auth import Principal
from edge.http_bodies import ChangeSession, CreateSession, MarkRead, ReadCursor
from edge.http_request import (
    Query,
    caller,
    encode,
    json_response,
    no_content,
    open_session,
    read_body,
)
from edge.protocol import clean_content
from edge.routes import Route
from edge.services import Services
from runtime import SessionDeletedError, SessionExistsError

SESSIONS_DEFAULT = 50
"""Sessions of one page, where the caller does not say: a screenful."""


_decode_create = msgspec.json.Decoder(CreateSession)
_decode_change = msgspec.json.Decoder(ChangeSession)
_decode_read = msgspec.json.Decoder(MarkRead)


class SessionRoutes:
    """The handlers for /v1/sessions."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """Return what is served here."""
        one = "/v1/sessions/<session>"
        return [
            Route("/v1/sessions", "POST", self.create),
            Route("/v1/sessions", "GET", self.list_sessions),
            Route(one, "GET", self.show),
            Route(one, "PATCH", self.change),
            Route(one, "DELETE", self.delete),
            Route(f"{one}/archive", "POST", self.archive),
            Route(f"{one}/unarchive", "POST", self.unarchive),
            Route(f"{one}/read", "POST", self.mark_read),
        ]

    async def create(self) -> Response:
        """Create a session: 201; the same again: 200; the id with another body: 409."""
        principal = caller(self._services, "write")
        Query(self._services)
        body = await read_body(_decode_create)
        owner = session_owner(principal, body.id, body.user_id)
        try:
            info, created = await self._services.host.catalog.create(
                principal.workspace,
                body.id,
                user_id=owner,
                members=body.members,
                agent_id=body.agent_id,
                metadata=clean_content(body.metadata),
            )
        except SessionDeletedError as error:
            if is_stranger_to(principal, error):
                raise SessionExistsError(error.session) from None
            raise
        location = {"Location": f"/v1/sessions/{info.session}"}
        return json_response(info.body, 201 if created else 200, location)

    async def list_sessions(self) -> Response:
        """List sessions, newest first: a user's own, or for a secret key those of any user or all."""
        principal = caller(self._services, "read")
        query = Query(self._services, "user_id", "cursor", "limit", "include_archived")
        user_id = query.text("user_id")
        if user_id is not None or principal.kind == "user":
            user_id = acting_user(principal, user_id, field="user_id")
        page = await self._services.host.catalog.list(
            principal.workspace,
            user_id=user_id,
            cursor=query.text("cursor"),
            limit=query.integer("limit", low=1, high=self._services.limits.page_rows_max)
            or SESSIONS_DEFAULT,
            include_archived=query.flag("include_archived"),
        )
        bodies = [info.body for info in page.sessions if _is_named(principal, info.session)]
        return json_response(
            b'{"data":[%b],"next_cursor":%b,"has_more":%b}'
            % (
                b",".join(bodies),
                encode(page.next_cursor),
                b"false" if page.next_cursor is None else b"true",
            )
        )

    async def show(self, session: str) -> Response:
        """Return one session."""
        principal = caller(self._services, "read")
        Query(self._services)
        server = await open_session(self._services, principal, session)
        return json_response(server.info.body)

    async def change(self, session: str) -> Response:
        """Change members, agent or metadata."""
        principal = await self._owner(session)
        body = await read_body(_decode_change)
        members = body.members
        info = await self._services.host.catalog.change(
            principal.workspace,
            session,
            members=None if members is UNSET else members,
            metadata=clean_content(body.metadata) if bytes(body.metadata) else None,
            agent_id=None if body.agent_id is UNSET else body.agent_id,
            clear_agent=body.agent_id is None,
            expected_version=None if body.expected_version is UNSET else body.expected_version,
        )
        return json_response(info.body)

    async def delete(self, session: str) -> Response:
        """Erase a session; its id is not given out again."""
        principal = await self._owner(session)
        await self._services.host.catalog.delete(principal.workspace, session)
        return no_content()

    async def archive(self, session: str) -> Response:
        """Make a session read-only."""
        return await self._set_state(session, "archived")

    async def unarchive(self, session: str) -> Response:
        """Make an archived session writable again."""
        return await self._set_state(session, "active")

    async def mark_read(self, session: str) -> Response:
        """Move a user's read cursor; it never goes back, so the answer is where it stands."""
        principal = caller(self._services, "write")
        Query(self._services)
        body = await read_body(_decode_read)
        server = await open_session(self._services, principal, session)
        user_id = acting_user(principal, body.user_id, field="user_id")
        stands_at = await server.move_read_cursor(user_id, body.seq, user_of(principal))
        return json_response(encode(ReadCursor(session, user_id, stands_at)))

    async def _owner(self, session: str) -> Principal:
        """Return the caller, who may change this session."""
        principal = caller(self._services, "write")
        Query(self._services)
        server = await open_session(self._services, principal, session)
        check_owns(principal, server.info)
        return principal

    async def _set_state(self, session: str, state: str) -> Response:
        principal = await self._owner(session)
        info = await self._services.host.catalog.change(principal.workspace, session, state=state)
        return json_response(info.body)


def _is_named(principal: Principal, session: str) -> bool:
    """Tell whether a token that is limited to some sessions names this one."""
    return principal.sessions is None or session in principal.sessions
