"""Who gets in, and what they may do there: the whole matrix, against a real server process."""

import base64
import json
import time
from collections.abc import Iterator

import pytest

from edge.auth import generate_key
from tests.edge.guarded import Guarded, open_guarded
from tests.edge.raw_socket import TEXT, frame, open_raw


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    with open_guarded(directory) as opened:
        yield opened


# Credentials.


def tampered(token: str, part: int) -> str:
    parts = token.split(".")
    middle = len(parts[part]) // 2
    other = "A" if parts[part][middle] != "A" else "B"
    parts[part] = parts[part][:middle] + other + parts[part][middle + 1 :]
    return ".".join(parts)


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def bad_credentials(guarded: Guarded) -> dict[str, str]:
    """Return everything that must not get in, by what is wrong with it."""
    good = guarded.mint("alice")
    header, payload, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    past = int(time.time()) - 1
    return {
        "expired": guarded.forge(exp=past),
        "long expired": guarded.forge(exp=0),
        "header tampered": tampered(good, 0),
        "payload tampered": tampered(good, 1),
        "signature tampered": tampered(good, 2),
        "signature missing": f"{header}.{payload}.",
        "signature left out": f"{header}.{payload}",
        "another user under the same signature": f"{header}.{encoded(claims | {'sub': 'bob'})}.{signature}",
        "alg none": f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{payload}.",
        "alg None": f"{encoded({'alg': 'None', 'typ': 'JWT'})}.{payload}.",
        "alg none with a signature": f"{encoded({'alg': 'none'})}.{payload}.{signature}",
        "alg HS512": guarded.forge(guarded.signing_key * 2, "HS512"),
        "another key": guarded.forge(b"another key of at least 32 bytes!"),
        "an empty key": f"{header}.{payload}.{encoded('')}",
        "another issuer": guarded.forge(iss="someone"),
        "no issuer": guarded.forge(iss=None),
        "no user": guarded.forge(sub=None),
        "no workspace": guarded.forge(ws=None),
        "no expiry": guarded.forge(exp=None),
        "expiry of NaN": guarded.forge(exp=float("nan")),
        "expiry of infinity": guarded.forge(exp=float("inf")),
        "expiry of 400 digits": guarded.forge(exp=10**400),
        "an early expiry": guarded.forge(exp=-1),
        "a user that is no name": guarded.forge(sub="a b"),
        "a user that is an object": f"{header}.{encoded(claims | {'sub': {}})}.{signature}",
        "sessions that are text": guarded.forge(sessions="s"),
        "sessions of numbers": guarded.forge(sessions=[1]),
        "no key": "rl_",
        "a key that was never made": generate_key(),
        "a revoked key": guarded.keys["revoked"],
        "half a key": guarded.keys["all"][:-1],
        "a key and more": guarded.keys["all"] + "A",
        "a key in capitals": guarded.keys["all"].upper(),
        "noise": "x" * 100,
        "an empty credential": "",
        "too long": "x" * 9_000,
    }  # fmt: skip


def test_bad_credentials_are_refused_everywhere(guarded: Guarded) -> None:
    session = guarded.new_session()
    for name, credential in bad_credentials(guarded).items():
        for method, path, body in (
            ("GET", f"/v1/sessions/{session}", None),
            ("POST", f"/v1/sessions/{session}/messages", {"content": 1}),
            ("GET", "/metrics", None),
        ):
            status, problem = guarded.ask(method, path, body, credential)
            assert status == 401, name
            assert problem["code"] in {"unauthorized", "token_expired"}, name
            assert problem["hint"], name
            assert "expired" in name or problem["code"] == "unauthorized", name
        if credential.isascii() and "." in credential:
            status, problem = guarded.ask(
                "GET", f"/v1/sessions/{session}/stream?access_token={credential}"
            )
            assert status == 401, name
        with open_raw(guarded.server.address) as raw:
            head = raw.upgrade(
                "", [f"Sec-WebSocket-Protocol: ringlog.v1, bearer.{credential or 'x'}"]
            )
            assert head.startswith((b"HTTP/1.1 401", b"HTTP/1.1 431")), (name, head)
    good = guarded.mint("alice")
    assert guarded.ask("GET", f"/v1/sessions/{session}", None, good)[0] == 200


