"""Several measurements of the same thing, as one report: the median of each figure.

The real server and the bare one are measured in turn, so that what changes on the machine meanwhile (a
neighbour, a disk that warms up) meets both. The ratio is that of the two median rates.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import median

from bench.environment import Environment, SyncLatency
from bench.lag import largest_backlog, summarise_lag
from bench.measurement import Measured
from bench.report import AppendReport, BareReport, RoundReport


def report_rounds(
    real: Sequence[Measured],
    bare: Sequence[Measured],
    *,
    config: dict[str, str | int | float | bool | None],
    environment: Environment,
) -> AppendReport:
    """Report the rounds of the real server, and of the bare one if there were any."""
    outcomes = [measured.outcome for measured in real]
    samples = [sample for measured in real for sample in measured.lag]
    verdict = _verdict(real)
    yardstick = _report_bare(bare) if bare else None
    rate = median(outcome.rate_per_second for outcome in outcomes) if verdict["ok"] else None
    return AppendReport(
        scenario="append",
        config=config,
        environment=environment,
        rate_per_second=rate,
        acked=sum(outcome.acked for outcome in outcomes),
        refused=dict(sum((Counter(outcome.refused) for outcome in outcomes), Counter())),
        ack_ms=_ack_ms(real),
        fdatasync_ms=_sync_ms(real),
        server_cpu=_median_known(outcome.server_cpu for outcome in outcomes),
        server_rss_bytes=_memory(real),
        generator_cpu=median(outcome.generator_cpu for outcome in outcomes),
        flush_lag_s=summarise_lag(samples),
        flush_backlog_max=largest_backlog(samples),
        catch_up_s=_median_known(measured.catch_up_seconds for measured in real),
        verdict=verdict,
        examples=list(chain(*(outcome.examples for outcome in outcomes))),
        rounds=_rounds(real, bare),
        bare=yardstick,
        ratio=_ratio(rate, yardstick),
    )


def _report_bare(bare: Sequence[Measured]) -> BareReport:
    outcomes = [measured.outcome for measured in bare]
    return BareReport(
        rate_per_second=median(outcome.rate_per_second for outcome in outcomes),
        acked=sum(outcome.acked for outcome in outcomes),
        ack_ms=_ack_ms(bare),
        fdatasync_ms=_sync_ms(bare),
        server_cpu=_median_known(outcome.server_cpu for outcome in outcomes),
        server_rss_bytes=_memory(bare),
        generator_cpu=median(outcome.generator_cpu for outcome in outcomes),
    )


def _ratio(rate: float | None, bare: BareReport | None) -> float | None:
    if rate is None or bare is None or not bare.rate_per_second:
        return None
    return round(rate / bare.rate_per_second, 3)


def _rounds(real: Sequence[Measured], bare: Sequence[Measured]) -> list[RoundReport]:
    beside: list[float | None] = [measured.outcome.rate_per_second for measured in bare]
    return [
        RoundReport(
            rate_per_second=measured.outcome.rate_per_second, bare_rate_per_second=bare_rate
        )
        for measured, bare_rate in zip(real, beside or [None] * len(real), strict=True)
    ]


def _verdict(rounds: Sequence[Measured]) -> dict[str, bool | int]:
    """Return one verdict on all: each kind of fault counted, and whether there was none."""
    verdicts = [measured.outcome.verdict for measured in rounds]
    counts = {kind: sum(verdict[kind] for verdict in verdicts) for kind in verdicts[0]}
    return counts | {"ok": all(verdict["ok"] for verdict in verdicts)}


def _ack_ms(rounds: Sequence[Measured]) -> dict[str, float]:
    seen = [measured.outcome.ack_ms for measured in rounds]
    medians = {name: round(median(ack_ms[name] for ack_ms in seen), 3) for name in seen[0]}
    return medians | {"max": max(ack_ms["max"] for ack_ms in seen)}


def _sync_ms(rounds: Sequence[Measured]) -> SyncLatency:
    return SyncLatency(
        p50=round(median(measured.sync.p50 for measured in rounds), 3),
        p99=round(median(measured.sync.p99 for measured in rounds), 3),
    )


def _memory(rounds: Sequence[Measured]) -> int | None:
    known = _median_known(measured.outcome.server_rss_bytes for measured in rounds)
    return None if known is None else int(known)


def _median_known(values: Iterable[float | None]) -> float | None:
    """Return the median of figures that are known in every round or in none."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
