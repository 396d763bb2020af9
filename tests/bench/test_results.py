from pathlib import Path

import pytest

from bench.report import Report, write_json
from bench.results import BEGIN, END, PageError, put_results, read_results, results_text
from tests.bench.reports import beside_peers, report
from tests.docs.markdown import DOCS


def test_the_page_shows_what_the_files_beside_it_say() -> None:
    page = (DOCS / "benchmarks.md").read_text()
    assert put_results(page, read_results(DOCS / "benchmarks")) == page


def appended(**config: str | float | bool | None) -> Report:
    given = {
        "connections": 64,
        "in_flight": 1,
        "per_second": None,
        "archive": None,
        "archive_down": False,
        "sessions": None,
    }
    return report(config=given | config)


def test_an_append_has_its_load_its_rate_and_the_bare_server_beside_it() -> None:
    made = appended(archive="postgres", sessions=100_000)
    made.beside = [report((40_000,) * 3, scenario="bare", verdict={})]
    text = results_text({"append-64x1": made})
    assert "[append-64x1](benchmarks/append-64x1.json)" in text
    assert "64 × 1, PostgreSQL, 100,000 sessions, 42,100 messages" in text
    assert "| 14,000 |" in text
    assert "| 40,000 |" in text


def test_a_run_that_broke_the_promise_is_shown_as_such_and_warnings_stand_beside_it() -> None:
    made = report(scenario="mixed", verdict={"ok": False, "lost": 3})
    made.warnings = ["the generator was busy"]
    text = results_text({"mixed": made})
    assert "**BROKEN**: 9 lost" in text
    assert "the generator was busy" in text


def test_peers_are_sorted_by_rate_and_the_missing_are_named() -> None:
    made = beside_peers({"redis": 40_000, "rakaia": 800})
    made.scenario = "peers"
    made.config = {"connections": 64, "in_flight": 1}
    for other in made.beside:
        other.config = {"version": "1.0"}
    made.warnings = ["nats: not installed: make peers"]
    text = results_text({"peers-64x1": made})
    places = [
        text.index(name) for name in ("| redis 1.0", "| **Ringlog**", "| rakaia 1.0", "| nats")
    ]
    assert places == sorted(places)
    assert "not installed: make peers" in text


def test_what_stands_between_the_comments_is_replaced_and_nothing_else() -> None:
    page = f"before\n{BEGIN}\n\nold\n\n{END}\nafter\n"
    put = put_results(page, {"a": appended()})
    assert put.startswith(f"before\n{BEGIN}\n\n")
    assert put.endswith(f"\n\n{END}\nafter\n")
    assert "old" not in put
    assert put_results(put, {"a": appended()}) == put
    with pytest.raises(PageError):
        put_results("no comments", {"a": appended()})


def test_files_are_read_by_name(tmp_path: Path) -> None:
    write_json(appended(), tmp_path / "b.json")
    write_json(appended(), tmp_path / "a.json")
    assert list(read_results(tmp_path)) == ["a", "b"]