def test_a_secret_key_is_not_taken_from_an_address(guarded: Guarded) -> None:
    session = guarded.new_session()
    path = f"/v1/sessions/{session}/stream?access_token={guarded.keys['all']}"
    status, problem = guarded.ask("GET", path)

    assert (status, problem["code"]) == (401, "unauthorized")
    assert "revoke this key" in problem["hint"]


def test_a_token_in_an_address_opens_event_streams_and_nothing_else(guarded: Guarded) -> None:
    session = guarded.new_session()
    token = guarded.mint("alice")
    for path, wanted in (
        (f"/v1/sessions/{session}/stream?access_token={token}", 200),
        (f"/v1/sessions/{session}/messages?access_token={token}", 401),
        (f"/v1/sessions?access_token={token}", 401),
        (f"/v1/sessions/{session}/stream?user_id=alice", 401),
    ):
        assert guarded.ask("GET", path)[0] == wanted, path
    with open_raw(guarded.server.address) as raw:
        assert raw.upgrade(f"access_token={token}").startswith(b"HTTP/1.1 401")


def test_with_keys_a_user_named_in_the_address_is_refused(guarded: Guarded) -> None:
    token = guarded.mint("carol")
    with open_raw(guarded.server.address) as raw:
        assert raw.upgrade("user_id=alice").startswith(b"HTTP/1.1 401")
    with open_raw(guarded.server.address) as raw:
        head = raw.upgrade("user_id=alice", [f"Authorization: Bearer {token}"])
        assert head.startswith(b"HTTP/1.1 400")


def test_a_token_that_no_header_would_hold_is_not_minted(guarded: Guarded) -> None:
    names = [f"{number:0>128}" for number in range(64)]
    body = {"user_id": "alice", "sessions": names}
    status, answer = guarded.ask("POST", "/v1/tokens", body, guarded.keys["all"])
    assert (status, answer["code"]) == (400, "invalid_field")
    assert answer["details"]["field"] == "sessions"

    longest = guarded.mint("alice", names[:44])
    assert len(longest) > 7_500
    assert guarded.ask("GET", f"/v1/sessions/{names[0]}", None, longest)[0] == 404
    for line in (
        f"Authorization: Bearer {longest}",
        f"Sec-WebSocket-Protocol: ringlog.v1, bearer.{longest}",
    ):
        with open_raw(guarded.server.address) as raw:
            assert raw.upgrade("", [line]).startswith(b"HTTP/1.1 101")


# Principals × verbs. What is not listed for a verb is refused with the code that stands beside it.

READERS = {"key all", "key read", "owner", "member", "limited owner"}
WRITERS = {"key all", "key write", "owner", "member", "limited owner"}
CHANGERS = {"key all", "key write", "owner", "limited owner"}
STRANGERS = {"stranger", "limited elsewhere"}

VERBS: dict[str, tuple[str, str, object, set[str]]] = {
    "show": ("GET", "/v1/sessions/S", None, READERS),
    "page": ("GET", "/v1/sessions/S/messages", None, READERS),
    "follow": ("GET", "/v1/sessions/S/stream", None, READERS),
    "append": ("POST", "/v1/sessions/S/messages", {"content": 1}, WRITERS),
    "mark read": ("POST", "/v1/sessions/S/read", {"seq": 0}, WRITERS),
    "change": ("PATCH", "/v1/sessions/S", {"metadata": {"a": 1}}, CHANGERS),
    "archive": ("POST", "/v1/sessions/S/archive", None, CHANGERS),
    "unarchive": ("POST", "/v1/sessions/S/unarchive", None, CHANGERS),
    "delete": ("DELETE", "/v1/sessions/S", None, CHANGERS),
    "stop": ("POST", "/v1/sessions/S/stop", None, WRITERS),
    "dispatches": ("GET", "/v1/sessions/S/dispatches", None, READERS),
}
SCOPE_OF = {"show": "read", "page": "read", "follow": "read", "dispatches": "read"}


