"""What the archive holds, read with plain SQL and not through the product's own reader."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import msgspec
import psycopg
import sqlalchemy

from bench.checker import Replayed

_QUERY = sqlalchemy.text(
    "SELECT session, seq, id, sender, client_id, body FROM messages"
    " WHERE session LIKE :pattern ORDER BY session, seq"
)

ROWS_PER_FETCH = 5000
"""Rows held at a time on the way from PostgreSQL."""


class _Body(msgspec.Struct):
    session: str
    seq: int
    id: str
    sender: str
    client_id: str | None
    kind: str
    content: msgspec.Raw
    metadata: msgspec.Raw


_decode_body = msgspec.json.Decoder(_Body).decode


class Archived(NamedTuple):
    """One row: what the checker compares, and the metadata."""

    message: Replayed
    metadata: bytes


class ArchivedRowError(Exception):
    """A row's columns are not what its body says."""


def read_archived(url: str, prefix: str) -> Iterator[tuple[str, list[Archived]]]:
    """Yield each session whose id begins with `prefix`, and its messages by seq."""
    engine = _engine(url)
    try:
        with engine.connect().execution_options(yield_per=ROWS_PER_FETCH) as connection:
            rows = connection.execute(_QUERY, {"pattern": f"{prefix}%"})
            for session, group in groupby(rows, key=itemgetter(0)):
                yield session, [_archived(*row) for row in group]
    finally:
        engine.dispose()


def _engine(url: str) -> sqlalchemy.Engine:
    if url.startswith("sqlite"):
        return sqlalchemy.create_engine(url)
    # The driver reads it itself: it may name several hosts.
    return sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))


def _archived(
    session: str, seq: int, id: str, sender: str, client_id: str | None, body: str | bytes
) -> Archived:
    """Return a row whose columns agree with its body."""
    decoded = _decode_body(body)
    columns = (session, seq, id, sender, client_id)
    said = (decoded.session, decoded.seq, decoded.id, decoded.sender, decoded.client_id)
    if columns != said:
        raise ArchivedRowError(f"the columns say {columns}, the body says {said}")
    metadata = bytes(decoded.metadata)
    message = Replayed(seq, id, sender, client_id, bytes(decoded.content), decoded.kind, metadata)
    return Archived(message, metadata)
