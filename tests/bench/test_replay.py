"""Replays are timed apart from being checked; each way of breaking the promise is seen all the same."""

from contextlib import closing
from pathlib import Path

import pytest

from bench.checker import Findings
from bench.histogram import Histogram
from bench.loads.replay import Pass, Readers
from bench.loads.tail import time_and_check, time_tail_http, time_tail_ws
from bench.loads.written import WrittenSession, replay_over, write_session
from bench.scenarios.replay import (
    ReplayOptions,
    drop_page_cache,
    latency_of,
    pass_figures,
    run_replay,
)
from bench.scenarios.run import OptionsError
from bench.scenarios.tails import tail_figures
from bench.wire import WireError
from tests.fakes.liar import Frame, Lie, open_liar
from tests.fakes.lies import LIES, change_one, kinds_found, lose_one, swap_two

MESSAGES = 5
CONTENT_BYTES = 64


def write(url: str, names: str) -> list[WrittenSession]:
    return [write_session(url, name, MESSAGES, CONTENT_BYTES) for name in names]


def read_all(url: str, sessions: list[WrittenSession]) -> tuple[Pass, Findings]:
    findings = Findings()
    with closing(Readers(url, sessions)) as readers:
        made = readers.read()
        readers.check(findings)
    return made, findings


def test_every_client_reads_all_of_its_session() -> None:
    with open_liar() as url:
        first, second = write(url, "ab")
        made, findings = read_all(url, [first, second, first])
    assert findings.ok, findings.examples
    assert made.messages == 3 * MESSAGES
    assert made.payload_bytes > 3 * MESSAGES * CONTENT_BYTES
    assert made.latency.count == 3
    assert 0 < made.latency.max / 1e6 <= made.seconds


def test_an_empty_session_is_read_at_once() -> None:
    with open_liar() as url:
        made, findings = read_all(url, [write_session(url, "empty", 0, CONTENT_BYTES)])
    assert findings.ok
    assert (made.messages, made.latency.count) == (0, 1)


@pytest.mark.parametrize(("lie", "kinds"), LIES)
def test_a_lie_is_seen_by_every_client(lie: Lie, kinds: set[str]) -> None:
    with open_liar(lie) as url:
        _, findings = read_all(url, write(url, "ab"))
    assert kinds_found(findings.verdict(), at_least=2) == kinds


def promise_more(messages: list[Frame]) -> list[Frame]:
    """Tell of a head that is never shown."""
    gap = {"type": "gap", "session": "a", "from": 6, "to": 9, "reason": "none", "seq": 9}
    return [*messages, gap] if messages else []


def test_a_head_that_is_told_and_never_shown_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.loads.replay.ANSWER_SECONDS_MAX", 0.3)
    with open_liar(promise_more) as url:
        made, findings = read_all(url, write(url, "a"))
    assert made.latency.count == 0
    assert kinds_found(findings.verdict()) == {"lost"}


@pytest.mark.parametrize(
    ("lie", "kinds"),
    [
        (lose_one, {"lost", "gap"}),
        (swap_two, {"reordered"}),
        (change_one, {"changed"}),
    ],
)
def test_a_lie_is_seen_in_a_tail(lie: Lie, kinds: set[str]) -> None:
    findings = Findings()
    with open_liar(lie) as url:
        (written,) = write(url, "a")
        assert time_and_check(time_tail_ws, url, written, MESSAGES, findings) > 0
    assert kinds_found(findings.verdict()) == kinds


def test_the_end_of_a_session_is_compared_with_its_last_acks() -> None:
    findings = Findings()
    with open_liar() as url:
        (written,) = write(url, "a")
        time_and_check(time_tail_ws, url, written, 2, findings)
        assert findings.ok, findings.examples
        written.check(replay_over(url, written), findings, MESSAGES - 2)
    assert {"phantom", "reordered"} <= kinds_found(findings.verdict())


def test_a_server_without_pages_is_an_error() -> None:
    with open_liar() as url:
        (written,) = write(url, "a")
        with pytest.raises(WireError, match="was answered with 4"):
            time_tail_http(url, written, 1)


def test_more_messages_than_a_window_are_written_and_remembered() -> None:
    findings = Findings()
    with open_liar() as url:
        written = write_session(url, "long", 1_300, CONTENT_BYTES)
        written.check(replay_over(url, written), findings)
    assert written.count == 1_300
    assert findings.ok, findings.examples


def test_a_message_that_is_refused_while_writing_is_an_error() -> None:
    with open_liar(refuse_every=3) as url, pytest.raises(WireError, match="backpressure"):
        write(url, "a")


def one_pass(seconds: float, messages: int, client_ms: int) -> Pass:
    latency = Histogram()
    latency.record(client_ms * 1000)
    return Pass(seconds, messages, messages * 512, seconds / 4, latency)


def test_passes_are_taken_together() -> None:
    passes = [one_pass(1.0, 4096, 40), one_pass(3.0, 4096, 60)]
    figures = {figure.name: figure.value for figure in pass_figures("warm", passes, 2.0)}
    assert figures == {
        "warm rate": 2048.0,
        "warm throughput": 1.0,
        "warm server processor": 0.5,
        "warm server processor per pass": 1.0,
        "warm clients processor": 0.25,
    }
    assert (latency_of(passes).count, latency_of(passes).max) == (2, 60_000)


def test_tails_have_their_medians_and_a_ratio() -> None:
    times = {
        ("replay", 100): [0.002, 0.009, 0.001],
        ("replay", 2_000): [0.003, 0.003, 0.5],
        ("page", 100): [0.004],
        ("page", 2_000): [0.002],
    }
    assert {figure.name: figure.value for figure in tail_figures(times)} == {
        "replay of the last 100 of 100": 2.0,
        "replay of the last 100 of 2,000": 3.0,
        "replay of a tail, long over short": 1.5,
        "page of the last 100 of 100": 4.0,
        "page of the last 100 of 2,000": 2.0,
        "page of a tail, long over short": 0.5,
    }


def test_whether_the_page_cache_was_dropped_is_known(tmp_path: Path) -> None:
    assert drop_page_cache(tmp_path / "control")
    assert (tmp_path / "control").read_text() == "1\n"
    assert not drop_page_cache(tmp_path / "missing" / "control")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "ws://127.0.0.1:1/v1/ws"}, "not with --url"),
        ({"short": 99}, "100 at least"),
        ({"long": 100}, "not the same"),
    ],
    ids=["url", "short", "long"],
)
async def test_what_makes_no_sense_is_refused_before_anything_starts(
    tmp_path: Path, options: dict[str, str | int], reason: str
) -> None:
    with pytest.raises(OptionsError, match=reason):
        await run_replay(ReplayOptions(directory=tmp_path, **options))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
