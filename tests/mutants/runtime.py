"""What breaks sessions: de-duplication, answers, tails, memory, membership."""

from tests.mutants.mutant import Edit, Mutant, mutant

SESSION = "tests/runtime/test_session.py::"
NODE = "tests/runtime/test_node.py::"
RESENDS = "tests/runtime/test_resends.py::"
TAIL = "tests/runtime/test_tail.py::"
DEDUPLICATION = "tests/runtime/test_deduplication.py::"
IDENTIFIERS = "tests/runtime/test_identifiers.py::"

RUNTIME_MUTANTS = (
    Mutant(
        "a client_id is entered when its message is durable, not when it has a seq",
        (
            Edit(
                "runtime/session.py",
                "            window.add(sender, client_id, seq, message_id, digest)\n"
                "        body = ",
                "            pass\n        body = ",
            ),
            Edit(
                "runtime/server.py",
                "        self.durable_seq = seq\n        self._unflushed.append(record)",
                "        self.durable_seq = seq\n"
                "        if record.client_id is not None:\n"
                "            self.session.window.add(\n"
                "                record.sender, record.client_id, seq, record.id, record.digest\n"
                "            )\n"
                "        self._unflushed.append(record)",
            ),
        ),
        (
            RESENDS + "test_two_sends_of_one_message_in_one_batch_are_stored_once",
            SESSION + "test_a_client_id_is_known_from_the_moment_its_message_has_a_seq",
        ),
    ),
    mutant(
        "a repeat may have other metadata",
        "runtime/codec.py",
        "return crc64.xz(payload)",
        "return crc64.xz(payload.partition(b',\"metadata\":')[0])",
        "tests/runtime/test_codec.py::test_a_digest_is_taken_over_all_that_a_client_sends",
    ),
    mutant(
        "client_ids are not loaded with their session",
        "runtime/session.py",
        "        for sender, client_id, seq, message_id, digest in recent:",
        "        for sender, client_id, seq, message_id, digest in tuple(recent)[:0]:",
        RESENDS + "test_a_resend_gets_the_original_answer_after_a_restart",
        RESENDS + "test_a_resend_gets_the_original_answer_after_deactivation",
    ),
    mutant(
        "a client_id is forgotten with a thousand others",
        "runtime/deduplication.py",
        "            self._older = recent\n",
        "            self._older = None\n",
        DEDUPLICATION + "test_at_least_the_last_thousand_are_kept_and_at_most_two_thousand",
    ),
    mutant(
        "client_ids are kept for ever",
        "runtime/deduplication.py",
        "            self._older = recent\n",
        "            self._older = self._older or recent\n",
        DEDUPLICATION + "test_at_least_the_last_thousand_are_kept_and_at_most_two_thousand",
    ),
    mutant(
        "a message is taken for another one with the same content, whose hash it has",
        "runtime/deduplication.py",
        'digest_of(f"{sender} {client_id}".encode())',
        "0",
        DEDUPLICATION
        + "test_a_key_that_meets_another_is_no_repeat_of_it_though_the_content_is_the_same",
    ),
    mutant(
        "two client_ids that meet move the entries of those that follow",
        "runtime/deduplication.py",
        "_PLACES[count]",
        "_PLACES[len(recent.places)]",
        DEDUPLICATION
        + "test_of_two_keys_with_one_hash_the_later_is_found_and_the_others_stay_in_place",
    ),
    Mutant(
        "the client_ids of two senders are the same",
        (
            Edit(
                "runtime/deduplication.py",
                "        key = hash((sender, client_id))",
                "        key = hash(client_id)",
            ),
            Edit(
                "runtime/deduplication.py",
                "        recent.places[hash((sender, client_id))",
                "        recent.places[hash(client_id)",
            ),
        ),
        (DEDUPLICATION + "test_a_key_is_found_under_its_own_sender_only",),
    ),
    mutant(
        "a session that is followed learns its client_ids only when somebody sends",
        "runtime/server.py",
        "            self.node.remembering.remember_soon(self)\n",
        "            pass\n",
        RESENDS + "test_a_session_that_is_followed_knows_its_client_ids_soon_after",
    ),
    mutant(
        "the last hundred client_ids are taken for all",
        "runtime/node.py",
        "            if snapshot.head_seq < archivereader.DEDUPLICATION_AT_ONCE:",
        "            if snapshot.head_seq < 10 * archivereader.DEDUPLICATION_AT_ONCE:",
        RESENDS + "test_a_short_session_knows_its_client_ids_as_it_is_opened",
    ),
    mutant(
        "client_ids that an archive that is away could not give are not asked for again",
        "runtime/remembering.py",
        "                self.remember_soon(server)\n",
        "                pass\n",
        "tests/runtime/test_remembering.py"
        "::test_an_archive_that_is_away_is_asked_again_while_a_session_is_followed",
    ),
    mutant(
        "two sends to one session load its client_ids twice",
        "runtime/remembering.py",
        "        if loading is not None:",
        "        if loading is not None and False:",
        "tests/runtime/test_remembering.py::test_all_who_wait_for_one_session_wait_for_one_read",
    ),
    mutant(
        "a send goes before the client_ids of a session that was only read",
        "edge/client.py",
        "server.is_ready(to_append=kind is Send,",
        "server.is_ready(to_append=False,",
        "tests/edge/test_client.py::test_a_repeat_right_behind_the_join_of_a_resting_session_is_recognised",
    ),
    mutant(
        "a queued send goes before the client_ids of its session",
        "edge/client.py",
        "            to_append=type(request) is Send,\n",
        "            to_append=False,\n",
        "tests/edge/test_client.py::test_a_repeat_right_behind_the_join_of_a_resting_session_is_recognised",
    ),
    mutant(
        "a POST goes before the client_ids of its session",
        "edge/http_messages.py",
        "to_append=True)",
        "to_append=False)",
        "tests/edge/test_http_messages.py::test_a_resend_to_a_session_at_rest_gets_the_first_answer",
    ),
    mutant(
        "a resend of a pending message is answered at once",
        "runtime/server.py",
        "        if accepted.seq <= self.durable_seq:",
        "        if accepted.seq:",
        RESENDS + "test_a_resend_of_a_pending_message_is_not_answered_before_it_is_durable",
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
        "            await node.wait_durable(lsn_end)\n        else:",
        "        else:",
        "tests/runtime/test_catalog.py::test_a_session_is_answered_for_only_once_it_is_durable",
    ),
    mutant(
        "a change of a session that is not durable is told",
        "runtime/node.py",
        "                if not self.is_durable(server.info_lsn_end):\n                    await",
        "                if False:\n                    await",
        "tests/edge/test_undurable.py::test_an_erasure_is_told_to_nobody_before_it_is_durable",
    ),
    mutant(
        "who may not read on reads on",
        "runtime/pending.py",
        "            self.server.end_tails(record)\n",
        "            pass\n",
        TAIL + "test_readers_of_an_erased_session_are_told",
    ),
    mutant(
        "a session with unflushed records is deactivated",
        "runtime/server.py",
        "            self.open_records == 0\n            and not self.tails\n",
        "            not self.tails\n",
        NODE + "test_a_session_is_deactivated_only_when_all_is_flushed",
    ),
    mutant(
        "one unflushed message too many is freed",
        "runtime/server.py",
        "            del self._unflushed[:end]",
        "            del self._unflushed[: end + 1]",
        TAIL + "test_a_long_backlog_is_freed_as_far_as_it_is_flushed_and_no_further",
    ),
    mutant(
        "flushed messages stay in memory until all of their session are flushed",
        "runtime/server.py",
        "        if end * 2 >= len(self._unflushed):",
        "        if end == len(self._unflushed):",
        NODE + "test_a_flushed_message_leaves_memory_while_others_of_its_session_wait",
    ),
    mutant(
        "survivors are served before they are flushed",
        "runtime/opening.py",
        "            await node.flusher.flush_all()\n            failpoint",
        "            failpoint",
        NODE + "test_what_is_acknowledged_is_replayed_after_a_restart",
    ),
    mutant(
        "a session is activated from an archive that went back",
        "runtime/archivereader.py",
        "*args, flusher.node_id, flusher.cursor)",
        "*args, flusher.node_id, 0 * flusher.cursor)",
        NODE + "test_no_session_is_activated_from_an_archive_that_went_back",
    ),
    mutant(
        "who asks while a query runs shares its fate",
        "runtime/gathering.py",
        "                await self._answer(batch)\n",
        "                await self._answer(batch)\n"
        "                _end(list(self._gathered), ArchiveUnavailableError('late'))\n",
        "tests/runtime/test_gathering.py::"
        "test_what_is_asked_while_a_query_runs_goes_together_into_the_next",
    ),
    mutant(
        "a tail goes live before its cursor has caught up",
        "runtime/tail.py",
        "        if self.next_seq <= self.server.durable_seq or not self.show():\n            return False\n"
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
        "a tail that was closed while it was behind goes live",
        "runtime/tail.py",
        "            if self.closed or self._go_live():",
        "            if self._go_live():",
        TAIL + "test_a_tail_that_is_closed_while_it_waits_for_room_does_not_come_back",
    ),
    mutant(
        "a tail that was closed delivers the page that it was reading",
        "runtime/tail.py",
        "            if self.closed:\n                break\n",
        "",
        TAIL + "test_a_tail_that_is_closed_while_it_reads_the_archive_delivers_nothing_of_it",
    ),
    mutant(
        "of all who have no room for a message one falls behind",
        "runtime/server.py",
        "            else:\n                behind.append(tail)\n",
        "",
        TAIL + "test_all_who_have_no_room_for_one_message_fall_behind_and_catch_up",
    ),
    mutant(
        "the archive is asked for what it does not hold yet",
        "runtime/tail.py",
        "            if self.next_seq < self.server.first_unflushed_seq:",
        "            if self.next_seq <= self.server.first_unflushed_seq:",
        TAIL + "test_what_is_in_memory_only_is_not_looked_for_in_the_archive",
    ),
    mutant(
        "a follower that waits for room is not told of it",
        "runtime/tail.py",
        "        self._bytes = 0\n        self._wake()\n        return bodies",
        "        self._bytes = 0\n        return bodies",
        TAIL + "test_a_follower_holds_a_page_at_most_and_gets_the_rest_as_it_reads",
    ),
    mutant(
        "a follower takes more than a page",
        "runtime/tail.py",
        "        if self._bytes >= PAGE_BYTES_MAX:\n            return False\n",
        "",
        TAIL + "test_a_follower_holds_a_page_at_most_and_gets_the_rest_as_it_reads",
    ),
    mutant(
        "a message that is refused for want of room has taken a seq",
        "runtime/server.py",
        "            node.admit(len(payload) + ENVELOPE_BYTES)\n",
        "            session.assign(sender, client_id, payload, digest, node.stamper)\n"
        "            node.admit(len(payload) + ENVELOPE_BYTES)\n",
        NODE + "test_what_is_refused_for_want_of_room_changes_nothing",
    ),
    mutant(
        "a read cursor that is refused for want of room has moved",
        "runtime/server.py",
        """        node.admit(ENVELOPE_BYTES)
        record = session.move_read_cursor(user_id, seq, node.stamper)
""",
        """        record = session.move_read_cursor(user_id, seq, node.stamper)
        node.admit(ENVELOPE_BYTES)
""",
        NODE + "test_what_is_refused_for_want_of_room_changes_nothing",
    ),
    mutant(
        "a change of a session that is refused for want of room is in force",
        "runtime/server.py",
        """        self.node.admit(len(info.body) + ENVELOPE_BYTES)
        self.session.info = info
""",
        """        self.session.info = info
        self.node.admit(len(info.body) + ENVELOPE_BYTES)
""",
        NODE + "test_what_is_refused_for_want_of_room_changes_nothing",
    ),
    mutant(
        "a refusal rests on a change of the session that is not durable",
        "runtime/server.py",
        """        if self.session.next_seq - 1 == self.durable_seq and self.node.is_durable(
            self.info_lsn_end
        ):
""",
        "        if self.session.next_seq - 1 == self.durable_seq:\n",
        NODE + "test_what_rests_on_a_change_of_the_session_is_refused_only_once_that_is_durable",
    ),
    mutant(
        "a read cursor may stand on a message that is not durable",
        "runtime/server.py",
        "        check_cursor(seq, self.durable_seq)\n",
        "        check_cursor(seq, session.next_seq - 1)\n",
        "tests/edge/test_undurable.py::test_a_message_that_is_not_durable_is_beyond_the_head",
    ),
    mutant(
        "a read that is repeated is answered at once",
        "runtime/server.py",
        "            node.answer_when_durable(lambda to: to.done(ref), reply, ref)\n",
        "            reply.done(ref)\n",
        "tests/edge/test_undurable.py::"
        "test_a_read_that_is_repeated_is_not_answered_before_the_first_is_durable",
    ),
    mutant(
        "a repeat is refused for what its first has changed",
        "runtime/server.py",
        "        try:\n            if client_id is not None:\n                accepted",
        "        try:\n            session.check_append(expected_seq)\n"
        "            if client_id is not None:\n                accepted",
        NODE + "test_a_repeat_is_answered_with_the_first_answer_whatever_would_refuse_it_by_now",
    ),
    mutant(
        "less room is asked for than a record takes",
        "runtime/server.py",
        "        node.admit(len(payload) + ENVELOPE_BYTES)\n",
        "        node.admit(len(payload))\n",
        NODE + "test_a_record_is_never_larger_than_the_room_that_was_asked_for",
    ),
    mutant(
        "one client_id fewer is loaded with its session",
        "runtime/archivereader.py",
        "DEDUPLICATION_LOADED = 1_000",
        "DEDUPLICATION_LOADED = 999",
        RESENDS + "test_the_last_thousand_client_ids_are_known_after_deactivation",
    ),
    mutant(
        "the high part of an id's counter is not carried into",
        "runtime/identifiers.py",
        "            self._count_from(self._high + 1)\n",
        "            self._count_from(self._high)\n",
        IDENTIFIERS + "test_ids_go_on_in_order_where_the_low_part_of_the_counter_begins_anew",
    ),
    mutant(
        "an id's counter may begin where it overflows",
        "runtime/identifiers.py",
        "noise & ((1 << (_COUNTER_BITS - 1)) - 1)",
        "noise & ((1 << _COUNTER_BITS) - 1)",
        IDENTIFIERS + "test_ids_are_well_formed_and_rise_whatever_is_drawn",
    ),
    mutant(
        "every process hands out the same ids",
        "runtime/identifiers.py",
        "Random(secrets.randbits(256))",
        "Random(len(secrets.token_bytes(1)))",
        IDENTIFIERS + "test_two_that_hand_out_ids_in_one_millisecond_hand_out_others",
    ),
    mutant(
        "acknowledged before published",
        "runtime/pending.py",
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
