"""Does the end of a session take longer to read when there is more before it?

The last messages of a short session and of a long one are read in turn, each on a server that was started anew
and has served one other session, so that what is loaded on first use belongs to neither. The kernel has the pages
of both. A session remembers the `client_id`s of its last 1,000 messages, and one that is at rest reads them when
it is joined: one that is shorter than that is joined sooner, which is no matter of history. The page over HTTP is
read after the replay, from a session that is in memory then.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from statistics import median

import trio

from bench.checker import Findings
from bench.loads.tail import Tail, time_and_check, time_tail_http, time_tail_ws
from bench.loads.written import WrittenSession
from bench.outage import wait_caught_up
from bench.probe import Probe
from bench.report import Figure, progress
from bench.scenarios.run import Target

TAIL_MESSAGES = 100
"""What a client misses that was away for a moment."""

KINDS: Mapping[str, Tail] = {"replay": time_tail_ws, "page": time_tail_http}


async def measure_tails(
    target: Target,
    sessions: Sequence[WrittenSession],
    first: WrittenSession,
    findings: Findings,
    times: int,
) -> list[Figure]:
    """Time the tail of each session so often, after one message of the `first` one.

    Raises:
        ServerError, WireError: It cannot be read.
    """

    async def read(tail: Tail, written: WrittenSession, messages: int) -> float:
        timed = partial(time_and_check, tail, target.url, written, messages, findings)
        return await trio.to_thread.run_sync(timed)

    seconds: dict[tuple[str, int], list[float]] = {}
    for written in sessions:
        await read(time_tail_ws, written, TAIL_MESSAGES)
    for _ in range(times):
        for written in sessions:
            await restart(target)
            for tail in KINDS.values():
                await read(tail, first, 1)
            for kind, tail in KINDS.items():
                took = await read(tail, written, TAIL_MESSAGES)
                seconds.setdefault((kind, written.count), []).append(took)
        progress(f"read the tails of {', '.join(f'{each.count:,}' for each in sessions)} messages")
    return tail_figures(seconds)


def tail_figures(seconds: Mapping[tuple[str, int], Sequence[float]]) -> list[Figure]:
    """Return the medians, and what the longest history costs beside the shortest.

    `seconds` are given by how the tail was read and how many messages the session has.
    """
    figures = []
    for kind in dict.fromkeys(kind for kind, _ in seconds):
        medians = {count: median(seconds[each, count]) for each, count in seconds if each == kind}
        figures += [
            Figure(f"{kind} of the last {TAIL_MESSAGES} of {count:,}", round(value * 1000, 3), "ms")
            for count, value in medians.items()
        ]
        ratio = medians[max(medians)] / medians[min(medians)]
        figures.append(Figure(f"{kind} of a tail, long over short", round(ratio, 3)))
    return figures


async def restart(target: Target) -> None:
    """Start the server anew, with everything in its archive: it remembers nothing of any session.

    Raises:
        OutageError: The archive does not catch up.
        ServerError: It does not come back.
    """
    with closing(Probe(target.url)) as probe:
        await wait_caught_up(probe)
    await target.own_server.stop()
    await target.own_server.start()
