r"""Secrets at rest: sealed before they are stored, opened only to be used.

A sealed secret, AES-256-GCM::

    version  key id   nonce     ciphertext, with a tag of 16 bytes
    1 byte   4 bytes  12 bytes  as long as the secret

- Authenticated beside it: the version and the key id, and where it belongs (workspace, agent, field). What was
  copied to another agent, or from one field to another, is not opened.
- The nonce is random. By NIST SP 800-38D one key may seal 2^32 times so; agents are changed by people.
- The newest key seals, every key opens. What an older one sealed goes on to be read until it is sealed anew.

It does not guard against an archive that is put back as it was: an old value in its own place is a valid one.
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agents.errors import (
    SecretsDamagedError,
    SecretsKeyMissingError,
    SecretsKeyUnknownError,
)
from agents.secretskey import KEY_ID_BYTES, SecretsKey, key_ids

VERSION = b"\x01"
NONCE_BYTES = 12
TAG_BYTES = 16
_HEAD_BYTES = len(VERSION) + KEY_ID_BYTES
_SEALED_BYTES_MIN = _HEAD_BYTES + NONCE_BYTES + TAG_BYTES


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret belongs."""

    workspace: str
    agent: str
    field: str

    def encode(self) -> bytes:
        """Return it as bytes; neither workspaces nor agents have a slash in their names."""
        assert "/" not in self.workspace + self.agent
        return f"{self.workspace}/{self.agent}/{self.field}".encode()


class Vault:
    """Seals and opens secrets. Any thread may call it.

    `make` is asked for keys when there are none and something is to be sealed.
    """

    def __init__(
        self,
        keys: Sequence[SecretsKey] = (),
        make: Callable[[], Sequence[SecretsKey]] | None = None,
    ) -> None:
        self._keys = tuple(keys)
        self._make = make
        self._making = threading.Lock()  # the first two secrets may come in two threads

    @property
    def key_ids(self) -> list[str]:
        """Return the ids of the keys, the newest first."""
        return key_ids(self._keys)

    def seal(self, secret: str, place: Place) -> bytes:
        """Return a secret sealed with the newest key.

        Raises:
            SecretsKeyMissingError: there is none.
            SecretsKeyInvalidError: there was none, and none can be made.
        """
        key = self._newest()
        nonce = os.urandom(NONCE_BYTES)
        head = VERSION + bytes.fromhex(key.id)
        sealed = AESGCM(key.material).encrypt(nonce, secret.encode(), head + place.encode())
        return head + nonce + sealed

    def open(self, sealed: bytes, place: Place) -> str:
        """Return what was sealed for this place.

        Raises:
            SecretsKeyMissingError, SecretsKeyUnknownError: the key is not here.
            SecretsDamagedError: it is not what was sealed, or not from here.
        """
        key = self._key_of(sealed, place.agent)
        nonce, rest = sealed[_HEAD_BYTES:][:NONCE_BYTES], sealed[_HEAD_BYTES + NONCE_BYTES :]
        try:
            opened = AESGCM(key.material).decrypt(
                nonce, rest, sealed[:_HEAD_BYTES] + place.encode()
            )
        except InvalidTag:
            reason = "it was changed, or belongs elsewhere"
            raise SecretsDamagedError(reason, place.agent) from None
        return opened.decode()

    def is_newest(self, sealed: bytes) -> bool:
        """Tell whether the newest key has sealed this."""
        return bool(self._keys) and key_id_of(sealed) == self._keys[0].id

    def _newest(self) -> SecretsKey:
        with self._making:
            if not self._keys and self._make is not None:
                self._keys = tuple(self._make())
        if not self._keys:
            raise SecretsKeyMissingError
        return self._keys[0]

    def _key_of(self, sealed: bytes, agent: str) -> SecretsKey:
        key_id = key_id_of(sealed)
        if not key_id:
            raise SecretsDamagedError("it is too short, or of another version", agent)
        for key in self._keys:
            if key.id == key_id:
                return key
        if not self._keys and self._make is None:
            raise SecretsKeyMissingError
        raise SecretsKeyUnknownError(key_id, agent)


def key_id_of(sealed: bytes) -> str:
    """Return the id of the key that has sealed this; "" if none has."""
    if len(sealed) < _SEALED_BYTES_MIN or not sealed.startswith(VERSION):
        return ""
    return sealed[len(VERSION) : _HEAD_BYTES].hex()
