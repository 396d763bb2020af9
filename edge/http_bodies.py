"""The bodies of the HTTP API: what is decoded into, what is encoded from, and what OpenAPI describes.

Unknown fields are refused by name. Ids are checked where they are used (`edge/protocol.py`), because an
alphabet says more in an error than a pattern does. `content` and `metadata` stay the client's own bytes.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, field

from edge.limits import Limits
from runtime import WEIGHT_MAX, Dispatch

TTL_SECONDS_DEFAULT = Limits().token_ttl_seconds_default

Position = Annotated[int, Meta(ge=0, le=(1 << 53))]


def _empty_object() -> Raw:
    return Raw(b"{}")


class CreateSession(msgspec.Struct, forbid_unknown_fields=True):
    """A session to be created; the server gives out an id where it is left out."""

    id: str | None = None
    user_id: str | None = None
    members: tuple[str, ...] = ()
    agent_id: str | None = None
    metadata: Raw = field(default_factory=_empty_object)


class ChangeSession(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of a session; what is left out stays. `expected_version` guards against races."""

    members: tuple[str, ...] | UnsetType = UNSET
    agent_id: str | UnsetType | None = UNSET
    metadata: Raw = field(default_factory=Raw)
    expected_version: Position | UnsetType = UNSET


class MarkRead(msgspec.Struct, forbid_unknown_fields=True):
    """A read cursor: everything up to and including `seq` has been read."""

    seq: Position
    user_id: str | None = None


