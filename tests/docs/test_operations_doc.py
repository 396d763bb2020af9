"""docs/operations.md against the code: options, exit codes, metrics and errors are complete."""

import re
from typing import Any

import storage.errors
from edge.cli.failure import ExitCode
from edge.config import ClientConfig, Config, options
from edge.limits import RESERVED_DESCRIPTORS
from edge.metrics import SERIES, HistogramSeries
from runtime.links.handshake import KINDS
from runtime.links.stream import LinkGarbledError
from storage.errors import StorageError
from tests.docs.markdown import plain, read_page, spans, table, tables
from tests.edge.test_errors import STARTUP_CODES

PAGE = read_page("operations.md")


def codes_below(root: type[Any]) -> set[str]:
    return {root.code}.union(*(codes_below(child) for child in root.__subclasses__()))


def test_every_option_is_in_the_table_with_its_default() -> None:
    rows = table(PAGE, "Options", "option").rows
    documented = {plain(row["option"]): plain(row["default"]) for row in rows}
    actual = {name: option.default or "" for name, option in options(Config).items()}

    assert documented == actual
    assert all(row["meaning"] for row in rows)


def test_the_options_of_commands_are_named() -> None:
    (text,) = re.findall(
        r"Commands that talk to a server have three: (.*?)\. `archive`", PAGE, re.DOTALL
    )

    assert spans(text) == list(options(ClientConfig))


def test_the_files_that_are_no_connections_are_counted_as_the_code_does() -> None:
    assert f"One for each connection and {RESERVED_DESCRIPTORS} more." in PAGE


def test_every_exit_code_is_in_the_table() -> None:
    rows = table(PAGE, "Start and stop", "exit code").rows

    assert [int(row["exit code"]) for row in rows] == [int(code) for code in ExitCode]


def test_every_series_is_in_the_table_with_its_type_and_labels() -> None:
    rows = table(PAGE, "What to watch", "series").rows
    documented = {plain(row["series"]): (row["type"], tuple(spans(row["labels"]))) for row in rows}
    actual = {
        series.name: (
            "histogram" if isinstance(series, HistogramSeries) else series.kind,
            series.labels,
        )
        for series in SERIES
    }

    assert documented == actual


def test_every_alert_names_series_that_exist() -> None:
    names = {series.name for series in SERIES}
    suffixes = re.compile(r"_(total|sum|count|bucket)$")
    for row in table(PAGE, "What to watch", "condition").rows:
        for name in re.findall(r"ringlog_[a-z_]+", row["condition"]):
            assert suffixes.sub("", name) in names, name


def test_every_error_of_storage_says_what_to_do() -> None:
    rows = table(PAGE, "When it does not start, or stops", "code").rows
    documented = {plain(row["code"]) for row in rows}

    assert documented == codes_below(StorageError) - {"storage_error"}
    assert all(row["what to do"] for row in rows)
    assert documented >= STARTUP_CODES - {"storage_error", "session_error"}


def test_every_reason_to_refuse_a_link_says_what_to_do() -> None:
    rows = table(PAGE, "Links that are refused", "code").rows

    assert {plain(row["code"]) for row in rows} == {*KINDS, LinkGarbledError.code}
    assert all(row["what to do"] for row in rows)


def test_commands_that_hints_name_are_described() -> None:
    for error in vars(storage.errors).values():
        if isinstance(error, type) and issubclass(error, StorageError):
            for command in re.findall(r"ringlog [a-z]+ [a-z]+", error.hint):
                assert command in PAGE, command


def test_no_table_has_an_empty_first_cell() -> None:
    for each in tables(PAGE):
        assert all(each.column(each.columns[0]))
