"""Standard Webhooks signatures: an agent can tell that a request is ours, new, and unchanged.

::

    webhook-id:         the same for each attempt of one dispatch, so that agents can drop repeats
    webhook-timestamp:  seconds since 1970, of this attempt
    webhook-signature:  v1,<base64 of HMAC-SHA256(secret, "id.timestamp.body")>, one for each secret, spaces between

A secret is `whsec_` and 24 to 64 random bytes in base64. While one is replaced, two are valid and both sign: a
receiver accepts whoever signs with the one that it knows. https://www.standardwebhooks.com
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

SECRET_PREFIX = "whsec_"  # noqa: S105 - what it begins with
SECRET_BYTES = 32
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64

TOLERANCE_SECONDS = 300
"""Between the clocks of sender and receiver; what the public libraries allow."""

# The id is signed between dots: one with a dot could be read as another id and another time.
_is_id = re.compile(r"[A-Za-z0-9_:@~+=|-]{1,256}").fullmatch
_is_timestamp = re.compile(r"[0-9]{1,12}").fullmatch


class SigningError(Exception):
    """A secret cannot be used, or a signature does not hold; the message repeats neither."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def make_secret(random: bytes) -> str:
    """Return the secret that these random bytes make; give it `SECRET_BYTES` of them."""
    assert SECRET_BYTES_MIN <= len(random) <= SECRET_BYTES_MAX
    return SECRET_PREFIX + base64.b64encode(random).decode("ascii")


def read_secret(secret: str) -> bytes:
    """Return the bytes of a secret.

    Raises:
        SigningError: webhook_secret_invalid.
    """
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        # Others leave the padding off.
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SigningError("webhook_secret_invalid", "the secret is not base64") from error
    if text == secret or not SECRET_BYTES_MIN <= len(found) <= SECRET_BYTES_MAX:
        rule = f"{SECRET_PREFIX} and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64"
        raise SigningError("webhook_secret_invalid", f"a secret is {rule}")
    return found


def sign(secrets: Sequence[str], id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers that sign a request; the newest secret comes first.

    Raises:
        SigningError: webhook_secret_invalid.
    """
    assert secrets
    assert _is_id(id), id
    timestamp = str(int(at.timestamp()))
    signatures = [_signature(read_secret(secret), id, timestamp, body) for secret in secrets]
    return {
        "webhook-id": id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def verify(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> None:
    """Check that one of `secrets` signed this, lately; `headers` have names in lower case.

    Raises:
        SigningError: webhook_secret_invalid, webhook_unsigned, webhook_too_old, webhook_too_new or
            webhook_signature_invalid.
    """
    message, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "").split()
    if not _is_id(message) or not _is_timestamp(timestamp) or not given:
        raise SigningError("webhook_unsigned", "a header of the signature is missing or malformed")
    age = now.astimezone(UTC).timestamp() - int(timestamp)
    if age > tolerance_seconds:
        raise SigningError("webhook_too_old", "the signature is too old")
    if age < -tolerance_seconds:
        raise SigningError("webhook_too_new", "the signature is from the future")
    wanted = [_signature(read_secret(secret), message, timestamp, body) for secret in secrets]
    # Every pair is compared, so that the time taken tells nothing.
    matches = [
        hmac.compare_digest(one.encode(), other.encode()) for one in wanted for other in given
    ]
    if not any(matches):
        raise SigningError("webhook_signature_invalid", "no signature fits")


def _signature(secret: bytes, id: str, timestamp: str, body: bytes) -> str:
    signed = b"%b.%b.%b" % (id.encode("ascii"), timestamp.encode("ascii"), body)
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode('ascii')}"
