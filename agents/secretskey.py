"""The keys that secrets are sealed with: as text, and in a file.

One key a line, the newest first; each is 32 random bytes as base64. Empty lines and lines that begin with `#`
say nothing. In a variable, where there are no lines, commas stand between them.

A key's id is the start of a hash of it: it names the key in what was sealed and in errors, and tells nothing
about it.
"""

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agents.errors import SecretsKeyInvalidError

KEY_BYTES = 32
"""AES-256."""

KEY_ID_BYTES = 4
"""Tells a handful of keys apart, and is short enough to be read out on a telephone."""

KEYS_MAX = 16
"""Keys beside the newest are for what is not sealed anew yet; so many were not rotated but forgotten."""

FILE_BYTES_MAX = 64 * 1024
"""A larger file is another one, named by mistake."""

_ID_PREFIX = b"ringlog secrets key "
_HEADER = "# Seals the secrets of agents. Keep a copy elsewhere: without it they cannot be read.\n"


@dataclass(frozen=True, slots=True)
class SecretsKey:
    """A key and the id by which it is named."""

    material: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Return eight hex digits."""
        return hashlib.sha256(_ID_PREFIX + self.material).digest()[:KEY_ID_BYTES].hex()


def make_key() -> SecretsKey:
    """Return a new key."""
    return SecretsKey(secrets.token_bytes(KEY_BYTES))


def parse_keys(text: str, source: str) -> tuple[SecretsKey, ...]:
    """Read keys, the newest first; `source` is where the text comes from, for errors.

    Raises:
        SecretsKeyInvalidError: it holds something else, or nothing.
    """
    lines = [line.strip() for line in text.replace(",", "\n").splitlines()]
    keys = [
        _parse_key(line, number, source)
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]
    if not 1 <= len(keys) <= KEYS_MAX:
        raise SecretsKeyInvalidError(source, f"it must hold 1 to {KEYS_MAX} keys, not {len(keys)}")
    if len({key.id for key in keys}) < len(keys):
        raise SecretsKeyInvalidError(source, "a key stands in it more than once")
    return tuple(keys)


def read_keys(path: Path) -> tuple[SecretsKey, ...]:
    """Read the keys in a file, the newest first. Blocks.

    Raises:
        SecretsKeyInvalidError: it holds something else, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise SecretsKeyInvalidError(str(path), f"larger than {FILE_BYTES_MAX} bytes")
        text = data.decode()
    except OSError as error:
        raise SecretsKeyInvalidError(str(path), error.strerror or "it cannot be read") from None
    except UnicodeDecodeError:
        raise SecretsKeyInvalidError(str(path), "it is not text") from None
    return parse_keys(text, str(path))


def make_key_file(path: Path) -> tuple[SecretsKey, ...]:
    """Return the keys in a file that is made, durably, if it is missing; whoever makes it first. Blocks.

    A secret that was sealed must not outlive its key: the file is on disk before the key is used.

    Raises:
        SecretsKeyInvalidError: it is there and holds something else, or cannot be made.
    """
    if not path.exists():
        try:
            _write_new(path, _HEADER + encode_key(make_key()) + "\n")
        except OSError as error:
            reason = f"it cannot be made: {error.strerror}"
            raise SecretsKeyInvalidError(str(path), reason) from None
    return read_keys(path)


def encode_key(key: SecretsKey) -> str:
    """Return a key as it stands in a file."""
    return base64.b64encode(key.material).decode()


def key_ids(keys: Sequence[SecretsKey]) -> list[str]:
    """Return the ids of keys, in their order."""
    return [key.id for key in keys]


def _parse_key(text: str, number: int, source: str) -> SecretsKey:
    try:
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        material = base64.b64decode(padded.translate(_URL_SAFE), validate=True)
    except (binascii.Error, ValueError):
        material = b""
    if len(material) != KEY_BYTES:
        raise SecretsKeyInvalidError(
            source, f"line {number} is not {KEY_BYTES} random bytes as base64"
        )
    return SecretsKey(material)


_URL_SAFE = str.maketrans("-_", "+/")


def _write_new(path: Path, text: str) -> None:
    """Put a file in place, whole and durable, unless there is one by then."""
    draft = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
