"""Agents that cannot be taken, against a real server process: each is refused by code, field and hint.

Nothing is left of one that is refused, and a second client notices nothing.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.edge.bystander import Bystander, open_bystander
from tests.edge.test_hostile_requests import BODY_BYTES_MAX, request
from tests.hostile_json import naughty_strings


@pytest.fixture(scope="module")
def bystander(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bystander]:
    with open_bystander(tmp_path_factory.mktemp("hostile") / "data") as opened:
        yield opened


_AGENT = b'"id":"a","type":"webhook","url":"https://x.example/"'

AGENTS: dict[bytes, tuple[int, str, str | None]] = {
    b"": (400, "bad_json", None),
    b"[]": (400, "invalid_field", ""),
    b"{}": (400, "missing_field", "id"),
    b'{"id":"a"}': (400, "missing_field", "type"),
    b'{"id":"a","type":"webhook"}': (400, "missing_field", "url"),
    b'{"id":"a","type":"openai","url":"https://x/"}': (400, "missing_field", "model"),
    b'{"id":"a","type":7}': (400, "invalid_field", "type"),
    b'{"id":"a","type":"WEBHOOK"}': (400, "invalid_field", "type"),
    b'{"id":"a","type":"\\u0000"}': (400, "invalid_field", "type"),
    b'{"id":"a b","type":"pull"}': (400, "invalid_field", "id"),
    b'{"id":null,"type":"pull"}': (400, "invalid_field", "id"),
    b'{"id":"..","type":"pull"}': (400, "invalid_field", "id"),
    b'{"id":"echo","type":"echo"}': (409, "agent_built_in", None),
    b'{"id":"lorem","type":"pull"}': (409, "agent_built_in", None),
    b'{"id":"a","type":"pull","url":"https://x/"}': (400, "invalid_field", "url"),
    b'{"id":"a","type":"webhook","url":"file:///etc/passwd"}': (400, "invalid_field", "url"),
    b'{%b,"version":3}' % _AGENT: (400, "unknown_field", "version"),
    b'{%b,"workspace":"other"}' % _AGENT: (400, "unknown_field", "workspace"),
    b'{%b,"expected_version":0}' % _AGENT: (400, "unknown_field", "expected_version"),
    b'{%b,"timeout_ms":1.5}' % _AGENT: (400, "invalid_field", "timeout_ms"),
    b'{%b,"timeout_ms":true}' % _AGENT: (400, "invalid_field", "timeout_ms"),
    b'{%b,"timeout_ms":null}' % _AGENT: (400, "invalid_field", "timeout_ms"),
    b'{%b,"timeout_ms":-1}' % _AGENT: (400, "invalid_field", "timeout_ms"),
    b'{%b,"timeout_ms":1e999}' % _AGENT: (400, "invalid_field", "timeout_ms"),
    b'{%b,"timeout_ms":%b}' % (_AGENT, b"9" * 400): (400, "invalid_field", "timeout_ms"),
    b'{%b,"status":"on"}' % _AGENT: (400, "invalid_field", "status"),
    b'{%b,"headers":[]}' % _AGENT: (400, "invalid_field", "headers"),
    b'{%b,"headers":{"X":1}}' % _AGENT: (400, "invalid_field", None),
    b'{%b,"headers":{"X":null}}' % _AGENT: (400, "invalid_field", None),
    b'{%b,"headers":{"":"x"}}' % _AGENT: (400, "invalid_field", "headers"),
    b'{%b,"headers":{"X":"a\\r\\nY: b"}}' % _AGENT: (400, "invalid_field", "headers.X"),
    b'{%b,"headers":{"X":"\\u0000"}}' % _AGENT: (400, "invalid_field", "headers.X"),
    b'{%b,"headers":{"Content-Length":"0"}}' % _AGENT: (400, "invalid_field", "headers.Content-Length"),
    b'{%b,"headers":{"X":"1","x":"2"}}' % _AGENT: (400, "invalid_field", "headers"),
    b'{%b,"headers":{%b}}' % (_AGENT, b",".join(b'"X%d":"1"' % n for n in range(9_999))): (400, "invalid_field", "headers"),
    b'{%b,"headers":{"X":"%b"}}' % (_AGENT, b"x" * 900_000): (400, "invalid_field", "headers.X"),
    b'{%b,"signing_secret":"secret"}' % _AGENT: (400, "invalid_field", "signing_secret"),
    b'{%b,"signing_secret":null,"signing_secret":7}' % _AGENT: (400, "invalid_field", "signing_secret"),
    b'{%b,"metadata":{"a":NaN}}' % _AGENT: (400, "bad_json", None),
    b'{%b,"metadata":%b}' % (_AGENT, b"[" * 129 + b"]" * 129): (400, "too_deep", None),
    b'{%b,"metadata":%b}' % (_AGENT, b"[" * 300_000): (400, "too_deep", None),
    b'{%b,"metadata":"%b"}' % (_AGENT, b"x" * 16_384): (400, "invalid_field", "metadata"),
    b'{%b,"metadata":"\xff"}' % _AGENT: (400, "bad_utf8", None),
    rb'{%b,"metadata":"\ud800"}' % _AGENT: (400, "lone_surrogate", None),
    b'{%b,"metadata":"%b"}' % (_AGENT, b"x" * BODY_BYTES_MAX): (413, "body_too_large", None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [(body, *wanted) for body, wanted in AGENTS.items()],
    ids=[f"{number} {body[:60]!r}" for number, body in enumerate(AGENTS)],
)
def test_a_bad_agent_is_refused_by_code_field_and_hint(
    bystander: Bystander, body: bytes, status: int, code: str, field: str | None
) -> None:
    got, problem = request(bystander, "POST", "/v1/agents", body)

    assert (got, problem["code"]) == (status, code), problem
    if field is not None:
        assert problem["details"]["field"] == field
    assert request(bystander, "GET", "/v1/agents/a")[0] == 404
    bystander.check()


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", "bad_json", None),
        (b"null", "invalid_field", ""),
        (b'{"id":"b"}', "unknown_field", "id"),
        (b'{"type":"pull"}', "unknown_field", "type"),
        (b'{"url":null}', "invalid_field", "url"),
        (b'{"url":"https://x/"}', "invalid_field", "url"),
        (b'{"system":"x"}', "invalid_field", "system"),
        (b'{"headers":{"X":"1"}}', "invalid_field", "headers"),
        (b'{"signing_secret":"generate"}', "invalid_field", "signing_secret"),
        (b'{"signing_secret":null}', "invalid_field", "signing_secret"),
        (b'{"expected_version":-1}', "invalid_field", "expected_version"),
        (b'{"expected_version":"1"}', "invalid_field", "expected_version"),
        (b'{"expected_version":7}', "conflict", None),
        (b'{"debounce_window_ms":5001}', "invalid_field", "debounce_max_ms"),
        (b'{"metadata":' + b"[" * 129 + b"]" * 129 + b"}", "too_deep", None),
    ],
)
def test_a_bad_change_of_an_agent_changes_nothing(
    bystander: Bystander, body: bytes, code: str, field: str | None
) -> None:
    request(bystander, "POST", "/v1/agents", b'{"id":"steady","type":"pull"}')
    _, before = request(bystander, "GET", "/v1/agents/steady")
    _, problem = request(bystander, "PATCH", "/v1/agents/steady", body)

    assert problem["code"] == code, problem
    if field is not None:
        assert problem["details"]["field"] == field
    assert request(bystander, "GET", "/v1/agents/steady")[1] == before
    bystander.check()


def test_naughty_strings_as_agents_are_taken_or_refused_cleanly(bystander: Bystander) -> None:
    url = "https://x.example/"
    with closing(http.client.HTTPConnection(bystander.address, timeout=10)) as connection:

        def create(**body: object) -> tuple[int, Any]:
            connection.request("POST", "/v1/agents", json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        for number, text in enumerate(naughty_strings()):
            for body in (
                {"id": text, "type": "echo", "url": url},  # which is never taken
                {"id": "n", "type": text},
                {"id": "n", "type": "webhook", "url": text, "model": "m"},
                {"id": "n", "type": "webhook", "url": url, "headers": {text: text, "Host": "x"}},
                {"id": "n", "type": "webhook", "url": url, "signing_secret": text},
            ):
                status, problem = create(**body)
                assert status == 400, problem
                assert problem["code"] in {"invalid_field", "missing_field", "lone_surrogate"}
            texts = {"system": text, "metadata": {text: text}}
            status, answer = create(
                id=f"naughty-{number}", type="openai", url=url, model="m", **texts
            )
            if status == 201:
                assert {name: answer[name] for name in texts} == texts
            else:
                assert (status, answer["code"]) == (400, "lone_surrogate")
    bystander.check()
