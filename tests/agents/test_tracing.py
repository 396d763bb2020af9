"""The header that ties a call to what caused it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.tracing import TraceParent, begin_trace, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
EXAMPLE = f"00-{TRACE}-{SPAN}-01"


def test_the_example_of_the_specification_is_read_and_written() -> None:
    parsed = parse_traceparent(EXAMPLE)

    assert parsed == TraceParent(TRACE, SPAN, 1)
    assert parsed.header == EXAMPLE


def test_a_child_is_in_the_same_trace_with_a_span_of_its_own() -> None:
    child = TraceParent(TRACE, SPAN, 0).child(b"\x01" * 8)

    assert child.header == f"00-{TRACE}-{'01' * 8}-00"


def test_a_new_trace_is_named_by_random_bytes() -> None:
    assert begin_trace(b"\xab" * 16, b"\xcd" * 8).header == f"00-{'ab' * 16}-{'cd' * 8}-01"


def test_all_zeros_are_no_name() -> None:
    begun = begin_trace(bytes(16), bytes(8))

    assert parse_traceparent(begun.header) == begun
    assert parse_traceparent(begun.child(bytes(8)).header) is not None


@pytest.mark.parametrize(
    "header",
    [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-comes-later", f" {EXAMPLE}\t"],
)
def test_a_later_version_is_read_as_far_as_it_is_known(header: str) -> None:
    assert parse_traceparent(header) == TraceParent(TRACE, SPAN, 1)


def test_unknown_flags_are_not_passed_on() -> None:
    parsed = parse_traceparent(f"00-{TRACE}-{SPAN}-ff")

    assert parsed is not None
    assert parsed.header == EXAMPLE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}",
        f"01-{TRACE}-{SPAN}-01more",
        f"{EXAMPLE}\n",
        f"{EXAMPLE}, {EXAMPLE}",
        f"٠٠-{TRACE}-{SPAN}-01",
    ],
)
def test_what_cannot_be_understood_is_ignored(header: str) -> None:
    assert parse_traceparent(header) is None


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8))
def test_what_is_written_is_read_back(trace: bytes, span: bytes) -> None:
    begun = begin_trace(trace, span)

    assert parse_traceparent(begun.header) == begun
