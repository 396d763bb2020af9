"""What a session decides: pure state, no I/O, no clock of its own.

A `Session` holds the *assigned* state: what has been given a seq, durable or not. Whoever answers a
client from it must first wait until what the answer rests on is durable; that is the server's part.

Invariants: `next_seq` grows by one for each message; the window holds every `client_id` from the moment
its message has a seq; the read cursor of a user never goes back.
"""

from collections.abc import Iterable

from runtime.codec import SessionInfo, encode_message, encode_read, message_prefix
from runtime.deduplication import WINDOW, Accepted, DeduplicationWindow
from runtime.dispatch import REJECT, Dispatch, decode_dispatch, queue_dispatch
from runtime.errors import (
    AgentBusyError,
    AheadOfLogError,
    ClientIdReusedError,
    ConflictError,
    SessionArchivedError,
    SessionDeletedError,
)
from runtime.identifiers import Stamper
from storage import MessageRecord, ReadRecord, Recent, SessionSnapshot


class Session:
    """The assigned state of one session."""

    __slots__ = ("_prefix", "dispatches", "info", "next_seq", "reads", "window", "workspace")

    def __init__(self, workspace: str, info: SessionInfo) -> None:
        self.workspace = workspace
        self.info = info
        self.next_seq = 1
        self.window: DeduplicationWindow | None = None
        """None until `remember`, for a session that the archive described: nothing may be appended before."""
        self.reads: dict[str, int] = {}
        self.dispatches: dict[str, Dispatch] = {}
        """Those that are open, oldest first: at most one that was sent, and one behind it."""
        self._prefix = message_prefix(info.session)

    def restore(self, snapshot: SessionSnapshot) -> None:
        """Take over what the archive holds; it must hold all that was ever assigned."""
        self.next_seq = snapshot.head_seq + 1
        self.reads.update(snapshot.reads)
        for body in snapshot.dispatches:
            dispatch = decode_dispatch(body)
            self.dispatches[dispatch.dispatch] = dispatch

    def remember(self, recent: Iterable[Recent]) -> None:
        """Take over the `client_id`s of the last `WINDOW` messages, ascending by seq; none of a new session."""
        assert self.window is None
        recent = list(recent)
        oldest = recent[0][2] if recent else self.next_seq
        # Behind a gap the last of them go back further than its seqs.
        complete_from = max(1, min(oldest, self.next_seq - WINDOW))
        self.window = window = DeduplicationWindow(complete_from)
        for sender, client_id, seq, message_id, digest in recent:
            window.add(sender, client_id, seq, message_id, digest)

    def find_resend(self, sender: str, client_id: str, digest: int) -> Accepted | None:
        """Return what was accepted under this `client_id` before, or None if it is new.

        Raises:
            ClientIdReusedError: it was used for other content.
        """
        assert self.window is not None
        accepted = self.window.find(sender, client_id)
        if accepted is not None and accepted.digest != digest:
            raise ClientIdReusedError(
                f"client_id {client_id} was used for other content",
                client_id=client_id,
                seq=accepted.seq,
            )
        return accepted

    def may_have_forgotten(self, sender: str, client_id: str, after_seq: int) -> bool:
        """Tell whether a message that came after a seq may have been accepted and is not known any more."""
        assert self.window is not None
        return (
            after_seq + 1 < self.window.complete_from
            and self.window.find(sender, client_id) is None
        )

    def check_append(self, expected_seq: int | None) -> None:
        """Check that a new message may be appended now.

        `expected_seq` is the head that the sender has seen.

        Raises:
            ConflictError: the head is another.
            SessionArchivedError, SessionDeletedError: the session takes no messages.
        """
        if self.info.state != "active":
            self.check_not_deleted()
            raise SessionArchivedError(f"session {self.info.session} is archived")
        if expected_seq is not None and expected_seq != self.next_seq - 1:
            raise ConflictError(
                f"expected_seq is {expected_seq}, but the head is {self.next_seq - 1}",
                expected_seq=expected_seq,
                head_seq=self.next_seq - 1,
            )

    def check_not_deleted(self) -> None:
        """Raise `SessionDeletedError` if the session was erased."""
        if self.info.state == "deleted":
            raise SessionDeletedError(self.info.session, self.info.user_id)

    def assign(
        self, sender: str, client_id: str | None, payload: bytes, digest: int, stamper: Stamper
    ) -> MessageRecord:
        """Give a message its seq, id and time, encode it, and enter its `client_id`.

        From here on it must be logged: every refusal comes before.
        """
        window = self.window
        assert window is not None
        seq = self.next_seq
        message_id = stamper.next_id()
        self.next_seq = seq + 1
        if client_id is not None:
            window.add(sender, client_id, seq, message_id, digest)
        body = encode_message(self._prefix, seq, message_id, sender, client_id, payload, stamper.at)
        return MessageRecord(
            self.workspace,
            self.info.session,
            seq,
            message_id,
            sender,
            client_id,
            digest,
            stamper.at_ms,
            body,
        )

    @property
    def current_dispatch(self) -> Dispatch | None:
        """The dispatch that is being answered, or is to be next."""
        return next(iter(self.dispatches.values()), None)

    def check_not_answering(self, sender: str) -> None:
        """Check that a message may come now though an agent may be at work.

        Raises:
            AgentBusyError: it is, and takes none meanwhile.
        """
        current = self.current_dispatch
        if (
            current is not None
            and current.is_in_flight
            and current.policy == REJECT
            and sender != current.sender
        ):
            raise AgentBusyError(
                f"agent {current.agent_id} is answering", dispatch=current.dispatch
            )

    def queue_dispatch(self, stamper: Stamper) -> Dispatch | None:
        """Return the dispatch that the next message causes, entered; None if it causes none.

        One that was not sent yet will show the agent this message too.
        """
        agent_id = self.info.agent_id
        assert agent_id is not None
        if any(not each.attempts for each in self.dispatches.values()):
            return None
        dispatch = queue_dispatch(
            self.info.session, stamper.next_id(), agent_id, self.next_seq, stamper.at_ms
        )
        self.dispatches[dispatch.dispatch] = dispatch
        return dispatch

    def change_dispatch(self, dispatch: Dispatch) -> None:
        """Enter a dispatch's new state; from here on it must be logged."""
        if dispatch.is_open:
            self.dispatches[dispatch.dispatch] = dispatch
        else:
            del self.dispatches[dispatch.dispatch]

    def move_read_cursor(self, user_id: str, seq: int, stamper: Stamper) -> ReadRecord:
        """Move a read cursor forward and return its record; from here on it must be logged."""
        assert seq > self.reads.get(user_id, 0)
        self.reads[user_id] = seq
        name = self.info.session
        body = encode_read(name, user_id, seq, stamper.at)
        return ReadRecord(self.workspace, name, user_id, seq, stamper.at_ms, body)


def check_cursor(seq: int, head_seq: int) -> None:
    """Raise `AheadOfLogError` for a cursor beyond the durable head."""
    if seq > head_seq:
        raise AheadOfLogError(
            f"the cursor is at {seq}, but the last message is {head_seq}",
            cursor=seq,
            head_seq=head_seq,
        )
