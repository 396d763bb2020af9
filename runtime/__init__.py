"""What a session is, and who owns it. No bytes on disk, no HTTP.

`open_node` opens a data directory as a `Node`. A node activates a `SessionServer` for each session in
use; `node.catalog` creates, changes and lists sessions; a `Tail` replays a session and then follows it.
"""

from runtime.catalog import Catalog, SessionPage
from runtime.codec import SessionInfo
from runtime.errors import (
    AheadOfLogError,
    BackpressureError,
    ClientIdReusedError,
    ConflictError,
    InvalidFieldError,
    SessionArchivedError,
    SessionDeletedError,
    SessionError,
    SessionExistsError,
    SessionNotFoundError,
    ShuttingDownError,
)
from runtime.history import MessagePage, read_after, read_before
from runtime.identifiers import (
    IDENTIFIER_RULE,
    KIND_RULE,
    Stamper,
    format_time,
    is_identifier,
    is_kind,
    parse_time,
)
from runtime.node import DISK_STALLED_SECONDS, Node, NodeOptions, NodeStatistics
from runtime.opening import open_node
from runtime.replies import Ack, Reply, WaitingReply
from runtime.server import SessionServer
from runtime.session import check_cursor
from runtime.tail import Follower, Sink, Tail, follow

__all__ = [
    "DISK_STALLED_SECONDS",
    "IDENTIFIER_RULE",
    "KIND_RULE",
    "Ack",
    "AheadOfLogError",
    "BackpressureError",
    "Catalog",
    "ClientIdReusedError",
    "ConflictError",
    "Follower",
    "InvalidFieldError",
    "MessagePage",
    "Node",
    "NodeOptions",
    "NodeStatistics",
    "Reply",
    "SessionArchivedError",
    "SessionDeletedError",
    "SessionError",
    "SessionExistsError",
    "SessionInfo",
    "SessionNotFoundError",
    "SessionPage",
    "SessionServer",
    "ShuttingDownError",
    "Sink",
    "Stamper",
    "Tail",
    "WaitingReply",
    "check_cursor",
    "follow",
    "format_time",
    "is_identifier",
    "is_kind",
    "open_node",
    "parse_time",
    "read_after",
    "read_before",
]
