"""Reports as a run would make them, from seeded noise: what is compared and plotted in the tests."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from bench.environment import Environment, SyncLatency
from bench.histogram import Histogram
from bench.report import Better, Figure, Report, Round, Second, make_report

ENVIRONMENT = Environment(
    cores=2,
    cpu="AMD EPYC 7B13",
    kernel="6.1.0",
    filesystem="ext4",
    python="3.11.7",
    commit="abc1234",
    load=0.1,
    versions={"trio": "0.35"},
)
PEERS = {
    "bare server": 69_800,
    "NATS JetStream": 41_300,
    "Redis Streams": 22_750,
    "Kafka": 12_400,
    "PostgreSQL": 5_120,
    "RabbitMQ streams": 2_260,
    "EventStoreDB": 850,
}


@cache
def latencies(seed: int, *, median_ms: float, spread: float = 0.5, count: int = 5_000) -> Histogram:
    """Return waits with a long tail: a log-normal distribution."""
    source = random.Random(seed)
    histogram = Histogram()
    for _ in range(count):
        histogram.record(round(median_ms * 1000 * source.lognormvariate(0, spread)))
    return histogram


def timeline(seed: int, *, rate: float, seconds: int) -> list[Second]:
    """Return seconds that vary by a few per cent, and stall once."""
    source = random.Random(seed)
    return [
        Second(
            second=second,
            rate_per_second=rate * source.gauss(1, 0.04) * (0.35 if second == seconds // 2 else 1),
            ack_p50_ms=4.0 * source.gauss(1, 0.05),
            ack_p99_ms=14.0 * source.lognormvariate(0, 0.2) * (9 if second == seconds // 2 else 1),
        )
        for second in range(seconds)
    ]


def report(
    rates: Sequence[float] = (14_000, 14_200, 13_900),
    *,
    scenario: str = "append",
    acks: Sequence[Histogram] | None = None,
    figures: Sequence[Sequence[Figure]] | None = None,
    seconds: int = 30,
    kinds: Sequence[str] = ("ack",),
    environment: Environment = ENVIRONMENT,
    sync_p50: float = 0.11,
    verdict: dict[str, bool | int] | None = None,
    config: dict[str, str | int | float | bool | None] | None = None,
    beside: Sequence[Report] = (),
) -> Report:
    """Return a report with a round for each rate."""
    rounds = [
        Round(
            sync=SyncLatency(p50=sync_p50, p99=sync_p50 * 3),
            figures=[
                Figure("rate", rate, "/s", Better.HIGHER),
                *(figures[number] if figures else ()),
            ],
            latencies={
                kind: acks[number]
                if acks
                else latencies(number, median_ms=64_000 / rate * (1 + place))
                for place, kind in enumerate(kinds)
            },
            acked=round(rate),
            timeline=timeline(number, rate=rate, seconds=seconds),
            verdict=dict(verdict) if verdict is not None else {"lost": 0, "ok": True},
        )
        for number, rate in enumerate(rates)
    ]
    made = make_report(
        scenario,
        rounds,
        config={"connections": 64} if config is None else config,
        environment=environment,
    )
    made.beside = list(beside)
    return made


def beside_peers(rates: Mapping[str, int] = PEERS) -> Report:
    """Return a report with others under the same load."""
    return report(
        beside=[
            report((rate, rate * 1.1, rate * 0.95), scenario=name, verdict={}, seconds=5)
            for name, rate in rates.items()
        ]
    )


def at(
    environment: Environment = ENVIRONMENT, **changes: str | float | dict[str, str]
) -> Environment:
    """Return another machine, or another commit."""
    return replace(environment, **changes)  # type: ignore[arg-type]  # by name
