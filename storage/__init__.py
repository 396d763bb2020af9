"""Bytes, files and SQL: the commit log and the archive. Knows nothing of sessions or sockets.

A record becomes durable in the `CommitLog` (`open_commit_log`), and is kept in the `Archive`
(`open_archive`), where the `Flusher` takes it. The only place that knows how far that came is the flush
cursor, which moves in the transaction that adds the rows.
"""

from storage.agents import AgentKey, AgentRow
from storage.archive import Archive, ArchiveStatistics
from storage.archiveopening import ArchiveState, open_archive, probe_archive
from storage.batches import REPLICATED
from storage.commitlog import CommitLog, LogOptions, LogStatistics
from storage.dialect import RingNotices
from storage.directory import Directory, RealDirectory, lock_holder, make_directory
from storage.dispatches import DispatchReader, StoredDispatch
from storage.errors import (
    ArchiveBehindLogError,
    ArchiveConflictError,
    ArchiveOwnedError,
    ArchiveSettingsError,
    ArchiveTooNewError,
    ArchiveUnavailableError,
    CorruptLogError,
    CursorMismatchError,
    DirectoryLockedError,
    DurabilityMismatchError,
    FencedError,
    LogBehindCursorError,
    LogPoisonedError,
    LogQueueFullError,
    NodeReturnedError,
    NodeRunningError,
    RingChangedError,
    RingRestoredError,
    RingSizeError,
    StorageError,
    StorageFullError,
)
from storage.failpoints import FAILPOINTS, arm_failpoint, failpoint
from storage.flusher import Flusher, FlushOptions, FlushTarget, FlushThread
from storage.flushprocess import FlushProcess, open_flush_process
from storage.history import Recent, SessionSnapshot
from storage.inspection import Damage, DumpedFrame, Lost, Repair, Report
from storage.inspection import check_start as check_log
from storage.inspection import dump as dump_log
from storage.inspection import repair as repair_log
from storage.inspection import verify as verify_log
from storage.keys import ApiKey
from storage.logopening import open_commit_log
from storage.losses import LOCAL, LOST_SEQS, Loss
from storage.membership import (
    ACTIVE,
    DEAD,
    DRAINED,
    DRAINING,
    JOINING,
    Heartbeat,
    NodeEntry,
    Place,
    PlannedChange,
    Ring,
    RingChange,
)
from storage.ownership import NodeState, Ownership
from storage.record import (
    ChunkRecord,
    DispatchRecord,
    MessageRecord,
    ReadRecord,
    Record,
    RecordType,
    SessionRecord,
    StoredRecord,
    record_prefix,
)
from storage.replica import UNKNOWN_SECONDS, Replica
from storage.segment import highest_epoch
from storage.syncthread import open_sync_thread

__all__ = [
    "ACTIVE",
    "DEAD",
    "DRAINED",
    "DRAINING",
    "FAILPOINTS",
    "JOINING",
    "LOCAL",
    "LOST_SEQS",
    "REPLICATED",
    "UNKNOWN_SECONDS",
    "AgentKey",
    "AgentRow",
    "ApiKey",
    "Archive",
    "ArchiveBehindLogError",
    "ArchiveConflictError",
    "ArchiveOwnedError",
    "ArchiveSettingsError",
    "ArchiveState",
    "ArchiveStatistics",
    "ArchiveTooNewError",
    "ArchiveUnavailableError",
    "ChunkRecord",
    "CommitLog",
    "CorruptLogError",
    "CursorMismatchError",
    "Damage",
    "Directory",
    "DirectoryLockedError",
    "DispatchReader",
    "DispatchRecord",
    "DumpedFrame",
    "DurabilityMismatchError",
    "FencedError",
    "FlushOptions",
    "FlushProcess",
    "FlushTarget",
    "FlushThread",
    "Flusher",
    "Heartbeat",
    "LogBehindCursorError",
    "LogOptions",
    "LogPoisonedError",
    "LogQueueFullError",
    "LogStatistics",
    "Loss",
    "Lost",
    "MessageRecord",
    "NodeEntry",
    "NodeReturnedError",
    "NodeRunningError",
    "NodeState",
    "Ownership",
    "Place",
    "PlannedChange",
    "ReadRecord",
    "RealDirectory",
    "Recent",
    "Record",
    "RecordType",
    "Repair",
    "Replica",
    "Report",
    "Ring",
    "RingChange",
    "RingChangedError",
    "RingNotices",
    "RingRestoredError",
    "RingSizeError",
    "SessionRecord",
    "SessionSnapshot",
    "StorageError",
    "StorageFullError",
    "StoredDispatch",
    "StoredRecord",
    "arm_failpoint",
    "check_log",
    "dump_log",
    "failpoint",
    "highest_epoch",
    "lock_holder",
    "make_directory",
    "open_archive",
    "open_commit_log",
    "open_flush_process",
    "open_sync_thread",
    "probe_archive",
    "record_prefix",
    "repair_log",
    "verify_log",
]
