"""What is PostgreSQL's own: COPY text, deadlines, connections that break, a server that restarts."""

import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import psycopg
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from bench.postgres import PostgresServer, PrivatePostgresServer
from storage import (
    Archive,
    ArchiveOwnedError,
    ArchiveSettingsError,
    ArchiveUnavailableError,
    Flusher,
    FlushOptions,
    FlushThread,
    Ownership,
    Place,
    open_archive,
)
from storage.ownership import check_epoch, settle_level, take_epoch
from storage.postgres import (
    SERVER_SETTINGS,
    AnsweringConnection,
    PostgresDialect,
    encode_messages,
)
from tests.contracts.archive import NODE
from tests.fakes.proxy import Cut, CuttingProxy, open_cutting_proxy
from tests.storage.archive_records import message, messages, session_row
from tests.storage.flushing import FlushedLog, assert_archived, running
from tests.storage.sql import run_sql

pytestmark = pytest.mark.postgres

Database = tuple[PostgresServer, str]


@pytest.fixture
def archive(postgres_url: str) -> Iterator[Archive]:
    opened = open_archive(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def restartable(postgres_server: PostgresServer) -> Iterator[PrivatePostgresServer]:
    """The server, if it is ours to stop; running again afterwards."""
    if not isinstance(postgres_server, PrivatePostgresServer):
        pytest.fail("RINGLOG_TEST_PG_DSN names a server that a test may not stop: unset it")
    yield postgres_server
    postgres_server.ensure_running()


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[CuttingProxy]:
    with open_cutting_proxy(postgres_server.port) as opened:
        yield opened


@contextmanager
def opened_through(proxy: CuttingProxy, database: Database) -> Iterator[Archive]:
    archive = open_archive(f"postgresql://postgres@127.0.0.1:{proxy.port}/{database[1]}")
    try:
        yield archive
    finally:
        archive.close()


@asynccontextmanager
async def flushing(archive: Archive, log: FlushedLog) -> AsyncIterator[Flusher]:
    ownership = await trio.to_thread.run_sync(archive.begin_epoch, NODE, "local")
    flusher = Flusher(
        FlushThread(archive),
        NODE,
        ownership.epoch,
        ownership.cursor,
        on_flushed=log.on_flushed,
        reread=log.reread,
        options=FlushOptions(rows_max=100, interval_ms=1, backoff_ms=1, backoff_ms_max=50),
    )
    async with running(flusher):
        yield flusher


# COPY text


def decode_copy(text: bytes) -> list[list[bytes | None]]:
    """Read COPY's text format, as its documentation says."""
    rows: list[list[bytes | None]] = []
    for line in text.split(b"\n")[:-1]:
        row: list[bytes | None] = []
        for value in line.split(b"\t"):
            if value == b"\x01":
                row.append(None)
                continue
            plain = bytearray()
            position = 0
            while position < len(value):
                byte = value[position : position + 1]
                if byte == b"\\":
                    position += 1
                    byte = value[position : position + 1]
                    byte = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}.get(byte, byte)
                plain += byte
                position += 1
            row.append(bytes(plain))
        rows.append(row)
    return rows


@given(
    bodies=st.lists(
        st.lists(st.sampled_from(["\\", "\t", "\r", "\n", "N", ".", "é", '"', "\\t"])).map(
            lambda parts: "".join(parts).encode()
        ),
        max_size=5,
    ),
    sender=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=2),
)
def test_copy_text_reads_back_as_it_was(bodies: list[bytes], sender: str) -> None:
    records = [
        message(i, body=body, sender=sender, client_id=None if i % 2 else "c")
        for i, body in enumerate(bodies)
    ]
    rows = decode_copy(encode_messages(records))
    assert rows == [
        [
            record.workspace.encode(),
            record.session.encode(),
            b"%d" % record.seq,
            record.id.encode(),
            record.sender.encode(),
            None if record.client_id is None else record.client_id.encode(),
            b"%d" % record.digest,
            b"%d" % record.at_ms,
            record.body,
        ]
        for record in records
    ]


# Opening


