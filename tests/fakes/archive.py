"""An archive in memory that fails when it is told to: what the flusher needs, and no database."""

from collections.abc import Sequence

from storage import (
    ArchiveConflictError,
    ArchiveOwnedError,
    ArchiveUnavailableError,
    CursorMismatchError,
    FencedError,
    MessageRecord,
    Ownership,
    Record,
)

Key = tuple[str, str, int]


class FakeArchive:
    """Commits batches atomically. `failures` says what the next flushes meet, in turn:

    "before" fails without a commit, "after" commits and then fails, "" works.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.sealed: dict[str, int] = {}
        self.cursors: dict[str, int] = {}
        self.rows: dict[Key, bytes] = {}
        self.flushes: list[tuple[int, int]] = []
        self.failures: list[str] = []
        self.is_down = False

    def begin_epoch(self, node_id: str, level: str, above_epoch: int = 0) -> Ownership:
        for other, epoch in self.epochs.items():
            if other != node_id and self.sealed.get(other) != epoch:
                raise ArchiveOwnedError(other)
        epoch = max(self.epochs.get(node_id, 0), above_epoch) + 1
        self.epochs[node_id] = epoch
        return Ownership(epoch, self.cursors.setdefault(node_id, 0), self.sealed.get(node_id, 0))

    def read_cursor(self, node_id: str) -> Ownership:
        return Ownership(
            self.epochs.get(node_id, 0), self.cursors.get(node_id, 0), self.sealed.get(node_id, 0)
        )

    def retire_node(self, node_id: str, epoch: int) -> bool:
        if self.epochs.get(node_id) != epoch or self.sealed.get(node_id) == epoch:
            return False
        self.sealed[node_id] = epoch
        return True

    def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        failure = "before" if self.is_down else self.failures.pop(0) if self.failures else ""
        if failure == "before":
            raise ArchiveUnavailableError("told to fail before the commit")
        if self.epochs.get(node_id) != epoch or self.sealed.get(node_id) == epoch:
            raise FencedError(node_id, epoch)
        if self.cursors[node_id] != cursor:
            raise CursorMismatchError(cursor, self.cursors[node_id])
        rows = dict(self.rows)
        for record in records:
            if isinstance(record, MessageRecord):
                key = (record.workspace, record.session, record.seq)
                if rows.setdefault(key, record.body) != record.body:
                    raise ArchiveConflictError("messages", "/".join(map(str, key)))
        self.rows = rows
        self.cursors[node_id] = cursor + len(records)
        self.flushes.append((cursor, cursor + len(records)))
        if failure == "after":
            raise ArchiveUnavailableError("told to fail after the commit")

    def read_messages(self, workspace: str, session: str) -> list[tuple[int, bytes]]:
        return sorted(
            (seq, body)
            for (row_workspace, row_session, seq), body in self.rows.items()
            if (row_workspace, row_session) == (workspace, session)
        )
