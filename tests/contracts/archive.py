"""What a flush promises, of any archive: the databases, and the fake that the flusher is tested on."""

from collections.abc import Sequence
from typing import Protocol

import pytest

from storage import (
    ArchiveConflictError,
    ArchiveOwnedError,
    CursorMismatchError,
    FencedError,
    Ownership,
    Record,
)
from tests.storage.archive_records import message, messages

NODE = "node-1"


class Flushable(Protocol):
    def begin_epoch(self, node_id: str, level: str, above_epoch: int = 0) -> Ownership: ...

    def read_cursor(self, node_id: str) -> Ownership: ...

    def retire_node(self, node_id: str, epoch: int) -> bool: ...

    def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None: ...

    def read_messages(self, workspace: str, session: str) -> list[tuple[int, bytes]]: ...


class FlushContract:
    """Inherit, and give an empty archive by a fixture of the name `archive`."""

    def test_a_node_starts_at_epoch_one_and_cursor_zero(self, archive: Flushable) -> None:
        assert archive.read_cursor(NODE) == Ownership(0, 0)
        assert archive.begin_epoch(NODE, "local") == Ownership(1, 0)
        assert archive.read_cursor(NODE) == Ownership(1, 0)

    def test_each_start_gets_a_higher_epoch_and_the_cursor_as_it_was_left(
        self, archive: Flushable
    ) -> None:
        archive.begin_epoch(NODE, "local")
        archive.flush(NODE, 1, 0, messages(1, 3))
        assert archive.begin_epoch(NODE, "local") == Ownership(2, 3)

    def test_an_epoch_is_above_what_the_log_has_seen(self, archive: Flushable) -> None:
        assert archive.begin_epoch(NODE, "local", above_epoch=7).epoch == 8
        assert archive.begin_epoch(NODE, "local", above_epoch=3).epoch == 9

    def test_a_flush_adds_rows_and_moves_the_cursor(self, archive: Flushable) -> None:
        archive.begin_epoch(NODE, "local")
        archive.flush(NODE, 1, 0, messages(1, 3))
        archive.flush(NODE, 1, 3, messages(4, 5))
        assert archive.read_cursor(NODE) == Ownership(1, 5)
        assert archive.read_messages("default", "s1") == [
            (seq, b'{"seq":%d}' % seq) for seq in range(1, 6)
        ]

    def test_a_flush_from_another_cursor_is_refused_and_adds_nothing(
        self, archive: Flushable
    ) -> None:
        archive.begin_epoch(NODE, "local")
        archive.flush(NODE, 1, 0, messages(1, 3))
        for cursor in (0, 2, 4):
            with pytest.raises(CursorMismatchError) as refusal:
                archive.flush(NODE, 1, cursor, messages(10, 12))
            assert (refusal.value.expected, refusal.value.found) == (cursor, 3)
        assert archive.read_cursor(NODE).cursor == 3
        assert [seq for seq, _ in archive.read_messages("default", "s1")] == [1, 2, 3]

    def test_a_flush_under_an_old_epoch_is_fenced_and_adds_nothing(
        self, archive: Flushable
    ) -> None:
        archive.begin_epoch(NODE, "local")
        archive.begin_epoch(NODE, "local")
        with pytest.raises(FencedError) as refusal:
            archive.flush(NODE, 1, 0, messages(1, 3))
        assert (refusal.value.node_id, refusal.value.epoch) == (NODE, 1)
        assert archive.read_cursor(NODE) == Ownership(2, 0)
        assert archive.read_messages("default", "s1") == []

    def test_rows_that_stand_already_are_compared_and_left_alone(self, archive: Flushable) -> None:
        archive.begin_epoch(NODE, "local")
        archive.flush(NODE, 1, 0, messages(1, 3))
        assert archive.retire_node(NODE, 1)
        archive.begin_epoch("node-2", "local")
        archive.flush("node-2", 1, 0, messages(2, 5))
        assert [seq for seq, _ in archive.read_messages("default", "s1")] == [1, 2, 3, 4, 5]

    def test_another_row_under_the_same_key_stops_the_flush(self, archive: Flushable) -> None:
        archive.begin_epoch(NODE, "local")
        archive.flush(NODE, 1, 0, messages(1, 3))
        with pytest.raises(ArchiveConflictError) as refusal:
            archive.flush(NODE, 1, 3, [message(4), message(2, body=b'{"seq":"other"}')])
        assert refusal.value.key == "default/s1/2"
        assert archive.read_cursor(NODE).cursor == 3
        assert [seq for seq, _ in archive.read_messages("default", "s1")] == [1, 2, 3]

    def test_nodes_have_cursors_of_their_own(self, archive: Flushable) -> None:
        archive.begin_epoch(NODE, "local")
        archive.flush(NODE, 1, 0, messages(1, 3))
        assert archive.retire_node(NODE, 1)
        archive.begin_epoch("node-2", "local")
        assert archive.read_cursor("node-2") == Ownership(1, 0)

    def test_another_node_is_refused_until_the_first_is_retired(self, archive: Flushable) -> None:
        archive.begin_epoch(NODE, "local")
        with pytest.raises(ArchiveOwnedError) as refusal:
            archive.begin_epoch("node-2", "local")
        assert refusal.value.node_id == NODE
        assert f"ringlog node retire {NODE}" in refusal.value.hint
        assert archive.read_cursor("node-2") == Ownership(0, 0)
        assert archive.begin_epoch(NODE, "local").epoch == 2
        assert archive.retire_node(NODE, 2)
        assert archive.begin_epoch("node-2", "local") == Ownership(1, 0)
        with pytest.raises(ArchiveOwnedError):
            archive.begin_epoch(NODE, "local")

    def test_a_retired_node_is_fenced_and_may_begin_again_while_no_other_has(
        self, archive: Flushable
    ) -> None:
        archive.begin_epoch(NODE, "local")
        archive.flush(NODE, 1, 0, messages(1, 3))
        assert archive.retire_node(NODE, 1)
        with pytest.raises(FencedError):
            archive.flush(NODE, 1, 3, messages(4, 5))
        assert archive.read_cursor(NODE) == Ownership(1, 3, sealed_epoch=1)
        assert archive.begin_epoch(NODE, "local") == Ownership(2, 3, sealed_epoch=1)
        archive.flush(NODE, 2, 3, messages(4, 5))

    def test_only_the_epoch_that_was_seen_is_retired_and_only_once(
        self, archive: Flushable
    ) -> None:
        archive.begin_epoch(NODE, "local")
        archive.begin_epoch(NODE, "local")
        assert not archive.retire_node(NODE, 1)
        assert not archive.retire_node("node-2", 1)
        assert archive.retire_node(NODE, 2)
        assert not archive.retire_node(NODE, 2)