def credentials(guarded: Guarded, session: str) -> dict[str, str]:
    return {
        **{
            f"key {name}": guarded.keys[name] for name in ("all", "read", "write", "tokens", "none")
        },
        "key elsewhere": guarded.keys["elsewhere"],
        "owner": guarded.mint("alice"),
        "member": guarded.mint("bob"),
        "stranger": guarded.mint("carol"),
        "limited owner": guarded.mint("alice", [session]),
        "limited elsewhere": guarded.mint("alice", ["another"]),
        "elsewhere": guarded.forge(ws="elsewhere"),
    }


def refusal(who: str, verb: str) -> str:
    """Return the code that a principal who may not gets."""
    if who in STRANGERS or who.endswith("elsewhere"):
        return "session_not_found"
    return "forbidden"


@pytest.mark.parametrize("verb", VERBS)
def test_over_http_each_principal_may_do_what_is_theirs(guarded: Guarded, verb: str) -> None:
    method, path, body, allowed = VERBS[verb]
    for who in credentials(guarded, "any"):
        session = guarded.new_session()
        credential = credentials(guarded, session)[who]
        sent = body
        if isinstance(body, dict) and who.startswith("key") and verb in {"append", "mark read"}:
            sent = body | ({"sender": "alice"} if verb == "append" else {"user_id": "alice"})
        status, answer = guarded.ask(method, path.replace("S", session), sent, credential)
        if who in allowed:
            assert status in {200, 201, 204}, (who, verb, answer)
        else:
            assert answer["code"] == refusal(who, verb), (who, verb, answer)
            assert status in {403, 404}


FRAMES: dict[str, tuple[bytes, set[str]]] = {
    "join": (b'{"type":"join","ref":"1","session":"S"}', READERS),
    "send": (b'{"type":"send","ref":"1","session":"S","content":1}', WRITERS),
    "read": (b'{"type":"read","ref":"1","session":"S","seq":0}', WRITERS),
    "stop": (b'{"type":"stop","ref":"1","session":"S"}', WRITERS),
}


@pytest.mark.parametrize("verb", FRAMES)
def test_on_the_socket_each_principal_may_do_what_is_theirs(guarded: Guarded, verb: str) -> None:
    text, allowed = FRAMES[verb]
    for who in credentials(guarded, "any"):
        session = guarded.new_session()
        credential = credentials(guarded, session)[who]
        sent = text.replace(b"S", session.encode())
        if who.startswith("key") and verb in {"send", "read"}:
            sent = sent[:-1] + (b',"sender":"alice"}' if verb == "send" else b',"user_id":"alice"}')
        with open_raw(guarded.server.address) as raw:
            raw.upgrade("", [f"Authorization: Bearer {credential}"])
            raw.send(frame(TEXT, sent))
            (code,) = raw.outcome(answers=1).codes
        if who in allowed:
            assert code in {"joined", "ack", "ok"}, (who, verb)
        else:
            assert code == refusal(who, verb), (who, verb)


def test_a_user_speaks_for_nobody_else(guarded: Guarded) -> None:
    session = guarded.new_session()
    token = guarded.mint("bob")
    for path, body in (
        (f"/v1/sessions/{session}/messages", {"content": 1, "sender": "alice"}),
        (f"/v1/sessions/{session}/read", {"seq": 0, "user_id": "alice"}),
        ("/v1/sessions", {"user_id": "alice"}),
        ("/v1/sessions?user_id=alice", None),
    ):
        method = "GET" if body is None else "POST"
        status, answer = guarded.ask(method, path, body, token)
        assert (status, answer["code"]) == (403, "forbidden"), path
        assert answer["details"]["field"] in {"sender", "user_id"}
    with open_raw(guarded.server.address) as raw:
        raw.upgrade("", [f"Authorization: Bearer {token}"])
        text = b'{"type":"send","ref":"1","session":"S","content":1,"sender":"alice"}'
        raw.send(frame(TEXT, text.replace(b"S", session.encode())))
        assert raw.outcome(answers=1).codes == ["forbidden"]


