import pytest

from edge.auth import Authenticator, hash_key
from edge.errors import EdgeError
from edge.origin import OriginPolicy, host_name, is_loopback_name
from storage import ApiKey

DEVELOPMENT = OriginPolicy(development=lambda: True)
OPEN = OriginPolicy(development=lambda: False)
LISTED = OriginPolicy(
    development=lambda: False,
    allowed_origins=frozenset({"https://app.example"}),
    allowed_hosts=frozenset({"chat.example"}),
)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:4000", "LOCALHOST:4000", "127.0.0.1:4000", "127.9.9.9", "[::1]:4000"],
)
def test_loopback_names_are_always_answered(host: str) -> None:
    for policy in (DEVELOPMENT, OPEN, LISTED):
        policy.check_host(host)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1:4000", "[2001:db8::1]", "0.0.0.0"]
)
def test_development_answers_to_no_other_name(host: str) -> None:
    with pytest.raises(EdgeError) as refused:
        DEVELOPMENT.check_host(host)
    assert refused.value.code == "host_not_allowed"


def test_allowed_hosts_are_the_only_ones_once_any_is_given() -> None:
    OPEN.check_host("anything.example")
    LISTED.check_host("chat.example:443")
    with pytest.raises(EdgeError):
        LISTED.check_host("anything.example")


@pytest.mark.parametrize(
    "host", [None, "", "a b", "a/b", "[::1", "a:b", "x:123456", "evil@localhost"]
)
def test_a_malformed_host_is_refused(host: str | None) -> None:
    with pytest.raises(EdgeError):
        OPEN.check_host(host)


def test_a_request_without_an_origin_is_not_a_browsers() -> None:
    for policy in (DEVELOPMENT, OPEN, LISTED):
        policy.check_origin(None, "localhost")


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://127.0.0.1", "https://[::1]:8"])
def test_development_lets_local_pages_in(origin: str) -> None:
    DEVELOPMENT.check_origin(origin, "localhost:4000")
    with pytest.raises(EdgeError):
        OPEN.check_origin(origin, "chat.example")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "file://",
        "https://app.example.evil.example",
        "https://app.example/path",
        "https://app.example:8443",
        "http://app.example",
        "chrome-extension://localhost",
        "http://[bad",
        "",
    ],
)
def test_any_other_page_is_refused(origin: str) -> None:
    for policy in (DEVELOPMENT, LISTED):
        with pytest.raises(EdgeError) as refused:
            policy.check_origin(origin, "localhost:4000")
        assert refused.value.code == "origin_not_allowed"


def test_a_listed_page_and_our_own_pages_are_let_in() -> None:
    LISTED.check_origin("https://app.example", "chat.example")
    LISTED.check_origin("https://chat.example", "chat.example")
    LISTED.check_origin("https://chat.example:8443", "chat.example:8443")


def test_host_names_and_loopback_names_are_told_apart() -> None:
    assert host_name("[::1]:80") == "::1"
    assert host_name("Chat.Example:80") == "chat.example"
    assert is_loopback_name("app.localhost")
    assert not is_loopback_name("localhost.")


def test_the_end_of_development_counts_at_once() -> None:
    auth = Authenticator(b"k" * 32, allow_development=True)
    policy = OriginPolicy(lambda: auth.development)
    with pytest.raises(EdgeError):
        policy.check_host("log.example")
    policy.check_origin("http://localhost:5173", "127.0.0.1:4000")
    auth.replace_keys([ApiKey("k1", "backend", hash_key("rl_x"), ("read",), "default", 0)])
    policy.check_host("log.example")
    with pytest.raises(EdgeError):
        policy.check_origin("http://localhost:5173", "127.0.0.1:4000")
