import os
from pathlib import Path

from bench.environment import cpu_seconds, measure_sync_ms, read_environment, resident_bytes


def test_the_environment_names_what_a_figure_depends_on(tmp_path: Path) -> None:
    environment = read_environment(tmp_path)
    assert environment.cores >= 1
    assert environment.kernel == os.uname().release
    assert environment.filesystem != "unknown"
    assert environment.commit


def test_syncs_are_timed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    latency = measure_sync_ms(tmp_path)
    assert 0 < latency.p50 <= latency.p99
    assert list(tmp_path.iterdir()) == []


def test_our_own_processor_time_and_memory_can_be_read() -> None:
    before = cpu_seconds(os.getpid())
    sum(range(3_000_000))
    assert cpu_seconds(os.getpid()) >= before
    assert resident_bytes(os.getpid()) > 1 << 20
