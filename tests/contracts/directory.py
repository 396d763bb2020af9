"""What every `Directory` must do: the real one and the fake one pass the same tests."""

import errno

import pytest

from storage.directory import Directory


class DirectoryContract:
    """Inherit, and give a `directory` fixture."""

    def test_a_new_file_is_empty_and_listed(self, directory: Directory) -> None:
        file = directory.create("a")
        assert (file.size(), file.read_at(0, 10)) == (0, b"")
        assert "a" in directory.names()
        file.close()

    def test_what_is_written_is_read_back(self, directory: Directory) -> None:
        file = directory.create("a")
        file.write_at(0, b"hello")
        file.write_at(3, bytearray(b"p!"))
        assert file.read_at(0, 100) == b"help!"
        assert file.read_at(1, 2) == b"el"
        assert file.read_at(5, 1) == b""
        assert file.size() == 5
        file.close()

    def test_a_write_beyond_the_end_leaves_zeros(self, directory: Directory) -> None:
        file = directory.create("a")
        file.write_at(3, b"x")
        assert file.read_at(0, 10) == b"\0\0\0x"
        file.close()

    def test_allocation_makes_zeros_and_keeps_what_is_there(self, directory: Directory) -> None:
        file = directory.create("a")
        file.write_at(0, b"xy")
        file.allocate(5000)
        assert file.read_at(0, 6000) == b"xy" + bytes(4998)
        file.allocate(10)
        assert file.size() == 5000
        file.close()

    def test_truncation_cuts_the_end(self, directory: Directory) -> None:
        file = directory.create("a")
        file.write_at(0, b"abcdef")
        file.truncate(2)
        assert file.read_at(0, 10) == b"ab"
        file.close()

    def test_a_file_can_be_opened_again_for_reading_and_writing(self, directory: Directory) -> None:
        first = directory.create("a")
        first.write_at(0, b"one")
        first.sync()
        second = directory.open("a", writable=True)
        second.write_at(0, b"two")
        assert first.read_at(0, 3) == b"two"
        first.close()
        second.close()

    def test_creating_a_file_that_exists_is_refused(self, directory: Directory) -> None:
        directory.create("a").close()
        with pytest.raises(FileExistsError) as caught:
            directory.create("a")
        assert caught.value.errno == errno.EEXIST

    def test_a_file_that_is_missing_is_refused(self, directory: Directory) -> None:
        with pytest.raises(FileNotFoundError):
            directory.open("gone")
        with pytest.raises(FileNotFoundError):
            directory.unlink("gone")
        with pytest.raises(FileNotFoundError):
            directory.rename("gone", "here")

    def test_a_rename_moves_the_content(self, directory: Directory) -> None:
        file = directory.create("a.tmp")
        file.write_at(0, b"x")
        directory.rename("a.tmp", "a")
        file.write_at(1, b"y")
        file.close()
        assert "a.tmp" not in directory.names()
        again = directory.open("a")
        assert again.read_at(0, 9) == b"xy"
        again.close()

    def test_a_rename_replaces_what_had_the_name(self, directory: Directory) -> None:
        for name in ("old", "new"):
            file = directory.create(name)
            file.write_at(0, name.encode())
            file.close()
        directory.rename("new", "old")
        assert "new" not in directory.names()
        file = directory.open("old")
        assert file.read_at(0, 9) == b"new"
        file.close()

    def test_an_unlinked_file_is_gone(self, directory: Directory) -> None:
        directory.create("a").close()
        directory.sync()
        directory.unlink("a")
        directory.sync()
        assert "a" not in directory.names()

    def test_names_are_sorted(self, directory: Directory) -> None:
        for name in ("b", "c", "a"):
            directory.create(name).close()
        names = directory.names()
        assert names == sorted(names)
        assert {"a", "b", "c"} <= set(names)
