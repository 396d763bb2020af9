"""What breaks the ring: who owns a slot, what is left behind when it moves, what a link forgets or says twice."""

from tests.mutants.mutant import Edit, Mutant, mutant

MEMBERSHIP = "tests/storage/test_membership.py::"
CLUSTER = "tests/runtime/test_cluster.py::"
REMOTE = "tests/runtime/links/test_remote.py::"
HANDSHAKE = "tests/runtime/links/test_handshake.py::"
TLS = "tests/runtime/links/test_tls.py::"
TWIN = "tests/runtime/test_twin.py::"
REFUSED = "tests/runtime/links/test_refused_links.py::"
RINGCHANGE = "tests/runtime/test_ringchange.py::"
HTTP_RING = "tests/edge/test_http_ring.py::"

RING_MUTANTS = (
    mutant(
        "a slot is claimed before it was released",
        "storage/membership.py",
        "    WHERE owner = '' AND target = :node_id AND",
        "    WHERE target = :node_id AND",
        MEMBERSHIP + "test_a_slot_is_claimed_only_from_nobody_and_by_whom_it_is_meant_for",
    ),
    mutant(
        "a slot is claimed by whom it is not meant for",
        "storage/membership.py",
        "    WHERE owner = '' AND target = :node_id AND",
        "    WHERE owner = '' AND",
        MEMBERSHIP + "test_a_slot_is_claimed_only_from_nobody_and_by_whom_it_is_meant_for",
    ),
    mutant(
        "a slot is released by whom it does not belong to",
        "storage/membership.py",
        "    WHERE owner = :node_id AND slot IN",
        "    WHERE :node_id <> '' AND slot IN",
        MEMBERSHIP + "test_what_a_node_does_not_own_it_cannot_release",
    ),
    mutant(
        "a slot is released before the archive has what was written in it",
        "storage/membership.py",
        "        if found < cursor:\n",
        "        if found < 0:\n",
        MEMBERSHIP + "test_a_slot_is_not_released_before_the_archive_has_what_was_written_in_it",
    ),
    mutant(
        "a node whose epoch is over claims",
        "storage/membership.py",
        "        check_epoch(connection, node_id, epoch)\n"
        "        return self._hand_over(connection, self._claim, node_id, wanted)\n",
        "        return self._hand_over(connection, self._claim, node_id, wanted)\n",
        MEMBERSHIP + "test_a_node_whose_epoch_is_over_neither_claims_nor_releases_nor_lives",
    ),
    mutant(
        "a change is made to a ring that is another by now",
        "storage/membership.py",
        "        if found != change.seen_version:\n",
        "        if found < change.seen_version:\n",
        MEMBERSHIP + "test_a_change_is_refused_if_the_ring_has_changed_since_it_was_worked_out",
    ),
    # Each of the two alone is made up for by the other.
    Mutant(
        "a slot is given up without a flush, and nobody asks how far the archive is",
        (
            Edit(
                "runtime/member.py",
                "            await node.flusher.wait_flushed(lsn_end)\n",
                "            pass\n",
            ),
            Edit(
                "runtime/member.py",
                "                    lsn_end,\n                    slots,\n",
                "                    0,\n                    slots,\n",
            ),
        ),
        (CLUSTER + "test_a_drain_under_load_loses_doubles_and_reorders_nothing",),
    ),
    mutant(
        "sessions of a slot that moves take messages on",
        "runtime/member.py",
        "            node.leaving[key] = node.active.pop(key)\n",
        "            node.leaving[key] = node.active[key]\n",
        CLUSTER + "test_a_drain_under_load_loses_doubles_and_reorders_nothing",
    ),
    mutant(
        "readers on the old owner are not sent after the session",
        "runtime/server.py",
        "            tail.sink.moved(tail)\n",
        "            pass\n",
        CLUSTER + "test_a_drain_under_load_loses_doubles_and_reorders_nothing",
    ),
    mutant(
        "what had no answer is not repeated on the next channel",
        "runtime/links/remote.py",
        "        for pending in self._pending.values():\n            self._send(pending)\n",
        "",
        REMOTE + "test_what_had_no_answer_is_repeated_in_order_and_says_after_what",
    ),
    mutant(
        "a repeat does not say that it is one",
        "runtime/links/remote.py",
        "            pending.message.repeated_after = pending.known_seq\n",
        "            pass\n",
        REMOTE + "test_what_had_no_answer_is_repeated_in_order_and_says_after_what",
    ),
    mutant(
        "a channel ends before what was accepted on it is answered",
        "runtime/links/owner.py",
        "                if self._who in node.leaving:\n",
        "                if self._who == ():\n",
        CLUSTER + "test_what_comes_while_a_session_is_given_up_is_stored_once_by_the_next_owner",
    ),
    mutant(
        "what an owner did not accept is taken for a repeat",
        "runtime/links/pending.py",
        "            self.sent = 0\n",
        "            pass\n",
        CLUSTER + "test_what_comes_while_a_session_is_given_up_is_stored_once_by_the_next_owner",
        REMOTE + "test_what_was_not_accepted_in_time_is_not_said_to_be_unknown",
    ),
    mutant(
        "what was sent on an earlier channel too is taken for new when the last one ends",
        "runtime/links/pending.py",
        "        if self.sent == 1:\n            self.sent = 0\n",
        "        self.sent = 0\n",
        REMOTE + "test_what_the_owner_did_not_accept_is_sent_as_if_for_the_first_time",
    ),
    mutant(
        "a repeat that the owner may have forgotten is stored again",
        "runtime/links/owner.py",
        "        repeated = message.repeated_after >= 0\n",
        "        repeated = False\n",
        CLUSTER + "test_a_repeat_that_the_owner_may_have_forgotten_is_not_stored_again",
    ),
    mutant(
        "a refused repeat is said to have changed nothing",
        "runtime/links/pending.py",
        "        if isinstance(self.message, Append) and self.sent > 1 and not decided:\n",
        "        if isinstance(self.message, Append) and self.sent > 99 and not decided:\n",
        REMOTE + "test_a_repeat_that_is_refused_is_not_said_to_have_changed_nothing",
    ),
    mutant(
        "a page shows what has not come as a message",
        "runtime/links/remote.py",
        "for seq, body in rows if seq <= self.durable_seq]",
        "for seq, body in rows]",
        REMOTE + "test_a_page_shows_nothing_that_has_not_come_as_a_message",
    ),
    mutant(
        "a tail that comes when the channel has just ended waits for ever",
        "runtime/links/remote.py",
        "        # The channel may have ended since the session was opened, when nobody seemed to need it.\n"
        "        self._place()\n",
        "",
        REMOTE + "test_a_tail_that_is_attached_when_the_channel_has_just_ended_goes_on",
    ),
    mutant(
        "a removed member reads on by what the edge still believes",
        "runtime/links/owner.py",
        "    if user is not None and not server.info.allows(user):\n",
        "    if user == '' and not server.info.allows(user):\n",
        CLUSTER + "test_a_member_who_was_removed_can_no_longer_read_write_or_mark",
    ),
    mutant(
        "an owner is believed without its proof",
        "runtime/links/handshake.py",
        '    check_proof(secret, "owner", greeting, welcome, welcome.proof)\n',
        "",
        HANDSHAKE + "test_an_owner_with_another_secret_is_not_believed",
    ),
    mutant(
        "both sides prove the same",
        "runtime/links/handshake.py",
        "        side,\n        greeting.version,\n",
        "        greeting.version,\n",
        HANDSHAKE + "test_an_owners_own_proof_does_not_open_it",
    ),
    mutant(
        "who hangs up does not say why",
        "runtime/links/stream.py",
        "            await stream.send_all(messages.encode(Refusal(str(error), error.code)))\n",
        "            pass\n",
        HANDSHAKE + "test_an_owner_with_another_secret_is_not_believed",
        REFUSED + "test_an_edge_that_cannot_be_understood_is_told_why",
    ),
    mutant(
        "an edge of a ring of another size is let in",
        "runtime/links/handshake.py",
        "    _check_slots(greeting.slots, slots)\n",
        "",
        REFUSED + "test_an_edge_that_cannot_be_understood_is_told_why",
    ),
    mutant(
        "another node at an owner's address is taken for it",
        "runtime/links/handshake.py",
        "    if welcome.node_id != owner:\n",
        "    if not owner:\n",
        HANDSHAKE + "test_another_node_at_the_address_is_not_taken_for_the_owner",
    ),
    mutant(
        "a handshake that never ends is waited for",
        "runtime/links/stream.py",
        "        with trio.fail_after(HANDSHAKE_SECONDS):\n",
        "        with trio.fail_after(600):\n",
        REFUSED + "test_what_is_no_handshake_ends_soon_and_nobody_else_notices",
    ),
    mutant(
        "what came with the handshake waits for more",
        "runtime/links/stream.py",
        "            while (frame := self._buffer.take()) is not None:\n"
        "                receive(decode(frame))\n"
        "            self.on_received()\n"
        '            data: bytes | bytearray = b""\n',
        '            data: bytes | bytearray = b""\n',
        HANDSHAKE + "test_what_comes_right_behind_a_handshake_is_taken_at_once",
    ),
    mutant(
        "a node that knows the ring by another size starts",
        "storage/membership.py",
        "        elif found != place.slots:\n",
        "        elif found < 0:\n",
        MEMBERSHIP + "test_the_first_node_makes_the_ring_and_one_of_another_size_is_refused",
    ),
    mutant(
        "a process on a copied data directory fences the one that runs",
        "runtime/opening.py",
        "        await check_no_twin(archive, node_id.hex, options.place, dial)\n",
        "",
        TWIN + "test_a_copy_of_a_data_directory_does_not_start_while_the_first_runs",
    ),
    mutant(
        "whoever has a node's last address is taken for it",
        "runtime/twin.py",
        "                await greet(stream, secret, node_id, slots, node_id)\n",
        "",
        TWIN + "test_a_node_starts_where_another_has_its_last_address_by_now",
        TWIN + "test_nobody_who_answers_is_not_waited_for",
    ),
    mutant(
        "an owner that has just started gives up when it has heard of nobody yet",
        "runtime/member.py",
        "HEARINGS = 4\n",
        "HEARINGS = 0\n",
        CLUSTER + "test_an_owner_that_leaves_before_it_has_heard_of_anybody_listens_first",
    ),
    mutant(
        "a certificate for links need not be signed by the cluster's authority",
        "runtime/links/tls.py",
        "            context.verify_mode = ssl.CERT_REQUIRED\n",
        "            context.check_hostname = False\n            context.verify_mode = ssl.CERT_NONE\n",
        TLS + "test_who_has_no_certificate_of_the_authority_is_refused_and_both_are_told",
        TLS + "test_an_owner_whose_certificate_names_another_host_is_not_believed",
    ),
    mutant(
        "links that come are not encrypted",
        "runtime/cluster.py",
        "            if self._tls is not None:\n",
        "            if self._tls is None and self._slots < 0:\n",
        TLS + "test_nodes_with_certificates_of_one_authority_reach_each_other",
        TLS + "test_older_tls_is_refused_and_a_look_at_the_port_is_nothing_to_tell",
    ),
    mutant(
        "an operator gives slots to nodes that do not live",
        "runtime/ringchange.py",
        "    if silent:\n",
        "    if len(silent) > 99:\n",
        RINGCHANGE + "test_nothing_is_given_to_nodes_that_do_not_live_unless_it_is_forced",
    ),
    mutant(
        "a node that lives is removed",
        "runtime/ringchange.py",
        "        if beats.lives(nodes[node_id]):\n",
        "        if not node_id:\n",
        RINGCHANGE + "test_a_node_that_was_drained_is_removed_once_it_is_silent",
    ),
    mutant(
        "a node is removed by what was heard before it started again",
        "runtime/ringchange.py",
        "        return first is None or first.beat != node.beat\n",
        "        return False\n",
        RINGCHANGE + "test_a_node_that_was_drained_is_removed_once_it_is_silent",
    ),
    mutant(
        "a node that owns slots is removed",
        "runtime/planning.py",
        "    if node.state == DRAINING or owned or meant:\n",
        "    if node.state == DRAINING or meant:\n",
        "tests/runtime/test_planning.py::test_a_node_that_owns_or_awaits_a_slot_is_not_removed",
    ),
    mutant(
        "the epoch of a node that was removed goes on",
        "storage/membership.py",
        "            seal_epoch(connection, node_id, epoch)\n",
        "            pass\n",
        MEMBERSHIP + "test_a_node_that_was_removed_leaves_nothing_that_keeps_others_out",
    ),
    mutant(
        "any key may change the ring",
        "edge/http_ring.py",
        '        principal = caller(self._services, "admin")\n        Query(self._services)\n',
        '        principal = caller(self._services, "read")\n        Query(self._services)\n',
        HTTP_RING + "test_only_an_admin_sees_or_changes_the_ring",
    ),
    mutant(
        "a plan names sessions of other workspaces",
        "runtime/ringchange.py",
        ' and self._workspace in {"", workspace}\n',
        "\n",
        HTTP_RING + "test_a_plan_counts_all_sessions_and_names_those_of_the_keys_own_workspace",
    ),
    mutant(
        "an owner is ready before it serves what it is given",
        "runtime/router.py",
        "        elif self.member is not None and not self.member.settled:\n",
        "        elif self.member is None and self.node is not None:\n",
        HTTP_RING + "test_an_owner_is_ready_once_it_serves_what_it_is_given",
    ),
    mutant(
        "a node serves whatever the archive says",
        "runtime/member.py",
        "            if unknown:\n",
        "            if unknown < 0:\n",
        "tests/runtime/test_slotsfile.py::test_a_node_serves_no_slot_that_it_has_given_up",
    ),
    mutant(
        "a slot is claimed before it is noted",
        "runtime/member.py",
        "            if not await self._note(slots_of(ring, self._node_id).union(actions.claim)):\n",
        "            if ring.version < 0:\n",
        CLUSTER + "test_a_drain_under_load_loses_doubles_and_reorders_nothing",
    ),
    mutant(
        "slots that need not go any more stay stuck",
        "runtime/member.py",
        "        if not actions.release:\n            self.stuck = None\n",
        "",
        CLUSTER + "test_slots_that_need_not_go_any_more_are_not_stuck",
    ),
)
