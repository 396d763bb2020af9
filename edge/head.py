"""The first lines of a connection, just enough of them to say where it goes. Pure.

HTTP itself is read by h11 and by `websockets`; this only finds the end of the head, tells a WebSocket
upgrade from everything else, and builds the refusals that come before either of them is asked.
"""

import re
from email.utils import formatdate
from http import HTTPStatus

from edge.errors import EdgeError, encode_problem, problem_headers, problem_of

# A bare line feed ends a line too: h11 takes it, so a head must not seem unfinished because of it.
_END = re.compile(rb"\n\r?\n")
_UPGRADE = re.compile(rb"^upgrade[ \t]*:[ \t]*websocket[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
# A method is a token: anything else is not HTTP. 0x16 opens a TLS handshake.
_METHOD_START = re.compile(rb"[A-Za-z!#$%&'*+.^_`|~-]")
_TLS_HANDSHAKE = b"\x16"
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(/[^#]*|(?:\?[^#]*)?)", re.IGNORECASE)


def find_end(received: bytes, searched: int = 0) -> int | None:
    """Return where the head ends (exclusive), or None; the first `searched` bytes were searched before."""
    match = _END.search(received, max(0, searched - 2))
    return None if match is None else match.end()


def check_start(received: bytes) -> None:
    """Raise `bad_request` at once for bytes that cannot become HTTP, instead of at the deadline."""
    if received.startswith(_TLS_HANDSHAKE):
        raise EdgeError(
            "bad_request",
            "this port speaks plain HTTP, not TLS",
            hint="use http:// and ws://, or start the server with a certificate",
        )
    if received and _METHOD_START.match(received) is None:
        raise EdgeError("bad_request", "this is not HTTP")


def is_websocket_upgrade(received: bytes) -> bool:
    """Tell whether a head asks for a WebSocket; `received` holds all of it, and perhaps more.

    A malformed upgrade is refused by whoever reads it in full. One whose lines end in bare line feeds is
    left to h11, which takes that and hands back what is an upgrade in proper lines.
    """
    end = received.find(b"\r\n\r\n")
    return received.startswith(b"GET ") and _UPGRADE.search(received, 0, end + 2) is not None


def split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """Return the host that a request's target names, if it names one, and its path with the query.

    Raises:
        EdgeError: bad_request, for what is neither a path, `*` nor an address.
    """
    if target.startswith(b"/") or target == b"*":
        return None, target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise EdgeError(
            "bad_request",
            "the request's target is no path",
            hint="begin the target with /, as in GET /healthz HTTP/1.1",
        )
    path = match[2]
    return match[1], path if path.startswith(b"/") else b"/" + path


def refuse(error: EdgeError) -> bytes:
    """Return a whole HTTP response that carries the problem and closes the connection."""
    problem = problem_of(error)
    body = encode_problem(problem)
    status = HTTPStatus(problem.kind.status)
    headers = problem_headers(problem) | {
        "Date": formatdate(usegmt=True),
        "Connection": "close",
        "Content-Length": str(len(body)),
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
