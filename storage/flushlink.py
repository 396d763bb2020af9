"""What goes between the server and its flush process: a stream socket, and messages on it.

A message is a u32 length, little endian, and that many bytes of MessagePack. The server says once where
the archive is, and is answered flush by flush::

    server          OpenArchive · Flush ·           Flush ·          …
    flush process                       Flushed ·           Refused

One flush is under way at a time. The end of the stream means that the other process has ended.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import msgspec

from storage.errors import (
    ArchiveConflictError,
    ArchiveSettingsError,
    ArchiveTooNewError,
    ArchiveUnavailableError,
    CursorMismatchError,
    FencedError,
    StorageError,
)
from storage.record import Record

LENGTH_BYTES = 4

# Every error that `open_archive` and `Archive.flush` raise, and the attributes it is made from.
_ERRORS: dict[type[StorageError], tuple[str, ...]] = {
    ArchiveConflictError: ("table", "key"),
    ArchiveSettingsError: ("setting", "found", "wanted"),
    ArchiveTooNewError: ("found", "known"),
    ArchiveUnavailableError: ("reason", "hint"),
    CursorMismatchError: ("expected", "found"),
    FencedError: ("node_id", "epoch"),
}
_BY_CODE = {error.code: error for error in _ERRORS}
_LENGTH = struct.Struct("<I")


class OpenArchive(msgspec.Struct, tag=1, array_like=True):
    """Where the archive is. Not on a command line, because it may hold a password."""

    url: str


class Flush(msgspec.Struct, tag=2, array_like=True):
    """What `Archive.flush` is asked for."""

    node_id: str
    epoch: int
    cursor: int
    records: Sequence[Record]


class Flushed(msgspec.Struct, tag=3, array_like=True):
    """The archive has committed."""


class Refused(msgspec.Struct, tag=4, array_like=True):
    """The archive has not, or does not say so: an error's code and what it is made from."""

    code: str
    arguments: tuple[Any, ...]


_encode_into = msgspec.msgpack.Encoder().encode_into
decode_request: Callable[[bytes], OpenArchive | Flush] = msgspec.msgpack.Decoder(
    OpenArchive | Flush
).decode
decode_reply: Callable[[bytes], Flushed | Refused] = msgspec.msgpack.Decoder(
    Flushed | Refused
).decode


def encode(message: OpenArchive | Flush | Flushed | Refused) -> bytearray:
    """Return a message with its length before it."""
    data = bytearray(LENGTH_BYTES)
    _encode_into(message, data, LENGTH_BYTES)
    _LENGTH.pack_into(data, 0, len(data) - LENGTH_BYTES)
    return data


def receive(stream: BinaryIO) -> bytes:
    """Return the next message, without its length. Blocking.

    Raises:
        EOFError: the other process has ended.
    """
    (length,) = _LENGTH.unpack(_read(stream, LENGTH_BYTES))
    return _read(stream, length)


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def refuse(error: StorageError) -> Refused:
    """Return an error as a message.

    Raises:
        KeyError: it is none that an archive raises.
    """
    names = _ERRORS[type(error)]
    return Refused(error.code, tuple(getattr(error, name) for name in names))


def refusal(message: Refused) -> StorageError:
    """Return the error that a message holds."""
    return _BY_CODE[message.code](*message.arguments)
