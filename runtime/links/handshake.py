"""How two nodes know each other before a link carries anything.

Both hold the cluster's secret, and prove it without showing it: each signs the other's fresh nonce together with
what both have said (HMAC-SHA256). So neither can be played back, and neither proof can stand for the other::

    edge  → owner   Greeting(version, cluster, node, slots, nonce)
    owner → edge    Welcome(version, node, epoch, slots, nonce, proof)
    edge  → owner   Proof(proof)

A side that does not want the other says why, by a `Refusal` in place of what would come next, and hangs up: so both
know, and both can tell their operators. The tag and version of a greeting, and a `Refusal`, keep their shape in every
version; of the rest nothing is read that another version has said.
"""

import hashlib
import hmac
from typing import NamedTuple

import msgspec

PROTOCOL_VERSION = 1

NONCE_BYTES = 32

SECRET_BYTES_MIN = 32
"""A secret that is shorter than a hash may be guessed."""


LINK_SECRET = "link"  # noqa: S105 - its name
"""What the archive calls the secret by which the nodes of a cluster know each other."""


class Kind(NamedTuple):
    """A kind of refusal: what clients are told of an owner that it concerns, and what an operator should do."""

    told: str
    hint: str


KINDS = {
    "link_version": Kind(
        "it runs another version of Ringlog",
        "install the same version on all nodes of the cluster: upgrade the older of the two",
    ),
    "link_slots": Kind(
        "its ring has another size",
        "a ring's size is fixed when its cluster is made, so the two use two archives: compare their --archive",
    ),
    "link_secret": Kind(
        "it is not of this cluster",
        "nodes of one cluster have its secret from their one archive: compare their --archive; "
        "and start again what runs since before the archive was replaced",
    ),
    "link_node": Kind(
        "another node has its address",
        "no two nodes may have one --link address: compare with `ringlog ring show`; start the missing one",
    ),
    "link_protocol": Kind(
        "what answers at its address is no owner",
        "what is at the other end is no Ringlog node, or has --link-cert where this one has not: look at what "
        "listens on, or connects to, the --link address",
    ),
    "link_tls": Kind(
        "the two do not accept each other's certificates",
        "both need --link-cert, --link-key and --link-ca: each a certificate that is signed by what the other has as "
        "--link-ca and has not expired, an owner's for the host in its --link address",
    ),
    "link_timeout": Kind(
        "it does not answer",
        "look whether the other process hangs, and whether what lies between the two passes data on",
    ),
    "link_refused": Kind("it refused this node", "look at the other node's log"),
}
"""By code."""


class HandshakeError(Exception):
    """The other side is not of this cluster, or cannot be understood; or that is what it says of this one."""

    def __init__(self, code: str, reason: str, *, was_told: bool = False) -> None:
        super().__init__(reason)
        self.code = code if code in KINDS else "link_refused"
        self.told, self.hint = KINDS[self.code]
        self.was_told = was_told
        """Whether it was the other side that refused, and so knows."""


class Greeting(msgspec.Struct, array_like=True, tag="ringlog"):
    """What an edge says first."""

    version: int
    node_id: str
    slots: int
    nonce: bytes


class Welcome(msgspec.Struct, array_like=True, tag="welcome"):
    """What an owner answers."""

    version: int
    node_id: str
    epoch: int
    slots: int
    nonce: bytes
    proof: bytes


class Proof(msgspec.Struct, array_like=True, tag="proof"):
    """What the edge answers then."""

    proof: bytes


class Refusal(msgspec.Struct, array_like=True, tag="refusal"):
    """Why the other side hangs up. What it says is not proved: show it to nobody but operators."""

    reason: str
    code: str = ""


def prove(secret: bytes, side: str, greeting: Greeting, welcome: Welcome) -> bytes:
    """Return the proof of one side (`edge` or `owner`), over all that was said."""
    said = (
        side,
        greeting.version,
        greeting.node_id,
        greeting.slots,
        greeting.nonce,
        welcome.version,
        welcome.node_id,
        welcome.epoch,
        welcome.slots,
        welcome.nonce,
    )
    return hmac.digest(secret, msgspec.msgpack.encode(said), hashlib.sha256)


def read_greeting(frame: bytes, slots: int) -> Greeting:
    """Return what an edge says first; refuse one that could not be understood.

    Raises:
        HandshakeError: Says why.
        msgspec.DecodeError: It is no greeting.
    """
    _check_version("edge", msgspec.msgpack.decode(frame, type=_GreetingStart).version)
    greeting = msgspec.msgpack.decode(frame, type=Greeting)
    _check_slots(greeting.slots, slots)
    _check_nonce(greeting.nonce)
    return greeting


def read_welcome(frame: bytes, secret: bytes, greeting: Greeting, owner: str) -> Welcome:
    """Return what an owner answers; refuse one that is another, does not know the secret, or is not understood.

    Raises:
        HandshakeError: Says why; or why the owner refused.
        msgspec.DecodeError: It is no answer.
    """
    start = msgspec.msgpack.decode(frame, type=_WelcomeStart | Refusal)
    if isinstance(start, Refusal):
        raise _as_told("owner", start)
    _check_version("owner", start.version)
    welcome = msgspec.msgpack.decode(frame, type=Welcome)
    _check_slots(greeting.slots, welcome.slots)
    _check_nonce(welcome.nonce)
    check_proof(secret, "owner", greeting, welcome, welcome.proof)
    if welcome.node_id != owner:
        raise HandshakeError("link_node", f"node {welcome.node_id} answers, not {owner}")
    return welcome


def read_proof(frame: bytes, secret: bytes, greeting: Greeting, welcome: Welcome) -> None:
    """Refuse an edge that does not know the secret.

    Raises:
        HandshakeError: Says why; or why the edge refused.
        msgspec.DecodeError: It is neither.
    """
    said = msgspec.msgpack.decode(frame, type=Proof | Refusal)
    if isinstance(said, Refusal):
        raise _as_told("edge", said)
    check_proof(secret, "edge", greeting, welcome, said.proof)


def check_proof(
    secret: bytes, side: str, greeting: Greeting, welcome: Welcome, proof: bytes
) -> None:
    """Refuse a proof that another secret, or another conversation, led to.

    Raises:
        HandshakeError: Says so.
    """
    if not hmac.compare_digest(prove(secret, side, greeting, welcome), proof):
        raise HandshakeError("link_secret", f"the {side} does not know this cluster's secret")


class _GreetingStart(msgspec.Struct, array_like=True, tag="ringlog"):
    version: int


class _WelcomeStart(msgspec.Struct, array_like=True, tag="welcome"):
    version: int


def _check_version(side: str, version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise HandshakeError(
            "link_version",
            f"the {side} speaks version {version} of the link protocol, this node {PROTOCOL_VERSION}",
        )


def _check_slots(edge: int, owner: int) -> None:
    if edge != owner:
        raise HandshakeError("link_slots", f"the edge's ring has {edge} slots, the owner's {owner}")


def _as_told(side: str, refusal: Refusal) -> HandshakeError:
    reason = f"the {side} refused this node: {refusal.reason}"
    return HandshakeError(refusal.code, reason, was_told=True)


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise HandshakeError("link_protocol", f"a nonce of {len(nonce)} bytes")
