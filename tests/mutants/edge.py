"""What breaks the way between a client and its sessions: frames, sockets, limits, answers."""

from tests.mutants.mutant import mutant

WEBSOCKET = "tests/edge/test_websocket.py::"
PUMP = "tests/edge/test_pump.py::"
CLIENT = "tests/edge/test_client.py::"
PROTOCOL = "tests/edge/test_protocol.py::"
UNDURABLE = "tests/edge/test_undurable.py::"

DEAF = "test_who_does_not_read_is_heard_until_its_buffer_is_full_and_again_when_it_is_not"
GOES = "test_who_goes_while_much_waits_to_be_written_leaves_nothing_behind"

EDGE_MUTANTS = (
    mutant(
        "the rest of a read is forgotten",
        "edge/websocket.py",
        "        self._rest = data[index:]\n",
        '        self._rest = b""\n',
        WEBSOCKET + "test_messages_come_out_whole_however_the_stream_is_cut",
    ),
    mutant(
        "a message one byte too long is taken",
        "edge/websocket.py",
        "                or length > self._limits.message_bytes_max\n",
        "                or length > self._limits.message_bytes_max + 1\n",
        WEBSOCKET + "test_a_message_of_the_largest_size_is_taken_and_one_byte_more_is_refused",
    ),
    mutant(
        "frames behind a close frame are messages",
        "edge/websocket.py",
        "                if stop == index or not self.is_open:",
        "                if stop == index:",
        WEBSOCKET + "test_what_follows_a_close_frame_in_one_piece_is_no_message",
    ),
    mutant(
        "half a control frame is taken for all of it",
        "edge/websocket.py",
        "length > _CONTROL_BYTES_MAX)",
        "length >= _CONTROL_BYTES_MAX)",
        WEBSOCKET + "test_a_control_frame_that_comes_byte_by_byte_is_one",
    ),
    mutant(
        "pings are counted over a connection's whole life",
        "edge/websocket.py",
        "        self._pings = 0\n        index = 0",
        "        index = 0",
        WEBSOCKET + "test_pings_are_counted_by_what_comes_at_once",
    ),
    mutant(
        "what the protocol has to say is not looked at",
        "edge/websocket.py",
        "        self.involved = True\n        header_end",
        "        header_end",
        WEBSOCKET + "test_only_whole_texts_leave_nothing_more_to_look_at",
    ),
    mutant(
        "the answer to a close is not looked at",
        "edge/websocket.py",
        "            self.involved = True\n            # Its",
        "            # Its",
        WEBSOCKET + "test_only_whole_texts_leave_nothing_more_to_look_at",
        PUMP + "test_a_peer_that_answers_a_close_is_gone_at_once",
    ),
    mutant(
        "the rest of what a socket took in part is never sent",
        "edge/connection.py",
        "            self._watch(_WRITE if self._is_full() else _READ | _WRITE)\n",
        "            pass\n",
        PUMP + DEAF,
        PUMP + "test_a_slow_reader_that_makes_progress_gets_a_long_replay_whole",
    ),
    mutant(
        "a socket that took all is asked for room for ever",
        "edge/connection.py",
        "            if self.interest != _READ:\n                self._watch(_READ)\n",
        "",
        PUMP + DEAF,
    ),
    mutant(
        "who does not read is read from without bound",
        "edge/connection.py",
        "        elif self._is_full():",
        "        elif self.buffered < 0:",
        PUMP + DEAF,
    ),
    mutant(
        "a replay that waits for room waits for ever",
        "edge/connection.py",
        "        if self._room is not None and self.buffered <= self._low_water:\n",
        "        if self._room is not None and self.buffered < 0:\n",
        PUMP + "test_a_slow_reader_that_makes_progress_gets_a_long_replay_whole",
    ),
    mutant(
        "a replay does not wait for room",
        "edge/connection.py",
        "            if self.buffered <= self._low_water:\n                return True\n",
        "            return True\n",
        PUMP + "test_a_slow_reader_that_makes_progress_gets_a_long_replay_whole",
    ),
    mutant(
        "a replay for who has gone waits for ever",
        "edge/connection.py",
        """        if self._room is not None:
            self._room.set()

    def sweep""",
        "\n    def sweep",
        PUMP + GOES,
    ),
    mutant(
        "a replay to a connection that closes waits until it is closed",
        "edge/connection.py",
        """        if self._room is not None:
            self._room.set()
            self._room = None

    def _write_control""",
        "\n    def _write_control",
        PUMP + GOES,
    ),
    mutant(
        "one request more than allowed is taken",
        "edge/client.py",
        "        if self.in_flight >= self._limits.in_flight_max:",
        "        if self.in_flight > self._limits.in_flight_max:",
        CLIENT + "test_as_many_requests_as_allowed_are_taken_and_each_answer_makes_room",
    ),
    mutant(
        "a join is in flight for ever",
        "edge/client.py",
        "        self.in_flight -= 1\n        self._transport.write_text(encode_joined",
        "        self._transport.write_text(encode_joined",
        CLIENT + "test_as_many_requests_as_allowed_are_taken_and_each_answer_makes_room",
    ),
    mutant(
        "a client that was cut is still heard",
        "edge/client.py",
        "        if self.closed:\n            return\n        try:\n            request",
        "        try:\n            request",
        CLIENT + "test_what_follows_the_frame_for_which_a_client_is_cut_is_not_done",
    ),
    mutant(
        "a join tells of a message that is not durable",
        "edge/client.py",
        "        head_seq = server.durable_seq\n",
        "        head_seq = server.session.next_seq - 1\n",
        UNDURABLE + "test_a_message_that_is_not_durable_is_beyond_the_head",
    ),
    mutant(
        "a raw carriage return stays in a message",
        "runtime/jsontext.py",
        "    if _LF in content or _CR in content:",
        "    if _LF in content:",
        PROTOCOL + "test_each_kind_of_raw_line_break_is_found_by_itself",
    ),
    mutant(
        "a raw line feed stays in a message",
        "runtime/jsontext.py",
        "    if _LF in content or _CR in content:",
        "    if _CR in content:",
        PROTOCOL + "test_each_kind_of_raw_line_break_is_found_by_itself",
    ),
)
