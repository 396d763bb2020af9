"""Agents: what is stored of them. What a body means, and how secrets are sealed, is known above.

A row's version counts its changes and is what a change is compared with. A deleted row stays, hidden and without
its secrets: an agent that is created under its id goes on counting, so that a version names one configuration
for ever.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, RowMapping, select, text, tuple_, update

from storage.schema import agents

AgentKey = tuple[str, str]
"""workspace, id."""

_CREATE = text("""
    INSERT INTO agents (workspace, id, version, created_at_ms, updated_at_ms, deleted, body, secrets)
    VALUES (:workspace, :id, 1, :created_at_ms, :updated_at_ms, 0, :body, :secrets)
    ON CONFLICT (workspace, id) DO UPDATE SET
        version = agents.version + 1, created_at_ms = excluded.created_at_ms,
        updated_at_ms = excluded.updated_at_ms, deleted = 0,
        body = excluded.body, secrets = excluded.secrets
    WHERE agents.deleted = 1
    RETURNING version
""")

# One parameter, however many are asked for; each is found by the primary key.
_READ = """
    SELECT known.*
    FROM (SELECT value ->> 0 AS workspace, value ->> 1 AS id FROM {rows}) AS asked
    JOIN agents AS known ON known.workspace = asked.workspace AND known.id = asked.id
    WHERE known.deleted = 0
"""


class AgentRow(msgspec.Struct, frozen=True):
    """An agent as it is stored: `body` is its configuration as JSON, `secrets` are opaque."""

    workspace: str
    id: str
    version: int
    created_at_ms: int
    updated_at_ms: int
    body: bytes
    secrets: bytes = b""

    @property
    def key(self) -> AgentKey:
        """Return what it is found by."""
        return (self.workspace, self.id)


class AgentTable:
    """The statement that is put together for one dialect, made once."""

    def __init__(self, rows_sql: str) -> None:
        self._read = text(_READ.format(rows=rows_sql))

    def read(self, connection: Connection, keys: Sequence[AgentKey]) -> dict[AgentKey, AgentRow]:
        """Return agents by key, of those that exist."""
        asked = msgspec.json.encode(list(set(keys))).decode()
        found = connection.execute(self._read, {"rows": asked})
        rows = [_row_of(row) for row in found.mappings()]
        return {row.key: row for row in rows}


def create_agent(connection: Connection, row: AgentRow) -> int | None:
    """Store a new agent and return its version; None if there is one that is not deleted."""
    version: int | None = connection.scalar(
        _CREATE,
        {
            "workspace": row.workspace,
            "id": row.id,
            "created_at_ms": row.created_at_ms,
            "updated_at_ms": row.updated_at_ms,
            "body": row.body.decode(),
            "secrets": row.secrets,
        },
    )
    return version


def list_agents(
    connection: Connection, workspace: str | None, after: AgentKey, limit: int
) -> list[AgentRow]:
    """Return agents ascending by (workspace, id)."""
    query = select(agents).where(agents.c.deleted == 0)
    if workspace is None:
        query = query.where(tuple_(agents.c.workspace, agents.c.id) > tuple_(*after))
    else:
        query = query.where(agents.c.workspace == workspace, agents.c.id > after[1])
    found = connection.execute(query.order_by(agents.c.workspace, agents.c.id).limit(limit))
    return [_row_of(row) for row in found.mappings()]


def change_agent(connection: Connection, row: AgentRow, expected: AgentRow) -> bool:
    """Replace what is as `expected`; whoever sealed its secrets anew meanwhile must not be undone."""
    changed = connection.execute(
        update(agents)
        .where(
            agents.c.workspace == row.workspace,
            agents.c.id == row.id,
            agents.c.version == expected.version,
            agents.c.secrets == expected.secrets,
            agents.c.deleted == 0,
        )
        .values(
            version=row.version,
            updated_at_ms=row.updated_at_ms,
            body=row.body.decode(),
            secrets=row.secrets,
        )
    )
    return changed.rowcount == 1


def delete_agent(connection: Connection, key: AgentKey, version: int, deleted_at_ms: int) -> bool:
    """Hide an agent that is at `version`, and erase its secrets."""
    deleted = connection.execute(
        update(agents)
        .where(
            agents.c.workspace == key[0],
            agents.c.id == key[1],
            agents.c.version == version,
            agents.c.deleted == 0,
        )
        .values(deleted=1, version=version + 1, updated_at_ms=deleted_at_ms, secrets=b"")
    )
    return deleted.rowcount == 1


def _row_of(row: RowMapping) -> AgentRow:
    return AgentRow(
        workspace=row["workspace"],
        id=row["id"],
        version=row["version"],
        created_at_ms=row["created_at_ms"],
        updated_at_ms=row["updated_at_ms"],
        body=row["body"].encode(),
        secrets=bytes(row["secrets"]),
    )