class AppendMessage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A message to be appended. `expected_seq` is the head that the sender has seen."""

    content: Raw
    client_id: str | None = None
    kind: str = "text"
    metadata: Raw = field(default_factory=_empty_object)
    expected_seq: Position | None = None
    sender: str | None = None


class MintToken(msgspec.Struct, forbid_unknown_fields=True):
    """A user token to be minted, for `ttl` seconds; limited to `sessions` where they are given."""

    user_id: str
    sessions: tuple[str, ...] | None = None
    ttl: Position = TTL_SECONDS_DEFAULT


class Token(msgspec.Struct):
    """A minted token."""

    token: str
    user_id: str
    expires_at: str


class Ack(msgspec.Struct):
    """A message is durable. `duplicate`: it was already, and this is the first answer again."""

    session: str
    seq: int
    id: str
    client_id: str | None
    duplicate: bool
    durability: str


class ReadCursor(msgspec.Struct):
    """How far a user has read."""

    session: str
    user_id: str
    seq: int


class Session(msgspec.Struct):
    """A session."""

    id: str
    user_id: str
    members: list[str]
    agent_id: str | None
    metadata: Any
    state: str
    created_at: str
    updated_at: str
    version: int


class Message(msgspec.Struct, tag_field="type", tag="message"):
    """A message, as it is stored and as every transport sends it."""

    session: str
    seq: int
    id: str
    sender: str
    client_id: str | None
    kind: str
    content: Any
    metadata: Any
    at: str


class Gap(msgspec.Struct, tag_field="type", tag="gap"):
    """Seqs that are left out: what they were given to may be lost."""

    session: str
    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")
    reason: Literal["lost"]


class SessionPage(msgspec.Struct):
    """Sessions, newest first; `next_cursor` asks for the page after this one."""

    data: list[Session]
    next_cursor: str | None
    has_more: bool


class MessagePage(msgspec.Struct):
    """Messages, oldest first; `has_more` in the direction that was asked for."""

    data: list[Message | Gap]
    head_seq: int
    has_more: bool


class Agent(msgspec.Struct):
    """An agent. Of its secrets only the names and the number; `signing_secret` where one was just made for it."""

    id: str
    type: str
    url: str | None
    model: str | None
    system: str | None
    status: str
    message_history_mode: str
    message_history_limit: int
    timeout_ms: int
    connect_timeout_ms: int
    first_byte_timeout_ms: int
    idle_timeout_ms: int
    debounce_window_ms: int
    debounce_max_ms: int
    concurrency: int
    attempts_max: int
    on_message: str
    on_loss: str
    metadata: Any
    header_names: list[str]
    signing_secrets: int
    built_in: bool
    version: int
    created_at: str | None
    updated_at: str | None
    signing_secret: str | UnsetType = UNSET


class DispatchPage(msgspec.Struct):
    """One page of dispatches, newest first."""

    data: list[Dispatch]
    next_cursor: str | None
    has_more: bool


class AgentPage(msgspec.Struct):
    """Agents by id; `next_cursor` asks for the page after this one."""

    data: list[Agent]
    next_cursor: str | None
    has_more: bool


class ChangeNode(msgspec.Struct, forbid_unknown_fields=True):
    """A node whose place in the ring changes. `force` gives slots also to nodes that do not live."""

    node_id: str
    force: bool = False


class ChangeWeight(msgspec.Struct, forbid_unknown_fields=True):
    """How large a node's share is to be beside the others'."""

    node_id: str
    weight: Annotated[int, Meta(ge=1, le=WEIGHT_MAX)]
    force: bool = False


class RemoveNode(msgspec.Struct, forbid_unknown_fields=True):
    """A node that is to be taken out of the ring."""

    node_id: str


class Rebalance(msgspec.Struct, forbid_unknown_fields=True):
    """Every slot gets the owner that it would have if the ring were made anew."""

    force: bool = False


class RingNode(msgspec.Struct):
    """A node of the ring: `slots` are its own, `slots_meant` will be. `alive` where it was asked for."""

    node_id: str
    state: str
    weight: int
    slots: int
    slots_meant: int
    link: str
    epoch: int
    retired: bool
    alive: bool | UnsetType = UNSET


class RingState(msgspec.Struct):
    """The ring at one version: its nodes, how many slots there are, and how many are on their way."""

    data: list[RingNode]
    version: int
    slots: int
    moving: int


class RingEntry(msgspec.Struct):
    """A change that was made."""

    version: int
    at: str
    actor: str
    action: str
    node_id: str
    slots_moved: int


class RingHistory(msgspec.Struct):
    """Changes of the ring, newest first."""

    data: list[RingEntry]


class RingPair(msgspec.Struct):
    """Slots that go from one node ("" for nobody) to another, as ranges [first, last]."""

    source: str
    target: str
    slots: int
    ranges: list[tuple[int, int]]
    sessions: int | UnsetType = UNSET


class RingMove(msgspec.Struct):
    """A session whose slot moves."""

    workspace: str
    session: str
    slot: int
    source: str
    target: str


class RingPlan(msgspec.Struct):
    """What a change would move, on the ring at `version`.

    `sessions_moved` is at least so many where not all sessions were counted (`sessions_whole`).
    """

    action: str
    node_id: str
    version: int
    slots: int
    slots_moved: int
    pairs: list[RingPair]
    sessions_moved: int
    sessions_whole: bool
    sessions: list[RingMove] | UnsetType = UNSET


class RingChanged(msgspec.Struct):
    """A change that was made, at `version`; its slots are on their way now."""

    action: str
    node_id: str
    version: int
    slots: int
    slots_moved: int
    pairs: list[RingPair]


class Health(msgspec.Struct):
    """The process answers."""

    status: str


class RingReadiness(msgspec.Struct):
    """A process's part in the ring that it knows; `state` is null for an edge."""

    version: int
    state: str | None
    slots: int
    slots_meant: int
    slots_served: int


class Readiness(msgspec.Struct):
    """The process should get traffic; who it is (an edge has no node), and its part in the ring, if it has one."""

    status: str
    role: str
    node_id: str | None
    epoch: int | None
    ring: RingReadiness | None


class ProblemDocument(msgspec.Struct):
    """RFC 9457, with the code, the hint and the retry time that every transport has."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    retry_after_ms: int | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET
    instance: str | UnsetType = UNSET
