import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.values import (
    GIB,
    Address,
    parse_address,
    parse_float,
    parse_list,
    parse_origin,
    parse_single,
    parse_size,
    parse_url,
    redact,
    size_text,
)


@given(st.integers(0, 1 << 50))
def test_a_size_that_is_written_reads_as_itself(size: int) -> None:
    assert parse_size(0, 1 << 50)(size_text(size)) == size


@given(st.sampled_from(["127.0.0.1", "::1", "localhost", "db-1.internal"]), st.integers(0, 65535))
def test_an_address_that_is_written_reads_as_itself(host: str, port: int) -> None:
    address = Address(host, port)

    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:65536", "::1:80", "[::1]", "a b:1", "u@h:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(text)


def test_a_size_outside_its_range_or_without_a_known_unit_is_refused() -> None:
    parse = parse_size(1, GIB)

    for text in ("0", "2GiB", "1 furlong", "", "-1", "1.5MiB", "9" * 30):
        with pytest.raises(ValueError, match="1 to 1GiB"):
            parse(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-0.1", "1.1", "x", ""])
def test_a_number_outside_its_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        parse_float(0, 1)(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:4000/", "http://127.0.0.1:4000"),
        ("https://log.example", "https://log.example"),
    ],
)
def test_a_url_is_scheme_and_host_alone(text: str, url: str) -> None:
    assert parse_url(text) == url
    for wrong in ("log.example", "ftp://x", "http://x/path", "http://"):
        with pytest.raises(ValueError, match="http://HOST:PORT"):
            parse_url(wrong)


def test_an_origin_is_compared_in_lower_case() -> None:
    assert parse_origin("HTTPS://App.Example/") == "https://app.example"


@pytest.mark.parametrize("raw", [True, [1], {"a": 1}, None])
def test_what_is_neither_text_nor_number_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="single value"):
        parse_single(raw)
    with pytest.raises(ValueError, match="list of texts"):
        parse_list(raw)


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("postgresql://u:p@ss@h/db", "postgresql://u:…@h/db"),
        ("postgresql://u@h/db?password=p&x=1", "postgresql://u@h/db?password=…&x=1"),
        ("postgresql://h/db", "postgresql://h/db"),
        ("sqlite:///.ringlog/archive.db", "sqlite:///.ringlog/archive.db"),
        ("rl_0123456789", "rl_0123…"),
        ("", ""),
    ],
)
def test_secrets_are_masked_where_they_are_shown(secret: str, shown: str) -> None:
    assert redact(secret) == shown
