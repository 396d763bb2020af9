"""Signatures by Standard Webhooks 1.0: who is called can tell that it was us, and that it is no repeat. Pure.

`webhook-id` is the dispatch, the same in every attempt, so whoever keeps those that it has worked on works on none
twice. `webhook-signature` has one signature for each secret that is valid, so that one can replace another.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"


def sign(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """Return the headers for a body; `timestamp` is in seconds since 1970, `secrets` are as they are shown."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [f"v1,{_signature(secret, signed)}" for secret in secrets]
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    return headers | ({"webhook-signature": " ".join(signatures)} if signatures else {})


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
