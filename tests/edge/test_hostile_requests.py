"""Requests that cannot be taken, against a real server process: each is refused by code, field and hint.

The connection stays open where the protocol allows it, and a second client notices nothing.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest

from tests.edge.bystander import Bystander, open_bystander
from tests.edge.raw_socket import TEXT, Outcome, RawSocket, frame, open_raw
from tests.hostile_json import DEPTH_MAX, naughty_strings, suite

BODY_BYTES_MAX = 1024 * 1024
PARSING_CODES = {"bad_json", "too_deep", "lone_surrogate"}
"""What cannot be parsed, with the connection left open."""


@pytest.fixture(scope="module")
def bystander(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bystander]:
    """A server that holds the session `s`, with two messages."""
    with open_bystander(tmp_path_factory.mktemp("hostile") / "data") as opened:
        for path, body in (
            ("/v1/sessions", b'{"id":"s","user_id":"mallory"}'),
            ("/v1/sessions/s/messages", b'{"sender":"mallory","client_id":"c-1","content":1}'),
            ("/v1/sessions/s/messages", b'{"sender":"mallory","client_id":"c-2","content":1}'),
        ):
            assert request(opened, "POST", path, body)[0] == 201
        yield opened


def ask(raw: RawSocket, *messages: bytes) -> Outcome:
    """Send the messages; return their answers, one each, unless the connection ended before."""
    raw.send(*(frame(TEXT, message) for message in messages))
    outcome = raw.outcome(answers=len(messages))
    if outcome.codes[-1:] == ["bad_utf8"]:
        outcome.close_code = raw.outcome().close_code
        return outcome
    raw.send(frame(TEXT, b'{"type":"ping","ref":"last"}'))
    assert raw.outcome(until_ref="last").answers == []
    return outcome


def send(content: bytes, *, metadata: bytes = b"{}") -> bytes:
    return b'{"type":"send","ref":"r","session":"s","content":%b,"metadata":%b}' % (
        content,
        metadata,
    )


FRAMES: dict[bytes, tuple[str, str | None]] = {
    # What cannot be read.
    b"": ("bad_json", None),
    b" ": ("bad_json", None),
    b"hello": ("bad_json", None),
    b'{"type":"ping"': ("bad_json", None),
    b'{"type":"ping"}{"type":"ping"}': ("bad_json", None),
    b'{"type":"ping",}': ("bad_json", None),
    b"{'type':'ping'}": ("bad_json", None),
    b'{"type":"ping"}\x00': ("bad_json", None),
    send(b"NaN"): ("bad_json", None),
    send(b"Infinity"): ("bad_json", None),
    send(b"-Infinity"): ("bad_json", None),
    send(b"1", metadata=b"{"): ("bad_json", None),
    send(b"01"): ("bad_json", None),
    send(b'"\t"'): ("bad_json", None),
    send(b'"\\x41"'): ("bad_json", None),
    send(rb'"\ud800"'): ("lone_surrogate", None),
    send(rb'"\udfff"'): ("lone_surrogate", None),
    send(rb'{"\ud83d":1}'): ("lone_surrogate", None),
    send(rb'"\ud83d\ud83d\ude00"'): ("lone_surrogate", None),
    send(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1)): ("too_deep", None),
    send(b"1", metadata=b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1)): (
        "too_deep",
        None,
    ),
    send(b"[" * 50_000 + b"]" * 50_000): ("too_deep", None),
    send(b'{"a":' * 20_000 + b"1" + b"}" * 20_000): ("too_deep", None),
    # What is no request.
    b"null": ("invalid_field", ""),
    b"[]": ("invalid_field", ""),
    b'"ping"': ("invalid_field", ""),
    b"{}": ("missing_field", "type"),
    b'{"type":null}': ("unknown_type", "type"),
    b'{"type":"PING"}': ("unknown_type", "type"),
    b'{"type":"\\u0000"}': ("unknown_type", "type"),
    b'{"type":["ping"]}': ("unknown_type", "type"),
    b'{"type":"ping","ref":{}}': ("invalid_field", "ref"),
    b'{"type":"ping","ref":[1]}': ("invalid_field", "ref"),
    b'{"type":"ping","ref":true}': ("invalid_field", "ref"),
    b'{"type":"ping","ref":' + b"1" * 129 + b"}": ("invalid_field", "ref"),
    b'{"type":"ping","extra":1}': ("unknown_field", "extra"),
    b'{"type":"ping","":1}': ("unknown_field", ""),
    b'{"type":"send","session":"s"}': ("missing_field", "content"),
    b'{"type":"send","content":1}': ("missing_field", "session"),
    b'{"type":"send","session":"s","content":1,"seq":3}': ("unknown_field", "seq"),
    b'{"type":"send","session":null,"content":1}': ("invalid_field", "session"),
    b'{"type":"send","session":"","content":1}': ("invalid_field", "session"),
    b'{"type":"send","session":"a b","content":1}': ("invalid_field", "session"),
    b'{"type":"send","session":"../../etc/passwd","content":1}': ("invalid_field", "session"),
    b'{"type":"send","session":"\\u0000","content":1}': ("invalid_field", "session"),
    b'{"type":"send","session":"' + b"s" * 129 + b'","content":1}': ("invalid_field", "session"),
    '{"type":"send","session":"é","content":1}'.encode(): ("invalid_field", "session"),
    b'{"type":"send","session":"s","content":1,"client_id":""}': ("invalid_field", "client_id"),
    b'{"type":"send","session":"s","content":1,"client_id":"a\\nb"}': (
        "invalid_field",
        "client_id",
    ),
    b'{"type":"send","session":"s","content":1,"client_id":7}': ("invalid_field", "client_id"),
    b'{"type":"send","session":"s","content":1,"kind":"a b"}': ("invalid_field", "kind"),
    b'{"type":"send","session":"s","content":1,"kind":"' + b"k" * 65 + b'"}': (
        "invalid_field",
        "kind",
    ),
    b'{"type":"send","session":"s","content":1,"kind":null}': ("invalid_field", "kind"),
    b'{"type":"send","session":"s","content":1,"sender":"a b"}': ("invalid_field", "sender"),
    b'{"type":"send","session":"s","content":1,"expected_seq":-1}': (
        "invalid_field",
        "expected_seq",
    ),
    b'{"type":"send","session":"s","content":1,"expected_seq":1.5}': (
        "invalid_field",
        "expected_seq",
    ),
    b'{"type":"send","session":"s","content":1,"expected_seq":"1"}': (
        "invalid_field",
        "expected_seq",
    ),
    b'{"type":"send","session":"s","content":1,"expected_seq":' + b"9" * 400 + b"}": (
        "invalid_field",
        "expected_seq",
    ),
    b'{"type":"send","session":"s","content":1,"expected_seq":1e999}': (
        "invalid_field",
        "expected_seq",
    ),
    b'{"type":"read","session":"s","seq":-1}': ("invalid_field", "seq"),
    b'{"type":"read","session":"s","seq":9007199254740993}': ("invalid_field", "seq"),
    b'{"type":"read","session":"s"}': ("missing_field", "seq"),
    b'{"type":"read","session":"s","seq":1,"user_id":"a b"}': ("invalid_field", "user_id"),
    b'{"type":"join"}': ("missing_field", "session"),
    b'{"type":"join","session":"s","last_seq":-1}': ("invalid_field", "last_seq"),
    b'{"type":"join","session":"s","tail":-1}': ("invalid_field", "tail"),
    b'{"type":"join","session":"s","tail":1001}': ("invalid_field", "tail"),
    b'{"type":"join","session":"s","tail":1,"last_seq":1}': ("invalid_field", "tail"),
    b'{"type":"join","session":"new","create":[]}': ("invalid_field", "create"),
    b'{"type":"join","session":"new","create":{"members":["a b"]}}': ("invalid_field", "members"),
    b'{"type":"join","session":"new","create":{"members":"ab"}}': (
        "invalid_field",
        "create.members",
    ),
    b'{"type":"join","session":"new","create":{"user_id":""}}': (
        "invalid_field",
        "create.user_id",
    ),
    b'{"type":"join","session":"new","create":{"state":"deleted"}}': ("unknown_field", "state"),
    b'{"type":"join","session":"new","create":{"agent_id":"a b"}}': ("invalid_field", "agent_id"),
    b'{"type":"auth"}': ("missing_field", "token"),
    b'{"type":"auth","token":""}': ("invalid_field", "token"),
    b'{"type":"auth","token":"' + b"x" * 8_193 + b'"}': ("invalid_field", "token"),
    # What is understood, and not possible.
    b'{"type":"auth","token":"nonsense"}': ("unauthorized", None),
    b'{"type":"auth","token":"rl_nonsense"}': ("unauthorized", None),
    b'{"type":"join","session":"none"}': ("session_not_found", None),
    b'{"type":"join","session":"none","last_seq":5}': ("session_not_found", None),
    b'{"type":"send","session":"none","content":1}': ("session_not_found", None),
    b'{"type":"read","session":"none","seq":1}': ("session_not_found", None),
    b'{"type":"leave","session":"none"}': ("not_joined", None),
    b'{"type":"join","session":"s","last_seq":999999}': ("ahead_of_log", None),
    b'{"type":"join","session":"s","last_seq":9007199254740992}': ("ahead_of_log", None),
    b'{"type":"send","session":"s","content":2,"client_id":"c-1"}': ("client_id_reused", None),
    b'{"type":"send","session":"s","content":1,"expected_seq":7}': ("conflict", None),
    b'{"type":"stop","session":"none"}': ("session_not_found", None),
    b'{"type":"join","inbox":"mallory"}': ("not_built", None),
}


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [(message, *wanted) for message, wanted in FRAMES.items()],
    ids=[f"{number} {message[:60]!r}" for number, message in enumerate(FRAMES)],
)
def test_a_request_is_refused_by_code_field_and_hint(
    bystander: Bystander, message: bytes, code: str, field: str | None
) -> None:
    with open_raw(bystander.address) as raw:
        raw.upgrade()
        outcome = ask(raw, message)

        assert outcome.codes == [code]
        answer = outcome.answers[0]
        assert answer["type"] == "error"
        assert answer["message"]
        assert answer["hint"]
        if field is not None:
            assert answer["details"]["field"] == field
        assert not outcome.ended
    bystander.check()


@pytest.mark.parametrize(("name", "document"), suite("n").items(), ids=suite("n").keys())
def test_what_is_not_json_is_refused_wherever_it_stands(
    bystander: Bystander, name: str, document: bytes
) -> None:
    with open_raw(bystander.address) as raw:
        raw.upgrade()
        for message in (send(document), send(b"1", metadata=document), document):
            outcome = ask(raw, message)
            (answer,) = outcome.answers
            assert answer["hint"]
            if answer["code"] == "bad_utf8":
                assert outcome.close_code == 1007
                return
            assert answer["code"] in PARSING_CODES | (
                # Its start tells already that it is no request.
                {"invalid_field", "missing_field", "unknown_field"}
                if message is document
                else set()
            )
    status, problem = post(bystander, b'{"content":%b}' % document, session="s")
    assert status == 400
    assert problem["code"] in PARSING_CODES
    bystander.check()


@pytest.mark.parametrize(("name", "document"), suite("i").items(), ids=suite("i").keys())
def test_what_parsers_disagree_on_is_taken_or_refused_cleanly(
    bystander: Bystander, name: str, document: bytes
) -> None:
    with open_raw(bystander.address) as raw:
        raw.upgrade()
        (code,) = ask(raw, send(document)).codes
    status, answer = post(bystander, b'{"sender":"mallory","content":%b}' % document, session="s")

    assert code in PARSING_CODES | {"ack", "bad_utf8"}
    assert (status, answer.get("code", "ack")) == (201 if code == "ack" else 400, code)
    bystander.check()


def test_everything_after_a_refusal_is_answered_in_order(bystander: Bystander) -> None:
    with open_raw(bystander.address) as raw:
        raw.upgrade()
        good = b'{"type":"ping","ref":"good"}'
        outcome = ask(raw, *[part for message in FRAMES for part in (message, good)])
        codes = outcome.codes

    # A request that waits for a session may be answered behind a ping; each is answered once.
    assert len(codes) == 2 * len(FRAMES)
    assert codes.count("ok") == len(FRAMES)
    bystander.check()


def test_naughty_strings_are_refused_as_names(bystander: Bystander) -> None:
    with open_raw(bystander.address) as raw:
        raw.upgrade()
        for text in naughty_strings():
            name = json.dumps(text)
            messages = {
                "session": f'{{"type":"send","session":{name},"content":1}}',
                "client_id": f'{{"type":"send","session":"s","client_id":{name},"content":1}}',
                "kind": f'{{"type":"send","session":"s","kind":{name},"content":1}}',
                "sender": f'{{"type":"send","session":"s","sender":{name},"content":1}}',
                "user_id": f'{{"type":"read","session":"s","seq":0,"user_id":{name}}}',
                "type": f'{{"type":{name}}}',
            }
            for field, message in messages.items():
                (answer,) = ask(raw, message.encode()).answers
                if answer["type"] != "error":
                    continue  # a string can be within the alphabet
                assert answer["code"] in {
                    "invalid_field",
                    "unknown_type",
                    "session_not_found",
                    "client_id_reused",
                }
                if answer["code"] in {"invalid_field", "unknown_type"}:
                    assert answer["details"]["field"] == field
    bystander.check()


# HTTP.


def request(
    bystander: Bystander, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(bystander.address, timeout=10)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        assert response.status not in range(500, 600) or response.status == 501, text
        if response.status >= 400:
            problem = json.loads(text)
            assert response.getheader("Content-Type") == "application/problem+json"
            assert problem["status"] == response.status
            assert problem["code"]
            assert problem["hint"]
        return response.status, json.loads(text) if text.startswith(b"{") else {}


def post(bystander: Bystander, body: bytes, *, session: str) -> tuple[int, Any]:
    return request(bystander, "POST", f"/v1/sessions/{session}/messages", body)


BODIES: dict[bytes, tuple[int, str, str | None]] = {
    b"": (400, "bad_json", None),
    b"content=1": (400, "bad_json", None),
    b"[]": (400, "invalid_field", ""),
    b"{}": (400, "missing_field", "content"),
    b'{"content":1,"session":"s"}': (400, "unknown_field", "session"),
    b'{"content":1}': (400, "missing_field", "sender"),
    b'{"content":NaN,"sender":"a"}': (400, "bad_json", None),
    b'{"content":"\xff","sender":"a"}': (400, "bad_utf8", None),
    b'{"content":"\xed\xa0\x80","sender":"a"}': (400, "bad_utf8", None),
    rb'{"content":"\ud800","sender":"a"}': (400, "lone_surrogate", None),
    b'{"content":' + b"[" * 129 + b"]" * 129 + b',"sender":"a"}': (400, "too_deep", None),
    b'{"content":' + b"[" * 300_000 + b',"sender":"a"}': (400, "too_deep", None),
    b'{"content":1,"sender":"a b"}': (400, "invalid_field", "sender"),
    b'{"content":1,"sender":"a","kind":""}': (400, "invalid_field", "kind"),
    b'{"content":1,"sender":"a","client_id":"a\\u0000"}': (400, "invalid_field", "client_id"),
    b'{"content":1,"sender":"a","expected_seq":"1"}': (400, "invalid_field", "expected_seq"),
    b'{"content":1,"sender":"a","expected_seq":9}': (409, "conflict", None),
    b'{"content":2,"sender":"mallory","client_id":"c-1"}': (409, "client_id_reused", None),
    b'{"content":"' + b"x" * BODY_BYTES_MAX + b'","sender":"a"}': (413, "body_too_large", None),
    b'{"content":"' + b"x" * (BODY_BYTES_MAX - 100) + b'","sender":"a"}': (
        413,
        "message_too_large",
        None,
    ),
}


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [(body, *wanted) for body, wanted in BODIES.items()],
    ids=[f"{number} {body[:40]!r}" for number, body in enumerate(BODIES)],
)
def test_a_body_is_refused_by_code_field_and_hint(
    bystander: Bystander, body: bytes, status: int, code: str, field: str | None
) -> None:
    found, problem = post(bystander, body, session="s")

    assert (found, problem["code"]) == (status, code)
    if field is not None:
        assert problem["details"]["field"] == field
    bystander.check()


ADDRESSES: dict[tuple[str, str], tuple[int, str, str | None]] = {
    ("GET", "/"): (404, "not_found", None),
    ("GET", "/v1"): (404, "not_found", None),
    ("GET", "/v1/sessions/"): (404, "not_found", None),
    ("GET", "/v1/sessions/none"): (404, "session_not_found", None),
    ("GET", "/v1/sessions/a%20b"): (400, "invalid_field", "session"),
    ("GET", "/v1/sessions/%00"): (400, "invalid_field", "session"),
    ("GET", "/v1/sessions/%ff"): (400, "invalid_field", "session"),
    ("GET", "/v1/sessions/%ed%a0%80"): (400, "invalid_field", "session"),
    ("GET", "/v1/sessions/..%2f..%2fetc%2fpasswd"): (404, "not_found", None),
    ("GET", "/v1/sessions/" + "s" * 129): (400, "invalid_field", "session"),
    ("GET", "/v1/sessions/s/messages?last_seq=-1"): (400, "invalid_field", "last_seq"),
    ("GET", "/v1/sessions/s/messages?last_seq=1e3"): (400, "invalid_field", "last_seq"),
    ("GET", "/v1/sessions/s/messages?last_seq=" + "9" * 400): (400, "invalid_field", "last_seq"),
    ("GET", "/v1/sessions/s/messages?last_seq=%D9%A1"): (400, "invalid_field", "last_seq"),
    ("GET", "/v1/sessions/s/messages?last_seq="): (400, "invalid_field", "last_seq"),
    ("GET", "/v1/sessions/s/messages?last_seq=0&last_seq=1"): (400, "invalid_field", "last_seq"),
    ("GET", "/v1/sessions/s/messages?limit=0"): (400, "invalid_field", "limit"),
    ("GET", "/v1/sessions/s/messages?limit=1001"): (400, "invalid_field", "limit"),
    ("GET", "/v1/sessions/s/messages?after_seq=1"): (400, "unknown_field", "after_seq"),
    ("GET", "/v1/sessions/s/messages?%FF=1"): (400, "unknown_field", None),
    ("GET", "/v1/sessions/s/messages?last_seq=1&before_seq=2"): (
        400,
        "invalid_field",
        "before_seq",
    ),
    ("GET", "/v1/sessions/s/stream?last_seq=1000"): (409, "ahead_of_log", None),
    ("GET", "/v1/sessions/s/stream?last_seq=x"): (400, "invalid_field", "last_seq"),
    ("GET", "/v1/sessions?cursor=%00"): (400, "invalid_field", "cursor"),
    ("GET", "/v1/sessions?cursor=AAAA"): (400, "invalid_field", "cursor"),
    ("GET", "/v1/sessions?user_id=a%20b"): (400, "invalid_field", "user_id"),
    ("PUT", "/v1/sessions/s"): (405, "method_not_allowed", None),
    ("TRACE", "/v1/sessions"): (405, "method_not_allowed", None),
    ("BREW", "/v1/sessions"): (405, "method_not_allowed", None),
    ("GET", "/v1/ws"): (426, "upgrade_required", None),
    ("POST", "/v1/ws"): (405, "method_not_allowed", None),
    ("GET", "/v1/agents/a/dispatches?limit=0"): (400, "invalid_field", "limit"),
    ("GET", "/v1/dispatches/none"): (404, "dispatch_not_found", None),
    ("POST", "/v1/dispatches/d/redeliver"): (501, "not_built", None),
    ("GET", "/v1/agents?limit=201"): (400, "invalid_field", "limit"),
    ("GET", "/v1/agents?limit=0"): (400, "invalid_field", "limit"),
    ("GET", "/v1/agents?cursor=Li4"): (400, "invalid_field", "cursor"),
    ("GET", "/v1/agents?cursor=%C3%A9"): (400, "invalid_field", "cursor"),
    ("GET", "/v1/agents?type=echo"): (400, "unknown_field", "type"),
    ("GET", "/v1/agents/none"): (404, "agent_not_found", None),
    ("GET", "/v1/agents/a%20b"): (400, "invalid_field", "agent"),
    ("GET", "/v1/agents/%00"): (400, "invalid_field", "agent"),
    ("GET", "/v1/agents/a?expected_version=1"): (400, "unknown_field", "expected_version"),
    ("DELETE", "/v1/agents/none"): (404, "agent_not_found", None),
    ("DELETE", "/v1/agents/echo"): (409, "agent_built_in", None),
    ("DELETE", "/v1/agents/echo?expected_version=-1"): (400, "invalid_field", "expected_version"),
    ("DELETE", "/v1/agents"): (405, "method_not_allowed", None),
    ("PUT", "/v1/agents/a"): (405, "method_not_allowed", None),
    ("DELETE", "/v1/sessions/none"): (404, "session_not_found", None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "field"),
    [(*address, *wanted) for address, wanted in ADDRESSES.items()],
    ids=[f"{method} {path[:60]}" for method, path in ADDRESSES],
)
def test_an_address_is_refused_by_code_field_and_hint(
    bystander: Bystander, method: str, path: str, status: int, code: str, field: str | None
) -> None:
    found, problem = request(bystander, method, path)

    assert (found, problem["code"]) == (status, code)
    if field is not None:
        assert problem["details"]["field"] == field
    bystander.check()


@pytest.mark.parametrize("value", ["x", "-1", "1.0", "0x1", "9" * 17, "²", "1 2", "NaN"])
def test_a_last_event_id_that_is_no_seq_is_refused(bystander: Bystander, value: str) -> None:
    with closing(http.client.HTTPConnection(bystander.address, timeout=10)) as connection:
        connection.putrequest("GET", "/v1/sessions/s/stream")
        connection.putheader("Last-Event-ID", value.encode())
        connection.endheaders()
        response = connection.getresponse()
        problem = json.loads(response.read())
    assert (response.status, problem["code"]) == (400, "invalid_field")
    assert problem["details"]["field"] == "Last-Event-ID"
    bystander.check()


def test_naughty_strings_in_addresses_are_refused(bystander: Bystander) -> None:
    with closing(http.client.HTTPConnection(bystander.address, timeout=10)) as connection:
        for number, text in enumerate(naughty_strings()):
            name = quote(text, safe="")
            path = (
                f"/v1/sessions/{name}",
                f"/v1/sessions/s/messages?last_seq={name}",
                f"/v1/sessions/s/messages?user_id={name}",
                f"/v1/sessions?cursor={name}",
                f"/{name}",
            )[number % 5]
            connection.request("GET", path)
            response = connection.getresponse()
            answer = response.read()
            assert response.status in {200, 400, 404, 409}, (path, response.status, answer)
            json.loads(answer)
    bystander.check()
