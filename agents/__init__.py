"""Calling other people's code over HTTP: the agent engine. Not built yet."""
