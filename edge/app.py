"""The Quart application: every route, and what holds for all of them.

In this order, for each request: Host and Origin → route → handler → problem document if it raised →
CORS headers, metrics, one log line. Handlers raise; `_explain` is the one place that answers errors.
"""

from http import HTTPStatus

import structlog
import trio
from quart import Response, g, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from edge.errors import EdgeError, encode_problem, problem_headers, problem_of
from edge.http_agents import AgentRoutes
from edge.http_dispatches import DispatchRoutes
from edge.http_messages import MessageRoutes
from edge.http_operations import OperationRoutes
from edge.http_request import no_content, redact_query
from edge.http_ring import RingRoutes
from edge.http_sessions import SessionRoutes
from edge.routes import METHODS, Route, template_of
from edge.services import Services

CORS_MAX_AGE_SECONDS = 600
"""How long a browser remembers a preflight: two hours is the most that any honours."""

PROBES = frozenset({"/healthz", "/readyz"})
"""Asked by orchestrators under whatever address they know; they tell nothing worth guarding."""

HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
}

log = structlog.get_logger()


def build_app(services: Services) -> QuartTrio:
    """Return the application that answers for these services."""
    app = QuartTrio("edge", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = services.limits.body_bytes_max
    app.config["BODY_TIMEOUT"] = services.limits.body_timeout_seconds
    app.config["RESPONSE_TIMEOUT"] = services.limits.response_timeout_seconds
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = True
    for route in all_routes(services):
        name = f"{route.method} {route.path}".replace(".", " ")
        app.add_url_rule(route.path, name, route.handler, methods=[route.method])
    border = _Border(services)
    app.before_request(border.enter)
    app.after_request(border.leave)
    app.register_error_handler(Exception, border.explain)
    return app


def all_routes(services: Services) -> list[Route]:
    """Return every route of the API."""
    return [
        *SessionRoutes(services).routes(),
        *MessageRoutes(services).routes(),
        *AgentRoutes(services).routes(),
        *DispatchRoutes(services).routes(),
        *OperationRoutes(services).routes(),
        *RingRoutes(services).routes(),
    ]


class _Border:
    """What every request passes on its way in and out."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def enter(self) -> Response | None:
        """Check where the request comes from; answer a preflight.

        Raises:
            EdgeError: host_not_allowed, origin_not_allowed, bad_request, unsupported_encoding.
        """
        g.started = trio.current_time()
        origins = self._services.origins
        host = request.headers.get("Host")
        if request.path not in PROBES:
            origins.check_host(host)
        if len(request.headers.getlist("Origin")) > 1:
            raise EdgeError("bad_request", "header Origin stands more than once")
        origin = request.headers.get("Origin")
        origins.check_origin(origin, host)
        g.origin = origin
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return no_content()
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise EdgeError("unsupported_encoding", f"a body in {encoding} is not taken")
        return None

    async def leave(self, response: Response) -> Response:
        """Add what browsers need; count and log the request."""
        if request.method == "OPTIONS" and response.status_code == 200:
            # The framework's own answer: `Allow`, and a type of content that is not there.
            response.status_code = 204
            del response.headers["Content-Type"]
        if response.status_code == 204:
            del response.headers["Content-Length"]  # RFC 9110 §8.6
        origin = g.get("origin")
        if origin is not None:
            _allow_origin(response, origin)
        response.headers["X-Content-Type-Options"] = "nosniff"
        elapsed = trio.current_time() - g.started
        rule = request.url_rule
        route = "none" if rule is None else template_of(rule.rule)
        method = request.method if request.method in {*METHODS, "HEAD", "OPTIONS"} else "other"
        self._services.metrics.observe_request(route, method, response.status_code, elapsed)
        write = log.debug if request.path in PROBES else log.info
        write(
            "http_request",
            method=request.method,
            path=request.path,
            query=redact_query(request.query_string.decode("latin-1")),
            status=response.status_code,
            elapsed_ms=round(elapsed * 1000, 2),
        )
        return response

    async def explain(self, error: Exception) -> Response:
        """Return the problem document for whatever a handler raised."""
        problem = problem_of(_as_edge_error(error))
        self._services.metrics.errors[problem.code] += 1
        if problem.code == "internal":
            log.error("request_failed", method=request.method, path=request.path, exc_info=error)
        response = Response(
            encode_problem(problem, request.path),
            status=problem.kind.status,
            headers=problem_headers(problem),
        )
        if problem.code == "upgrade_required":
            response.headers["Upgrade"] = "websocket"
        if isinstance(error, HTTPException):
            allow = dict(error.get_headers()).get("Allow")
            if allow is not None:
                response.headers["Allow"] = allow
        return response


def _as_edge_error(error: Exception) -> Exception:
    """Return the framework's own errors as ours; any other as it is."""
    if not isinstance(error, HTTPException) or error.code is None or error.code >= 500:
        return error
    code = HTTP_CODES.get(error.code, "bad_request")
    message = f"{request.method} {request.path}: {HTTPStatus(error.code).phrase}"
    return EdgeError(code, message)


def _allow_origin(response: Response, origin: str) -> None:
    """Let a page read the answer; its origin was checked when the request came in."""
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = origin
    headers["Access-Control-Expose-Headers"] = "Location, Retry-After"
    headers.add("Vary", "Origin")
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = ", ".join(METHODS)
        headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Last-Event-ID"
        headers["Access-Control-Max-Age"] = str(CORS_MAX_AGE_SECONDS)
