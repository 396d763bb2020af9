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
        "        if slots:\n",
        "        if slots and dead.epoch < 0:\n",
        RING,
    ),
    mutant(
        "sessions of other owners are marked too",
        "runtime/losses.py",
        "            if not slots_count or slot_of(workspace, session, slots_count) in slots\n",
        "            if session\n",
        RING,
    ),
    mutant(
        "who follows a node that was given up marks nothing",
        "runtime/opening.py",
        "            await settle_losses(",
        "            await trio.sleep(0) if node_id else await settle_losses(",
        ALONE,
    ),
    mutant(
        "a node that was given up and comes back marks nothing",
        "runtime/losses.py",
        "    for loss in await ask(archive.list_losses):\n",
        "    for loss in await ask(archive.list_losses):\n"
        "        if loss.node_id == node_id:\n            continue\n",
        LOSSES + "test_a_node_that_was_given_up_and_comes_back_is_no_exception",
    ),
    mutant(
        "a stop in good order is not noted",
        "runtime/node.py",
        "            await self._settle()\n",
        "            pass\n",
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
        ".values(settled_epoch=epoch)\n",
        ".values(settled_epoch=0 * epoch)\n",
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
