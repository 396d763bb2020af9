"""How two nodes know each other before a link carries anything.

Both hold the cluster's secret, and prove it without showing it: each signs the other's fresh nonce together with
what both have said (HMAC-SHA256). So neither can be played back, and neither proof can stand for the other::

    edge  → owner   Greeting(version, cluster, node, slots, nonce)
    owner → edge    Welcome(version, node, epoch, slots, nonce, proof)
    edge  → owner   Proof(proof)

Each side hangs up on a proof that is wrong, having said so.
"""

import hashlib
import hmac

import msgspec

PROTOCOL_VERSION = 1

NONCE_BYTES = 32

SECRET_BYTES_MIN = 32
"""A secret that is shorter than a hash may be guessed."""


class HandshakeError(Exception):
    """The other side is not of this cluster, or speaks another version."""


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
    """Why an owner hangs up."""

    reason: str


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


def check_greeting(greeting: Greeting, slots: int) -> None:
    """Refuse an edge that could not be understood.

    Raises:
        HandshakeError: Says why.
    """
    if greeting.version != PROTOCOL_VERSION:
        raise HandshakeError(
            f"it speaks version {greeting.version} of the link protocol, this node {PROTOCOL_VERSION}"
        )
    if greeting.slots != slots:
        raise HandshakeError(f"its ring has {greeting.slots} slots, this node's {slots}")
    if len(greeting.nonce) != NONCE_BYTES:
        raise HandshakeError("its nonce has the wrong length")


def check_welcome(secret: bytes, greeting: Greeting, welcome: Welcome, owner: str) -> None:
    """Refuse an owner that is another, does not know the secret, or could not be understood.

    Raises:
        HandshakeError: Says why.
    """
    if welcome.version != PROTOCOL_VERSION:
        raise HandshakeError(
            f"it speaks version {welcome.version} of the link protocol, this node {PROTOCOL_VERSION}"
        )
    if welcome.slots != greeting.slots:
        raise HandshakeError(f"its ring has {welcome.slots} slots, this node's {greeting.slots}")
    if len(welcome.nonce) != NONCE_BYTES:
        raise HandshakeError("its nonce has the wrong length")
    check_proof(secret, "owner", greeting, welcome, welcome.proof)
    if welcome.node_id != owner:
        raise HandshakeError(f"it is node {welcome.node_id}, not {owner}")


def check_proof(
    secret: bytes, side: str, greeting: Greeting, welcome: Welcome, proof: bytes
) -> None:
    """Refuse a proof that another secret, or another conversation, led to.

    Raises:
        HandshakeError: Says so.
    """
    if not hmac.compare_digest(prove(secret, side, greeting, welcome), proof):
        raise HandshakeError("it does not know this cluster's secret")
