"""Short whole runs of the scenarios with many people: real processes, and no word about how fast."""

from pathlib import Path

from bench.report import Report
from bench.scenarios.chat import ChatOptions, run_chat
from bench.scenarios.fanout import FanoutOptions, run_fanout
from bench.scenarios.mixed import MixedOptions, run_mixed


def kinds(report: Report) -> set[str]:
    """Return of which latencies there were any, where the promise was kept."""
    assert report.verdict["ok"], report.examples
    assert report.acked > 0
    assert report.rate_per_second
    return set(report.latencies)


async def test_everyone_who_follows_is_shown_everything(tmp_path: Path) -> None:
    options = FanoutOptions(
        directory=tmp_path, subscribers=10, per_second=100, seconds=0.5, warmup_seconds=0.1
    )
    report = await run_fanout(options)
    assert kinds(report) == {"ack", "late", "delivery"}
    acks = report.metric("acks")
    assert acks is not None
    assert acks.median > 0


async def test_people_come_and_go(tmp_path: Path) -> None:
    options = MixedOptions(
        directory=tmp_path,
        clients=10,
        stay_seconds=0.05,
        away_seconds=0.05,
        seconds=0.7,
        warmup_seconds=0.1,
    )
    report = await run_mixed(options)
    assert kinds(report) == {"ack", "delivery", "replay", "repeat"}
    joins = report.metric("joins")
    assert joins is not None
    assert joins.median > 0


async def test_real_conversations_are_played_to_their_end(tmp_path: Path) -> None:
    options = ChatOptions(directory=tmp_path, conversations=20, speed_up=10_000, connections=4)
    report = await run_chat(options)
    assert kinds(report) == {"ack", "late", "delivery"}
    busiest = report.metric("due in the busiest second")
    assert busiest is not None
    assert 0 < busiest.median <= report.acked
