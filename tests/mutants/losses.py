"""What an owner that is given up may have acknowledged: left out, marked once, and shown."""

from tests.mutants.mutant import mutant

STORAGE = "tests/storage/test_losses.py::"
LOSSES = "tests/runtime/test_losses.py::"
RING = LOSSES + "test_who_follows_an_owner_that_is_given_up_is_told_what_may_be_lost"
ALONE = LOSSES + "test_a_node_that_follows_one_whose_disk_is_lost_gives_no_seq_out_again"

LOSSES_MUTANTS = (
    mutant(
        "who takes slots over marks nothing",
        "runtime/takeover.py",
        "        await mark_lost(archive, ask, Loss(dead.node_id, dead.epoch))\n",
        "        pass\n",
        RING,
    ),
    mutant(
        "sessions of other owners are marked too",
        "runtime/losses.py",
        "        if slot_of(workspace, session, slots_count) in slots\n",
        "        if session\n",
        RING,
    ),
    mutant(
        "who follows a node that was given up marks nothing",
        "runtime/opening.py",
        "            await settle_losses(",
        "            await trio.sleep(0) if node_id.hex else await settle_losses(",
        ALONE,
    ),
    mutant(
        "a node that was given up and comes back marks nothing",
        "runtime/losses.py",
        "        if alone or loss.alone or loss.node_id == node_id:\n",
        "        if loss.node_id != node_id:\n",
        LOSSES + "test_a_node_that_was_given_up_and_comes_back_is_no_exception",
    ),
    mutant(
        "who begins alone forgets what a ring lost",
        "runtime/losses.py",
        "        if alone or loss.alone or",
        "        if loss.alone or",
        LOSSES + "test_a_node_that_follows_a_ring_alone_gives_no_seq_out_again",
    ),
    mutant(
        "who was alone is forgotten when it comes back into a ring",
        "storage/losses.py",
        "owner.sealed_epoch, owner.sealed_alone)\n",
        "owner.sealed_epoch, owner.alone.label('sealed_alone'))\n",
        LOSSES + "test_a_node_that_was_alone_comes_back_into_a_ring_and_gives_no_seq_out_again",
    ),
    mutant(
        "who is sealed again forgets that it was alone",
        "storage/ownership.py",
        "(owner.sealed_epoch > owner.settled_epoch, owner.sealed_alone)",
        "(owner.sealed_epoch < 0, owner.sealed_alone)",
        STORAGE + "test_what_was_alone_when_it_was_given_up_stays_so_until_it_is_settled",
    ),
    mutant(
        "a node that was removed leaves a loss",
        "storage/membership.py",
        "            settle_sealed(connection, node_id, epoch)\n",
        "            pass\n",
        STORAGE + "test_a_node_that_is_retired_and_removed_owned_nothing",
    ),
    mutant(
        "a stop notes what an archive that went back lacks",
        "storage/losses.py",
        "    if found < cursor:\n",
        "    if found < 0:\n",
        STORAGE + "test_an_archive_that_went_back_does_not_have_the_whole",
    ),
    mutant(
        "a stop in good order is not noted",
        "runtime/node.py",
        "                await self._settle()\n",
        "                pass\n",
        LOSSES + "test_a_node_that_stopped_in_good_order_has_lost_nothing",
    ),
    mutant(
        "what is marked is marked again",
        "storage/losses.py",
        "AND g.id = :loss\n",
        "AND g.id = '' || :at_ms\n",
        STORAGE + "test_marking_again_changes_nothing_and_ends_when_it_is_settled",
    ),
    mutant(
        "sessions that others serve are marked",
        "storage/losses.py",
        "        owner.settled_epoch < loss.epoch,\n",
        "        owner.settled_epoch >= 0,\n",
        STORAGE + "test_who_gives_slots_away_settles_what_was_lost",
    ),
    mutant(
        "who gives slots away leaves the epoch unsettled",
        "storage/ownership.py",
        "(*_is_sealed(node_id, epoch)).values(settled_epoch=epoch)\n",
        "(*_is_sealed(node_id, epoch)).values(settled_epoch=0 * epoch)\n",
        STORAGE + "test_who_gives_slots_away_settles_what_was_lost",
    ),
    mutant(
        "a message that was set aside may be given out again",
        "storage/losses.py",
        "WHERE d.table_name = 'messages'",
        "WHERE d.table_name = 'none'",
        STORAGE + "test_a_message_that_was_set_aside_counts",
    ),
    mutant(
        "what was sealed before it stopped counts as whole",
        "storage/losses.py",
        "owner.epoch == epoch, owner.sealed_epoch < epoch)\n",
        "owner.epoch == epoch)\n",
        STORAGE + "test_what_was_sealed_before_it_stopped_may_have",
    ),
    mutant(
        "a row that is missing beside a gap goes unnoticed",
        "runtime/gaps.py",
        "            if gap is None or not gap.first <= next_seq <= gap.last == seq:\n",
        "            if gap is None:\n",
        LOSSES + "test_what_is_missing_outside_a_gap_is_noticed",
    ),
    mutant(
        "a tail counts a gap as one message",
        "runtime/tail.py",
        "            self.next_seq = seq\n            if not self.sink.deliver(self, body):\n"
        "                break\n            self.next_seq = seq + 1\n",
        "            if not self.sink.deliver(self, body):\n"
        "                break\n            self.next_seq += 1\n",
        ALONE,
    ),
    mutant(
        "a page that is read backwards goes beyond its end",
        "runtime/history.py",
        "            if next_seq >= end:\n                break\n",
        "            if next_seq < 0:\n                break\n",
        ALONE,
    ),
    mutant(
        "a page that begins with a gap begins where that ends",
        "runtime/history.py",
        "            page.append((seq if gap is None else gap.first, body))\n",
        "            page.append((seq, body))\n",
        LOSSES + "test_before_a_gap_that_begins_a_session_is_nothing",
    ),
)
