import h11
import msgspec
import pytest

from edge.errors import EdgeError
from edge.head import check_start, find_end, is_websocket_upgrade, refuse, split_target

UPGRADE = b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nupgrade:  WebSocket\r\nConnection: Upgrade\r\n\r\n"


def test_the_end_of_a_head_is_found_however_it_arrives() -> None:
    whole = UPGRADE + b"frames"
    assert find_end(whole) == len(UPGRADE)
    for cut in range(1, len(UPGRADE)):
        assert find_end(whole[:cut]) is None
        assert find_end(whole, searched=cut) == len(UPGRADE)


def test_bare_line_feeds_end_a_head_too() -> None:
    assert find_end(b"GET / HTTP/1.1\nHost: x\n\nrest") == 24


def test_an_upgrade_is_told_from_everything_else() -> None:
    assert is_websocket_upgrade(UPGRADE)
    for other in (
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n",
        UPGRADE.replace(b"GET", b"POST"),
        UPGRADE.replace(b"WebSocket", b"h2c"),
        b"GET /?a=upgrade:websocket HTTP/1.1\r\nX-Upgrade: websocket\r\n\r\n",
    ):
        assert not is_websocket_upgrade(other)


def test_a_head_that_only_lenient_parsers_take_is_left_to_http() -> None:
    assert not is_websocket_upgrade(UPGRADE.replace(b"\r\n", b"\n"))


def test_a_body_cannot_make_a_request_an_upgrade() -> None:
    assert not is_websocket_upgrade(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nUpgrade: websocket\r\n\r\n")


def test_tls_and_other_bytes_are_refused_at_once() -> None:
    for start in (b"\x16\x03\x01", b"\x00", b" GET", b"\r\n", b"{"):
        with pytest.raises(EdgeError) as error:
            check_start(start)
        assert error.value.code == "bad_request"
    check_start(b"GET / HTTP/1.1")
    check_start(b"")


def test_a_refusal_is_a_whole_response() -> None:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(refuse(EdgeError("too_many_connections", "9 are open")))
    response, body, end = (connection.next_event() for _ in range(3))
    assert isinstance(response, h11.Response)
    assert response.status_code == 503
    assert (b"retry-after", b"2") in response.headers
    assert isinstance(body, h11.Data)
    assert msgspec.json.decode(body.data)["code"] == "too_many_connections"
    assert isinstance(end, h11.EndOfMessage)
    assert connection.their_state is h11.MUST_CLOSE


def test_a_target_is_a_path_or_names_its_host() -> None:
    assert split_target(b"/a?b=http://c/") == (None, b"/a?b=http://c/")
    assert split_target(b"*") == (None, b"*")
    assert split_target(b"http://h:1/a?b") == (b"h:1", b"/a?b")
    assert split_target(b"HTTPS://h?b") == (b"h", b"/?b")
    assert split_target(b"http://h") == (b"h", b"/")
    for other in (b"h:443", b"a", b"?a", b"ftp://h/", b"http://h/#a", b"http://h#a"):
        with pytest.raises(EdgeError) as error:
            split_target(other)
        assert error.value.code == "bad_request"
