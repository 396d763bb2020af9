"""Bytes, files and SQL: the commit log and the archive. Knows nothing of sockets."""
