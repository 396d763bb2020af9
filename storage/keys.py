"""API keys and the cluster's own secrets. A key's text is never stored: only its hash is."""

import secrets as random_secrets

import msgspec
from sqlalchemy import Connection, insert, select, text, update

from storage.schema import api_keys, secrets

SECRET_BYTES = 32
"""256 bits: what HMAC-SHA256 can use."""


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as the archive knows it; `hash` is the SHA-256 of its text."""

    id: str
    name: str
    hash: bytes
    scopes: tuple[str, ...]
    workspace: str
    created_at_ms: int
    revoked_at_ms: int | None = None


def create_key(connection: Connection, key: ApiKey) -> None:
    """Store a new key."""
    connection.execute(
        insert(api_keys).values(
            id=key.id,
            name=key.name,
            hash=key.hash,
            scopes=msgspec.json.encode(key.scopes).decode(),
            workspace=key.workspace,
            created_at_ms=key.created_at_ms,
            revoked_at_ms=key.revoked_at_ms,
        )
    )


def list_keys(connection: Connection) -> list[ApiKey]:
    """Return every key, revoked ones too, oldest first."""
    rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at_ms, api_keys.c.id))
    return [
        ApiKey(
            id=row.id,
            name=row.name,
            hash=bytes(row.hash),
            scopes=msgspec.json.decode(row.scopes, type=tuple[str, ...]),
            workspace=row.workspace,
            created_at_ms=row.created_at_ms,
            revoked_at_ms=row.revoked_at_ms,
        )
        for row in rows
    ]


def revoke_key(connection: Connection, id: str, revoked_at_ms: int) -> bool:
    """Revoke a key; return whether there was such a key that was not revoked yet."""
    revoked = connection.execute(
        update(api_keys)
        .where(api_keys.c.id == id, api_keys.c.revoked_at_ms.is_(None))
        .values(revoked_at_ms=revoked_at_ms)
    )
    return revoked.rowcount == 1


def read_secret(connection: Connection, name: str) -> bytes:
    """Return a secret of the cluster, made at its first use; every process gets the same one."""
    # Whoever comes second, at the same time or later, inserts nothing and reads the first one's.
    connection.execute(
        text("INSERT INTO secrets (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING"),
        {"name": name, "value": random_secrets.token_bytes(SECRET_BYTES)},
    )
    return bytes(connection.execute(select(secrets.c.value).where(secrets.c.name == name)).one()[0])
