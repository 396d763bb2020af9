"""What breaks sessions: de-duplication, answers, tails, memory, membership."""

from tests.mutants.mutant import Edit, Mutant, mutant

SESSION = "tests/runtime/test_session.py::"
NODE = "tests/runtime/test_node.py::"
TAIL = "tests/runtime/test_tail.py::"

RUNTIME_MUTANTS = (
    Mutant(
        "a client_id is entered when its message is durable, not when it has a seq",
        (
            Edit(
                "runtime/session.py",
                "            self.window.add((sender, client_id), Accepted(seq, message_id, digest))\n"
                "        body = ",
                "            pass\n        body = ",
            ),
            Edit(
                "runtime/server.py",
                "        self.durable_seq = seq\n        self._unflushed.append(record)",
                "        self.durable_seq = seq\n"
                "        if record.client_id is not None:\n"
                "            self.session.window.add(\n"
                "                (record.sender, record.client_id),\n"
                "                Accepted(seq, record.id, record.digest),\n"
                "            )\n"
                "        self._unflushed.append(record)",
            ),
        ),
        (
            NODE + "test_two_sends_of_one_message_in_one_batch_are_stored_once",
            SESSION + "test_a_client_id_is_known_from_the_moment_its_message_has_a_seq",
        ),
    ),
    mutant(
        "client_ids are not loaded with their session",
        "runtime/session.py",
        "        for sender, client_id, seq, message_id, digest in snapshot.recent:",
        "        for sender, client_id, seq, message_id, digest in snapshot.recent[:0]:",
        NODE + "test_a_resend_gets_the_original_answer_after_a_restart",
        NODE + "test_a_resend_gets_the_original_answer_after_deactivation",
    ),
    mutant(
        "a resend of a pending message is answered at once",
        "runtime/server.py",
        "        if accepted.seq <= self.durable_seq:",
        "        if accepted.seq:",
        NODE + "test_a_resend_of_a_pending_message_is_not_answered_before_it_is_durable",
    ),
    mutant(
        "a conflict with what is not durable is answered at once",
        "runtime/server.py",
        "        if self.session.next_seq - 1 == self.durable_seq and self.node.is_durable(",
        "        if self.durable_seq >= 0 or self.node.is_durable(",
        NODE + "test_a_conflict_is_answered_only_once_its_reason_is_durable",
    ),
    mutant(
        "a session is created before its record is durable",
        "runtime/catalog.py",
        "            await node.log.wait_durable(lsn_end)\n        else:",
        "        else:",
        "tests/runtime/test_catalog.py::test_a_session_is_answered_for_only_once_it_is_durable",
    ),
    mutant(
        "a change of a session that is not durable is told",
        "runtime/node.py",
        "                if self.is_durable(server.info_lsn_end):\n                    server.session",
        "                if True:\n                    server.session",
        "tests/edge/test_undurable.py::test_an_erasure_is_told_to_nobody_before_it_is_durable",
    ),
    mutant(
        "who may not read on reads on",
        "runtime/server.py",
        "            self.server.end_tails(record)\n",
        "            pass\n",
        TAIL + "test_readers_of_an_erased_session_are_told",
    ),
    mutant(
        "a session with unflushed records is deactivated",
        "runtime/server.py",
        "        return self.open_records == 0 and not self.tails",
        "        return not self.tails",
        NODE + "test_a_session_is_deactivated_only_when_all_is_flushed",
    ),
    mutant(
        "one unflushed message too many is freed",
        "runtime/server.py",
        "                del self._unflushed[:start]",
        "                del self._unflushed[: start + 1]",
        TAIL + "test_a_long_backlog_is_freed_as_far_as_it_is_flushed_and_no_further",
    ),
    mutant(
        "survivors are served before they are flushed",
        "runtime/opening.py",
        "            await node.flusher.flush_all()\n            yield",
        "            yield",
        NODE + "test_what_is_acknowledged_is_replayed_after_a_restart",
    ),
    mutant(
        "a session is activated from an archive that went back",
        "runtime/node.py",
        "                flusher.cursor,\n            )",
        "                0 * flusher.cursor,\n            )",
        NODE + "test_no_session_is_activated_from_an_archive_that_went_back",
    ),
    mutant(
        "a tail goes live before its cursor has caught up",
        "runtime/tail.py",
        "        if self.next_seq <= self.server.durable_seq:\n            return False\n"
        "        assert self.next_seq == self.server.durable_seq + 1\n",
        "        self.next_seq = self.server.durable_seq + 1\n",
        TAIL + "test_a_tail_does_not_go_live_before_its_cursor_has_caught_up",
        TAIL + "test_a_tail_replays_archive_then_memory_then_goes_live",
    ),
    mutant(
        "a message that its reader has no room for is passed over",
        "runtime/tail.py",
        "            assert record.seq == self.next_seq\n"
        "            if not self.sink.deliver(self, record.body):\n                return\n",
        "            assert record.seq == self.next_seq\n            self.sink.deliver(self, record.body)\n",
        TAIL + "test_a_slow_reader_falls_behind_and_catches_up_without_gap_or_repeat",
    ),
    mutant(
        "acknowledged before published",
        "runtime/server.py",
        """        server.apply(record)
        self.reply.acked(self.ref, server, record.seq, record.id, record.client_id, False)  # noqa: FBT003
""",
        """        self.reply.acked(self.ref, server, record.seq, record.id, record.client_id, False)  # noqa: FBT003
        server.apply(record)
""",
        "tests/edge/test_client.py::"
        "test_a_joined_sender_gets_its_message_and_then_the_acknowledgement",
    ),
    mutant(
        "a user's read cursor moves back",
        "runtime/server.py",
        "        if seq <= session.reads.get(user_id, 0):",
        "        if seq == session.reads.get(user_id, 0):",
        NODE + "test_a_read_cursor_moves_forward_to_the_head_at_most_and_survives_a_restart",
    ),
    mutant(
        "unflushed memory has no bound",
        "runtime/node.py",
        "        if self.unflushed_bytes + size > self._unflushed_bytes_max:",
        "        if self.unflushed_bytes < 0:",
        NODE + "test_too_much_unflushed_is_refused_and_nothing_is_lost",
    ),
    mutant(
        "a stopping node takes work",
        "runtime/node.py",
        "        if self.stopping:\n            raise ShuttingDownError",
        "        if self.sweeps < 0:\n            raise ShuttingDownError",
        NODE + "test_a_stopping_node_takes_no_work_and_flushes_what_it_took",
    ),
    mutant(
        "membership is not checked",
        "edge/access.py",
        "principal.user_id is not None and info.allows(principal.user_id)",
        "principal.user_id is not None",
        "tests/edge/test_access.py::test_for_everyone_else_it_is_not_there",
        "tests/edge/test_client.py::test_users_see_their_own_sessions_only",
    ),
)
