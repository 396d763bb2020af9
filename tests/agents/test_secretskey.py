"""Keys as text and in files: read in every form that is sold as base64, and made once, durably."""

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agents import SecretsKeyInvalidError, make_key_file, parse_keys, read_keys
from agents.secretskey import FILE_BYTES_MAX, KEYS_MAX, SecretsKey, encode_key, make_key
from tests.edge.cli.conftest import stranger

ONE, TWO = SecretsKey(bytes([251]) * 32), SecretsKey(bytes(range(32)))


@pytest.mark.parametrize(
    "text",
    [
        f"{encode_key(ONE)}\n{encode_key(TWO)}",
        f"  {encode_key(ONE)}  \r\n\r\n# the old one\n{encode_key(TWO)}\n",
        f"{encode_key(ONE)},{encode_key(TWO)}",
        f"{encode_key(ONE).rstrip('=')} , {base64.urlsafe_b64encode(TWO.material).decode()}",
    ],
)
def test_keys_are_read_in_their_order(text: str) -> None:
    assert parse_keys(text, "here") == (ONE, TWO)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "canary",
        "canary" * 8,
        encode_key(ONE)[:-5],
        encode_key(ONE) + "AAAA",
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        f"{encode_key(ONE)} {encode_key(TWO)}",
        f"{encode_key(ONE)}\n{encode_key(ONE)}",
        "\n".join(encode_key(make_key()) for _ in range(KEYS_MAX + 1)),
        "é" * 44,
        "\0" * 44,
    ],
)
def test_what_is_no_key_is_refused_by_its_place_and_not_repeated(text: str) -> None:
    with pytest.raises(SecretsKeyInvalidError) as refused:
        parse_keys(text, "environment RINGLOG_SECRETS_KEY")
    said = f"{refused.value} {refused.value.details} {refused.value.hint}"
    assert said.startswith("environment RINGLOG_SECRETS_KEY: ")
    assert "canary" not in said
    assert encode_key(ONE)[:8] not in said


def test_a_file_of_keys_is_made_once_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    [key] = make_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_key_file(path) == read_keys(path) == (key,)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text().startswith("# ")


def test_of_those_who_make_it_at_once_all_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make_key_file, [path] * 8))
    assert len(set(made)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    path.write_text("not a key")
    for attempt in (make_key_file, read_keys):
        with pytest.raises(SecretsKeyInvalidError, match=r"secrets\.key: line 1"):
            attempt(path)
    assert path.read_text() == "not a key"


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretsKeyInvalidError, match="No such file"):
        read_keys(tmp_path / "none")
    with pytest.raises(SecretsKeyInvalidError, match="directory"):
        read_keys(tmp_path)
    with pytest.raises(SecretsKeyInvalidError, match="cannot be made"):
        make_key_file(tmp_path / "none" / "secrets.key")
    large = tmp_path / "large"
    large.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(SecretsKeyInvalidError, match="larger than"):
        read_keys(large)
    large.write_bytes(b"\xff\xfe")
    with pytest.raises(SecretsKeyInvalidError, match="not text"):
        read_keys(large)
    private = tmp_path / "private"
    private.write_text(encode_key(ONE))
    private.chmod(0)
    with stranger(), pytest.raises(SecretsKeyInvalidError, match="Permission denied"):
        read_keys(private)
