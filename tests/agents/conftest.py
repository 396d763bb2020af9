"""Agents are called by real nodes."""

from tests.runtime.conftest import open_test_node

__all__ = ["open_test_node"]
