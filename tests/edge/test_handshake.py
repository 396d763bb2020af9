import msgspec
import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from edge.auth import Authenticator, Principal, generate_key, hash_key
from edge.errors import EdgeError
from edge.handshake import accept_upgrade, authorise_upgrade
from edge.origin import OriginPolicy
from storage import ApiKey

SIGNING_KEY = b"k" * 32
KEY = generate_key()
KEYED = Authenticator(
    SIGNING_KEY,
    allow_development=False,
    keys=[ApiKey("k1", "n", hash_key(KEY), ("read",), "acme", 0)],
    # Stands still: the token is made when the module is read, which may be long before it is used.
    clock=lambda: 1_800_000_000.0,
)
OPEN = Authenticator(SIGNING_KEY, allow_development=True)
TOKEN = KEYED.mint("acme", "alice", 600).text
DEVELOPMENT = OriginPolicy(development=lambda: True)
POLICY = OriginPolicy(development=lambda: False, allowed_origins=frozenset({"https://app.example"}))
WEBSOCKET = {
    "Host": "localhost:4000",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def parse(path: str = "/v1/ws", **headers: str | None) -> tuple[ServerProtocol, Request]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    whole = {name: value for name, value in (WEBSOCKET | named).items() if value is not None}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in whole.items()), "", ""]
    protocol = ServerProtocol()
    protocol.receive_data("\r\n".join(lines).encode("latin-1"))
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    return protocol, request


def refused(auth: Authenticator, path: str = "/v1/ws", **headers: str | None) -> str:
    with pytest.raises(EdgeError) as error:
        authorise_upgrade(parse(path, **headers)[1], auth, POLICY)
    return error.value.code


def test_a_header_or_a_subprotocol_carries_the_credential() -> None:
    by_header = authorise_upgrade(parse(Authorization=f"Bearer {KEY}")[1], KEYED, POLICY)
    assert by_header.principal.kind == "secret"
    assert by_header.subprotocol is None
    offered = f"ringlog.v1, bearer.{TOKEN}"
    by_name = authorise_upgrade(parse(Sec_WebSocket_Protocol=offered)[1], KEYED, POLICY)
    assert by_name.principal.user_id == "alice"
    assert by_name.subprotocol == "ringlog.v1"


def test_the_subprotocol_may_be_offered_without_a_token() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Sec_WebSocket_Protocol": "x, ringlog.v1"}
    upgrade = authorise_upgrade(parse(**headers)[1], KEYED, POLICY)
    assert upgrade.subprotocol == "ringlog.v1"


@pytest.mark.parametrize("offered", [f"bearer.{TOKEN}", "graphql-ws", ""])
def test_other_subprotocols_alone_are_refused(offered: str) -> None:
    assert refused(KEYED, Sec_WebSocket_Protocol=offered) == "unsupported_subprotocol"


def test_two_tokens_are_refused() -> None:
    offered = f"ringlog.v1, bearer.{TOKEN}, bearer.x"
    assert refused(KEYED, Sec_WebSocket_Protocol=offered) == "bad_handshake"


def test_a_header_that_proxies_could_read_otherwise_is_refused() -> None:
    _, request = parse()
    request.headers["Host"] = "localhost"
    with pytest.raises(EdgeError) as error:
        authorise_upgrade(request, KEYED, POLICY)
    assert error.value.code == "bad_handshake"


def test_bad_credentials_are_refused() -> None:
    assert refused(KEYED) == "unauthorized"
    assert refused(KEYED, Sec_WebSocket_Protocol="ringlog.v1, bearer.x") == "unauthorized"
    assert refused(KEYED, path="/v1/ws?user_id=alice") == "unauthorized"
    assert refused(KEYED, path=f"/v1/ws?access_token={TOKEN}") == "unauthorized"


