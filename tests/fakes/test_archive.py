"""The fake archive keeps the same promise as the databases."""

import pytest

from tests.contracts.archive import FlushContract
from tests.fakes.archive import FakeArchive


class TestFakeArchive(FlushContract):
    @pytest.fixture
    def archive(self) -> FakeArchive:
        return FakeArchive()
