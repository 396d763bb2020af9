"""One session's dispatches, one after the other: waits until one is due, calls the agent, logs what comes of it.

A worker lives for as long as its session has an open dispatch and is this node's. It keeps nothing that counts: what it
finds in the session's dispatches decides what it does next, so another worker, here or on another node, goes on where
this one was.

::

    queued     wait until it is due, and for one of the agent's places ─▶ sent, durable ─▶ the call
    in flight  (found so: an earlier owner or life of the process sent it)
                 nothing of an answer is logged ─▶ queued again, under the same id
                 something is ─▶ interrupted, and kept; or another attempt, as the agent has it
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import trio

from agents import builtin
from agents.agent import Agent
from agents.answer import AnswerParser, Piece, Said
from agents.answererror import AnswerError
from agents.attempt import Attempt, message_key
from agents.callerror import CallError
from agents.history import Shown, read_history
from agents.openai import encode_request
from agents.places import AgentPlaces
from agents.registry import Registered
from agents.request import encode_webhook
from agents.retry import Answered, Disable, Outcome, Retry, RetryPolicy, judge, may_pass
from runtime import (
    INTERRUPT,
    Dispatch,
    DispatchState,
    Ending,
    SessionError,
    SessionServer,
    close_dispatch,
    due_at_ms,
    frame_type,
    retry_dispatch,
    send_dispatch,
)
from storage import LogPoisonedError, StorageError

if TYPE_CHECKING:
    from agents.engine import Engine

S = DispatchState

FRESH_SECONDS = 0.02
"""For how long an agent's configuration that was read is the present one."""

RETRY_SECONDS = 0.5
"""Between two tries to log or to read something: the disk is full, the archive is away."""

LEAVING_POLL_SECONDS = 0.01
"""How soon it is noticed that a session which is being given up is gone, or stays."""

OK = range(200, 300)

NOT_BUILT = frozenset({"pull"})
"""Types of agent that can be configured, and not called yet."""


class MovedError(Exception):
    """The session is not this node's any more, or is gone."""


