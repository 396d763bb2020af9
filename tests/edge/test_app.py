import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.auth import SCOPES, generate_key
from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import OnePort, api_key, keyed, open_one_port

KEY = generate_key()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[OnePort]:
    async with open_one_port(tmp_path) as edge:
        yield edge


@pytest.fixture
async def http(edge: OnePort) -> AsyncIterator[HttpClient]:
    async with open_http(edge.port) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/v2/sessions", "/v1", "/v1/sessions/a/b/c", "/%00", "/%ff"])
async def test_an_unknown_path_is_a_problem_document(http: HttpClient, path: str) -> None:
    answer = await http.get(path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert "openapi.json" in answer.json()["hint"]


async def test_a_wrong_method_names_the_right_ones(http: HttpClient) -> None:
    answer = await http.request("PUT", "/v1/sessions/s")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert {"GET", "PATCH", "DELETE"} <= set(answer.headers["allow"].split(", "))


async def test_options_without_an_origin_names_the_methods(http: HttpClient) -> None:
    answer = await http.request("OPTIONS", "/v1/sessions")
    assert (answer.status, answer.body) == (204, b"")
    assert not {"content-type", "content-length"} & set(answer.headers)
    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))


async def test_a_compressed_body_is_refused_and_nothing_is_done(http: HttpClient) -> None:
    body = gzip.compress(b'{"id":"s","user_id":"u"}')
    answer = await http.post("/v1/sessions", body, Content_Encoding="gzip")
    assert (answer.status, answer.code) == (415, "unsupported_encoding")
    assert "Content-Encoding" in answer.json()["hint"]
    plain = await http.post("/v1/sessions", b'{"user_id":"u"}', Content_Encoding="identity")
    assert plain.status == 201
    assert (await http.get("/v1/sessions/s")).status == 404


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "10.1.2.3"])
async def test_a_name_that_was_pointed_here_is_refused(http: HttpClient, host: str) -> None:
    for method, path in (("GET", "/v1/sessions"), ("POST", "/v1/sessions"), ("GET", "/nowhere")):
        answer = await http.request(method, path, headers={"Host": host})
        assert (answer.status, answer.code) == (421, "host_not_allowed")
    assert (await http.get("/healthz", Host=host)).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example"]
)
async def test_a_page_of_another_site_is_refused_before_anything_is_done(
    edge: OnePort, http: HttpClient, origin: str
) -> None:
    body = b'{"id":"s","user_id":"u"}'
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    answer = await http.request("POST", "/v1/sessions", body, headers=headers)
    assert (answer.status, answer.code) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers
    assert not edge.node.active
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = await http.request("OPTIONS", "/v1/sessions", headers=preflight)
    assert answer.status == 403


async def test_a_local_page_is_let_in_during_development(http: HttpClient) -> None:
    origin = "http://localhost:5173"
    preflight = {
        "Origin": origin,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = await http.request("OPTIONS", "/v1/sessions/s", headers=preflight)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == origin
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert answer.headers["vary"] == "Origin"
    answer = await http.get("/v1/sessions/s", Origin=origin)
    # The page may read refusals too.
    assert answer.status == 404
    assert answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_request_that_is_no_pages_gets_no_cors_headers(http: HttpClient) -> None:
    answer = await http.get("/healthz")
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_only_listed_pages_and_names_are_let_in_once_there_are_keys(tmp_path: Path) -> None:
    async with (
        open_one_port(
            tmp_path,
            auth=keyed(api_key(KEY, *SCOPES)),
            allowed_origins=["https://app.example"],
            allowed_hosts=["chat.example"],
        ) as edge,
        open_http(edge.port, Authorization=f"Bearer {KEY}", Host="chat.example") as http,
    ):
        assert (await http.get("/v1/sessions")).status == 200
        assert (await http.get("/v1/sessions", Origin="https://app.example")).status == 200
        assert (await http.get("/v1/sessions", Origin="https://chat.example")).status == 200
        refused = await http.get("/v1/sessions", Origin="http://localhost:5173")
        assert refused.code == "origin_not_allowed"
        refused = await http.get("/v1/sessions", Host="other.example")
        assert refused.code == "host_not_allowed"
        preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
        async with open_http(edge.port, Host="chat.example") as browser:
            answer = await browser.request("OPTIONS", "/v1/sessions", headers=preflight)
            assert answer.status == 204


async def test_credentials_never_reach_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    auth = keyed(api_key(KEY, *SCOPES))
    async with open_one_port(tmp_path, auth=auth) as edge, open_http(edge.port) as http:
        token = auth.mint("default", "alice", 60).text
        await http.get("/v1/sessions", Authorization=f"Bearer {KEY}")
        await http.get("/v1/sessions", Authorization=f"Bearer {KEY}x")
        await http.get(f"/v1/sessions/s/stream?access_token={token}&last_seq=1")
        await http.get(f"/v1/sessions/s/stream?access_token={KEY}")
        body = {"user_id": "alice"}
        minted = await http.request(
            "POST", "/v1/tokens", body, headers={"Authorization": f"Bearer {KEY}"}
        )
    written = "".join(capfd.readouterr())
    assert "/v1/sessions/s/stream" in written
    assert "access_token=[redacted]&last_seq=1" in written
    for secret in (KEY, token, minted.json()["token"]):
        assert secret not in written


async def test_a_bug_is_answered_without_detail_and_logged(
    edge: OnePort,
    http: HttpClient,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> list[str]:
        raise RuntimeError("swordfish")

    monkeypatch.setattr(edge.node, "not_ready", fail)
    answer = await http.get("/readyz")
    assert (answer.status, answer.code) == (500, "internal")
    assert b"swordfish" not in answer.body
    assert "swordfish" in "".join(capfd.readouterr())
    assert (await http.get("/healthz")).status == 200
