from pathlib import Path

import pytest

from edge.config import (
    ClientConfig,
    Config,
    ConfigError,
    load_client_config,
    load_config,
    options,
    shown,
    unknown_variables,
)
from edge.values import Address


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_serve_this_machine_only_with_sqlite_in_the_data_directory() -> None:
    config = load_config(environment={})

    assert config.listen == Address("127.0.0.1", 4000)
    assert config.listen.is_loopback
    assert config.archive == "sqlite:///.ringlog/archive.db"
    assert config.durability == "local"
    assert set(config.origins.values()) == {"default"}


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    (tmp_path / "ringlog.toml").write_text(
        'listen = "127.0.0.1:1"\ndrain_seconds = 1\nsegment_bytes = "1MiB"\n'
    )
    environment = {"RINGLOG_LISTEN": "127.0.0.1:2", "RINGLOG_DRAIN_SECONDS": "2"}

    config = load_config({"listen": "127.0.0.1:3"}, environment=environment)

    assert (config.listen.port, config.drain_seconds, config.segment_bytes) == (3, 2.0, 1024 * 1024)
    assert config.origins["listen"] == "flag --listen"
    assert config.origins["drain_seconds"] == "environment RINGLOG_DRAIN_SECONDS"
    assert config.origins["segment_bytes"] == "file ringlog.toml"
    assert config.origins["data"] == "default"


def test_an_empty_variable_counts_as_unset() -> None:
    assert load_config(environment={"RINGLOG_LISTEN": ""}).listen.port == 4000


def test_a_named_file_is_read_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text('data = "elsewhere"')

    assert load_config(environment={}, file=str(path)).data == Path("elsewhere")
    assert load_config(environment={"RINGLOG_CONFIG": str(path)}).data == Path("elsewhere")


def test_a_named_file_that_is_missing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_config(environment={"RINGLOG_CONFIG": "missing.toml"})

    assert caught.value.origin == "environment RINGLOG_CONFIG"


def test_a_misspelt_key_in_the_file_is_refused_with_the_likely_one(tmp_path: Path) -> None:
    (tmp_path / "ringlog.toml").write_text('lisen = "127.0.0.1:1"')

    with pytest.raises(ConfigError, match="did you mean listen") as caught:
        load_config(environment={})

    assert caught.value.key == "lisen"


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ringlog.toml").write_text("listen = ")

    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(environment={})


def test_misspelt_variables_are_found_and_kubernetes_own_are_not_fatal() -> None:
    environment = {
        "RINGLOG_LISEN": "x",
        "RINGLOG_TEST_PG_DSN": "x",
        "RINGLOG_ARCHIVE_FILE": "",
        "HOME": "/",
    }

    assert unknown_variables(environment) == ["RINGLOG_LISEN"]
    load_config(environment={"RINGLOG_SERVICE_HOST": "10.0.0.1"})


def test_certificates_for_links_need_a_link() -> None:
    """Of an owner, that is: an edge makes links, and needs no address for that."""
    flags = {"link_cert": "a.pem", "link_key": "a.key", "link_ca": "ca.pem"}
    with pytest.raises(ConfigError, match="nobody links to this node"):
        load_config(flags, environment={})
    for more in ({"link": "127.0.0.1:0"}, {"role": "edge"}):
        assert load_config(flags | more, environment={}).link_ca == Path("ca.pem")


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("listen", "4000", "HOST:PORT"),
        ("listen", "127.0.0.1:70000", "0 to 65535"),
        ("archive", "mysql://db/x", "sqlite:///PATH"),
        ("archive", "sqlite:///:memory:", "needs a file"),
        ("durability", "replicated", "it needs an archive in PostgreSQL"),
        ("durability", "none", "local or replicated"),
        ("takeover_seconds", "1", "2 or more"),
        ("role", "owner", "it needs link"),
        ("role", "boss", "all or edge or owner"),
        ("link", "4001", "HOST:PORT"),
        ("weight", "0", "from 1 to 100"),
        ("allow_origin", "*", "name each"),
        ("allow_origin", "app.example", "such as https://app.example"),
        ("log_level", "loud", "debug or info"),
        ("segment_bytes", "1KiB", "1MiB to 4GiB"),
        ("segment_bytes", "1 parsec", "1MiB to 4GiB"),
        ("sync_delay_ms", "26", "0 to 25"),
        ("sync_delay_ms", "nan", "0 to 25"),
        ("drain_seconds", "-1", "0 to 3600"),
        ("tls_cert", "cert.pem", "TLS needs both"),
        ("link_cert", "cert.pem", "TLS on links needs all three"),
        ("link_ca", "ca.pem", "link_cert is missing"),
        ("data", "a\0b", "a path"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_its_origin_and_what_is_allowed(
    key: str, text: str, allowed: str
) -> None:
    with pytest.raises(ConfigError, match=allowed) as caught:
        load_config(environment={"RINGLOG_" + key.upper(): text})

    assert str(caught.value).startswith(f"{key} = ")
    assert caught.value.origin == "environment RINGLOG_" + key.upper()


def test_a_table_where_one_value_belongs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ringlog.toml").write_text("[listen]\nport = 1")

    with pytest.raises(ConfigError, match="single value"):
        load_config(environment={})


@pytest.mark.parametrize(
    ("text", "size"), [("1048576", 2**20), ("1MiB", 2**20), ("2 mb", 2**21), ("1GiB", 2**30)]
)
def test_sizes_are_written_with_or_without_a_unit(text: str, size: int) -> None:
    assert load_config({"segment_bytes": text}, environment={}).segment_bytes == size


def test_a_list_may_be_repeated_flags_an_array_or_text_with_commas(tmp_path: Path) -> None:
    want = ("http://localhost:5173", "https://app.example")
    assert load_config({"allow_origin": list(want)}, environment={}).allow_origin == want
    variable = {"RINGLOG_ALLOW_ORIGIN": "http://localhost:5173, https://APP.example"}
    assert load_config(environment=variable).allow_origin == want
    (tmp_path / "ringlog.toml").write_text(f"allow_origin = {list(want)}")
    assert load_config(environment={}).allow_origin == want


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("[::1]:4000", Address("::1", 4000), True),
        (":4000", Address("127.0.0.1", 4000), True),
        ("localhost:1", Address("localhost", 1), True),
        ("0.0.0.0:4000", Address("0.0.0.0", 4000), False),
        ("[::]:4000", Address("::", 4000), False),
        ("db.internal:4000", Address("db.internal", 4000), False),
    ],
)
def test_an_address_knows_whether_only_this_machine_can_connect(
    text: str, address: Address, loopback: bool
) -> None:
    listen = load_config({"listen": text}, environment={}).listen

    assert listen == address
    assert listen.is_loopback is loopback