def test_host_origin_and_path_are_checked() -> None:
    authorization = f"Bearer {KEY}"
    assert refused(KEYED, Origin="https://evil.example", Authorization=authorization) == (
        "origin_not_allowed"
    )
    assert refused(KEYED, Host=None, Authorization=authorization) == "host_not_allowed"
    assert refused(KEYED, path="/socket", Authorization=authorization) == "not_found"
    allowed = parse(Origin="https://app.example", Authorization=authorization)[1]
    assert authorise_upgrade(allowed, KEYED, POLICY).principal.kind == "secret"


def test_development_takes_the_user_from_the_query() -> None:
    named = authorise_upgrade(parse("/v1/ws?user_id=alice")[1], OPEN, DEVELOPMENT)
    assert named.principal.user_id == "alice"
    assert authorise_upgrade(parse()[1], OPEN, DEVELOPMENT).principal.user_id is None
    with pytest.raises(EdgeError) as error:
        authorise_upgrade(parse("/v1/ws?user_id=a%20b")[1], OPEN, DEVELOPMENT)
    assert error.value.code == "invalid_field"


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("user_id=", "invalid_field", "user_id"),
        ("user_id", "invalid_field", "user_id"),
        ("user_id=a&user_id=a", "invalid_field", "user_id"),
        ("userid=alice", "unknown_field", "userid"),
        ("user_id=alice&foo=", "unknown_field", "foo"),
        ("=1", "unknown_field", ""),
        (f"access_token={TOKEN}", "unknown_field", "access_token"),
    ],
)
def test_what_the_address_says_beside_the_user_is_refused_by_name(
    query: str, code: str, field: str
) -> None:
    with pytest.raises(EdgeError) as error:
        authorise_upgrade(parse(f"/v1/ws?{query}")[1], OPEN, DEVELOPMENT)
    assert (error.value.code, error.value.details) == (code, {"field": field})


def test_with_a_credential_the_address_names_nobody() -> None:
    for headers in (
        {"Authorization": f"Bearer {KEY}"},
        {"Sec_WebSocket_Protocol": f"ringlog.v1, bearer.{TOKEN}"},
    ):
        assert refused(KEYED, path="/v1/ws?user_id=bob", **headers) == "unknown_field"
        assert refused(KEYED, path="/v1/ws?foo=1", **headers) == "unknown_field"
        upgrade = authorise_upgrade(parse("/v1/ws?", **headers)[1], KEYED, POLICY)
        assert upgrade.principal.kind in {"secret", "user"}


def answer(
    protocol: ServerProtocol, request: Request, auth: Authenticator = KEYED
) -> tuple[Principal | None, list[bytes]]:
    principal = accept_upgrade(protocol, request, auth, POLICY)
    return principal, protocol.data_to_send()


def test_an_accepted_handshake_answers_the_subprotocol_and_never_the_token() -> None:
    principal, sent = answer(*parse(Sec_WebSocket_Protocol=f"ringlog.v1, bearer.{TOKEN}"))
    assert principal is not None
    (response,) = sent
    assert response.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in response
    assert b"Sec-WebSocket-Protocol: ringlog.v1\r\n" in response
    assert b"bearer" not in response
    assert b"Extensions" not in response


def test_a_refused_handshake_is_a_problem_document_and_the_end_of_the_stream() -> None:
    principal, (response, end) = answer(*parse("/v1/ws?x=secret"))
    assert principal is None
    assert end == b""
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"Content-Type: application/problem+json" in head
    assert b"WWW-Authenticate: Bearer" in head
    document = msgspec.json.decode(body)
    assert document["code"] == "unauthorized"
    assert document["instance"] == "/v1/ws"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_WebSocket_Version": "8"},
        {"Sec_WebSocket_Key": "short"},
        {"Sec_WebSocket_Key": None},
        {"Connection": "close"},
    ],
)
def test_a_malformed_handshake_says_what_is_wrong(headers: dict[str, str | None]) -> None:
    _, (response, _) = answer(*parse("/v1/ws", Authorization=f"Bearer {KEY}", **headers))
    assert response.startswith(b"HTTP/1.1 400 ")
    assert b"Sec-WebSocket-Version: 13\r\n" in response
    assert msgspec.json.decode(response.partition(b"\r\n\r\n")[2])["code"] == "bad_handshake"
