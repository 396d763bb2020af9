"""What can go wrong in storage, by what the catcher can do about it.

::

    StorageError
    ├── CorruptLogError          damage on disk: refuse to start, run `ringlog log verify`
    ├── LogBehindCursorError     the log ends below what the archive says it flushed
    ├── ArchiveBehindLogError    the archive is older than the oldest retained record
    ├── LogPoisonedError         a write or fsync failed: the process must end
    ├── StorageFullError         no room for an append now; resumes by itself
    ├── LogQueueFullError        too much waits for the disk; retry later
    ├── DirectoryLockedError     another process holds the data directory
    ├── NodeRunningError         a process on another copy of the data directory is this node
    ├── ArchiveUnavailableError  no answer from the database; retry
    ├── ArchiveTooNewError       migrated by a later version
    ├── ArchiveConflictError     another row under the same key: stop and look
    ├── ArchiveSettingsError     a setting that durability rests on is off
    ├── ArchiveOwnedError        another node owns the archive
    ├── DurabilityMismatchError  the cluster runs at another durability level
    ├── CursorMismatchError      the flush cursor is not where it was left
    ├── NodeReturnedError        a node that was to be taken over has begun again
    ├── RingChangedError         the ring is not at the version that a change was worked out from
    ├── RingRestoredError        the archive says that this node owns slots which it has given up
    ├── RingSizeError            the ring has another number of slots than this node was started with
    └── FencedError              this epoch is over: a later one began, or the node was retired
"""


class StorageError(Exception):
    """Root of this package's errors: a stable `code`, and a `hint` that says what to do next."""

    code = "storage_error"
    hint = ""


class CorruptLogError(StorageError):
    """The log holds damage that cannot be a torn tail; nothing was changed."""

    code = "corrupt_log"
    hint = "stop, keep a copy of the directory, and run: ringlog log verify --data DIR"

    def __init__(self, path: str, position: int, reason: str) -> None:
        super().__init__(f"{path} at byte {position}: {reason}")
        self.path = path
        self.position = position
        self.reason = reason


class LogBehindCursorError(StorageError):
    """The log ends below the flushed cursor: records that were archived are missing from it."""

    code = "log_behind_cursor"
    hint = "put the log back that this archive knows; if it is lost, begin another at the cursor: ringlog log repair"

    def __init__(self, log_end: int, cursor: int) -> None:
        super().__init__(
            f"the log ends at LSN {log_end}, but the archive was flushed up to {cursor}"
        )
        self.log_end = log_end
        self.cursor = cursor


class ArchiveBehindLogError(StorageError):
    """The archive's cursor is below the oldest retained record: what lies between is gone."""

    code = "archive_behind_log"
    hint = (
        "the archive was restored to a state older than the log's retention; restore a newer copy"
    )

    def __init__(self, cursor: int, oldest_lsn: int) -> None:
        super().__init__(f"the archive ends at LSN {cursor}, but the log begins at {oldest_lsn}")
        self.cursor = cursor
        self.oldest_lsn = oldest_lsn


class LogPoisonedError(StorageError):
    """A write or fsync failed; what is on disk is unknown until recovery reads it. Never retried."""

    code = "log_poisoned"
    hint = "look at the disk, then start again: recovery finds what was acknowledged"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the commit log failed: {reason}")
        self.reason = reason


