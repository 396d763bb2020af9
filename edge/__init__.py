"""Everything that faces a person or a network: HTTP, WebSocket, the command line.

Its door is for those who put the command line together with more commands (`bench/ringlog.py`).
"""

from edge.cli import main
from edge.cli.failure import CommandError, ExitCode

__all__ = ["CommandError", "ExitCode", "main"]
