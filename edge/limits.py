"""Every limit of the edge, in one value, each with the reason for its figure.

A limit that is reached is refused with an error of its own (`edge/errors.py`), never by waiting for
memory to run out. Units come last in the names.
"""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

# Descriptors that are not connections: segments, SQLite files, PostgreSQL sockets, listeners, logs, and
# connections that are being refused.
RESERVED_DESCRIPTORS = 96


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process accepts from its peers; the defaults suit a 1 GiB machine."""

    # One WebSocket message, reassembled. A chat message is under 4 KiB; 256 KiB leaves room for
    # pasted documents, while a commit batch (512 KiB) still holds at least one.
    message_bytes_max: int = 256 * KIB
    # One HTTP request body. A message plus its envelope, escaped at worst, fits four times over.
    body_bytes_max: int = MIB
    # The request line and headers. What browsers, proxies and h11 agree on.
    header_bytes_max: int = 16 * KIB
    # From accept (or from the end of the TLS handshake) to the end of the head. A slow phone needs
    # one second; without a deadline a byte a minute would hold a connection for ever.
    header_timeout_seconds: float = 10.0
    # From the head to the end of the body: 1 MiB at the slowest link worth serving (50 KiB/s).
    body_timeout_seconds: float = 20.0
    # A whole response that is not a stream: a page of 4 MiB at 35 KiB/s.
    response_timeout_seconds: float = 120.0
    # The TLS handshake, two round trips and one signature.
    tls_timeout_seconds: float = 10.0
    # How long an HTTP connection may rest between two requests. Above the 4 s that clients assume,
    # below the 60 s of common load balancers.
    keep_alive_timeout_seconds: float = 30.0

    # Connections of any kind; bounded further by the descriptors the process may open.
    connections_max: int = 10_000
    # What waits to be written to one connection. A tail reads on only when its socket can be
    # written, so this is reached by acknowledgements and by single large messages alone.
    connection_buffer_bytes_max: int = MIB
    # Requests of one connection that wait for the disk. 64 keep one fsync busy; 1,024 is more than
    # any honest client gains from, and bounds what one connection can hold in memory.
    in_flight_max: int = 1024
    # Sessions one connection may have joined: each costs a cursor and a place in a fan-out.
    subscriptions_max: int = 1000
    # Sessions that are activated at once for one connection: enough to keep the archive's readers busy,
    # few enough that others have their turn.
    activations_max: int = 16
    # Frames one message may be split into. Empty fragments cost the sender two bytes and us an object.
    fragments_max: int = 1024
    # Pongs owed to one connection; a flood of pings is answered by closing, not by buffering.
    pongs_max: int = 64

    # An idle connection is pinged this often: below the 30 to 60 s after which NATs forget it.
    heartbeat_seconds: float = 20.0
    # Silence (no frame, not even a pong) after which a peer is gone: three heartbeats.
    idle_timeout_seconds: float = 60.0
    # A reader that takes nothing for this long is cut off (1013 on a WebSocket). That is noticed within a
    # second and the socket closed within three more, so a stalled reader is gone within ten.
    stall_timeout_seconds: float = 5.0
    # After our close frame, or the last byte of a response, the peer has this long to close too.
    close_timeout_seconds: float = 2.0

    # Comment lines on a silent event stream: proxies cut streams that are silent for 30 s or more.
    sse_keep_alive_seconds: float = 15.0
    # What EventSource waits before it reconnects.
    sse_retry_ms: int = 1000

    # Rows of one page: a thousand ordinary messages are 300 KB; exports ask for as many.
    page_rows_max: int = 1000
    # Rows where the caller does not say: more than a screen shows.
    page_rows_default: int = 100

    # A user token cannot be revoked: long enough for a working day, so that theft is bounded.
    token_ttl_seconds_max: int = 24 * 3600
    # Where the backend does not say; clients renew with `auth` before it expires.
    token_ttl_seconds_default: int = 3600
    # Sessions one token may be limited to: the token travels in every request head.
    token_sessions_max: int = 64

    # How long a shutdown waits for requests in progress.
    grace_seconds: float = 5.0


def connections_allowed(limits: Limits, descriptors: int) -> int:
    """Return how many connections may be open, where the process may open `descriptors` files."""
    return max(1, min(limits.connections_max, descriptors - RESERVED_DESCRIPTORS))
