"""What a session is, and who owns it. No bytes on disk, no HTTP.

`open_node` opens a data directory as a `Node`. A node activates a `SessionServer` for each session in
use; `node.catalog` creates, changes and lists sessions; a `Tail` replays a session and then follows it.
"""

from runtime.catalog import Catalog, SessionPage
from runtime.cluster import Cluster, ClusterOptions, open_cluster
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
from runtime.history import MessagePage
from runtime.host import Host
from runtime.identifiers import (
    IDENTIFIER_RULE,
    KIND_RULE,
    Stamper,
    format_time,
    is_identifier,
    is_kind,
    parse_time,
)
from runtime.member import Member
from runtime.node import DISK_STALLED_SECONDS, Node
from runtime.nodeoptions import NodeOptions, NodeStatistics
from runtime.opening import open_node
from runtime.planning import (
    PlanError,
    plan_drain,
    plan_join,
    plan_rebalance,
    plan_undrain,
    plan_weight,
    planned_moves,
)
from runtime.replies import Ack, Reply, WaitingReply, append_durably
from runtime.ring import Move
from runtime.router import Router
from runtime.served import Served
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
    "Cluster",
    "ClusterOptions",
    "ConflictError",
    "Follower",
    "Host",
    "InvalidFieldError",
    "Member",
    "MessagePage",
    "Move",
    "Node",
    "NodeOptions",
    "NodeStatistics",
    "PlanError",
    "Reply",
    "Router",
    "Served",
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
    "append_durably",
    "check_cursor",
    "follow",
    "format_time",
    "is_identifier",
    "is_kind",
    "open_cluster",
    "open_node",
    "parse_time",
    "plan_drain",
    "plan_join",
    "plan_rebalance",
    "plan_undrain",
    "plan_weight",
    "planned_moves",
]