def test_lists_show_each_principal_what_they_may_see(guarded: Guarded) -> None:
    session = guarded.new_session()
    for who, credential in credentials(guarded, session).items():
        status, answer = guarded.ask("GET", "/v1/sessions?limit=1000", None, credential)
        if who in {"key write", "key tokens", "key none"}:
            assert status == 403, who
        else:
            listed = session in [entry["id"] for entry in answer["data"]]
            assert listed == (who in READERS), who


def test_operations_need_their_scope(guarded: Guarded) -> None:
    for who, credential in credentials(guarded, "s").items():
        status, _ = guarded.ask("POST", "/v1/tokens", {"user_id": "u"}, credential)
        assert status == (201 if who in {"key all", "key tokens", "key elsewhere"} else 403), who
        status, _ = guarded.ask("GET", "/metrics", None, credential)
        assert status == (200 if who in {"key all", "key read", "key elsewhere"} else 403), who
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert guarded.ask("GET", path)[0] == 200


def test_agents_need_the_scope_admin_and_are_those_of_the_workspace(guarded: Guarded) -> None:
    name = f"agent-{next(guarded.names)}"
    agent = {"id": name, "type": "pull"}
    assert guarded.ask("POST", "/v1/agents", agent, guarded.keys["all"])[0] == 201
    for who, credential in credentials(guarded, "s").items():
        for method, path, body in (
            ("GET", "/v1/agents?limit=200", None),
            ("GET", f"/v1/agents/{name}", None),
            ("PATCH", f"/v1/agents/{name}", {"concurrency": 3}),
            ("POST", "/v1/agents", agent | {"concurrency": 3}),
            ("DELETE", f"/v1/agents/{name}", None),
        ):
            if (who, method) in {("key all", "DELETE"), ("key elsewhere", "POST")}:
                continue
            status, answer = guarded.ask(method, path, body, credential)
            if who == "key all":
                assert status == 200, (method, answer)
            elif who != "key elsewhere":
                assert (status, answer["code"]) == (403, "forbidden"), (who, method)
            elif "data" in answer:
                assert [each["id"] for each in answer["data"]] == ["echo", "lorem"]
            else:
                assert (status, answer["code"]) == (404, "agent_not_found"), (who, method)
    assert guarded.ask("GET", f"/v1/agents/{name}", None, guarded.keys["all"])[0] == 200


def test_a_fresh_token_on_a_connection_must_be_the_same_users(guarded: Guarded) -> None:
    session = guarded.new_session()
    with open_raw(guarded.server.address) as raw:
        raw.upgrade("", [f"Authorization: Bearer {guarded.mint('alice')}"])
        raw.send(frame(TEXT, b'{"type":"join","ref":"1","session":"%b"}' % session.encode()))
        for token in (
            guarded.mint("bob"),
            guarded.keys["all"],
            guarded.forge(ws="elsewhere"),
            guarded.forge(exp=1),
            "nonsense",
        ):
            raw.send(frame(TEXT, b'{"type":"auth","ref":"2","token":"%b"}' % token.encode()))
        raw.send(
            frame(TEXT, b'{"type":"auth","ref":"2","token":"%b"}' % guarded.mint("alice").encode())
        )
        codes = raw.outcome(answers=7).codes

    refused = ["forbidden", "forbidden", "forbidden", "token_expired", "unauthorized"]
    assert sorted(codes) == sorted(["joined", *refused, "ok"])
