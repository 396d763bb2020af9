"""The WebSocket handshake: who may upgrade, and how a refusal is put. Pure.

`websockets` checks RFC 6455; what it leaves to us is done here, before it is asked: path, Host, Origin,
credential, subprotocol. A browser cannot set headers on a WebSocket, so a token may come as a
subprotocol: `ringlog.v1, bearer.<token>` (base64url and dots, so it is a legal name); we answer
`ringlog.v1` and never echo the token. A client that offers no subprotocol gets none.

A refusal is an HTTP response with a problem document, as on any other route.
"""

from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl

from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import SecurityError
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from edge.auth import Authenticator, Principal
from edge.errors import EdgeError, encode_problem, problem_headers, problem_of
from edge.origin import OriginPolicy

WEBSOCKET_PATH = "/v1/ws"
SUBPROTOCOL = "ringlog.v1"
BEARER_PREFIX = "bearer."
REASON_LENGTH_MAX = 200
"""What is repeated of a head that cannot be read."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A handshake that may go on: for whom, and the subprotocol to answer, if one was offered."""

    principal: Principal
    subprotocol: str | None


def authorise_upgrade(request: Request, auth: Authenticator, origins: OriginPolicy) -> Upgrade:
    """Return who the connection is for.

    Raises:
        EdgeError: not_found, bad_handshake, host_not_allowed, origin_not_allowed,
            unsupported_subprotocol, unauthorized, token_expired, unknown_field, invalid_field.
    """
    path, _, query = request.path.partition("?")
    if path != WEBSOCKET_PATH:
        raise EdgeError("not_found", f"there is no WebSocket at {path}")
    headers = request.headers
    host = single_header(headers, "Host")
    origins.check_host(host)
    origins.check_origin(single_header(headers, "Origin"), host)
    subprotocol, token = _offered(headers)
    authorization = single_header(headers, "Authorization")
    # Who may not come in at all is told so first, as over HTTP.
    if authorization is None and token is not None:
        principal = auth.authenticate_credential(token)
    else:
        principal = auth.authenticate(authorization)
    user = _user_in(query, auth)
    if principal.kind == "development":
        principal = auth.authenticate(None, user_id=user)
    return Upgrade(principal, subprotocol)


def _user_in(query: str, auth: Authenticator) -> str | None:
    """Return the user that a query names: the one parameter there is, and in development only.

    Raises:
        EdgeError: unknown_field, invalid_field.
    """
    user: str | None = None
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "access_token":
            raise EdgeError(
                "unknown_field",
                "there is no parameter access_token here",
                hint="send the token in Authorization, or as the subprotocol bearer.TOKEN",
                field=name,
            )
        if name != "user_id":
            raise EdgeError("unknown_field", f"there is no parameter {name}", field=name)
        if not auth.development:
            raise EdgeError(
                "unknown_field",
                "the credential says who is there; user_id is for development",
                field=name,
            )
        if user is not None:
            raise EdgeError("invalid_field", "user_id stands more than once", field=name)
        user = value
    return user


def accept_upgrade(
    protocol: ServerProtocol, request: Request, auth: Authenticator, origins: OriginPolicy
) -> Principal | None:
    """Answer a handshake: return the principal, or None if it was refused.

    The response stands in `protocol.data_to_send()` either way; after a refusal the end of the stream
    follows it. `protocol` must have been made without subprotocols, extensions and origins.
    """
    try:
        upgrade = authorise_upgrade(request, auth, origins)
    except EdgeError as error:
        protocol.send_response(refusal(error, request.path))
        return None
    response = protocol.accept(request)
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        if upgrade.subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = upgrade.subprotocol
        protocol.send_response(response)
        return upgrade.principal
    protocol.send_response(_not_a_handshake(protocol, request.path))
    return None


def refuse_unreadable(protocol: ServerProtocol) -> Response:
    """Return the refusal of a request head that `websockets` could not read as HTTP."""
    reason = protocol.handshake_exc
    if isinstance(reason, SecurityError):
        error = EdgeError("header_too_large", f"the request head cannot be read: {reason}")
    else:
        cause = str(reason and reason.__cause__)[:REASON_LENGTH_MAX]
        error = EdgeError("bad_handshake", f"the request head cannot be read: {cause}")
    return refusal(error, WEBSOCKET_PATH)


def refusal(error: EdgeError, path: str) -> Response:
    """Return the HTTP response that refuses a handshake."""
    problem = problem_of(error)
    body = encode_problem(problem, path.partition("?")[0])
    headers = Headers(problem_headers(problem))
    headers["Date"] = formatdate(usegmt=True)
    headers["Connection"] = "close"
    headers["Content-Length"] = str(len(body))
    status = HTTPStatus(problem.kind.status)
    return Response(status.value, status.phrase, headers, body)


def single_header(headers: Headers, name: str) -> str | None:
    """Return a header that may stand once at most.

    Raises:
        EdgeError: bad_handshake, if it stands twice: proxies and we might each trust another one.
    """
    try:
        return headers.get(name)
    except MultipleValuesError:
        raise EdgeError("bad_handshake", f"header {name} stands more than once") from None


def _offered(headers: Headers) -> tuple[str | None, str | None]:
    """Return the subprotocol to answer and the token that was offered beside it."""
    lines = headers.get_all("Sec-WebSocket-Protocol")
    offered = [name.strip() for line in lines for name in line.split(",")]
    if not offered:
        return None, None
    if SUBPROTOCOL not in offered:
        raise EdgeError("unsupported_subprotocol", f"{SUBPROTOCOL} is not among those offered")
    tokens = [name for name in offered if name.startswith(BEARER_PREFIX)]
    if len(tokens) > 1:
        raise EdgeError("bad_handshake", "more than one bearer subprotocol is offered")
    return SUBPROTOCOL, tokens[0].removeprefix(BEARER_PREFIX) if tokens else None


def _not_a_handshake(protocol: ServerProtocol, path: str) -> Response:
    """Return our refusal in place of the plain text that `websockets` has for a malformed handshake."""
    response = refusal(EdgeError("bad_handshake", str(protocol.handshake_exc)), path)
    response.headers["Sec-WebSocket-Version"] = "13"
    return response
