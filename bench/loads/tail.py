"""The last messages of a session, as a client that was away for a moment reads them: timed, then compared."""

import http.client
import time
import urllib.parse
from collections.abc import Callable, Iterator

import msgspec

from bench.checker import Findings, Replayed
from bench.loads.written import WrittenSession, open_channel
from bench.protocol import Error, Join, Message, decode_answer
from bench.wire import ANSWER_SECONDS_MAX, WireError

Tail = Callable[[str, WrittenSession, int], tuple[float, list[Replayed]]]
"""Reads so many messages from the end of a session: seconds from the request to the last, and what came."""


class _Page(msgspec.Struct):
    data: list[Message]


_decode_page = msgspec.json.Decoder(_Page).decode


def time_tail_ws(url: str, written: WrittenSession, messages: int) -> tuple[float, list[Replayed]]:
    """Join at a cursor and read to the head.

    Raises:
        WireError: The server refused.
    """
    with open_channel(url, written.user) as channel:
        # The hello: what comes before a connection is of use is not what is compared.
        payloads = channel.payloads()
        next(payloads)
        began = time.perf_counter()
        last_seq = written.count - messages
        channel.send(Join(ref="tail", session=written.name, last_seq=last_seq))
        shown = list(_read_to(payloads, written.count))
        seconds = time.perf_counter() - began
    return seconds, [message.replayed() for message in shown]


def _read_to(payloads: Iterator[bytes], head: int) -> Iterator[Message]:
    for payload in payloads:
        answer = decode_answer(payload)
        if isinstance(answer, Error):
            raise WireError(f"refused: {answer}")
        if isinstance(answer, Message):
            yield answer
            if answer.seq >= head:
                return


def time_tail_http(
    url: str, written: WrittenSession, messages: int
) -> tuple[float, list[Replayed]]:
    """Ask for the newest page, over a connection that is open.

    Raises:
        WireError: The server refused.
    """
    connection = http.client.HTTPConnection(
        urllib.parse.urlsplit(url).netloc, timeout=ANSWER_SECONDS_MAX
    )
    session = urllib.parse.quote(written.name)
    query = urllib.parse.urlencode(
        {"before_seq": written.count + 1, "limit": messages, "user_id": written.user}
    )
    try:
        connection.connect()
        began = time.perf_counter()
        connection.request("GET", f"/v1/sessions/{session}/messages?{query}")
        response = connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - began
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise WireError(f"a page was answered with {response.status} {body[:300]!r}")
    return seconds, [message.replayed() for message in _decode_page(body).data]


def time_and_check(
    read: Tail, url: str, written: WrittenSession, messages: int, findings: Findings
) -> float:
    """Return how long a tail took, in seconds; it must be what was acknowledged."""
    seconds, shown = read(url, written, messages)
    written.check(shown, findings, written.count - messages)
    return seconds