def test_a_secret_may_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://ringlog:hunter2@db/ringlog\n")

    config = load_config(environment={"RINGLOG_ARCHIVE_FILE": str(secret)})

    assert config.archive == "postgresql://ringlog:hunter2@db/ringlog"
    assert shown(config)["archive"] == "postgresql://ringlog:…@db/ringlog"
    assert config.origins["archive"] == "environment RINGLOG_ARCHIVE_FILE"
    with pytest.raises(ConfigError) as caught:
        load_config({"archive": "mysql://ringlog:hunter2@db/ringlog"}, environment={})
    assert "hunter2" not in str(caught.value)


def test_keys_for_secrets_are_a_file_or_hidden_text_and_are_not_read_by_everyone(
    tmp_path: Path,
) -> None:
    """A command that does not need them may be run by who is not allowed to read them."""
    path = str(tmp_path / "none")
    for flags, environment, origin in (
        ({"secrets_key": path}, {}, "flag --secrets-key"),
        ({}, {"RINGLOG_SECRETS_KEY_FILE": path}, "environment RINGLOG_SECRETS_KEY_FILE"),
    ):
        config = load_config(flags, environment=environment)
        assert (config.secrets_key, config.origins["secrets_key"]) == (Path(path), origin)
        assert shown(config)["secrets_key"] == path

    hidden = load_config(environment={"RINGLOG_SECRETS_KEY": "hunter2"})
    assert shown(hidden)["secrets_key"] == "…"
    assert "hunter2" not in repr(hidden)
    assert hidden.origins["secrets_key"] == "environment RINGLOG_SECRETS_KEY"
    both = {"RINGLOG_SECRETS_KEY": "hunter2", "RINGLOG_SECRETS_KEY_FILE": path}
    assert load_config(environment=both).secrets_key == hidden.secrets_key
    assert load_config({"secrets_key": path}, environment=both).secrets_key == Path(path)
    assert unknown_variables(both) == []


def test_a_key_is_shown_by_its_first_characters_only() -> None:
    client = load_client_config({"key": "rl_0123456789abcdef"}, environment={})

    assert shown(client)["key"] == "rl_0123…"


def test_the_commands_find_the_server_of_this_directory_unasked(tmp_path: Path) -> None:
    (tmp_path / "ringlog.toml").write_text('listen = "0.0.0.0:4321"')

    assert load_client_config(environment={}).url == "http://127.0.0.1:4321"
    assert (
        load_client_config({"url": "https://log.example"}, environment={}).url
        == "https://log.example"
    )


def test_every_option_has_help_and_a_default_that_is_allowed() -> None:
    for settings in (Config, ClientConfig):
        for name, declared in options(settings).items():
            assert declared.help, name
            if declared.default and not declared.many:
                declared.parse(declared.default)


def test_a_secret_whose_file_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"_FILE\): No such file or directory$"):
        load_config(environment={"RINGLOG_ARCHIVE_FILE": str(tmp_path / "none")})
