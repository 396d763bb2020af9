"""What a session is, and who owns it. No bytes on disk, no HTTP.

`open_node` opens a data directory as a `Node`. A node activates a `SessionServer` for each session in
use; `node.catalog` creates, changes and lists sessions; a `Tail` replays a session and then follows it.
"""

from runtime.answer import frame_type, is_frame
from runtime.catalog import Catalog, SessionPage
from runtime.cluster import Cluster, ClusterOptions, open_cluster
from runtime.codec import SessionInfo
from runtime.dispatch import (
    AGENT_PREFIX,
    INTERRUPT,
    QUEUE,
    REJECT,
    Attempt,
    Dispatch,
    DispatchState,
    Ending,
    close_dispatch,
    decode_dispatch,
    due_at_ms,
    encode_dispatch,
    retry_dispatch,
    send_dispatch,
    sender_of,
    stream_dispatch,
)
from runtime.dispatcher import Dispatcher
from runtime.errors import (
    AgentBusyError,
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
from runtime.gaps import numbered
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
from runtime.jsontext import DEPTH_MAX, depth_of, is_too_deep, one_line
from runtime.links.tls import LinkTls
from runtime.member import Member
from runtime.node import DISK_STALLED_SECONDS, Node
from runtime.nodeoptions import NodeOptions, NodeStatistics
from runtime.opening import open_node
from runtime.planning import (
    WEIGHT_MAX,
    PlanError,
    UnknownNodeError,
    plan_drain,
    plan_join,
    plan_rebalance,
    plan_undrain,
    plan_weight,
    planned_moves,
)
from runtime.replies import Ack, Reply, WaitingReply, append_durably
from runtime.ring import SLOTS, Move, assign, slot_of
from runtime.ringchange import (
    LISTEN_LOOKS,
    LISTEN_SECONDS,
    Action,
    Ask,
    NoRingError,
    Plan,
    Progress,
    RollCall,
    SessionCount,
    SilentNodesError,
    by_pair,
    carry_out,
    check_lives,
    progress_of,
    read_ring,
    slot_ranges,
    work_out,
)
from runtime.router import Router
from runtime.served import Served
from runtime.server import SessionServer
from runtime.session import check_cursor
from runtime.standing import RingStanding, Standing
from runtime.tail import Follower, Sink, Tail, follow

__all__ = [
    "AGENT_PREFIX",
    "DEPTH_MAX",
    "DISK_STALLED_SECONDS",
    "IDENTIFIER_RULE",
    "INTERRUPT",
    "KIND_RULE",
    "LISTEN_LOOKS",
    "LISTEN_SECONDS",
    "QUEUE",
    "REJECT",
    "SLOTS",
    "WEIGHT_MAX",
    "Ack",
    "Action",
    "AgentBusyError",
    "AheadOfLogError",
    "Ask",
    "Attempt",
    "BackpressureError",
    "Catalog",
    "ClientIdReusedError",
    "Cluster",
    "ClusterOptions",
    "ConflictError",
    "Dispatch",
    "DispatchState",
    "Dispatcher",
    "Ending",
    "Follower",
    "Host",
    "InvalidFieldError",
    "LinkTls",
    "Member",
    "MessagePage",
    "Move",
    "NoRingError",
    "Node",
    "NodeOptions",
    "NodeStatistics",
    "Plan",
    "PlanError",
    "Progress",
    "Reply",
    "RingStanding",
    "RollCall",
    "Router",
    "Served",
    "SessionArchivedError",
    "SessionCount",
    "SessionDeletedError",
    "SessionError",
    "SessionExistsError",
    "SessionInfo",
    "SessionNotFoundError",
    "SessionPage",
    "SessionServer",
    "ShuttingDownError",
    "SilentNodesError",
    "Sink",
    "Stamper",
    "Standing",
    "Tail",
    "UnknownNodeError",
    "WaitingReply",
    "append_durably",
    "assign",
    "by_pair",
    "carry_out",
    "check_cursor",
    "check_lives",
    "close_dispatch",
    "decode_dispatch",
    "depth_of",
    "due_at_ms",
    "encode_dispatch",
    "follow",
    "format_time",
    "frame_type",
    "is_frame",
    "is_identifier",
    "is_kind",
    "is_too_deep",
    "numbered",
    "one_line",
    "open_cluster",
    "open_node",
    "parse_time",
    "plan_drain",
    "plan_join",
    "plan_rebalance",
    "plan_undrain",
    "plan_weight",
    "planned_moves",
    "progress_of",
    "read_ring",
    "retry",
    "retry_dispatch",
    "send",
    "send_dispatch",
    "sender_of",
    "slot_of",
    "slot_ranges",
    "stream",
    "stream_dispatch",
    "work_out",
]