def test_every_connection_commits_durably_whatever_the_server_is_set_to(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    if isinstance(postgres_server, PrivatePostgresServer):
        assert postgres_server.execute("SHOW synchronous_commit") == [("off",)]
    dialect = PostgresDialect(postgres_url)
    for engine in (dialect.writer, dialect.reader):
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SHOW synchronous_commit").scalar()
            assert found == "on"
            isolation = connection.exec_driver_sql("SHOW default_transaction_isolation").scalar()
            assert isolation == "read committed"
    dialect.close()


def test_a_database_that_would_not_commit_durably_is_refused(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.setitem(SERVER_SETTINGS, "synchronous_commit", "off")
    with pytest.raises(ArchiveSettingsError) as refusal:
        open_archive(postgres_url)
    assert "synchronous_commit=on" in refusal.value.hint


def test_a_database_that_cannot_represent_every_message_is_refused(
    postgres_server: PostgresServer,
) -> None:
    name = f"latin_{os.getpid()}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1'")
    try:
        with pytest.raises(ArchiveSettingsError, match="server_encoding=LATIN1, but UTF8"):
            open_archive(postgres_server.url(name))
    finally:
        postgres_server.drop_database(name)


def test_erasing_a_session_may_take_longer_than_other_statements(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.setitem(SERVER_SETTINGS, "statement_timeout", "200ms")
    archive = open_archive(postgres_url)
    try:
        epoch = archive.begin_epoch(NODE, "local").epoch
        archive.flush(NODE, epoch, 0, [session_row(), *messages(1, 5)])
        run_sql(
            postgres_url,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END';"
            "CREATE TRIGGER slow BEFORE DELETE ON messages EXECUTE FUNCTION slow()",
        )
        archive.flush(NODE, epoch, 6, [session_row(state="deleted", version=2)])
        assert archive.read_messages("default", "s1") == []
    finally:
        archive.close()


def test_a_port_where_nobody_listens_is_told_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://postgres:hunter2@127.0.0.1:{unused.getsockname()[1]}/x"
        before = time.monotonic()
        with pytest.raises(ArchiveUnavailableError, match="refused") as refusal:
            open_archive(url)
    assert time.monotonic() - before < 1
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_a_host_that_accepts_and_is_silent_is_given_up_within_five_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = time.monotonic()
        with pytest.raises(ArchiveUnavailableError, match="timeout"):
            open_archive(f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/x")
    assert time.monotonic() - before < 5


def test_a_server_that_freezes_after_connecting_is_given_up(
    monkeypatch: pytest.MonkeyPatch, proxy: CuttingProxy, postgres_database: Database
) -> None:
    monkeypatch.setattr("storage.postgres.PROBE_SECONDS", 0.2)
    proxy.marker, proxy.cut = b"current_setting", Cut.FREEZE
    with (
        pytest.raises(ArchiveUnavailableError, match="no answer"),
        opened_through(proxy, postgres_database),
    ):
        pass


def test_a_database_or_user_that_does_not_exist_is_named(postgres_url: str) -> None:
    with pytest.raises(ArchiveUnavailableError, match="nowhere"):
        open_archive(postgres_url.rsplit("/", 1)[0] + "/nowhere")


def test_a_url_that_cannot_be_read_is_not_quoted() -> None:
    with pytest.raises(ArchiveUnavailableError) as refusal:
        open_archive("postgresql://postgres:hunter2%ZZ@127.0.0.1/x")
    assert "hunter2" not in str(refusal.value)


# Connections that break


def test_a_read_outlasts_connections_that_died_meanwhile(
    archive: Archive, postgres_database: Database
) -> None:
    server, name = postgres_database
    archive.begin_epoch(NODE, "local")
    archive.flush(NODE, 1, 0, messages(1, 3))
    assert len(archive.read_messages("default", "s1")) == 3
    server.terminate_connections(name)
    assert len(archive.read_messages("default", "s1")) == 3


def test_a_flush_on_a_connection_that_died_fails_whole_and_works_again(
    archive: Archive, postgres_database: Database
) -> None:
    server, name = postgres_database
    archive.begin_epoch(NODE, "local")
    server.terminate_connections(name)
    with pytest.raises(ArchiveUnavailableError):
        archive.flush(NODE, 1, 0, messages(1, 3))
    assert archive.read_cursor(NODE).cursor == 0
    archive.flush(NODE, 1, 0, messages(1, 3))
    assert archive.read_cursor(NODE).cursor == 3


@pytest.mark.parametrize(("cut", "cursor"), [(Cut.REQUEST, 0), (Cut.REPLY, 3)])
def test_a_commit_that_is_cut_off_is_unknown_until_it_is_read_back(
    proxy: CuttingProxy, postgres_database: Database, cut: Cut, cursor: int
) -> None:
    with opened_through(proxy, postgres_database) as archive:
        archive.begin_epoch(NODE, "local")
        proxy.cut = cut
        with pytest.raises(ArchiveUnavailableError):
            archive.flush(NODE, 1, 0, messages(1, 3))
        assert proxy.cuts == 1
        assert archive.read_cursor(NODE) == Ownership(1, cursor)
        assert len(archive.read_messages("default", "s1")) == cursor


@pytest.mark.parametrize("marker", [b"COMMIT", b"flush_cursors", b"COPY messages"])
@pytest.mark.parametrize("cut", [Cut.REQUEST, Cut.REPLY])
async def test_wherever_a_flush_is_cut_off_every_record_arrives_once(
    proxy: CuttingProxy, postgres_database: Database, marker: bytes, cut: Cut
) -> None:
    log = FlushedLog()
    with opened_through(proxy, postgres_database) as archive:
        async with flushing(archive, log) as flusher:
            for _ in range(4):
                proxy.marker, proxy.cut = marker, cut
                flusher.extend(log.append(120))
                await flusher.flush_all()
        assert proxy.cuts == 4
        assert_archived(archive, log)


async def test_a_commit_whose_answer_never_comes_is_given_up_and_read_back(
    monkeypatch: pytest.MonkeyPatch, proxy: CuttingProxy, postgres_database: Database
) -> None:
    monkeypatch.setattr(AnsweringConnection, "answer_seconds", 0.3)
    log = FlushedLog()
    with opened_through(proxy, postgres_database) as archive:
        async with flushing(archive, log) as flusher:
            proxy.cut = Cut.FREEZE
            flusher.extend(log.append(3))
            await flusher.flush_all()
        assert proxy.cuts == 1
        assert_archived(archive, log)


async def test_backends_that_are_killed_at_random_lose_and_repeat_nothing(
    archive: Archive, postgres_database: Database
) -> None:
    server, name = postgres_database
    log = FlushedLog()
    async with flushing(archive, log) as flusher:
        for _ in range(10):
            flusher.extend(log.append(300))
            await trio.to_thread.run_sync(server.terminate_connections, name)
        await flusher.flush_all()
    assert_archived(archive, log)


async def test_a_server_that_crashes_and_restarts_mid_flush_loses_nothing(
    archive: Archive, restartable: PrivatePostgresServer
) -> None:
    log = FlushedLog()
    async with flushing(archive, log) as flusher:
        for _ in range(3):
            flusher.extend(log.append(500))
            await flusher.wait_flushed(flusher.cursor + 1)
            # In this thread: the server dies with the thread that started it.
            restartable.stop(immediate=True)
            flusher.extend(log.append(500))
            await trio.sleep(0.05)
            assert flusher.failing_since is not None
            restartable.start()
        await flusher.flush_all()
        assert flusher.failing_since is None
    assert_archived(archive, log)


# Two transactions at once


async def test_a_new_epoch_waits_for_a_flush_under_way_and_sees_its_cursor(
    archive: Archive, postgres_url: str
) -> None:
    archive.begin_epoch(NODE, "local")
    found: list[Ownership] = []

    def take_over() -> None:
        found.append(archive.begin_epoch(NODE, "local"))

    with psycopg.connect(postgres_url) as blocker:
        # Holds the flush up after its fence and its cursor, before its rows.
        blocker.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        async with trio.open_nursery() as nursery:
            flush = partial(archive.flush, NODE, 1, 0, messages(1, 3))
            nursery.start_soon(trio.to_thread.run_sync, flush)
            await _wait_for_locks(postgres_url, 1)
            nursery.start_soon(trio.to_thread.run_sync, take_over)
            await _wait_for_locks(postgres_url, 2)
            assert found == []
            await trio.to_thread.run_sync(blocker.rollback)
    assert found == [Ownership(2, 3)]


async def test_a_node_that_begins_waits_for_another_that_does_and_is_then_refused(
    archive: Archive, postgres_url: str
) -> None:
    archive.begin_epoch("node-0", "local")
    archive.retire_node("node-0", 1)
    refused: list[str] = []

    def begin() -> None:
        try:
            archive.begin_epoch("node-2", "local")
        except ArchiveOwnedError as error:
            refused.append(error.node_id)

    async with trio.open_nursery() as nursery:
        with archive._dialect.writer.begin() as connection:
            settle_level(connection, "local")
            take_epoch(connection, NODE, "local", 0, alone=True)
            nursery.start_soon(trio.to_thread.run_sync, begin)
            await _wait_for_locks(postgres_url, 1)
            assert refused == []
    assert refused == [NODE]


async def test_a_new_epoch_waits_for_whoever_holds_the_old_one(
    archive: Archive, postgres_url: str
) -> None:
    archive.begin_epoch(NODE, "local")
    found: list[Ownership] = []

    def take_over() -> None:
        found.append(archive.begin_epoch(NODE, "local"))

    async with trio.open_nursery() as nursery:
        # The fence alone: nothing else of this transaction is in the way.
        with archive._dialect.writer.begin() as connection:
            check_epoch(connection, NODE, 1)
            nursery.start_soon(trio.to_thread.run_sync, take_over)
            await _wait_for_locks(postgres_url, 1)
            assert found == []
    assert found == [Ownership(2, 0)]


async def test_a_repeated_flush_waits_for_the_first_that_is_still_under_way(
    monkeypatch: pytest.MonkeyPatch, proxy: CuttingProxy, postgres_database: Database
) -> None:
    server, name = postgres_database
    monkeypatch.setattr(AnsweringConnection, "answer_seconds", 0.5)
    log = FlushedLog()
    with opened_through(proxy, postgres_database) as archive:
        async with flushing(archive, log) as flusher:
            with psycopg.connect(server.url(name)) as blocker:
                blocker.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
                flusher.extend(log.append(3))
                # The first was given up here, but its transaction waits for the lock still.
                await _wait_for_locks(server.url(name), 2)
                await trio.to_thread.run_sync(blocker.rollback)
            await flusher.flush_all()
        assert_archived(archive, log)


async def _wait_for_locks(url: str, count: int) -> None:
    """Return when so many transactions wait for a lock in a database."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with trio.fail_after(10):
        while (await trio.to_thread.run_sync(run_sql, url, waiting))[0][0] < count:
            await trio.sleep(0.01)


# A restored database


async def test_a_database_that_is_put_back_to_a_copy_is_brought_up_to_date(
    archive: Archive, postgres_database: Database
) -> None:
    server, name = postgres_database
    copy = f"{name}_copy"

    def put_back() -> None:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        server.execute(f'ALTER DATABASE "{copy}" RENAME TO "{name}"')

    log = FlushedLog()
    async with flushing(archive, log) as flusher:
        flusher.extend(log.append(150))
        await flusher.flush_all()
        server.terminate_connections(name)
        server.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{name}"')
        flusher.extend(log.append(450))
        await flusher.flush_all()
        put_back()
        flusher.extend(log.append(1))
        await flusher.flush_all()
    assert log.rereads
    assert_archived(archive, log)


def test_a_node_that_falls_silent_in_a_change_of_the_ring_holds_the_others_up_for_a_moment(
    archive: Archive, postgres_url: str
) -> None:
    archive.begin_epoch("first", "local", place=Place("127.0.0.1:1"))
    silent = PostgresDialect(postgres_url)
    with silent.writer.connect() as connection:
        connection.execute(text("SELECT value FROM cluster FOR UPDATE"))
        # It would be refused if it had to wait for longer than `lock_timeout`.
        archive.begin_epoch("second", "local", place=Place("127.0.0.1:2"))
        connection.invalidate()
    silent.close()
    assert {node.node_id for node in archive.read_ring().nodes} == {"first", "second"}
