"""What a request says, checked once: its caller, its query, its body. For the routes of this package.

Everything raises an `EdgeError` that names the field. A parameter that a route does not know is refused
by name, like an unknown field: a misspelt `after_seq` must not silently mean "from the start".
"""

import re
from typing import Any, Literal, TypeVar
from urllib.parse import unquote_plus

import msgspec
from quart import Response, request

from edge import access
from edge.auth import Principal, Scope
from edge.errors import EdgeError
from edge.printable import REDACTED, redact_credentials
from edge.protocol import check_name, refuse_json
from edge.services import Services
from runtime import Served

T = TypeVar("T")

_INTEGER = re.compile(r"[0-9]{1,16}")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_JSON = "application/json"


def caller(services: Services, scope: Scope, *, token_in_url: bool = False) -> Principal:
    """Return who sent this request, if they have `scope`.

    Raises:
        EdgeError: unauthorized, token_expired, forbidden, invalid_field.
    """
    principal = services.auth.authenticate(
        request.headers.get("Authorization"),
        access_token=request.args.get("access_token") if token_in_url else None,
        user_id=request.args.get("user_id"),
    )
    principal.require(scope)
    return principal


class Query:
    """The parameters of the query string; `names` are those that the route knows."""

    def __init__(self, services: Services, *names: str) -> None:
        known = {*names, "user_id"} if services.auth.development else set(names)
        self._values: dict[str, str] = {}
        for name, values in request.args.lists():
            if name not in known:
                raise EdgeError("unknown_field", f"there is no parameter {name}", field=name)
            if len(values) > 1:
                raise EdgeError("invalid_field", f"{name} stands more than once", field=name)
            self._values[name] = values[0]

    def text(self, name: str) -> str | None:
        """Return a parameter as it stands."""
        return self._values.get(name)

    def integer(self, name: str, *, low: int = 0, high: int = 1 << 53) -> int | None:
        """Return a parameter that is a whole number within a range."""
        text = self._values.get(name)
        if text is None:
            return None
        if _INTEGER.fullmatch(text) is None or not low <= int(text) <= high:
            raise EdgeError(
                "invalid_field", f"{name} must be a whole number from {low} to {high}", field=name
            )
        return int(text)

    def flag(self, name: str) -> bool:
        """Return a parameter that is true or false, and false if it is not there."""
        text = self._values.get(name, "false").lower()
        if text not in _FLAGS:
            raise EdgeError("invalid_field", f"{name} must be true or false", field=name)
        return _FLAGS[text]


async def read_body(decoder: "msgspec.json.Decoder[T]") -> T:
    """Return the request's body as the decoder's type.

    Raises:
        EdgeError: bad_json, bad_utf8, lone_surrogate, too_deep, unknown_field, missing_field,
            invalid_field.
        HTTPException: the body is too large, or did not come in time.
    """
    data = await request.get_data()
    assert isinstance(data, bytes)
    try:
        data.decode()
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse_json(data, error, tagged=False)


async def open_session(
    services: Services,
    principal: Principal,
    session: str,
    *,
    to_append: bool = False,
    to_follow: bool = False,
) -> Served:
    """Return a session that the principal may see, as it is durable.

    Raises:
        EdgeError, SessionError: not there, or not for this principal.
        StorageError: the archive is away.
    """
    check_name(session, "session")
    return await access.open_session(
        services.host, principal, session, to_append=to_append, to_follow=to_follow
    )


def json_response(
    body: bytes, status: Literal[200, 201] = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a response that is JSON already."""
    return Response(body, status=status, headers=headers, content_type=_JSON)


def no_content() -> Response:
    """Return 204: done, and nothing to say; so there is no type of content either."""
    response = Response(b"", status=204)
    del response.headers["Content-Type"]
    return response


def encode(value: Any) -> bytes:
    """Return our own values as JSON."""
    return msgspec.json.encode(value)


def redact_query(query: str) -> str:
    """Return a query string that may be logged: without tokens, however they or their name are escaped."""
    return "&".join(map(_redact_parameter, query.split("&")))


def _redact_parameter(text: str) -> str:
    name, _, value = text.partition("=")
    if unquote_plus(name).lower() == "access_token":
        return f"{name}={REDACTED}"
    plain = unquote_plus(text)
    return (
        text if redact_credentials(plain) == plain else f"{name}={REDACTED}" if value else REDACTED
    )
