"""What breaks `replicated` durability and takeover: an acknowledgement that means less, an epoch that is not over."""

from tests.mutants.mutant import mutant

BATCHES = "tests/storage/test_batches.py::"
RECOVERY = "tests/storage/test_recovery_replicated.py::"
REPLICATED = "tests/runtime/test_replicated.py::"
TAKEOVER = "tests/runtime/test_takeover.py::"
HEARTBEATS = "tests/runtime/test_heartbeats.py::"

TAKEOVER_MUTANTS = (
    mutant(
        "acknowledged before the second copy",
        "storage/commitlog.py",
        "        await replica.finish()\n",
        "        replica._batch = None\n",
        REPLICATED + "test_a_message_is_acknowledged_when_the_archive_has_it_too",
    ),
    mutant(
        "a batch is added without its owner's lock",
        "storage/batches.py",
        "    FOR SHARE\n",
        "",
        BATCHES + "test_a_batch_waits_for_whoever_ends_its_epoch_and_is_refused",
        BATCHES + "test_whoever_ends_an_epoch_waits_for_a_batch_that_is_being_added",
    ),
    mutant(
        "a batch is added in a sealed epoch",
        "storage/batches.py",
        "    WHERE node_id = %s AND epoch = %s AND sealed_epoch < epoch\n",
        "    WHERE node_id = %s AND epoch = %s\n",
        BATCHES + "test_nothing_is_added_in_an_epoch_that_is_over",
    ),
    mutant(
        "a batch that is refused counts as added",
        "storage/postgres.py",
        "        if cursor.rowcount != 1:\n            raise FencedError(node_id, epoch)\n",
        "",
        BATCHES + "test_nothing_is_added_in_an_epoch_that_is_over",
        TAKEOVER + "test_a_sealed_owner_that_runs_on_acknowledges_nothing_more",
    ),
    mutant(
        "the batches of a flush that failed are trimmed",
        "storage/archive.py",
        "                    batches.trim(connection, node_id, lsn_end)\n",
        "                    batches.trim(connection, node_id, lsn_end + 2)\n",
        BATCHES + "test_a_flush_takes_away_what_it_brought_in",
    ),
    mutant(
        "a hole in the batches is passed over",
        "storage/batches.py",
        "        if batch.first_lsn > next_lsn:\n",
        "        if batch.first_lsn < 0:\n",
        BATCHES + "test_a_hole_is_told_and_not_passed_over",
    ),
    mutant(
        "slots are given away before what was acknowledged in them is archived",
        "storage/archive.py",
        "            if added > cursor:\n",
        "            if added < 0:\n",
        BATCHES + "test_slots_are_not_given_away_before_all_is_flushed",
    ),
    mutant(
        "a node that has come back is taken over from",
        "storage/ownership.py",
        "owner.epoch == epoch, owner.sealed_epoch >= epoch)\n",
        "owner.sealed_epoch >= 0)\n",
        BATCHES + "test_nothing_is_done_for_a_node_that_lives_or_has_come_back",
    ),
    mutant(
        "what was sealed is served again",
        "storage/recovery.py",
        "    if not findings.spans or findings.spans[-1].header.epoch > sealed_epoch:\n",
        "    if findings.spans or sealed_epoch:\n",
        RECOVERY + "test_records_of_a_sealed_epoch_past_the_cursor_are_set_aside",
        RECOVERY + "test_a_sealed_log_may_end_below_the_cursor",
    ),
    mutant(
        "the difference of epochs counts instead of what was sealed",
        "storage/recovery.py",
        "    taken_over = _is_taken_over(findings, cursor, sealed_epoch)\n",
        "    taken_over = _is_taken_over(findings, cursor, epoch - 2)\n",
        RECOVERY
        + "test_a_log_that_was_only_opened_again_keeps_its_records_whatever_was_sealed_before",
    ),
    mutant(
        "what only the archive has is forgotten",
        "storage/recovery.py",
        "    survivors = [*records, *replicated[len(records) :]]\n",
        "    survivors = [*records]\n",
        RECOVERY + "test_what_only_the_archive_has_is_added",
        REPLICATED + "test_a_log_that_lost_its_last_batches_has_them_back_from_the_archive",
    ),
    mutant(
        "appends go on while the second copy is away",
        "storage/commitlog.py",
        "            if self._replica is not None and self._replica.stalled is not None:\n"
        "                self._room_bytes = -1\n",
        "",
        REPLICATED + "test_while_the_archive_is_away_nothing_new_is_taken_and_what_was_is_unknown",
    ),
    mutant(
        "who was told that it is unknown is told again",
        "runtime/pending.py",
        "        reply, self.reply = self.reply, NOBODY\n        reply.refused(self.ref, unknown_outcome())\n",
        "        self.reply.refused(self.ref, unknown_outcome())\n",
        REPLICATED + "test_who_was_told_that_it_is_unknown_is_told_nothing_more",
    ),
    mutant(
        "an outage of the observer's own counts as the others' silence",
        "runtime/heartbeats.py",
        "        if self._read_at is None or now - self._read_at > GAP_SECONDS:\n            self._still",
        "        if self._read_at is None:\n            self._still",
        HEARTBEATS + "test_what_a_node_did_not_read_it_does_not_count",
    ),
    mutant(
        "a node that began again is as silent as before",
        "runtime/heartbeats.py",
        "        if beat is None or beat.epoch != epoch:\n",
        "        if beat is None:\n",
        HEARTBEATS + "test_a_node_that_began_again_is_not_silent_for_what_it_was_before",
    ),
    mutant(
        "an owner in local durability is taken over from",
        "storage/archive.py",
        "                if level != REPLICATED:\n",
        "                if not level:\n",
        TAKEOVER + "test_an_owner_in_local_durability_is_waited_for",
    ),
    mutant(
        "an owner that may have been taken over from is read",
        "runtime/node.py",
        "        return until == math.inf or trio.current_time() < until\n",
        "        return until > 0\n",
        REPLICATED + "test_an_owner_that_may_have_been_taken_over_from_tells_nothing_old",
    ),
)