class StorageFullError(StorageError):
    """There is no preallocated room for this append; appends resume by themselves when there is."""

    code = "storage_full"
    hint = "free space on the data directory's disk; appends resume by themselves"

    def __init__(
        self, message: str = "the data directory's disk has no room for more", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.hint = hint or self.hint


class LogQueueFullError(StorageError):
    """More bytes wait for the disk than `queue_bytes_max` allows."""

    code = "backpressure"
    hint = "the disk is slower than the senders; retry after the given time"

    def __init__(self) -> None:
        super().__init__("too much waits for the disk")


class DirectoryLockedError(StorageError):
    """Another process holds the data directory."""

    code = "directory_locked"
    hint = "stop that process, or give this one another directory with --data"

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(f"{path} is in use by {holder}")
        self.path = path
        self.holder = holder


class NodeRunningError(StorageError):
    """Another process serves as this node: one of the two has a copy of the other's data directory."""

    code = "node_running"
    hint = "stop that process first; to run a second node, start with an empty data directory: a copy is the same node"

    def __init__(self, node_id: str, address: str) -> None:
        super().__init__(f"another process serves as this node, {node_id}, at {address}")
        self.node_id = node_id
        self.address = address


class ArchiveUnavailableError(StorageError):
    """The database did not answer. The call may be retried; a COMMIT's outcome is unknown."""

    code = "archive_unavailable"
    hint = "check that the database runs and that --archive names it; retry"

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(f"the archive is not available: {reason}")
        self.hint = hint or self.hint
        self.reason = reason


class ArchiveTooNewError(StorageError):
    """The archive was migrated by a later version than this one."""

    code = "archive_too_new"
    hint = "install the version that migrated it, or a later one"

    def __init__(self, found: str, known: str) -> None:
        super().__init__(f"the archive is at revision {found}; this version knows up to {known}")
        self.found = found
        self.known = known


class ArchiveSettingsError(StorageError):
    """The database refuses a setting that durability rests on."""

    code = "archive_settings"

    def __init__(self, setting: str, found: str, wanted: str) -> None:
        super().__init__(f"the archive runs with {setting}={found}, but {wanted} is needed")
        self.hint = f"set {setting}={wanted} on the database"
        self.setting = setting
        self.found = found
        self.wanted = wanted


class DurabilityMismatchError(StorageError):
    """The cluster was set up with another durability level than this node asks for."""

    code = "durability_mismatch"

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"the cluster's durability level is {found}, this node asks for {wanted}")
        self.hint = f"start this node with --durability {found}"
        self.found = found
        self.wanted = wanted


class ArchiveOwnedError(StorageError):
    """Another node owns the archive; two would each give out the same seqs."""

    code = "archive_owned"
    hint = "start with that node's data directory; if it is lost: ringlog node retire NODE_ID"

    def __init__(self, node_id: str) -> None:
        super().__init__(f"the archive belongs to node {node_id}")
        self.hint = self.hint.replace("NODE_ID", node_id)
        self.node_id = node_id


class ArchiveConflictError(StorageError):
    """A different row stands under the same key: two histories claim one place."""

    code = "archive_conflict"
    hint = "two logs were flushed into one archive; stop, and compare them with: ringlog log dump"

    def __init__(self, table: str, key: str) -> None:
        super().__init__(f"table {table} holds another row under {key}")
        self.table = table
        self.key = key


class CursorMismatchError(StorageError):
    """The flush cursor in the archive is not the one that the flusher left."""

    code = "cursor_mismatch"
    hint = "the archive was restored or written by another process"

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"the flush cursor is {found}, expected {expected}")
        self.expected = expected
        self.found = found


class RingChangedError(StorageError):
    """Somebody else changed the ring meanwhile: work the change out again, from the ring as it is."""

    code = "ring_changed"
    hint = "look at the ring again, then repeat the command"

    def __init__(self, seen: int, found: int) -> None:
        super().__init__(f"the ring is at version {found}, the change was worked out at {seen}")
        self.seen = seen
        self.found = found


class NodeReturnedError(StorageError):
    """A node that was to be taken over has begun again: what it holds is its own."""

    code = "node_returned"
    hint = "look at the ring: ringlog ring show"

    def __init__(self, node_id: str, epoch: int) -> None:
        super().__init__(f"node {node_id} is not sealed at epoch {epoch}: it has begun again")
        self.node_id = node_id
        self.epoch = epoch


class RingRestoredError(StorageError):
    """The archive was restored to before slots moved: who owned them then is not who wrote to them last."""

    code = "ring_restored"
    hint = (
        "start every owner once, so that each flushes what the archive lacks;"
        " then remove the file `slots` from the data directory of each, and start them again"
    )

    def __init__(self, node_id: str, slots: int) -> None:
        super().__init__(
            f"the archive says that node {node_id} owns {slots} slots which it has given up:"
            " it was restored to an older state"
        )
        self.slots = slots


class RingSizeError(StorageError):
    """The cluster was made with another number of slots: this node would look for sessions elsewhere."""

    code = "ring_size"
    hint = "the number of slots is fixed when a cluster is made; check that --archive names the right one"

    def __init__(self, found: int, wanted: int) -> None:
        super().__init__(f"the ring has {found} slots, this node was started for {wanted}")
        self.found = found
        self.wanted = wanted


class FencedError(StorageError):
    """This epoch is over, by a later one or because its node was retired: this process must stop."""

    code = "fenced"
    hint = "another process took over this node, or it was retired; this one must stop"

    def __init__(self, node_id: str, epoch: int) -> None:
        super().__init__(f"epoch {epoch} of node {node_id} is over")
        self.node_id = node_id
        self.epoch = epoch
