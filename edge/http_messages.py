"""Messages over HTTP: append one, read pages of them, follow them as an event stream."""

import msgspec
from quart import Response, request

from edge.access import acting_user, user_of
from edge.errors import EdgeError
from edge.http_bodies import Ack, AppendMessage
from edge.http_request import Query, caller, encode, json_response, open_session, read_body
from edge.protocol import check_kind, check_name, clean_content
from edge.routes import Route
from edge.services import Services
from edge.sse import EventStream
from runtime import append_durably, check_cursor

_decode_append = msgspec.json.Decoder(AppendMessage)


class MessageRoutes:
    """The handlers for /v1/sessions/{session}/messages and /stream."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """Return what is served here."""
        one = "/v1/sessions/<session>"
        return [
            Route(f"{one}/messages", "POST", self.append),
            Route(f"{one}/messages", "GET", self.page),
            Route(f"{one}/stream", "GET", self.stream),
        ]

    async def append(self, session: str) -> Response:
        """Append a message and answer when it is durable: 201; a resend: 200 and the first answer."""
        services = self._services
        principal = caller(services, "write")
        Query(services)
        body = await read_body(_decode_append)
        server = await open_session(services, principal, session, to_append=True)
        sender = acting_user(principal, body.sender, field="sender")
        if body.client_id is not None:
            check_name(body.client_id, "client_id")
        check_kind(body.kind)
        content, metadata = clean_content(body.content), clean_content(body.metadata)
        if len(content) + len(metadata) > services.limits.message_bytes_max:
            raise EdgeError(
                "message_too_large",
                f"content and metadata have more than {services.limits.message_bytes_max} bytes",
                hint="send less in one message",
                message_bytes_max=services.limits.message_bytes_max,
            )
        ack = await append_durably(
            server,
            sender=sender,
            client_id=body.client_id,
            kind=body.kind,
            content=content,
            metadata=metadata,
            expected_seq=body.expected_seq,
            user=user_of(principal),
        )
        answer = Ack(
            session, ack.seq, ack.id, ack.client_id, ack.duplicate, services.host.durability
        )
        return json_response(encode(answer), 200 if ack.duplicate else 201)

    async def page(self, session: str) -> Response:
        """Return messages after `last_seq`, or the newest below `before_seq`; oldest first."""
        principal = caller(self._services, "read")
        limits = self._services.limits
        query = Query(self._services, "last_seq", "before_seq", "limit")
        last_seq, before_seq = query.integer("last_seq"), query.integer("before_seq")
        limit = query.integer("limit", low=1, high=limits.page_rows_max)
        if last_seq is not None and before_seq is not None:
            raise EdgeError(
                "invalid_field", "give last_seq or before_seq, not both", field="before_seq"
            )
        server = await open_session(self._services, principal, session)
        count = limits.page_rows_default if limit is None else limit
        user = user_of(principal)
        if before_seq is not None:
            page = await server.read_before(before_seq, count, user)
        else:
            page = await server.read_after(last_seq or 0, count, user)
        return json_response(
            b'{"data":[%b],"head_seq":%d,"has_more":%b}'
            % (b",".join(page.bodies), page.head_seq, b"true" if page.has_more else b"false")
        )

    async def stream(self, session: str) -> Response:
        """Follow a session as server-sent events: from a cursor, or only what is new.

        `Last-Event-ID`, which a browser sends when it reconnects, wins over `last_seq` in the address.
        """
        services = self._services
        principal = caller(services, "read", token_in_url=True)
        query = Query(services, "last_seq", "access_token")
        last_seq = query.integer("last_seq")
        if "Last-Event-ID" in request.headers:
            last_seq = _last_event_id(request.headers["Last-Event-ID"])
        server = await open_session(services, principal, session, to_follow=True)
        if last_seq is None:
            last_seq = server.durable_seq
        check_cursor(last_seq, server.durable_seq)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        body = EventStream(services, principal, session, last_seq)
        response = Response(
            b"" if request.method == "HEAD" else body,
            headers=headers,
            content_type="text/event-stream; charset=utf-8",
        )
        response.timeout = None
        return response


def _last_event_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise EdgeError(
            "invalid_field", "Last-Event-ID must be a seq of this stream", field="Last-Event-ID"
        )
    return int(text)
