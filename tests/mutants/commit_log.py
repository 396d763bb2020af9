"""What breaks the log: syncs, checksums, recovery, room."""

from tests.mutants.mutant import mutant

COMMIT_LOG = "tests/storage/test_commitlog.py::"
COMMIT_LOG_FAILURE = "tests/storage/test_commitlog_failure.py::"
COMMIT_LOG_ROOM = "tests/storage/test_commitlog_room.py::"
DURABILITY = "tests/storage/test_durability.py::"
DIRECTORY = "tests/storage/test_directory.py::"
FRAME = "tests/storage/test_frame.py::"
SEGMENT = "tests/storage/test_segment.py::"
RECOVERY = "tests/storage/test_recovery.py::"
SUPPLY = "tests/storage/test_supply.py::"

LOG_MUTANTS = (
    mutant(
        "a batch is not synced",
        "storage/logwriter.py",
        "    active.sync()\n    return time",
        "    return time",
        COMMIT_LOG + "test_what_is_acknowledged_survives_a_power_cut_at_that_moment",
        DURABILITY + "test_power_cut_at_every_operation_loses_nothing_acknowledged",
    ),
    mutant(
        "a real file's sync does nothing",
        "storage/directory.py",
        "        os.fdatasync(self._descriptor)",
        "        pass",
        DIRECTORY + "test_file_sync_reaches_the_kernel",
    ),
    mutant(
        "a new segment's name is not synced",
        "storage/segment.py",
        "        directory.rename(self.name, name)\n        directory.sync()",
        "        directory.rename(self.name, name)",
        COMMIT_LOG_ROOM + "test_a_new_segment_is_durable_before_its_first_record",
        SEGMENT + "test_a_named_segment_survives_a_power_cut",
    ),
    mutant(
        "a real directory's sync does nothing",
        "storage/directory.py",
        '        """Make creates, renames and unlinks durable."""\n        os.fsync(self._descriptor)',
        '        """Make creates, renames and unlinks durable."""',
        DIRECTORY + "test_directory_sync_reaches_the_kernel",
    ),
    mutant(
        "a segment is named before its header is synced",
        "storage/segment.py",
        "        self._file.sync()\n        name = segment_name",
        "        name = segment_name",
        SEGMENT + "test_a_segment_gets_its_name_only_when_it_is_durable",
        RECOVERY + "test_survivors_are_rewritten_durably_before_anyone_sees_them",
    ),
    mutant(
        "the checksum is not checked",
        "storage/frame.py",
        "crc32c(_U64.pack(offset), salt)) != crc:",
        "crc32c(_U64.pack(offset), salt)) == -1:",
        FRAME + "test_any_flipped_bit_makes_a_frame_invalid",
        RECOVERY + "test_any_flipped_bit_is_refused_or_touches_no_record",
    ),
    mutant(
        "the checksum of a segment's header is not checked",
        "storage/frame.py",
        "    if segment_header_crc(block) != crc32c(block[:_SEGMENT_CRC_AT]):",
        "    if segment_header_crc(block) == -1:",
        FRAME + "test_any_flipped_bit_in_a_segment_header_is_noticed",
    ),
    mutant(
        "the checksum has no salt",
        "storage/frame.py",
        "        return crc32c(_IDENTITY.pack(self.node_id, self.epoch, self.base_lsn))",
        "        return 0",
        FRAME + "test_a_frame_is_valid_only_where_it_was_written",
    ),
    mutant(
        "frames are not chained",
        "storage/segment.py",
        "if (frame.prev_crc, frame.first_lsn) != (self.chain_crc, lsn):",
        "if frame.first_lsn != lsn:",
        SEGMENT + "test_a_frame_that_does_not_continue_the_one_before_is_corruption",
    ),
    mutant(
        "segments are not chained",
        "storage/recovery.py",
        "    if before.chain_crc != reader.header.prev_crc:",
        "    if before.chain_crc == -1:",
        RECOVERY + "test_segment_that_continues_another_history_is_corruption",
    ),
    mutant(
        "acknowledged before the sync",
        "storage/commitlog.py",
        """        if records:
            await self._write(batch, records)
            self.durable_lsn = batch.lsn_end
        self._queued_bytes -= len(batch.frame)
        self.update_room()
        self._on_commit(batch.items)
""",
        """        self._on_commit(batch.items)
        if records:
            await self._write(batch, records)
            self.durable_lsn = batch.lsn_end
        self._queued_bytes -= len(batch.frame)
        self.update_room()
""",
        COMMIT_LOG + "test_nothing_is_acknowledged_before_its_sync_has_returned",
        COMMIT_LOG + "test_what_is_acknowledged_survives_a_power_cut_at_that_moment",
    ),
    mutant(
        "a failed sync is tried again",
        "storage/logwriter.py",
        "    active.sync()\n    return time",
        "    try:\n        active.sync()\n    except OSError:\n        active.sync()\n    return time",
        COMMIT_LOG_FAILURE
        + "test_failed_commit_poisons_the_log_and_is_never_retried_or_acknowledged",
    ),
    mutant(
        "a failed log has room for more",
        "storage/commitlog.py",
        "        self._attention = True\n        self._room_bytes = -1\n",
        "        self._attention = True\n",
        COMMIT_LOG_FAILURE + "test_everything_raises_after_the_log_failed",
    ),
    mutant(
        "a commit in flight is abandoned when its task is cancelled",
        "storage/syncthread.py",
        "        with trio.CancelScope(shield=True):",
        "        with trio.CancelScope():",
        "tests/storage/test_syncthread.py::test_a_call_is_never_abandoned",
    ),
    mutant(
        "damage before a valid frame is taken for a torn end",
        "storage/recovery.py",
        "    if valid_at is not None:",
        "    if valid_at == -1:",
        RECOVERY + "test_damage_before_a_valid_frame_names_file_and_offset",
        RECOVERY + "test_any_flipped_bit_is_refused_or_touches_no_record",
    ),
    mutant(
        "damage below a segment's known end is taken for its end",
        "storage/recovery.py",
        "        if next_lsn != span.end:\n",
        "        if next_lsn == -1:\n",
        RECOVERY + "test_damage_in_a_segment_with_a_successor_is_corruption_even_at_its_end",
        RECOVERY + "test_missing_middle_segment_is_corruption",
        RECOVERY + "test_damage_at_the_end_of_a_sealed_segment_is_corruption",
    ),
    mutant(
        "a log that ends below the flushed cursor is served",
        "storage/recovery.py",
        "    if findings.next_lsn < cursor and not taken_over:",
        "    if findings.next_lsn == -1:",
        RECOVERY + "test_clean_end_below_the_cursor_is_refused",
    ),
    mutant(
        "a log that begins after the flushed cursor is served",
        "storage/recovery.py",
        "    if spans[0].base > cursor:",
        "    if spans[0].base == -1:",
        RECOVERY + "test_log_that_begins_after_the_cursor_is_refused",
    ),
    mutant(
        "survivors are served without being written again",
        "storage/recovery.py",
        "    if survivors or taken_over:\n",
        "    if not findings:\n",
        RECOVERY + "test_survivors_are_rewritten_durably_before_anyone_sees_them",
        COMMIT_LOG_FAILURE + "test_after_a_failed_sync_the_page_cache_is_not_believed",
    ),
    mutant(
        "a torn end is dropped without a copy",
        "storage/recovery.py",
        "        _keep_torn_bytes(directory, tail)",
        "        pass",
        RECOVERY + "test_last_batch_torn_at_every_byte_is_dropped_and_kept_beside_the_log",
    ),
    mutant(
        "a log of a later epoch is opened",
        "storage/recovery.py",
        "    if any(span.header.epoch >= epoch for span in findings.spans):",
        "    if not findings:",
        RECOVERY + "test_epoch_that_is_not_new_is_fenced",
    ),
    mutant(
        "segments are removed before the archive has them",
        "storage/supply.py",
        "        while self._retired and self._retired[0].end <= self._cursor:",
        "        while self._retired:",
        SUPPLY + "test_old_segments_go_when_released_oldest_first",
    ),
    mutant(
        "appends are taken without room on disk",
        "storage/commitlog.py",
        "            self._room_bytes = min(self._options.queue_bytes_max, room_on_disk)",
        "            self._room_bytes = self._options.queue_bytes_max + 0 * room_on_disk",
        COMMIT_LOG_ROOM + "test_log_opens_on_a_full_disk_and_resumes_by_itself",
    ),
    mutant(
        "two processes open one directory",
        "storage/directory.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        DIRECTORY + "test_second_opening_is_refused_and_names_the_holder",
        DIRECTORY + "test_second_process_is_refused_until_the_first_has_ended",
    ),
    mutant(
        "a repair passes over a hole at the cursor",
        "storage/inspection.py",
        "if readable and readable[0][0] == cursor else cursor",
        "if readable else cursor",
        "tests/storage/test_inspection.py::"
        "test_a_repaired_log_starts_and_lacks_only_what_the_archive_has_or_is_said_to_be_lost",
    ),
)
