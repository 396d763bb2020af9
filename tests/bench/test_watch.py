"""Whether memory and lag are flat can be read from what was seen of a server."""

from contextlib import closing

import trio

from bench.probe import Probe, Sample
from bench.processes import resident_bytes
from bench.report import MIB, Figure, ServerSecond
from bench.watch import Look, Watch, server_timeline, trend_figures
from tests.bench.descendants import open_family
from tests.bench.test_probe import EXPOSITION, SAMPLE, open_metrics


def looks(
    seconds: int, *, grows_until: float, mib_per_million: float = 50.0, lag_grows: float = 0.0
) -> list[Look]:
    """Four looks a second at a server that takes 20,000 records a second."""
    return [
        Look(
            at,
            Sample(0.2 + lag_grows * at, int(at), 0, 0, records=int(20_000 * at)),
            int((100 + mib_per_million * 0.02 * min(at, grows_until)) * MIB),
        )
        for at in (number / 4 for number in range(seconds * 4))
    ]


def values(figures: list[Figure]) -> dict[str, float]:
    return {figure.name: figure.value for figure in figures}


def test_memory_that_grows_has_a_slope() -> None:
    found = values(trend_figures(looks(60, grows_until=60)))
    assert found == {
        "server memory at the start": 100.0,
        "server memory slope": 50.0,
        "server memory slope, second half": 50.0,
        "flush lag, last fifth over first": 1.0,
    }


def test_what_is_built_once_is_no_leak() -> None:
    found = values(trend_figures(looks(60, grows_until=20)))
    assert found["server memory slope"] > 10
    assert found["server memory slope, second half"] == 0


def test_a_lag_that_grows_says_so() -> None:
    found = values(trend_figures(looks(50, grows_until=0, lag_grows=0.1)))
    assert 4 < found["flush lag, last fifth over first"] < 8


def test_a_short_run_has_no_trend_and_an_unknown_server_nothing() -> None:
    assert list(values(trend_figures(looks(5, grows_until=5)))) == ["server memory at the start"]
    unknown = [Look(float(at), None, None) for at in range(60)]
    assert trend_figures(unknown) == []
    assert server_timeline(unknown) == []
    silent = [look._replace(sample=None) for look in looks(60, grows_until=60)]
    assert list(values(trend_figures(silent))) == ["server memory at the start"]


def test_each_second_has_its_last_memory_and_its_longest_lag() -> None:
    seen = [
        Look(0.1, SAMPLE._replace(lag_seconds=0.4), 10 * MIB, 2 * MIB),
        Look(0.6, SAMPLE._replace(lag_seconds=0.1, backlog_records=9), 12 * MIB, 3 * MIB),
        Look(2.1, None, 13 * MIB),
    ]
    assert server_timeline(seen) == [
        ServerSecond(
            second=1,
            memory_mib=12.0,
            flush_memory_mib=3.0,
            flush_lag_seconds=0.4,
            flush_backlog_records=4711,
        ),
        ServerSecond(second=3, memory_mib=13.0),
    ]


async def test_it_looks_until_what_it_waits_for_has_come() -> None:
    with open_family() as pids, open_metrics(EXPOSITION) as url, closing(Probe(url)) as probe:
        watch = Watch(probe, pids[0])

        async def wait() -> None:
            if len(watch.looks) < 3:
                await trio.sleep_forever()

        await watch.until(wait)
        started = sum(map(resident_bytes, pids[1:]))
    assert watch.samples == [SAMPLE] * 3
    assert watch.looks[0].at < watch.looks[2].at
    assert abs(watch.looks[2].flush_bytes - started) < 4 * MIB


async def test_a_process_that_is_gone_is_no_error() -> None:
    with open_family() as pids:
        pass
    watch = Watch(None, pids[0])
    await watch.until(trio.lowlevel.checkpoint)
    assert [look.memory_bytes for look in watch.looks] == [None]
