"""Crash rounds: a real server, killed again and again under real clients, and their histories checked."""
