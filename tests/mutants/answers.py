"""Agents that are called: nobody forgotten, nothing shown too early, nothing stored twice."""

from tests.mutants.mutant import mutant

ANSWERING = "tests/runtime/test_answering.py::"
LIVES = "tests/agents/test_engine_lives.py::"
ORDER = "tests/agents/test_engine_order.py::"
FAILURES = "tests/agents/test_engine_failures.py::"
CLUSTER = "tests/agents/test_engine_cluster.py::"
ANSWER = "tests/agents/test_answer.py::"

ANSWERS_MUTANTS = (
    mutant(
        "each message causes a dispatch of its own",
        "runtime/session.py",
        "        if any(not each.attempts for each in self.dispatches.values()):\n",
        "        if len(self.dispatches) > 9:\n",
        ANSWERING + "test_a_message_causes_one_dispatch_and_those_before_it_is_sent_no_other",
    ),
    mutant(
        "what an agent says wakes it",
        "runtime/answering.py",
        "        if sender.startswith(AGENT_PREFIX):\n",
        "        if not sender:\n",
        ANSWERING + "test_an_agents_own_messages_and_those_without_an_agent_cause_none",
    ),
    mutant(
        "a chunk is shown before it is durable",
        "runtime/answering.py",
        "        prefix = record_prefix(RecordType.CHUNK, server.workspace)\n",
        "        prefix = record_prefix(RecordType.CHUNK, server.workspace)\n"
        "        assert self.answer is not None\n"
        "        self.answer.frames.append(body)\n",
        ANSWERING + "test_a_chunk_is_shown_only_when_it_is_durable",
    ),
    mutant(
        "who joins late is shown what is new alone",
        "runtime/answer.py",
        "            self.answer, self.place = answer, 0\n",
        "            self.answer, self.place = answer, len(answer.frames)\n",
        ANSWERING + "test_readers_see_an_answer_from_its_start_then_live_then_its_end",
    ),
    mutant(
        "a session with an open dispatch is put to rest",
        "runtime/server.py",
        "            and not self.session.dispatches\n",
        "",
        ANSWERING + "test_an_open_answer_outlives_the_process_and_its_sessions_rest",
    ),
    mutant(
        "chunks of what is closed stay in the archive",
        "storage/dispatches.py",
        "        if not all(record.is_open for record in records):\n",
        "        if not records:\n",
        ANSWERING + "test_an_open_answer_outlives_the_process_and_its_sessions_rest",
    ),
    mutant(
        "a session forgets its open dispatches when it rests",
        "runtime/session.py",
        "        for body in snapshot.dispatches:\n",
        "        for body in ():\n",
        LIVES + "test_what_was_due_is_sent_by_the_next_life",
    ),
    mutant(
        "nobody looks for what an earlier life has left",
        "agents/engine.py",
        "            after = page[-1]\n            if not await self._open_all(page):\n",
        "            after = page[-1]\n            if not await self._open_all([]):\n",
        LIVES + "test_what_was_due_is_sent_by_the_next_life",
    ),
    mutant(
        "an answer of which something had come is asked for again",
        "agents/worker.py",
        "        if not attempt.has_output or restart:\n",
        "        if attempt:\n",
        LIVES + "test_what_was_in_flight_goes_on_as_the_agent_is_configured",
    ),
    mutant(
        "what an earlier life has stored is not looked for",
        "agents/worker.py",
        "        while window.find(dispatch.sender, message_key(dispatch, said + 1)) is not None:\n",
        "        while said > 9:\n",
        LIVES + "test_a_message_that_is_stored_already_is_stored_no_second_time",
    ),
    mutant(
        "what had come of an answer is dropped when it breaks",
        "agents/attempt.py",
        '        self.keep_partial("interrupted")\n        state =',
        "        state =",
        FAILURES + "test_what_fails_is_told_and_what_came_before_stays",
    ),
    mutant(
        "private addresses are called",
        "agents/addresses.py",
        "            return None if self.allow_private else kind\n",
        "            return None\n",
        FAILURES + "test_private_addresses_are_not_called_unless_they_are_allowed",
    ),
    mutant(
        "an agent is called by all at once",
        "agents/places.py",
        "        agent.limiter.total_tokens = concurrency\n",
        "        agent.limiter.total_tokens = 1_000\n",
        ORDER
        + "test_no_more_are_called_at_once_than_the_agent_takes_and_nobody_waits_for_another_agent",
    ),
    mutant(
        "an edge shows readers who join late what is new alone",
        "runtime/links/shown.py",
        "            self.answer = Answer(shown.dispatch, shown.frame)\n",
        '            self.answer = Answer(shown.dispatch, shown.frame)\n            self.answer.close(b"{}")\n',
        CLUSTER
        + "test_readers_on_an_edge_see_an_answer_from_its_start_and_one_that_joins_late_too",
    ),
    mutant(
        "deltas are taken whatever they are of",
        "agents/assembler.py",
        "        if key not in self._texts:\n",
        "        if key not in self._texts and not chunk.delta:\n",
        ANSWER + "test_a_bad_line_is_named_and_what_came_before_it_stays",
    ),
    mutant(
        "an answer that just ends is taken for whole",
        "agents/answer.py",
        '        if self._message is not None:\n            raise AnswerError("answer_truncated"',
        '        if self._message is None:\n            return\n        if not self._lines:\n            raise AnswerError("answer_truncated"',
        ANSWER + "test_an_answer_that_just_ends_is_not_taken_for_whole",
    ),
)
