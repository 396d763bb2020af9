"""What breaks the way into the archive: the cursor, the fence, the rows, what is freed when."""

from tests.mutants.mutant import mutant

FLUSHER_HISTORY = "tests/storage/test_flusher_history.py::"
FLUSH_PROCESS = "tests/storage/test_flushprocess.py::"
FLUSHER = "tests/storage/test_flusher.py::"
ARCHIVE = "tests/storage/test_archive.py::"
ROWS = "tests/storage/test_rows.py::"
NODE = "tests/runtime/test_node.py::"

ARCHIVE_MUTANTS = (
    mutant(
        "the cursor moves in a transaction of its own",
        "storage/archive.py",
        "                ownership.move_cursor(connection, node_id, cursor, lsn_end)\n",
        "                ownership.move_cursor(connection, node_id, cursor, lsn_end)\n"
        "            with self._transaction() as connection:\n",
        ARCHIVE + "TestFlush::test_another_row_under_the_same_key_stops_the_flush",
    ),
    mutant(
        "the cursor is not compared",
        "storage/ownership.py",
        "        .where(cursor.node_id == node_id, cursor.lsn == from_lsn)\n",
        "        .where(cursor.node_id == node_id)\n",
        ARCHIVE + "TestFlush::test_a_flush_from_another_cursor_is_refused_and_adds_nothing",
    ),
    mutant(
        "the epoch is not checked",
        "storage/archive.py",
        "            lambda connection: ownership.check_epoch(connection, node_id, epoch),\n",
        "            lambda _: None,\n",
        ARCHIVE + "TestFlush::test_a_flush_under_an_old_epoch_is_fenced_and_adds_nothing",
    ),
    mutant(
        "a second node may begin on an archive that is owned",
        "storage/ownership.py",
        "    if owner is not None:\n",
        "    if owner == -1:\n",
        ARCHIVE + "TestFlush::test_another_node_is_refused_until_the_first_is_retired",
        ARCHIVE + "test_of_nodes_that_begin_at_once_on_an_empty_archive_one_wins",
    ),
    mutant(
        "nodes begin without waiting for each other",
        "storage/ownership.py",
        ".where(cluster.c.name == DURABILITY).with_for_update()",
        ".where(cluster.c.name == DURABILITY)",
        "tests/storage/test_postgres.py::"
        "test_a_node_that_begins_waits_for_another_that_does_and_is_then_refused",
    ),
    mutant(
        "a retired node goes on flushing",
        "storage/ownership.py",
        "owner.node_id == node_id, owner.epoch == epoch, owner.sealed_epoch < epoch\n    )\n    if",
        "owner.node_id == node_id, owner.epoch == epoch\n    )\n    if",
        ARCHIVE + "TestFlush::test_a_retired_node_is_fenced_and_may_begin_again_while_no_other_has",
    ),
    mutant(
        "the epoch is read without a lock",
        "storage/ownership.py",
        "    if connection.scalar(held.with_for_update(read=True)) is None:\n        raise FencedError",
        "    if connection.scalar(held) is None:\n        raise FencedError",
        "tests/storage/test_postgres.py::test_a_new_epoch_waits_for_whoever_holds_the_old_one",
    ),
    mutant(
        "an archive serves two nodes",
        "storage/ownership.py",
        "    if owner is not None:\n        raise ArchiveOwnedError(owner)\n",
        "",
        ARCHIVE + "TestFlush::test_another_node_is_refused_until_the_first_is_retired",
    ),
    mutant(
        "a retired node goes on",
        "storage/ownership.py",
        "owner.epoch == epoch, owner.sealed_epoch < epoch\n",
        "owner.epoch == epoch\n",
        ARCHIVE + "TestFlush::test_a_retired_node_is_fenced_and_may_begin_again_while_no_other_has",
    ),
    mutant(
        "an epoch is handed out again after the archive was restored",
        "runtime/opening.py",
        "        log_epoch,\n",
        "        0 * log_epoch,\n",
        NODE
        + "test_what_a_restored_archive_lost_is_flushed_again_under_an_epoch_above_all_of_the_log",
    ),
    mutant(
        "another row under the same key is passed over",
        "storage/sqlite.py",
        "        if other is not None:",
        "        if other == -1:",
        ROWS + "test_any_difference_from_the_standing_row_is_a_conflict",
        ARCHIVE + "TestFlush::test_another_row_under_the_same_key_stops_the_flush",
    ),
    mutant(
        "dead letters are not replayed",
        "storage/history.py",
        "        WHERE table_name = 'messages' AND workspace = {workspace}",
        "        WHERE table_name = 'none' AND workspace = {workspace}",
        ROWS + "test_refused_rows_are_set_aside_and_replayed_in_their_place",
        ROWS + "test_any_mixture_of_refused_and_standing_rows_replays_whole",
    ),
    mutant(
        "the archive's read cursors move back",
        "storage/rows.py",
        "    WHERE excluded.seq > read_cursors.seq\n",
        "    WHERE true\n",
        ARCHIVE + "test_a_read_cursor_only_moves_up",
    ),
    mutant(
        "an older state of a session replaces a newer one",
        "storage/rows.py",
        "    WHERE excluded.version > sessions.version\n",
        "    WHERE true\n",
        ARCHIVE + "test_the_highest_version_of_a_session_wins_in_whatever_order",
    ),
    mutant(
        "SQLite does not sync its commits",
        "storage/sqlite.py",
        'connection.execute("PRAGMA synchronous = FULL")',
        'connection.execute("PRAGMA synchronous = NORMAL")',
        "tests/storage/test_sqlite.py::test_every_connection_commits_durably",
    ),
    mutant(
        "records are freed before the archive has committed",
        "storage/flusher.py",
        """        attempts = 0
        while True:
            try:""",
        """        attempts = 0
        self._on_flushed(batch, self.cursor + len(batch))
        while True:
            try:""",
        FLUSHER + "test_nothing_is_freed_before_the_archive_has_committed",
        FLUSHER + "test_a_failed_flush_frees_nothing_and_is_repeated",
    ),
    mutant(
        "a flush that failed counts as done",
        "storage/flusher.py",
        "                await trio.sleep(self._backoff_seconds(attempts))\n",
        "                break\n",
        FLUSHER + "test_a_failed_flush_frees_nothing_and_is_repeated",
        FLUSHER + "test_an_outage_is_outlasted_with_bounded_backoff",
    ),
    mutant(
        "a flush in doubt takes more records when it is repeated",
        "storage/flusher.py",
        "                attempts += 1\n",
        "                attempts += 1\n                batch = self._take()\n",
        FLUSHER + "test_a_batch_in_doubt_is_repeated_as_it_was",
    ),
    mutant(
        "a repeated flush takes any later cursor for its own",
        "storage/flusher.py",
        "            if repeated and mismatch.found == self.cursor + len(batch):",
        "            if repeated and mismatch.found >= self.cursor:",
        FLUSHER_HISTORY + "test_a_repeated_flush_takes_only_its_own_cursor_for_its_own",
    ),
    mutant(
        "a cursor that went back is believed",
        "storage/flusher.py",
        "            await self._flush_again(mismatch)\n            return False",
        "            return True",
        FLUSHER_HISTORY + "test_what_a_restored_archive_lost_is_flushed_again_from_the_log",
    ),
    mutant(
        "a refusal in the flush process is taken for a commit",
        "storage/flushworker.py",
        "            return flushlink.refuse(error)",
        "            return Flushed()",
        FLUSH_PROCESS + "test_refusals_are_raised_here_and_the_process_goes_on",
    ),
    mutant(
        "a flush process that was killed has committed",
        "storage/flushprocess.py",
        "            raise _meaning(await self.close()) from error",
        "            await self.close()\n            return",
        FLUSH_PROCESS + "test_a_process_that_was_killed_is_said_to_be_and_replaced",
    ),
    mutant(
        "a flush process outlives its server",
        "storage/flushworker.py",
        "    threading.Thread(target=end_with_server, args=(link,), daemon=True).start()\n",
        "",
        FLUSH_PROCESS + "test_a_database_that_hangs_does_not_keep_it_when_the_server_ends",
    ),
    mutant(
        "a signal to the process group ends the flush process",
        "storage/flushworker.py",
        "        signal.signal(number, signal.SIG_IGN)",
        "        signal.signal(number, signal.SIG_DFL)",
        FLUSH_PROCESS + "test_no_signal_ends_it_before_the_server",
    ),
    mutant(
        "a node that falls silent in a transaction keeps its locks for longer than others wait for them",
        "storage/postgres.py",
        '"idle_in_transaction_session_timeout": "5s"',
        '"idle_in_transaction_session_timeout": "30s"',
        "tests/storage/test_postgres.py::"
        "test_a_node_that_falls_silent_in_a_change_of_the_ring_holds_the_others_up_for_a_moment",
    ),
)