class Worker:
    """One session's dispatches."""

    def __init__(self, engine: "Engine", server: SessionServer) -> None:
        self._engine = engine
        self._server = server
        self._node = server.node
        self._key = (server.workspace, server.info.session)
        self._call = trio.CancelScope()
        self._attempt: Attempt | None = None
        self._woken = trio.Event()
        self._interrupted = False
        self._waits_for = ""
        self._first_at = self._last_at = trio.current_time()

    # What the session tells, at once.

    def message_came(self) -> None:
        """A message is being logged: wait for others again, or end the answer that it interrupts."""
        self._last_at = trio.current_time()
        self._woken.set()
        attempt = self._attempt
        if attempt is not None and attempt.dispatch.policy == INTERRUPT:
            # Not at once: the message that is being logged comes first.
            self._interrupted = True
            self._call.cancel()

    def stop(self) -> None:
        """Log the end of every open dispatch."""
        if self._attempt is not None:
            self._end_attempt(S.CANCELLED, "stopped", "it was stopped")
        now = self._now()
        for dispatch in list(self._server.session.dispatches.values()):
            self._server.answering.change(
                close_dispatch(dispatch, S.CANCELLED, now, Ending("stopped"))
            )
        self._woken.set()

    def changed(self, body: bytes) -> None:  # noqa: ARG002
        """The session's state is another one: if it was erased, there is nothing to answer."""
        if self._server.info.state == "deleted":
            self._call.cancel()
            self._woken.set()

    def moved(self) -> None:
        """The session is another node's: it goes on there."""
        self._call.cancel()
        self._woken.set()

    def _end_attempt(self, state: DispatchState, code: str, error: str) -> None:
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        attempt.keep_partial(str(state))
        attempt.close(state, code, error)
        self._call.cancel()

    # What it does.

    async def run(self) -> None:
        """Work until no dispatch is open, or the session is gone from here."""
        try:
            await self._settle()
            while (dispatch := self._server.session.current_dispatch) is not None:
                with suppress(MovedError):
                    await self._try(dispatch)
                # It may stay after all.
                await self._settle()
        except MovedError:
            return

    async def _try(self, dispatch: Dispatch) -> None:
        try:
            await self._work(dispatch)
        except LogPoisonedError:
            raise
        except SessionError as error:
            if error.retry_after_ms is None:
                # The session takes nothing more: it was archived.
                self.give_up(error.code, str(error))
            else:
                await trio.sleep(RETRY_SECONDS)
        except StorageError:
            # Nothing is lost by it: what is logged decides how it goes on.
            await trio.sleep(RETRY_SECONDS)

    def give_up(self, code: str, error: str) -> None:
        """Close the dispatch that is next, if the session is here."""
        dispatch = self._server.session.current_dispatch
        if dispatch is not None:
            with suppress(MovedError, StorageError):
                self._close(dispatch, S.FAILED, code, error)

    def _check(self) -> None:
        """Raise `MovedError` where the session is not active here any more."""
        if self._node.active.get(self._key) is not self._server:
            raise MovedError
        if self._server.info.state == "deleted":
            raise MovedError

    async def _settle(self) -> None:
        """Return when the session is active here, or raise `MovedError`: it may stay after all."""
        while self._node.leaving.get(self._key) is self._server:  # noqa: ASYNC110 - as the links do
            await trio.sleep(LEAVING_POLL_SECONDS)
        self._check()

    async def _work(self, dispatch: Dispatch) -> None:
        if self._server.session.window is None:
            await self._node.open(*self._key, to_append=True)
            return
        if dispatch.is_in_flight:
            await self._resume(dispatch)
            return
        key = (self._key[0], dispatch.agent_id)
        registered = await self._engine.read_agent(key)
        if registered is None or not _is_callable(registered):
            self._refuse(dispatch, registered)
            return
        read_at = trio.current_time()
        if not await self._wait_due(dispatch, registered.agent):
            return
        async with self._engine.places.take(key, registered.agent.concurrency) as places:
            wait_seconds = places.wait_seconds()
            if not wait_seconds:
                if trio.current_time() > read_at + FRESH_SECONDS:
                    registered = await self._engine.read_agent(key)
                await self._call_agent(dispatch, registered, places)
        await self._wait(wait_seconds)

    def _refuse(self, dispatch: Dispatch, registered: Registered | None) -> None:
        agent = dispatch.agent_id
        if registered is None:
            refusal = "agent_not_found", f"there is no agent {agent}"
        elif registered.agent.type in NOT_BUILT:
            refusal = (
                "agent_type_not_built",
                f"agents of type {registered.agent.type} are not built",
            )
        else:
            refusal = "agent_disabled", f"agent {agent} is disabled"
        self._close(dispatch, S.FAILED, *refusal)

    async def _wait_due(self, dispatch: Dispatch, agent: Agent) -> bool:
        """Wait for other messages, or until another attempt is due; return whether it still is to be sent."""
        if dispatch.attempts:
            left = due_at_ms(dispatch) / 1000 - time.time()
            await self._wait(left)
        else:
            window, longest = agent.debounce_window_ms / 1000, agent.debounce_max_ms / 1000
            if self._waits_for != dispatch.dispatch:
                self._waits_for, self._first_at = dispatch.dispatch, self._last_at
            while (
                due_at := min(self._last_at + window, self._first_at + longest)
            ) > trio.current_time():
                await self._wait(due_at - trio.current_time())
                if self._server.session.current_dispatch is not dispatch:
                    break
        return self._server.session.current_dispatch is dispatch

    async def _wait(self, seconds: float) -> None:
        """Wait, but no longer than until something is told."""
        if seconds <= 0:
            return
        self._woken = trio.Event()
        with trio.move_on_after(seconds):
            await self._woken.wait()

    # Calling.

    async def _call_agent(
        self, dispatch: Dispatch, registered: Registered | None, places: AgentPlaces
    ) -> None:
        self._check()
        if self._server.session.current_dispatch is not dispatch:
            return
        if registered is None or not _is_callable(registered):
            self._refuse(dispatch, registered)
            return
        now, to_seq = self._now(), self._server.session.next_seq - 1
        if to_seq < dispatch.from_seq:
            # A crash has taken the message that caused it, and nobody was told that it is there.
            self._close(dispatch, S.CANCELLED, "nothing_to_answer")
            return
        sent = send_dispatch(dispatch, now, to_seq=to_seq, policy=registered.agent.on_message)
        lsn_end = self._change(sent)
        self._attempt, self._interrupted = Attempt(self._server, sent, self._check), False
        try:
            with trio.CancelScope() as self._call:
                await self._node.wait_durable(lsn_end)
                outcome = await self._exchange(self._attempt, registered)
                self._conclude(self._attempt, registered.agent, outcome, places)
            if self._interrupted and self._attempt is not None:
                self._end_attempt(S.INTERRUPTED, "interrupted", "a message came meanwhile")
        finally:
            self._attempt = None

    async def _exchange(self, attempt: Attempt, registered: Registered) -> Outcome | AnswerError:
        """Call, and log the answer; return how that ended."""
        dispatch, agent = attempt.dispatch, registered.agent
        assert dispatch.to_seq is not None
        history = await read_history(
            self._server, dispatch.to_seq, agent.message_history_mode, agent.message_history_limit
        )
        try:
            async with self._open(attempt, registered, history) as (status, headers, body):
                if status not in OK:
                    return Answered(status, headers.get("retry-after"))
                attempt.begin(headers, openai=agent.type == "openai")
                await self._take(attempt, status, body)
        except (AnswerError, CallError) as error:
            return error
        return Answered(status)

    @asynccontextmanager
    async def _open(
        self, attempt: Attempt, registered: Registered, history: list[Shown]
    ) -> AsyncIterator[tuple[int, Mapping[str, str], AsyncIterator[bytes]]]:
        agent = registered.agent
        if agent.type in {"echo", "lorem"}:
            async with aclosing(builtin.answer(agent.type, history)) as lines:
                yield 200, {}, lines
            return
        if agent.type == "openai":
            assert agent.model is not None
            body = encode_request(agent.model, agent.system, history)
        else:
            workspace, user_id = self._key[0], self._server.info.user_id
            body = encode_webhook(workspace, user_id, attempt.dispatch, history)
        async with self._engine.post(registered, attempt.dispatch, body) as response:
            yield response.status, response.headers, response.stream()

    async def _take(self, attempt: Attempt, status: int, body: AsyncIterator[bytes]) -> None:
        """Log the answer as it comes; no more is read before what came is durable."""
        assert attempt.parser is not None
        async for data in body:
            if attempt.dispatch.state is S.SENT:
                attempt.stream(status)
            await self._log(attempt, attempt.parser, data)
        await self._log(attempt, attempt.parser, None)

    async def _log(self, attempt: Attempt, parser: AnswerParser, data: bytes | None) -> None:
        wrong, lsn_end = None, 0
        self._server.tick()
        try:
            for piece in parser.end() if data is None else parser.feed(data):
                lsn_end = await self._log_piece(attempt, piece)
        except AnswerError as error:
            wrong = error
        # Also what came before a bad line.
        await self._node.wait_durable(lsn_end)
        if wrong is not None:
            raise wrong

    async def _log_piece(self, attempt: Attempt, piece: Piece) -> int:
        """Log a piece, however long it takes until there is room for it."""
        while True:
            try:
                return attempt.take(piece)
            except LogPoisonedError:
                raise
            except StorageError:
                await trio.sleep(RETRY_SECONDS)

    def _conclude(
        self,
        attempt: Attempt,
        agent: Agent,
        outcome: Outcome | AnswerError,
        places: AgentPlaces,
    ) -> None:
        if isinstance(outcome, AnswerError):
            places.succeeded()
            attempt.fail(outcome)
            return
        places.failed() if may_pass(outcome) else places.succeeded()
        if isinstance(outcome, Answered) and outcome.status in OK:
            attempt.close(S.DONE)
            return
        if attempt.has_output:
            assert isinstance(outcome, CallError)
            attempt.fail(AnswerError(outcome.code, str(outcome)))
            return
        policy = RetryPolicy(attempts_max=agent.attempts_max)
        number, moment = attempt.dispatch.attempt, datetime.now(UTC)
        verdict = judge(outcome, number, policy, now=moment, random=self._engine.random())
        error = _told(outcome)
        if isinstance(verdict, Retry):
            now = self._now()
            due_ms, ending = now + verdict.after_ms, attempt.ending(verdict.code, error)
            self._change(retry_dispatch(attempt.dispatch, now, due_ms, ending))
            return
        if isinstance(verdict, Disable):
            self._engine.disable_soon(self._key[0], agent.id)
        attempt.close(S.FAILED, getattr(verdict, "code", None), error)

    # What was left by somebody else.

    async def _resume(self, dispatch: Dispatch) -> None:
        """Go on with a dispatch that an earlier owner, or an earlier life of this process, had sent."""
        answer = self._server.answer
        frames = [] if answer is None else answer.frames
        chunks = [frame for frame in frames if frame_type(frame) == b"chunk"]
        window = self._server.session.window
        assert window is not None
        said = 0
        while window.find(dispatch.sender, message_key(dispatch, said + 1)) is not None:
            said += 1
        attempt = Attempt(self._server, dispatch, self._check, said)
        attempt.chunks = len(chunks)
        lost = ("owner_lost", "its owner ended in the middle of it")
        registered = await self._engine.read_agent((self._key[0], dispatch.agent_id))
        self._check()
        restart = registered is not None and registered.agent.on_loss == "restart" and not said
        now = self._now()
        if not attempt.has_output or restart:
            self._change(retry_dispatch(dispatch, now, now, attempt.ending(*lost)))
            return
        attempt.parser = parser = AnswerParser(lambda: f"{dispatch.dispatch}.{said + 1}")
        for chunk in chunks:
            # What is whole of it is stored already, or follows from what is not.
            for piece in parser.feed(bytes(_decode_chunk(chunk).chunk) + b"\n"):
                if isinstance(piece, Said) and parser.messages > said:
                    attempt.say(piece)
        if parser.messages and not parser.is_open:
            # All that it began is stored; whether more would have come nobody knows.
            attempt.close(S.DONE)
            return
        attempt.keep_partial("interrupted")
        attempt.close(S.INTERRUPTED, *lost)

    # Small things.

    def _close(
        self, dispatch: Dispatch, state: DispatchState, code: str, error: str | None = None
    ) -> None:
        self._change(close_dispatch(dispatch, state, self._now(), Ending(code, error)))

    def _change(self, dispatch: Dispatch) -> int:
        self._check()
        return self._server.answering.change(dispatch)

    def _now(self) -> int:
        self._server.tick()
        return self._node.stamper.at_ms


class _Chunk(msgspec.Struct):
    chunk: msgspec.Raw


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


def _is_callable(registered: Registered) -> bool:
    return registered.agent.status == "enabled" and registered.agent.type not in NOT_BUILT


def _told(outcome: Outcome) -> str:
    if isinstance(outcome, CallError):
        return outcome.message
    return f"the agent answered with status {outcome.status}"
