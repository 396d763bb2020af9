import os
from pathlib import Path

import trio

from bench.environment import measure_interpreter_ns, measure_sync_ms, read_environment


def test_the_environment_names_what_a_figure_depends_on(tmp_path: Path) -> None:
    environment = read_environment(tmp_path)
    assert environment.cores >= 1
    assert environment.kernel == os.uname().release
    assert environment.filesystem != "unknown"
    assert environment.commit
    assert environment.versions["trio"] == trio.__version__


def test_syncs_are_timed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    latency = measure_sync_ms(tmp_path)
    assert 0 < latency.p50 <= latency.p99
    assert list(tmp_path.iterdir()) == []


def test_a_call_takes_some_nanoseconds() -> None:
    assert 1 < measure_interpreter_ns() < 10_000
