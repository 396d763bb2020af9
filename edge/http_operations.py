"""What an operator and a backend need beside sessions: tokens, health, metrics, the API's description.

The routes of what is not built yet are here too, so that a client hears `not_built`, not `not_found`.
"""

import msgspec
from msgspec import to_builtins
from quart import Response

from edge.access import check_no_agent, user_of
from edge.errors import EdgeError
from edge.http_bodies import Health, MintToken, Readiness, RingReadiness, Token
from edge.http_request import Query, caller, json_response, no_content, open_session, read_body
from edge.metrics import CONTENT_TYPE
from edge.openapi import describe
from edge.protocol import check_name
from edge.routes import Route
from edge.services import Services
from runtime import Standing, WaitingReply, format_time

_decode_mint = msgspec.json.Decoder(MintToken)


class OperationRoutes:
    """The handlers of everything that is not a session."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._description = describe()

    def routes(self) -> list[Route]:
        """Return what is served here."""
        return [
            Route("/healthz", "GET", self.health),
            Route("/readyz", "GET", self.ready),
            Route("/metrics", "GET", self.metrics),
            Route("/openapi.json", "GET", self.describe),
            Route("/v1/tokens", "POST", self.mint),
            Route("/v1/ws", "GET", self.websocket),
            Route("/v1/sessions/<session>/stop", "POST", self.stop),
            Route("/v1/users/<user>/inbox", "GET", self.inbox),
        ]

    async def health(self) -> Response:
        """Answer: the process is alive."""
        return json_response(msgspec.json.encode(Health("ok")))

    async def ready(self) -> Response:
        """Say whether this node should get traffic, and if not, why."""
        services = self._services
        reasons = services.host.not_ready()
        if services.closing.begun and "shutting_down" not in reasons:
            reasons.append("shutting_down")
        readiness = _readiness(services.role, services.host.standing())
        if reasons:
            # Without the status: the document has one.
            who = {
                name: value for name, value in to_builtins(readiness).items() if name != "status"
            }
            raise EdgeError("not_ready", f"not ready: {', '.join(reasons)}", reasons=reasons, **who)
        return json_response(msgspec.json.encode(readiness))

    async def metrics(self) -> Response:
        """Return the metrics; they are the operator's, not a user's."""
        principal = caller(self._services, "read")
        if principal.kind == "user":
            raise EdgeError("forbidden", "a user token does not open the metrics")
        return Response(self._services.metrics.exposition(), content_type=CONTENT_TYPE)

    async def describe(self) -> Response:
        """Return the API's description."""
        return json_response(self._description)

    async def mint(self) -> Response:
        """Mint a user token in the caller's workspace."""
        services = self._services
        principal = caller(services, "tokens")
        Query(services)
        body = await read_body(_decode_mint)
        check_name(body.user_id, "user_id")
        check_no_agent(body.user_id, "user_id")
        for session in body.sessions or ():
            check_name(session, "sessions")
        limits = services.limits
        if len(body.sessions or ()) > limits.token_sessions_max:
            raise EdgeError(
                "invalid_field",
                f"a token names at most {limits.token_sessions_max} sessions",
                field="sessions",
            )
        if not 1 <= body.ttl <= limits.token_ttl_seconds_max:
            raise EdgeError(
                "invalid_field",
                f"ttl must be 1 to {limits.token_ttl_seconds_max} seconds",
                field="ttl",
            )
        token = services.auth.mint(principal.workspace, body.user_id, body.ttl, body.sessions)
        answer = Token(token.text, body.user_id, format_time(token.expires_at * 1000))
        response = json_response(msgspec.json.encode(answer), 201)
        response.headers["Cache-Control"] = "no-store"
        return response

    async def websocket(self) -> Response:
        """Refuse a plain request for the WebSocket; upgrades never come this far."""
        raise EdgeError("upgrade_required", "this address speaks WebSocket")

    async def stop(self, session: str) -> Response:
        """Stop the answer that is being given in a session, and those that are due."""
        principal = caller(self._services, "write")
        Query(self._services)
        server = await open_session(self._services, principal, session)
        reply = WaitingReply(user_of(principal))
        server.tick()
        server.stop(reply, None)
        await reply.wait()
        return no_content()

    async def inbox(self, user: str) -> Response:
        """Refuse: there are no inboxes yet."""
        caller(self._services, "read")
        raise EdgeError("not_built", f"there is no inbox of {user} yet")


def _readiness(role: str, standing: Standing) -> Readiness:
    ring = standing.ring
    return Readiness(
        "ready",
        role,
        standing.node_id,
        standing.epoch,
        None
        if ring is None
        else RingReadiness(
            ring.version, ring.state, ring.slots, ring.slots_meant, ring.slots_served
        ),
    )
